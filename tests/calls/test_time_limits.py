"""Time limits: each one ends the call that it is for, and says its name."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio.testing

from ollama_sc import AbortError, AsyncClient, RequestError, RequestTimeout, Timeouts
from ollama_sc.testing import FakeOllama, Reply
from tests.support import MESSAGES, Outcome, exhaust, is_quiet, plain_reply, raw_server, until

pytestmark = pytest.mark.anyio
LIMITS = {
    "first_chunk": (Reply.silence(), Timeouts(first_chunk=0.05)),
    "idle": (Reply.default().replace(stall_after=2), Timeouts(idle=0.05)),
    "total": (Reply.default().replace(rate=20), Timeouts(total=0.12)),
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
    stalled = Reply.silence() if limit != "idle" else reply.replace(stall_at=1000)
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
    fake.always("/api/chat", Reply.default().replace(rate=50))
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
            await until(lambda: stream._call._not_full is not None)
            await anyio.sleep(0.3)
            await exhaust(stream)
        assert stream.result().complete


async def test_a_slow_upload_that_moves_is_not_idle(anyio_backend: Any) -> None:
    """The idle limit is for each piece of an upload, not for all of it."""

    async def slowly(stream: Any) -> None:
        size, started = 0, anyio.current_time()
        while size < 30_000_000:
            size += len(await stream.receive(1_000_000))
            await anyio.sleep_until(started + 0.4 * size / 30_000_000)
        await stream.send(plain_reply(b'{"embeddings":[]}'))

    async with raw_server(slowly) as url:
        async with AsyncClient(url, timeout=Timeouts(idle=0.2)) as client:
            started = anyio.current_time()
            await client.embed("m", "x" * 30_000_000)
            assert anyio.current_time() - started > 0.25


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
            fake.always("/api/chat", Reply.default().replace(delay=3599))
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


@pytest.mark.parametrize("seconds", [1e-9, 1e-6, 1e-4])
@pytest.mark.parametrize("limit", ["first_chunk", "total"])
async def test_the_limit_that_is_named_is_the_one_that_passed(
    fake: FakeOllama, limit: str, seconds: float
) -> None:
    """However short a limit is, its own name and length are in the error."""
    fake.always("/api/version", Reply.silence())
    for connect in (None, 10):
        async with AsyncClient(fake.url) as client:
            with pytest.raises(RequestTimeout) as caught:
                await client.version(timeout=Timeouts(**{limit: seconds}, connect=connect))
            assert (caught.value.limit, caught.value.seconds) == (limit, seconds)


@pytest.mark.parametrize("seconds", [10**400, -(10**400)])
def test_a_limit_beyond_floats(seconds: int) -> None:
    """A limit that no clock can hold is a RequestError."""
    with pytest.raises(RequestError, match="timeout"):
        AsyncClient(timeout=seconds)
