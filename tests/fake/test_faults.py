"""The fake server's faults, each seen from a raw socket."""

from __future__ import annotations

import anyio
import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests.fake.support import (
    CHAT,
    CLOSE,
    LINES,
    OBJECTS,
    ask,
    body_of,
    connect,
    draw,
    exchange,
    post,
    without_chunks,
)

pytestmark = pytest.mark.anyio


async def reads_of(stream) -> list[bytes]:
    reads: list[bytes] = []
    try:
        while True:
            reads.append(await stream.receive())
    except anyio.EndOfStream:
        return reads


async def test_cut_at_every_byte():
    """Exactly so many bytes come, then FIN, wherever the cut is."""
    reply = Reply.stream(OBJECTS)
    async with FakeOllama() as fake:
        fake.script("/api/chat", reply)
        whole, _ = await exchange(fake, post("/api/chat", CHAT, extra=CLOSE))
        for size in range(len(whole)):
            fake.script("/api/chat", reply.replace(cut_at=size))
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
        async with await connect(fake, post("/api/chat", CHAT)) as stream:
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
    cut, clean = await draw(Reply.stream(OBJECTS).replace(cut_after=count))
    assert clean
    assert b"\r\n\r\n" in cut
    assert without_chunks(cut).count(b"\n") == count
    reset, clean = await draw(Reply.stream(OBJECTS).replace(reset_after=count))
    assert not clean
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.stream(OBJECTS).replace(stall_after=count))
        async with await connect(fake, post("/api/chat", CHAT)) as stream:
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
        fake.script("/api/chat", Reply.stream(OBJECTS).replace(drip=drip))
        async with await connect(fake, post("/api/chat", CHAT, extra=CLOSE)) as stream:
            reads = await reads_of(stream)
    assert without_chunks(b"".join(reads)) == LINES
    assert len(reads) > 50


async def test_split_at():
    """Each piece between the offsets comes as one read, and nothing else divides the response."""
    reply = Reply.stream(OBJECTS)
    async with FakeOllama() as fake:
        fake.script(
            "/api/chat", reply.replace(split_at=(3, 17, 160, 161)), reply.replace(split_at=())
        )
        for sizes in ([3, 14, 143, 1], []):
            async with await connect(fake, post("/api/chat", CHAT, extra=CLOSE)) as stream:
                reads = await reads_of(stream)
            assert [len(read) for read in reads[:-1]] == sizes
            assert without_chunks(b"".join(reads)) == LINES


async def test_lines_may_come_together():
    """flush=False sends several objects at once."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.default(flush=False))
        async with await connect(fake, post("/api/chat", CHAT, extra=CLOSE)) as stream:
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
    single, _ = await draw(Reply.json({"a": 1}).replace(chunked=True))
    assert body_of(single) == b'7\r\n{"a":1}\r\n0\r\n\r\n'
    stream, clean = await draw(
        Reply.stream(OBJECTS).replace(chunked=False), request=post("/api/chat", CHAT)
    )
    assert clean
    assert body_of(stream) == LINES
    big, _ = await draw(Reply.json("x" * 3000).replace(chunked=False))
    assert b"Content-Length: 3002\r\n" in big
    usual, _ = await draw(Reply.json("x" * 3000))
    assert b"Transfer-Encoding: chunked\r\n" in usual


async def test_trailing_bytes():
    """They follow the end of the message."""
    answer, _ = await draw(Reply.stream(OBJECTS).replace(trailing=b"HTTP/1.1 200 more"))
    assert answer.endswith(b"0\r\n\r\nHTTP/1.1 200 more")


async def test_delay_and_rate():
    """delay is silence before the headers, rate the lines a second after them."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.stream(OBJECTS).replace(delay=0.1, rate=50))
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
