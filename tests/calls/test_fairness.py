"""Others get their turns, cancels are heard and memory stays small, whatever comes at once."""

from __future__ import annotations

import gzip
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSAttribute

from ollama_sc import AsyncClient
from ollama_sc._http.connection import Connection
from ollama_sc._http.exchange import Exchange
from ollama_sc._http.reader import ReplyReader
from ollama_sc._http.sockets import Socket
from ollama_sc._http.tls import TlsSocket
from tests.support import MESSAGES, exhaust, raw_server, read_request
from tests.wire import Peer, client_context, plain_and_tls, quick, serving

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
LAST = b'{"model":"m","message":{"role":"assistant","content":"x"},"done":true}\n'
MOST = 70  # steps between two turns of another task; trio takes turns at random


class Steps:
    """How many steps of some work are done in a row."""

    def __init__(self) -> None:
        self.all = 0
        self.most = 0
        self._row = 0

    def step(self) -> None:
        self.all += 1
        self._row += 1
        self.most = max(self.most, self._row)

    async def watch(self) -> None:
        while True:
            self._row = 0
            await checkpoint()


@asynccontextmanager
async def counted(function: Callable[[Callable[[], None]], None]) -> AsyncIterator[Steps]:
    """Count the steps that are made in the body; another task wants its turns meanwhile."""
    steps = Steps()
    function(steps.step)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(steps.watch)
        yield steps
        tasks.cancel_scope.cancel()


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have each block that the client reads counted."""

    def count(step: Callable[[], None]) -> None:
        for place, name in ((Exchange, "receive"), (Connection, "read")):
            original = getattr(place, name)

            async def read(*args: Any, original: Any = original, **settings: Any) -> Any:
                step()
                return await original(*args, **settings)

            monkeypatch.setattr(place, name, read)

    return count


def chunked(body: bytes) -> bytes:
    """A body in chunks of one byte."""
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def sending(reply: bytes) -> Callable[[Any], Any]:
    async def handle(stream: Any) -> None:
        await read_request(stream)
        await stream.send(reply)

    return handle


async def call(client: AsyncClient, *, stream: bool) -> None:
    if stream:
        async with await client.chat("m", MESSAGES, stream=True) as parts:
            await exhaust(parts)
    else:
        await client.chat("m", MESSAGES)


@quick
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("foreign", [False, True])
async def test_a_reply_that_inflates(reading: Any, stream: bool, foreign: bool) -> None:
    """Some kilobytes of gzip become ten megabytes."""
    body = gzip.compress(b" " * 5_000_000 + b"\n" * 5_000_000 * stream + LAST)
    reply = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    settings: Any = {"transport": httpx.AsyncHTTPTransport()} if foreign else {}
    async with (
        raw_server(sending(reply)) as url,
        AsyncClient(url, max_line_bytes=10_000_000, **settings) as client,
        counted(reading) as steps,
    ):
        await call(client, stream=stream)
    assert steps.all > 70
    assert steps.most <= MOST


@quick
@pytest.mark.parametrize("stream", [False, True])
async def test_tiny_chunks_through_httpx(reading: Any, stream: bool) -> None:
    """One read of the network is thousands of blocks."""
    async with (
        raw_server(sending(chunked(b" " * 3000 + LAST))) as url,
        AsyncClient(url, transport=httpx.AsyncHTTPTransport()) as client,
        counted(reading) as steps,
    ):
        await call(client, stream=stream)
    assert steps.all > 3000
    assert steps.most <= MOST


@quick
@pytest.mark.parametrize("stream", [False, True])
async def test_tiny_records_of_tls(monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    """One read of the network is thousands of records."""
    original = TlsSocket._next_record

    def reading(step: Callable[[], None]) -> None:
        def next_record(self: TlsSocket) -> bytes | None:
            step()
            return original(self)

        monkeypatch.setattr(TlsSocket, "_next_record", next_record)

    async def handle(peer: Peer) -> None:
        await peer.request()
        tls = peer.stream.extra(TLSAttribute.ssl_object)  # noqa: S610 - no Django
        for byte in HEAD + b"Content-Length: %d\r\n\r\n" % (3000 + len(LAST)) + b" " * 3000:
            tls.write(b"%c" % byte)
        await peer.stream.send(LAST)

    async with (
        serving(handle, tls=True) as server,
        AsyncClient(server.url, verify=client_context()) as client,
    ):
        async with counted(reading) as steps:
            await call(client, stream=stream)
    assert steps.all > 3000
    assert steps.most <= MOST


@quick
async def test_a_socket_that_takes_everything() -> None:
    """A long body to a server that reads as fast as it comes."""

    class Willing:
        def send(self, data: memoryview) -> int:
            self.step()
            return len(data)

        step: Callable[[], None]

    willing: Any = Willing()

    def count(step: Callable[[], None]) -> None:
        willing.step = step

    socket = Socket(willing)
    async with counted(count) as steps:
        for _ in range(1000):
            await socket.send(b"x")
    assert steps.all == 1000
    assert steps.most <= MOST


@quick
async def test_a_compressed_flood_does_not_drown_a_cancellation() -> None:
    """Blank lines make no parts, so that nothing holds the reader back."""
    flood = gzip.compress(b"\n" * 10_000_000) * 8

    async def handle(stream: Any) -> None:
        await read_request(stream)
        await stream.send(HEAD + b"Content-Encoding: gzip\r\n\r\n")
        while True:
            await stream.send(flood)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        start = time.monotonic()
        with anyio.move_on_after(0.1) as scope:
            await call(client, stream=True)
        assert scope.cancelled_caught
        assert time.monotonic() - start < 5


# -- memory ----------------------------------------------------------------------------------------


@quick
@plain_and_tls
async def test_tiny_chunks_take_no_more_memory_than_they_are_long(secure: bool) -> None:
    """A reply of a megabyte, of which each byte has come by itself."""
    body = b'{"text":"%s"}' % (b"x" * 1_000_000)
    async with serving(sending_to_peer(chunked(body)), tls=secure) as server:
        settings: Any = {"verify": client_context()} if secure else {}
        async with AsyncClient(server.url, **settings) as client:
            tracemalloc.start()
            try:
                reply: Any = await client.request("GET", "/x", type=dict[str, str])
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
    assert len(reply["text"]) == 1_000_000
    assert peak < 20_000_000  # the server's own six megabytes and their copies included


def sending_to_peer(reply: bytes) -> Callable[[Peer], Any]:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply)

    return handle


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_many_pieces_become_few(size: int) -> None:
    """Whether they come with one read or with many; none is lost, and none added."""
    body = b"".join(b"%07d" % number for number in range(20_000))
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    for at_once in (1, 400):
        reader = ReplyReader(is_head=False)
        reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(pieces), at_once):
            some = pieces[start : start + at_once]
            reader.feed(b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in some))
            assert len(reader._blocks) <= 256 + start // 256 + 1
        assert reader.waiting == len(body)
        reader.feed(b"0\r\n\r\n" + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        assert reader.take() == body
        assert reader.complete
        assert reader.trailing_data
