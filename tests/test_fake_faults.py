"""The fake server's faults, each seen from a raw socket."""

import math
import re

import anyio
import pytest
from ollama_sc.testing import FakeOllama, Reply
from test_fake import CHAT, GENERATE, ask, client, exchange, head_and_body, post, read_all

pytestmark = pytest.mark.anyio

CLOSE = "Connection: close\r\n"
OBJECTS = [{"n": n, "text": "é<"} for n in range(4)]
LINES = b"".join(b'{"n":%d,"text":"\xc3\xa9\\u003c"}\n' % n for n in range(4))


async def draw(reply: Reply, *, request: bytes | None = None) -> tuple[bytes, bool]:
    """What a scripted reply sends until it closes, and whether it closed cleanly."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", reply)
        return await exchange(fake, request or post("/api/chat", CHAT, extra=CLOSE))


async def reads_of(stream) -> list[bytes]:
    reads: list[bytes] = []
    try:
        while True:
            reads.append(await stream.receive())
    except anyio.EndOfStream:
        return reads


def body_of(raw: bytes) -> bytes:
    return raw.partition(b"\r\n\r\n")[2]


def without_chunks(raw: bytes) -> bytes:
    return b"".join(re.findall(rb"[0-9a-f]+\r\n(.*\n?)\r\n", body_of(raw)))


# ---------------------------------------------------------------------------------------------
# Makers


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
            "/", Reply.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").but(keep_alive=True)
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
    """The page of a proxy is HTML with its status."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.html())
        response = await ask(fake, "/api/chat", CHAT)
    assert (response.status_code, response.headers["content-type"]) == (502, "text/html")
    assert response.text.startswith("<html>")


async def test_silence_lasts_until_the_client_leaves():
    """No byte comes; the record tells when the client left."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.silence())
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT))
            await fake.wait_for_requests(1)
            with anyio.move_on_after(0.05) as scope:
                await stream.receive()
            assert scope.cancelled_caught
            left = anyio.current_time()
        await fake.requests[0].wait_closed()
    assert fake.requests[0].disconnected
    assert fake.requests[0].headers_sent_at is None
    assert 0 <= fake.requests[0].closed_at - left < 1


async def test_endless_line():
    """The first line never ends, as long as the client reads."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.endless_line())
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT))
            got = 0
            while got < 3_000_000:
                data = await stream.receive()
                assert b"}\n" not in data
                got += len(data)
        await fake.requests[0].wait_closed()
        assert fake.requests[0].disconnected


# ---------------------------------------------------------------------------------------------
# Faults


async def test_cut_at_every_byte():
    """Exactly so many bytes come, then FIN, wherever the cut is."""
    reply = Reply.stream(OBJECTS)
    async with FakeOllama() as fake:
        fake.script("/api/chat", reply)
        whole, _ = await exchange(fake, post("/api/chat", CHAT, extra=CLOSE))
        for size in range(len(whole)):
            fake.script("/api/chat", reply.but(cut_at=size))
            answer, clean = await exchange(fake, post("/api/chat", CHAT, extra=CLOSE))
            assert clean
            assert len(answer) == size
            assert not fake.requests[-1].disconnected
            assert fake.requests[-1].finished_at is None
        await fake.wait_all_closed()


@pytest.mark.parametrize("size", [0, 10, 200])
async def test_reset_at(size):
    """So many bytes come, then RST."""
    answer, clean = await draw(Reply.default(reset_at=size))
    assert not clean
    assert len(answer) <= size


@pytest.mark.parametrize("size", [0, 10, 300])
async def test_stall_at(size):
    """So many bytes come, then nothing; the connection stays open until the client leaves."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.default(stall_at=size))
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT))
            answer = b""
            while len(answer) < size:
                answer += await stream.receive()
            with anyio.move_on_after(0.05) as scope:
                answer += await stream.receive()
            assert scope.cancelled_caught
            assert len(answer) == size
        await fake.requests[0].wait_closed()
        assert fake.requests[0].disconnected


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_ends_after_lines(count):
    """cut_after, reset_after and stall_after end behind so many whole lines."""
    cut, clean = await draw(Reply.stream(OBJECTS).but(cut_after=count))
    assert clean
    assert b"\r\n\r\n" in cut
    assert without_chunks(cut).count(b"\n") == count
    reset, clean = await draw(Reply.stream(OBJECTS).but(reset_after=count))
    assert not clean
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.stream(OBJECTS).but(stall_after=count))
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT))
            answer = b""
            while b"\r\n\r\n" not in answer or without_chunks(answer).count(b"\n") < count:
                answer += await stream.receive()
            assert fake.requests[0].parts_sent == count
            await fake.requests[0].wait_headers_sent()
        await fake.requests[0].wait_closed()


@pytest.mark.parametrize("drip", [0, 0.0005])
async def test_drip(drip):
    """Each byte is a send of its own; together they are the response."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.stream(OBJECTS).but(drip=drip))
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT, extra=CLOSE))
            reads = await reads_of(stream)
    assert without_chunks(b"".join(reads)) == LINES
    assert len(reads) > 50


async def test_split_at():
    """Each piece between the offsets comes as one read, and nothing else divides the response."""
    reply = Reply.stream(OBJECTS)
    async with FakeOllama() as fake:
        fake.script("/api/chat", reply.but(split_at=(3, 17, 160, 161)), reply.but(split_at=()))
        for sizes in ([3, 14, 143, 1], []):
            async with await anyio.connect_tcp(fake.host, fake.port) as stream:
                await stream.send(post("/api/chat", CHAT, extra=CLOSE))
                reads = await reads_of(stream)
            assert [len(read) for read in reads[:-1]] == sizes
            assert without_chunks(b"".join(reads)) == LINES


async def test_lines_may_come_together():
    """flush=False sends several objects at once."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.default(flush=False))
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT, extra=CLOSE))
            reads = await reads_of(stream)
        assert len(reads) == 1
        assert fake.requests[0].parts_sent == 25


async def test_keep_alive_false():
    """The reply says Connection: close, and the connection closes."""
    answer, clean = await draw(Reply.default(keep_alive=False), request=post("/api/chat", CHAT))
    assert clean
    assert b"Connection: close\r\n" in answer


async def test_chunked_on_and_off():
    """Chunks can be forced upon a single body and taken from a stream."""
    single, _ = await draw(Reply.json({"a": 1}).but(chunked=True))
    assert body_of(single) == b'7\r\n{"a":1}\r\n0\r\n\r\n'
    stream, clean = await draw(
        Reply.stream(OBJECTS).but(chunked=False), request=post("/api/chat", CHAT)
    )
    assert clean
    assert body_of(stream) == LINES
    big, _ = await draw(Reply.json("x" * 3000).but(chunked=False))
    assert b"Content-Length: 3002\r\n" in big
    usual, _ = await draw(Reply.json("x" * 3000))
    assert b"Transfer-Encoding: chunked\r\n" in usual


async def test_trailing_bytes():
    """They follow the end of the message."""
    answer, _ = await draw(Reply.stream(OBJECTS).but(trailing=b"HTTP/1.1 200 more"))
    assert answer.endswith(b"0\r\n\r\nHTTP/1.1 200 more")


async def test_delay_and_rate():
    """delay is silence before the headers, rate the lines a second after them."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.stream(OBJECTS).but(delay=0.1, rate=50))
        await ask(fake, "/api/chat", CHAT)
        request = fake.requests[0]
    assert 0.1 <= request.headers_sent_at - request.received_at < 2
    assert 0.058 <= request.finished_at - request.headers_sent_at < 2


async def test_faults_combine():
    """A delay, single bytes and a cut apply together; of several ends the first counts."""
    async with FakeOllama() as fake:
        fake.script(
            "/api/chat", Reply.default(delay=0.02, drip=0, cut_at=40, reset_at=90, stall_at=50)
        )
        answer, clean = await exchange(fake, post("/api/chat", CHAT, extra=CLOSE))
        assert clean
        assert len(answer) == 40
        assert fake.requests[0].closed_at - fake.requests[0].received_at >= 0.02


# ---------------------------------------------------------------------------------------------
# Clients that leave


async def test_a_disconnect_is_recorded_while_the_server_sends():
    """The record has the moment of leaving, and how many lines had been sent."""
    async with FakeOllama(token_rate=100, tokens=10_000) as fake:
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT))
            await fake.wait_for_requests(1)
            request = fake.requests[0]
            await request.wait_headers_sent()
            left = anyio.current_time()
        await request.wait_closed()
        await fake.wait_all_closed()
    assert request.disconnected
    assert request.finished_at is None
    assert 0 <= request.closed_at - left < 0.5
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
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT))
            await fake.wait_for_requests(1)
            await anyio.wait_all_tasks_blocked()
            left = anyio.current_time()
        with anyio.fail_after(5):
            await fake.requests[0].wait_closed()
        assert fake.requests[0].disconnected
        assert 0 <= fake.requests[0].closed_at - left < 1


async def test_a_half_close_is_a_disconnect():
    """A client that closes its direction only counts as gone, as with Go's server."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.silence())
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT))
            await fake.wait_for_requests(1)
            await stream.send_eof()
            assert await read_all(stream) == (b"", True)
        assert fake.requests[0].disconnected


async def test_a_client_that_leaves_after_the_reply_is_no_disconnect():
    """Closing a connection whose replies are complete is no fault."""
    async with FakeOllama() as fake:
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT))
            await head_and_body(stream)
        await fake.wait_all_closed()
        assert fake.requests[0].finished_at is not None
        assert not fake.requests[0].disconnected


# ---------------------------------------------------------------------------------------------
# Parallel requests


async def test_parallel_requests_wait_in_order():
    """With parallel=1 the second waits until the first is done; other paths do not wait."""
    async with (
        FakeOllama(parallel=1) as fake,
        client(fake) as http,
        anyio.create_task_group() as group,
    ):
        fake.script("/api/chat", Reply.silence())
        group.start_soon(ask, fake, "/api/chat", CHAT)
        await fake.wait_for_requests(1)
        group.start_soon(ask, fake, "/api/generate", GENERATE)
        await fake.wait_for_requests(2)
        group.start_soon(ask, fake, "/api/embed", {"model": "all-minilm", "input": "x"})
        await fake.wait_for_requests(3)
        assert (await http.get("/api/version")).status_code == 200
        assert [r.headers_sent_at for r in fake.requests[:3]] == [None] * 3
        assert fake.in_flight == 3
        assert fake.peak_in_flight == 4
        group.cancel_scope.cancel()
    await fake.wait_all_closed()
    assert fake.in_flight == 0


async def test_a_place_is_handed_on_when_its_client_leaves():
    """The first in the queue goes on when the one in service disconnects."""
    async with FakeOllama(parallel=1) as fake:
        fake.script("/api/chat", Reply.silence())
        async with await anyio.connect_tcp(fake.host, fake.port) as stream:
            await stream.send(post("/api/chat", CHAT))
            await fake.wait_for_requests(1)
            async with await anyio.connect_tcp(fake.host, fake.port) as other:
                await other.send(post("/api/chat", CHAT))
                await fake.wait_for_requests(2)
                await stream.aclose()
                head, _ = await head_and_body(other)
    assert b"200 OK" in head


async def test_a_full_queue_draws_503():
    """Beyond parallel and max_queue the server is busy, at once."""
    async with FakeOllama(parallel=1, max_queue=1) as fake, anyio.create_task_group() as group:
        fake.script("/api/chat", Reply.silence())
        group.start_soon(ask, fake, "/api/chat", CHAT)
        await fake.wait_for_requests(1)
        group.start_soon(ask, fake, "/api/chat", CHAT)
        await fake.wait_for_requests(2)
        await anyio.wait_all_tasks_blocked()
        refused = await ask(fake, "/api/chat", CHAT)
        assert refused.status_code == 503
        assert refused.json()["error"].count("  ") == 1
        group.cancel_scope.cancel()


def test_replies_are_values():
    """but() makes another reply; the first stays as it is."""
    reply = Reply.default(delay=1)
    assert reply.but(cut_at=3).delay == 1
    assert reply.cut_at is None
    with pytest.raises(TypeError):
        reply.but(nonsense=1)
    assert math.isclose(reply.delay, 1)
