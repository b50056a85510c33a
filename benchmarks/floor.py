"""The least that can be done: a raw socket, llhttp's parser, msgspec's decoder, and nothing else.

No limits, no errors, no cancellation, no clean end: it says how near to the limit the others are.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import urlsplit

import httptools
import sniffio

from .decoding import Decoding

READ = 65536


class Connection:
    """A socket and what its parser has found."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.parser: Any = httptools.HttpResponseParser(self)
        self.blocks: list[bytes] = []
        self.over = False

    def on_body(self, data: bytes) -> None:
        self.blocks.append(data)

    def on_message_complete(self) -> None:
        self.over = True

    async def exchange(self, request: bytes) -> AsyncIterator[bytes]:
        """What the body brings, a network read at a time."""
        self.over = False
        self.sock.send(request)
        while not self.over:
            await self.read()
            blocks = self.blocks
            if blocks:
                self.blocks = []
                yield b"".join(blocks)


class TrioConnection(Connection):
    """Waits before it reads: where one token comes after another, a read before that finds none."""

    def __init__(self, sock: socket.socket) -> None:
        import trio

        super().__init__(sock)
        self.wait_readable = trio.lowlevel.wait_readable

    async def read(self) -> None:
        await self.wait_readable(self.sock)
        self.parser.feed_data(self.sock.recv(READ))


class AsyncioConnection(Connection):
    """Asks the loop once to be called for whatever comes."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(sock, self.readable)
        self.waiter: asyncio.Future[None] | None = None

    def readable(self) -> None:
        self.parser.feed_data(self.sock.recv(READ))
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)

    async def read(self) -> None:
        if not self.blocks and not self.over:
            self.waiter = self.loop.create_future()
            await self.waiter


class Floor(Decoding):
    def __init__(self, url: str) -> None:
        super().__init__()
        where = urlsplit(url)
        self.address = (where.hostname, where.port)
        self.heads = {
            path: (
                f"POST {path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/json\r\n"
                "Content-Length: "
            ).encode()
            for path in ("/api/chat", "/api/embed")
        }
        self.idle: list[Connection] = []

    def connection(self) -> Connection:
        if self.idle:
            return self.idle.pop()
        sock = socket.create_connection(self.address)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        on_trio = sniffio.current_async_library() == "trio"
        return (TrioConnection if on_trio else AsyncioConnection)(sock)

    def close(self) -> None:
        for connection in self.idle:
            if isinstance(connection, AsyncioConnection):
                connection.loop.remove_reader(connection.sock)
            connection.sock.close()

    async def blocks(self, path: str, body: bytes) -> AsyncIterator[bytes]:
        connection = self.connection()
        request = b"%b%d\r\n\r\n%b" % (self.heads[path], len(body), body)
        async for block in connection.exchange(request):
            yield block
        self.idle.append(connection)

    async def stream(self, model: str, first: Callable[[], object] | None = None) -> int:
        return await self.count(self.blocks("/api/chat", self.chat(model)), first)

    async def embed(self, model: str, texts: list[str]) -> int:
        body = self.encode({"model": model, "input": texts})
        blocks = [block async for block in self.blocks("/api/embed", body)]
        return len(self.decode_embedding(b"".join(blocks)).embeddings)
