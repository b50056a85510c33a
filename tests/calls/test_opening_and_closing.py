"""A client is open between entering and leaving, once, and in one event loop."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AbortError, AsyncClient, ClientClosedError
from ollama_sc.testing import FakeOllama
from tests.support import MESSAGES

pytestmark = pytest.mark.anyio


async def test_a_client_that_is_not_open_refuses(fake: FakeOllama) -> None:
    """Before, after and for a second time: ClientClosedError, and nothing is sent."""
    client = AsyncClient(fake.url)
    with pytest.raises(ClientClosedError, match="async with"):
        await client.version()
    with pytest.raises(ClientClosedError, match="async with"):
        await client.chat("llama3.2", MESSAGES, stream=True)
    async with client:
        await client.version()
        with pytest.raises(ClientClosedError, match="once"):
            await client.__aenter__()
        assert (await client.version()).version
    with pytest.raises(ClientClosedError, match="another"):
        await client.version()
    with pytest.raises(ClientClosedError, match="once"):
        async with client:
            pass
    assert len(fake.requests) == 2


async def test_a_client_that_is_closing_refuses(slow: FakeOllama) -> None:
    """A request that another task makes while the client is being left is refused."""
    async with anyio.create_task_group() as tasks:
        async with AsyncClient(slow.url) as client:

            async def insist() -> None:
                with pytest.raises(AbortError):
                    await client.chat("llama3.2", MESSAGES)
                with pytest.raises(ClientClosedError):
                    await client.chat("llama3.2", MESSAGES)

            tasks.start_soon(insist)
            await slow.wait_for_requests(1)
    assert len(slow.requests) == 1


async def test_nothing_is_connected_until_a_request_is_made(fake: FakeOllama) -> None:
    """Opening a client connects to nothing."""
    async with AsyncClient(fake.url) as client:
        assert client.statistics() == (0, 0, 0, 0, 0, 0)
        assert fake.connections == 0


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_client_of_another_loop_refuses(backend: str) -> None:
    """A client that is used in another event loop says so, and nothing hangs."""

    async def outer() -> None:
        async with AsyncClient() as client:

            async def inner() -> None:
                with pytest.raises(ClientClosedError, match="another event loop"):
                    await client.version()

            await anyio.to_thread.run_sync(lambda: anyio.run(inner, backend=backend))

    anyio.run(outer, backend=backend)


# -- a transport of one's own ----------------------------------------------------------------------


class Stubborn(httpx.AsyncBaseTransport):
    """A user's transport that fails where it is told to."""

    def __init__(self, where: str) -> None:
        self.where = where

    async def __aenter__(self) -> Stubborn:
        if self.where == "opening":
            raise KeyError("mine")
        return self

    async def aclose(self) -> None:
        if self.where == "closing":
            raise KeyError("mine")


async def test_a_transport_that_fails_to_open(anyio_backend: Any) -> None:
    """What it raises leaves as itself, and the client can be told to be useless."""
    client = AsyncClient(transport=Stubborn("opening"))
    with pytest.raises(KeyError, match="mine"):
        async with client:
            pytest.fail("never here")
    with pytest.raises(ClientClosedError):
        await client.version()


@pytest.mark.parametrize("body", ["ends", "raises"])
async def test_a_transport_that_fails_to_close(anyio_backend: Any, body: str) -> None:
    """What it raises leaves, unless the body raised: that comes first."""
    with pytest.raises(KeyError if body == "ends" else ValueError):
        async with AsyncClient(transport=Stubborn("closing")):
            if body == "raises":
                raise ValueError
