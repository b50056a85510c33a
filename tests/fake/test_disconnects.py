"""Clients that leave: what the record says of them."""

from __future__ import annotations

import anyio
import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests.fake.support import CHAT, connect, head_and_body, post, read_all

pytestmark = pytest.mark.anyio


async def test_a_disconnect_is_recorded_while_the_server_sends():
    """The record has the moment of leaving, and how many lines had been sent."""
    async with FakeOllama(token_rate=100, tokens=10_000) as fake:
        async with await connect(fake, post("/api/chat", CHAT)):
            await fake.wait_for_requests(1)
            request = fake.requests[0]
            await request.wait_headers_sent()
            left = anyio.current_time()
        await request.wait_closed()
        await fake.wait_all_closed()
    assert request.disconnected
    assert request.finished_at is None
    assert 0 <= request.closed_at - left < 5
    assert 1 <= request.parts_sent < 100
    assert "disconnected" in repr(request)


@pytest.mark.parametrize(
    "reply",
    [
        Reply.default(delay=60),
        Reply.default(rate=0.01),
        Reply.endless_line(),
        Reply.default(drip=9),
    ],
)
async def test_a_disconnect_is_recorded_whatever_the_server_does(reply):
    """Also while it sleeps, holds back, or waits for the client to read."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", reply)
        async with await connect(fake, post("/api/chat", CHAT)):
            await fake.wait_for_requests(1)
            await anyio.wait_all_tasks_blocked()
            left = anyio.current_time()
        with anyio.fail_after(5):
            await fake.requests[0].wait_closed()
        assert fake.requests[0].disconnected
        assert 0 <= fake.requests[0].closed_at - left < 5


async def test_a_half_close_is_a_disconnect():
    """A client that closes its direction only counts as gone, as with Go's server."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.silence())
        async with await connect(fake, post("/api/chat", CHAT)) as stream:
            await fake.wait_for_requests(1)
            await stream.send_eof()
            assert await read_all(stream) == (b"", True)
        assert fake.requests[0].disconnected


async def test_a_client_that_leaves_after_the_reply_is_no_disconnect():
    """Closing a connection whose replies are complete is no fault."""
    async with FakeOllama() as fake:
        async with await connect(fake, post("/api/chat", CHAT)) as stream:
            await head_and_body(stream)
        await fake.wait_all_closed()
        assert fake.requests[0].finished_at is not None
        assert not fake.requests[0].disconnected
