"""The fake server's life: how it starts and ends, and many clients at once."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests.fake.support import CHAT, ask, connect, lines, post, read_all
from tests.support import LONG, backends

pytestmark = pytest.mark.anyio


@pytest.fixture(params=backends(debug=True))
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Tasks and cancellation are the subject: asyncio runs in its debug mode."""
    return request.param


class Failure(Exception):
    pass


async def test_an_exception_of_the_body_passes_unchanged():
    """It arrives as itself, not in a group, while connections are open."""
    stream = None
    failure = Failure()
    with pytest.raises(Failure) as caught:
        async with FakeOllama() as fake:
            fake.script("/api/chat", Reply.silence())
            stream = await connect(fake)
            await stream.send(post("/api/chat", CHAT))
            await fake.wait_for_requests(1)
            raise failure
    assert caught.value is failure
    assert await read_all(stream) == (b"", True)
    await stream.aclose()
    assert fake.open_connections == 0
    assert fake.requests[0].closed_at is not None
    assert not fake.requests[0].disconnected


async def test_a_cancellation_passes_as_that():
    """A scope around the server is cancelled, and nothing else is raised."""
    with anyio.CancelScope() as scope:
        async with FakeOllama() as fake:
            async with await connect(fake, post("/api/chat", CHAT)):
                await fake.wait_for_requests(1)
                scope.cancel()
                await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert fake.open_connections == 0


async def test_an_exception_in_a_cancelled_scope_passes_unchanged():
    """The body's own exception wins over a cancellation that is already there."""
    with pytest.raises(Failure), anyio.CancelScope() as scope:
        async with FakeOllama():
            scope.cancel()
            raise Failure


async def test_a_defect_of_the_fake_is_raised_on_leaving(monkeypatch):
    """Nothing is swallowed: what a handler raised comes out of the async with."""

    def broken(*_args, **_kwargs):
        raise Failure

    with pytest.raises(Failure):
        async with FakeOllama() as fake:
            monkeypatch.setattr("ollama_sc.testing._endpoints.generation.respond", broken)
            async with await connect(fake, post("/api/chat", CHAT)) as stream:
                await read_all(stream)


async def test_the_port_is_free_afterwards():
    """A second server can listen where the first did, at once."""
    async with FakeOllama() as fake:
        await ask(fake, "/api/chat", CHAT)
    async with FakeOllama(port=fake.port) as again:
        assert (await ask(again, "/api/chat", CHAT)).status_code == 200


async def test_hundreds_of_streams_at_once():
    """200 live streams (500 in the long form) run together, and all end when the server does."""
    half = 250 if LONG else 100
    async with FakeOllama(token_rate=0.2, tokens=1_000_000) as fake:
        streams = []
        for _ in range(2 * half):
            streams.append(await connect(fake, post("/api/chat", CHAT)))
        for stream in streams:
            await stream.receive()
        assert fake.open_connections == fake.peak_in_flight == 2 * half
        for stream in streams[:half]:
            await stream.aclose()
        for request in fake.requests[:half]:
            await request.wait_closed()
        assert fake.open_connections == half
    for stream in streams[half:]:
        await read_all(stream)
        await stream.aclose()


async def test_clients_that_leave_at_any_byte():
    """Whatever part of a request has come, leaving is survived."""
    request = post("/api/chat", CHAT)
    async with FakeOllama() as fake:
        for size in range(0, len(request), 5):
            async with await connect(fake) as stream:
                await stream.send(request[:size])
        await fake.wait_all_closed()
        assert fake.requests == []
        assert len(lines(await ask(fake, "/api/chat", CHAT))) == 25


def test_a_mock_clock_jumps_over_delays():
    """An hour of silence passes at once under trio's MockClock; the record is on its time."""
    import trio
    import trio.testing

    async def main() -> None:
        async with FakeOllama() as fake:
            fake.script("/api/chat", Reply.default(delay=3600, rate=1))
            start = trio.current_time()
            await ask_slowly(fake)
            request = fake.requests[0]
            assert 3600 <= request.headers_sent_at - start < 3601
            assert 24 <= request.finished_at - request.headers_sent_at < 25

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def ask_slowly(fake: FakeOllama) -> None:
    async with await connect(
        fake, post("/api/chat", CHAT, extra="Connection: close\r\n")
    ) as stream:
        answer, clean = await read_all(stream)
    assert clean
    assert answer.endswith(b"0\r\n\r\n")
