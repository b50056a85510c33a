"""Groups of calls: they nest, they end together, and their client goes on."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient, ClientClosedError
from ollama_sc.testing import FakeOllama
from tests.support import MESSAGES, exhaust

pytestmark = pytest.mark.anyio


async def test_a_groups_abort_reaches_its_own_alone(anyio_backend: Any) -> None:
    """A group's abort leaves its siblings and its client alone; the client's reaches all."""
    async with FakeOllama(token_rate=20, tokens=1000) as server:
        async with AsyncClient(server.url) as client:
            async with client.group() as one, client.group() as other:
                mine = await one.chat("llama3.2", MESSAGES, stream=True)
                theirs = await other.chat("llama3.2", MESSAGES, stream=True)
                clients = await client.chat("llama3.2", MESSAGES, stream=True)
                assert one.abort("one") == 1
                with pytest.raises(AbortError, match="one"):
                    await exhaust(mine)
                assert await anext(theirs)
                assert await anext(clients)
                assert one.statistics().in_flight == 0
                assert other.statistics().in_flight == 1
                assert client.statistics().in_flight == 2
                assert client.abort("all") == 2
                for stream in (theirs, clients):
                    with pytest.raises(AbortError, match="all"):
                        await exhaust(stream)
                assert (await one.version()).version


async def test_groups_nest(anyio_backend: Any) -> None:
    """A group's abort reaches the groups below it."""
    async with FakeOllama(token_rate=20, tokens=1000) as server:
        async with AsyncClient(server.url) as client, client.group() as outer:
            async with outer.group() as inner:
                stream = await inner.chat("llama3.2", MESSAGES, stream=True)
                assert outer.abort("outer") == 1
                with pytest.raises(AbortError, match="outer"):
                    await exhaust(stream)


@pytest.mark.parametrize("how", ["normally", "by an exception", "by cancellation"])
async def test_leaving_a_group_ends_what_is_left_of_it(anyio_backend: Any, how: str) -> None:
    """However a group is left, its requests end, its client's go on, exceptions stay."""
    async with FakeOllama(token_rate=20, tokens=1000) as server:
        async with AsyncClient(server.url) as client:
            clients = await client.chat("llama3.2", MESSAGES, stream=True)
            boom = ValueError("mine")
            with anyio.CancelScope() as scope:
                try:
                    async with client.group() as group:
                        stream = await group.chat("llama3.2", MESSAGES, stream=True)
                        if how == "by an exception":
                            raise boom
                        if how == "by cancellation":
                            scope.cancel()
                            await anyio.sleep_forever()
                except ValueError as error:
                    assert error is boom
            assert scope.cancelled_caught == (how == "by cancellation")
            assert group.statistics().in_flight == 0
            with pytest.raises(AbortError, match="group closed"):
                await exhaust(stream)
            assert await anext(clients)
            with pytest.raises(ClientClosedError, match="group"):
                await group.version()
            with pytest.raises(ClientClosedError):
                async with group:
                    pass
            assert not client._calls._groups
            await clients.aclose()


async def test_a_group_that_is_not_open_refuses(fake: FakeOllama) -> None:
    """A group needs its own `async with`, and a client that is open."""
    client = AsyncClient(fake.url)
    with pytest.raises(ClientClosedError):
        async with client.group():
            pass
    async with client:
        group = client.group()
        with pytest.raises(ClientClosedError, match="async with"):
            await group.version()
        outer = client.group()
        async with outer, outer.group() as inner:
            assert (await inner.version()).version


async def test_the_end_of_the_client_closes_its_groups(fake: FakeOllama) -> None:
    """A group outlives nothing: after its client it refuses, and can still be left."""
    async with AsyncClient(fake.url) as client:
        group = client.group()
        await group.__aenter__()
        await group.version()
    with pytest.raises(ClientClosedError):
        await group.version()
    await group.__aexit__(None, None, None)


async def test_groups_share_the_places(anyio_backend: Any) -> None:
    """max_in_flight is the client's, whichever group asks."""
    async with FakeOllama(token_rate=20) as server:
        async with AsyncClient(server.url, max_in_flight=1) as client, client.group() as group:
            async with await group.chat("llama3.2", MESSAGES, stream=True):
                with anyio.move_on_after(0.05) as scope:
                    await client.version()
                assert scope.cancelled_caught


DEEP = 1500  # deeper than Python's stack


async def test_groups_nested_without_end(anyio_backend: Any) -> None:
    """However deep they are nested, an abort, a look and the end reach the deepest."""
    async with FakeOllama(token_rate=20, tokens=1000) as server:
        async with AsyncClient(server.url) as client:
            groups: list[Any] = [client]
            for _ in range(DEEP):
                groups.append(groups[-1].group())
                await groups[-1].__aenter__()
            for end in (client.abort, groups[1].abort):
                stream = await groups[-1].chat("llama3.2", MESSAGES, stream=True)
                assert client.statistics().in_flight == 1
                assert end("deep") == 1
                with pytest.raises(AbortError, match="deep"):
                    await exhaust(stream)
            stream = await groups[-1].chat("llama3.2", MESSAGES, stream=True)
            assert await client.shutdown(grace=0) == 1
            with pytest.raises(AbortError):
                await exhaust(stream)
            with pytest.raises(ClientClosedError):
                await groups[-1].version()
            for group in reversed(groups[1:]):
                await group.__aexit__(None, None, None)
