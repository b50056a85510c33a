"""Time limits, places in flight, groups, shutdown, statistics."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio.testing
from conftest import MESSAGES, is_quiet, raw_server
from test_life import Outcome, exhaust, until

from ollama_sc import (
    AbortError,
    AsyncClient,
    ClientClosedError,
    RequestError,
    RequestTimeout,
    Timeouts,
)
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio


# -- time limits -----------------------------------------------------------------------------------

LIMITS = {
    "first_chunk": (Reply.silence(), Timeouts(first_chunk=0.05)),
    "idle": (Reply.default().but(stall_after=2), Timeouts(idle=0.05)),
    "total": (Reply.default().but(rate=20), Timeouts(total=0.12)),
}


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("where", ["client", "call"])
async def test_each_limit_of_a_stream(fake: FakeOllama, limit: str, where: str) -> None:
    """A limit that passes is a RequestTimeout that says which, and the connection closes."""
    reply, timeouts = LIMITS[limit]
    fake.always("/api/chat", reply)
    options: dict[str, Any] = {"timeout": timeouts}
    async with AsyncClient(fake.url, **(options if where == "client" else {})) as client:
        parts = 0
        with pytest.raises(RequestTimeout) as caught:
            async with await client.chat(
                "llama3.2", MESSAGES, stream=True, **(options if where == "call" else {})
            ) as stream:
                async for _ in stream:
                    parts += 1
        assert caught.value.limit == limit
        assert caught.value.seconds == getattr(timeouts, limit)
        assert isinstance(caught.value, TimeoutError)
        assert limit in str(caught.value)
        assert "/api/chat" in str(caught.value)
        assert (parts > 0) == (limit != "first_chunk")
        await fake.requests[0].wait_closed()
        assert is_quiet(client)
        assert (await client.version()).version


@pytest.mark.parametrize("limit", LIMITS)
async def test_each_limit_of_a_reply_in_one_piece(fake: FakeOllama, limit: str) -> None:
    """The limits hold for calls without a stream."""
    _, timeouts = LIMITS[limit]
    reply = Reply.json({"version": "x" * 5000})
    stalled = Reply.silence() if limit != "idle" else reply.but(stall_at=1000)
    fake.always("/api/version", stalled)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestTimeout) as caught:
            await client.version(timeout=timeouts)
        assert caught.value.limit == limit


async def test_the_connect_limit(anyio_backend: Any) -> None:
    """A connection that does not come about in time is a RequestTimeout for connect."""

    async def silent(stream: Any) -> None:
        await anyio.sleep_forever()

    # A TLS handshake that is never answered belongs to connecting.
    async with raw_server(silent) as url:
        async with AsyncClient(url.replace("http:", "https:"), timeout=0.1) as client:
            with pytest.raises(RequestTimeout) as caught:
                await client.version()
            assert caught.value.limit == "connect"
            assert client.statistics().open == 0


async def test_a_number_is_each_silence_not_the_whole(fake: FakeOllama) -> None:
    """A number limits connecting and each silence, as in httpx; a long reply may take longer."""
    fake.always("/api/chat", Reply.default().but(rate=50))
    async with AsyncClient(fake.url, timeout=0.3) as client:
        started = anyio.current_time()
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        assert anyio.current_time() - started > 0.4
        fake.always("/api/chat", Reply.silence())
        with pytest.raises(RequestTimeout):
            await client.chat("llama3.2", MESSAGES)


async def test_the_idle_clock_stops_while_the_consumer_holds_the_reader(
    anyio_backend: Any,
) -> None:
    """A consumer that takes its time is no reason for a timeout."""
    async with FakeOllama(tokens=5000) as server, AsyncClient(server.url) as client:
        async with await client.chat(
            "llama3.2", MESSAGES, stream=True, timeout=Timeouts(idle=0.1)
        ) as stream:
            await until(lambda: stream._call._room is not None)
            await anyio.sleep(0.3)
            await exhaust(stream)
        assert stream.result().complete


async def test_the_total_limit_counts_the_wait_for_a_place(fake: FakeOllama) -> None:
    """A request that never gets a place ends by its total limit."""
    fake.always("/api/chat", Reply.silence())
    async with AsyncClient(fake.url, max_in_flight=1) as client:
        async with anyio.create_task_group() as tasks:
            ended = Outcome(tasks, client.chat, "llama3.2", MESSAGES)
            await fake.wait_for_requests(1)
            with pytest.raises(RequestTimeout) as caught:
                await client.version(timeout=Timeouts(total=0.05))
            assert caught.value.limit == "total"
            client.abort()
        assert isinstance(ended.error, AbortError)


def test_limits_under_a_mock_clock() -> None:
    """With trio's mock clock, hours pass at once and the limits are exact."""

    async def main() -> None:
        async with FakeOllama() as fake, AsyncClient(fake.url) as client:
            fake.always("/api/chat", Reply.default().but(delay=3599))
            started = anyio.current_time()
            assert (await client.chat("llama3.2", MESSAGES, timeout=3600)).done
            assert anyio.current_time() - started == pytest.approx(3599, abs=1)
            fake.always("/api/chat", Reply.silence())
            started = anyio.current_time()
            with pytest.raises(RequestTimeout) as caught:
                await client.chat("llama3.2", MESSAGES, timeout=Timeouts(first_chunk=7200))
            assert caught.value.limit == "first_chunk"
            assert anyio.current_time() - started == pytest.approx(7200, abs=1)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))


# -- places in flight ------------------------------------------------------------------------------


async def test_no_more_requests_than_places(anyio_backend: Any) -> None:
    """With max_in_flight the server never has more at a time; all are served, in order."""
    async with FakeOllama() as server:
        server.always("/api/embed", Reply.default().but(delay=0.005))
        async with AsyncClient(server.url, max_in_flight=4) as client:
            async with anyio.create_task_group() as tasks:
                for number in range(40):
                    tasks.start_soon(client.embed, "nomic-embed-text", str(number))
                    await anyio.lowlevel.checkpoint()
            assert server.peak_in_flight == 4
            assert len(server.requests) == 40
            order = [int(request.json["input"]) for request in server.requests]
            assert sorted(order) == list(range(40))
            assert max(abs(place - number) for place, number in enumerate(order)) <= 4
            assert client._shared.slots.free == 4


async def test_a_live_stream_has_a_place(anyio_backend: Any) -> None:
    """A stream keeps its place until it has ended."""
    async with FakeOllama(token_rate=20) as server:
        async with AsyncClient(server.url, max_in_flight=1) as client:
            async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                with anyio.move_on_after(0.05) as scope:
                    await client.version()
                assert scope.cancelled_caught
                await anext(stream)
            assert (await client.version()).version


async def test_without_a_limit_nothing_queues(fake: FakeOllama) -> None:
    """By default a hundred requests are all at the server at once."""
    fake.always("/api/chat", Reply.silence())
    async with AsyncClient(fake.url) as client:
        async with anyio.create_task_group() as tasks:
            ended = [Outcome(tasks, client.chat, "llama3.2", MESSAGES) for _ in range(100)]
            await fake.wait_for_requests(100)
            await until(lambda: client.statistics().receiving == 100)
            assert client.statistics() == (0, 0, 0, 100, 100, 0)
            assert client.abort() == 100
        assert all(isinstance(one.error, AbortError) for one in ended)


# -- groups ----------------------------------------------------------------------------------------


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


# -- shutdown --------------------------------------------------------------------------------------


async def test_shutdown_lets_requests_finish(fake: FakeOllama) -> None:
    """Within the grace, requests in flight end by themselves; new ones are refused."""
    fake.always("/api/chat", Reply.default().but(delay=0.1))
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        ended = Outcome(tasks, client.chat, "llama3.2", MESSAGES)
        await fake.wait_for_requests(1)
        async with anyio.create_task_group() as inner:
            done = Outcome(inner, client.shutdown, 5)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(ClientClosedError, match="shut down"):
                await client.version()
            with pytest.raises(ClientClosedError):
                async with client.group():
                    pass
        assert done.value == 0
        assert ended.error is None
        assert ended.value.done
        assert client.statistics() == (0, 0, 0, 0, 0, 0)
    await fake.wait_all_closed()


@pytest.mark.parametrize("grace", [0, 0.05])
async def test_shutdown_aborts_the_rest(anyio_backend: Any, grace: float) -> None:
    """After the grace, what still runs is aborted, and shutdown says how many that were."""
    async with FakeOllama(token_rate=20, tokens=1000) as server:
        async with AsyncClient(server.url) as client, client.group() as group:
            one = await client.chat("llama3.2", MESSAGES, stream=True)
            two = await group.chat("llama3.2", MESSAGES, stream=True)
            with anyio.fail_after(2):
                assert await client.shutdown(grace) == 2
            assert client.statistics() == (0, 0, 0, 0, 0, 0)
            for stream in (one, two):
                with pytest.raises(AbortError, match="shutting down"):
                    await exhaust(stream)
            with anyio.fail_after(2):
                await server.wait_all_closed()
            assert await client.shutdown(grace) == 0


async def test_a_shutdown_that_is_cancelled_aborts_at_once(anyio_backend: Any) -> None:
    """Cancelling the wait does not leave requests running."""
    async with FakeOllama(token_rate=20, tokens=1000) as server:
        async with AsyncClient(server.url) as client:
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            with anyio.move_on_after(0.05) as scope:
                await client.shutdown(60)
            assert scope.cancelled_caught
            assert is_quiet(client)
            with pytest.raises(AbortError):
                await exhaust(stream)


@pytest.mark.parametrize("grace", [-1, float("nan"), "5", None, True])
async def test_a_grace_that_is_no_time(fake: FakeOllama, grace: Any) -> None:
    """A grace that cannot be is a RequestError, and the client stays open."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="grace"):
            await client.shutdown(grace)
        assert (await client.version()).version


# -- statistics ------------------------------------------------------------------------------------


async def test_statistics_name_each_phase(anyio_backend: Any) -> None:
    """Waiting, receiving, open and idle as they are, and nothing in flight in the end."""
    async with FakeOllama(token_rate=20) as server:
        async with AsyncClient(server.url, max_in_flight=1) as client:
            async with await client.chat("llama3.2", MESSAGES, stream=True):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.version)
                    await until(lambda: client.statistics().waiting == 1)
                    found = client.statistics()
                    assert (found.waiting, found.receiving, found.open) == (1, 1, 1)
                    assert found.in_flight == 1
                    tasks.cancel_scope.cancel()
            assert client.statistics().in_flight == 0


async def test_a_transport_of_ones_own_has_no_connections_to_count(anyio_backend: Any) -> None:
    """With a user's transport, requests are counted and connections are zero."""
    import httpx  # noqa: PLC0415

    async def answer(request: httpx.Request) -> httpx.Response:
        assert client.statistics().in_flight == 1
        return httpx.Response(200, json={"version": "7"})

    async with AsyncClient(transport=httpx.MockTransport(answer)) as client:
        assert (await client.version()).version == "7"
        assert client.statistics() == (0, 0, 0, 0, 0, 0)
