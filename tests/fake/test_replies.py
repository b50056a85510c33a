"""The makers of `Reply`, each seen from a raw socket."""

from __future__ import annotations

import math

import anyio
import pytest

from ollama_sc import AsyncClient, ProtocolError
from ollama_sc.testing import FakeOllama, Reply
from tests.fake.support import (
    CHAT,
    LINES,
    OBJECTS,
    ask,
    client,
    connect,
    draw,
    post,
    without_chunks,
)

pytestmark = pytest.mark.anyio


async def test_stream():
    """A scripted stream is NDJSON in chunks; bytes are literal lines."""
    answer, clean = await draw(Reply.stream([*OBJECTS[:3], LINES.splitlines()[3]]))
    assert clean
    assert b"Content-Type: application/x-ndjson\r\n" in answer
    assert without_chunks(answer) == LINES


async def test_stream_without_its_last_newline():
    """The last line may lack its newline, and the content type and status may be others."""
    answer, _ = await draw(
        Reply.stream(OBJECTS, 418, newline_at_end=False, content_type="a/b", headers={"x-a": "1"})
    )
    assert without_chunks(answer) == LINES[:-1]
    assert answer.startswith(b"HTTP/1.1 418 ")
    assert b"Content-Type: a/b\r\nX-A: 1\r\n" in answer


async def test_raw_bytes_and_nothing_else():
    """Reply.raw sends its bytes and closes."""
    assert await draw(Reply.raw(b"nonsense"), request=post("/api/chat", CHAT)) == (
        b"nonsense",
        True,
    )
    assert await draw(Reply.raw(b"")) == (b"", True)


async def test_raw_bytes_may_keep_the_connection():
    """With keep_alive=True the connection stays open for the next request."""
    async with FakeOllama() as fake, client(fake) as http:
        fake.script(
            "/",
            Reply.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").replace(keep_alive=True),
        )
        assert (await http.get("/")).text == "ok"
        assert (await http.get("/")).text == "Ollama is running"
        assert fake.connections == 1


@pytest.mark.parametrize(
    ("reply", "status", "content_type", "content"),
    [
        (Reply.busy(), 503, "application/json; charset=utf-8",
         b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'),
        (Reply.empty(403), 403, None, b""),
        (Reply.text("x", 500), 500, "text/plain; charset=utf-8", b"x"),
        (Reply.error(400, {"code": 1}), 400, "application/json; charset=utf-8", b'{"error":{"code":1}}'),
        (Reply.json([1], headers={"content-type": "x/y"}), 200, "x/y", b"[1]"),
    ],
)  # fmt: skip
async def test_single_bodies(reply, status, content_type, content):
    """Makers of single bodies send status, type and body as they say."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", reply)
        response = await ask(fake, "/api/chat", CHAT)
    assert (response.status_code, response.headers.get("content-type")) == (status, content_type)
    assert response.content == content


async def test_html():
    """The page of a proxy is HTML: a success that is none, or an error with its status."""
    async with FakeOllama() as fake:
        for given, status in (((), 200), ((502,), 502)):
            fake.script("/api/chat", Reply.html(*given))
            response = await ask(fake, "/api/chat", CHAT)
            assert response.status_code == status
            assert response.headers["content-type"] == "text/html"
            assert response.text.startswith("<html>")
        fake.script("/api/chat", Reply.html())
        async with AsyncClient(fake.url) as client:
            with pytest.raises(ProtocolError):
                await client.chat("llama3.2", [{"role": "user", "content": "Hi"}])


async def test_silence_lasts_until_the_client_leaves():
    """No byte comes; the record tells when the client left."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.silence())
        async with await connect(fake, post("/api/chat", CHAT)) as stream:
            await fake.wait_for_requests(1)
            with anyio.move_on_after(0.05) as scope:
                await stream.receive()
            assert scope.cancelled_caught
            left = anyio.current_time()
        await fake.requests[0].wait_closed()
    assert fake.requests[0].disconnected
    assert fake.requests[0].headers_sent_at is None
    assert 0 <= fake.requests[0].closed_at - left < 5


async def test_endless_line():
    """The first line never ends, as long as the client reads."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.endless_line())
        async with await connect(fake, post("/api/chat", CHAT)) as stream:
            got = 0
            while got < 3_000_000:
                data = await stream.receive()
                assert b"}\n" not in data
                got += len(data)
        await fake.requests[0].wait_closed()
        assert fake.requests[0].disconnected


def test_replies_are_values():
    """replace() returns another reply; the first is unchanged; but() is its older name."""
    reply = Reply.default(delay=1)
    assert reply.replace(cut_at=3).delay == 1
    assert reply.replace(cut_at=3) == reply.replace(cut_at=3)
    assert reply.cut_at is None
    with pytest.raises(TypeError):
        reply.replace(nonsense=1)
    assert math.isclose(reply.delay, 1)
