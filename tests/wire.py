"""Servers of literal bytes for the transport's tests, plain and over TLS, and what they saw.

A `Server` runs one handler for each connection, a `Peer`: that is the connection as the server has
it. The handler decides about every byte and every end; the server knows which connections the
client has still open, which is how the tests find sockets that leak.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, NamedTuple

import anyio
import anyio.abc
import anyio.lowlevel
import httpx
import pytest
import trustme
from anyio.streams.tls import TLSStream

from ollama_sc._http.transport import Transport

LIMIT = 10.0  # seconds that anything here may take

# Loops in debug mode find more, and are too slow for thousands of connections.
quick = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
plain_and_tls = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])

BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, ssl.SSLError, OSError)


# -- certificates ----------------------------------------------------------------------------------


@cache
def authority() -> trustme.CA:
    return trustme.CA()


@cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1", "localhost", "::1").configure_cert(context)
    return context


@cache
def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


# -- the server ------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    raw_headers: list[tuple[bytes, bytes]]
    body: bytes


class Peer:
    """One connection, as the server has it."""

    def __init__(self, stream: anyio.abc.ByteStream, number: int) -> None:
        self.stream = stream
        self.number = number
        self.asked: list[Asked] = []
        self.data = b""

    async def request(self) -> Asked | None:
        """The next request; None where the client has closed or broken the connection."""
        head = await self._until(b"\r\n\r\n")
        if head is None:
            return None
        first, *lines = head[:-4].split(b"\r\n")
        raw_headers = [
            (name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)
        ]
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw_headers
        }
        body = await self._body(headers)
        if body is None:
            return None
        method, target, _ = first.decode().split(" ")
        asked = Asked(method, target, headers, raw_headers, body)
        self.asked.append(asked)
        return asked

    async def head(self) -> Asked | None:
        """The head of a request; its body stays where it is."""
        head = await self._until(b"\r\n\r\n")
        if head is None:
            return None
        # On asyncio, anyio's stream reads on where what it waited for was there already.
        if (transport := getattr(self._raw, "_transport", None)) is not None:
            transport.pause_reading()
        method, target, _ = head.partition(b"\r\n")[0].decode().split(" ")
        asked = Asked(method, target, {}, [], b"")
        self.asked.append(asked)
        return asked

    async def _body(self, headers: Mapping[str, str]) -> bytes | None:
        if "chunked" not in headers.get("transfer-encoding", ""):
            return await self._exactly(int(headers.get("content-length", 0)))
        body = b""
        while (line := await self._until(b"\r\n")) is not None:
            size = int(line, 16)
            chunk = await self._exactly(size + 2)
            if chunk is None:
                return None
            if not size:
                return body
            body += chunk[:-2]
        return None

    async def _until(self, mark: bytes) -> bytes | None:
        while mark not in self.data:
            if not await self._more():
                return None
        end = self.data.index(mark) + len(mark)
        found, self.data = self.data[:end], self.data[end:]
        return found

    async def _exactly(self, size: int) -> bytes | None:
        while len(self.data) < size:
            if not await self._more():
                return None
        found, self.data = self.data[:size], self.data[size:]
        return found

    async def _more(self) -> bool:
        try:
            self.data += await self.stream.receive()
        except (*BROKEN, anyio.EndOfStream):
            return False
        return True

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own."""
        for number, piece in enumerate(pieces):
            if number:
                await settle()
            if piece:
                await self.stream.send(piece)

    @property
    def _raw(self) -> Any:
        return self.stream.transport_stream if isinstance(self.stream, TLSStream) else self.stream

    async def finish(self) -> None:
        """End what is sent: FIN, and before it over TLS the word that this is the end."""
        if isinstance(self.stream, TLSStream):
            try:
                self.stream._ssl_object.unwrap()
            except ssl.SSLError:
                pass
            await self._raw.send(self.stream._write_bio.read())
        await self._raw.send_eof()

    async def cut(self) -> None:
        """FIN and nothing else."""
        await self._raw.send_eof()

    async def reset(self) -> None:
        """RST."""
        sock = self._raw.extra(anyio.abc.SocketAttribute.raw_socket)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await anyio.aclose_forcefully(self._raw)

    async def gone(self) -> None:
        """Wait until the client has closed its side."""
        while await self._more():
            self.data = b""


Handler = Callable[[Peer], Awaitable[Any]]


class Server:
    """A listening socket, and all its connections so far."""

    def __init__(self, handle: Handler, tls: ssl.SSLContext | None, host: str) -> None:
        self.handle = handle
        self.peers: list[Peer] = []
        self.accepted = 0  # those included that do not survive their handshake
        self.open = 0
        self.failures: list[str] = []
        self._tls = tls
        self._host = host
        self._changed = anyio.Event()

    @property
    def asked(self) -> list[Asked]:
        """All requests, by connection."""
        return [asked for peer in self.peers for asked in peer.asked]

    @property
    def url(self) -> str:
        return self.url_of(self._host)

    def url_of(self, host: str) -> str:
        host = f"[{host}]" if ":" in host else host
        return f"http{'s' * (self._tls is not None)}://{host}:{self.port}"

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with await anyio.create_tcp_listener(local_host=self._host) as listener:
            self.port = listener.extra(anyio.abc.SocketAttribute.local_port)
            task_status.started()
            await listener.serve(self._guarded)

    async def _guarded(self, stream: anyio.abc.ByteStream) -> None:
        self.accepted += 1
        self.open += 1
        try:
            if self._tls is not None:
                stream = await TLSStream.wrap(
                    stream, server_side=True, ssl_context=self._tls, standard_compatible=False
                )
            peer = Peer(stream, len(self.peers))
            self.peers.append(peer)
            await self.handle(peer)
        except (*BROKEN, anyio.EndOfStream):
            pass
        except Exception:
            self.failures.append(traceback.format_exc())
        finally:
            await anyio.aclose_forcefully(stream)
            self.open -= 1
            self._changed.set()
            self._changed = anyio.Event()

    async def until_open(self, count: int) -> None:
        """Wait until no more connections than these are open."""
        with anyio.fail_after(LIMIT):
            while self.open > count:
                await self._changed.wait()


@asynccontextmanager
async def serving(
    handle: Handler, *, tls: ssl.SSLContext | bool = False, host: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    """A server; in the end, the client has closed each connection and no descriptor is left."""
    before = open_files()
    context = server_context() if tls is True else tls or None
    server = Server(handle, context, host)
    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        await tasks.start(server.serve)
        try:
            yield server
            await server.until_open(0)
        except BaseException as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    assert not server.failures, server.failures[0]
    await until(lambda: open_files() <= before)


def answering(
    replies: Mapping[str, Handler | bytes] | bytes | None = None,
) -> Handler:
    """Answer by the request's target: literal bytes, or what a function does with the peer.

    A target ``/ok/...`` is answered with itself, so that a request that gets another's reply shows.
    """

    async def handle(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            reply = replies.get(asked.target) if isinstance(replies, Mapping) else replies
            if reply is None or asked.target.startswith("/ok/"):
                reply = ok(asked.target.encode())
            if isinstance(reply, bytes):
                await peer.send(reply)
            else:
                await reply(peer)

    return handle


def ok(body: bytes = b"ok", *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """A plain reply."""
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


CHUNKED_HELLO = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


# -- the client ------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(secure: bool = False, **options: Any) -> AsyncIterator[Transport]:
    """A transport that knows the tests' authority, and leaves nothing open."""
    if secure:
        options.setdefault("verify", client_context())
    transport = Transport(**options)
    try:
        yield transport
    finally:
        with anyio.CancelScope(shield=True):
            await transport.aclose()
        assert transport.connections() == (0, 0)


class Got(NamedTuple):
    """A response and its body."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    version: bytes
    reason: bytes


async def fetch(
    transport: httpx.AsyncBaseTransport, url: str, method: str = "GET", **options: Any
) -> Got:
    """One request, its response read to the end."""
    timeout = options.pop("timeout", None)
    request = httpx.Request(method, url, **options)
    if timeout is not None:
        request.extensions["timeout"] = timeout
    with anyio.fail_after(LIMIT):
        response = await transport.handle_async_request(request)
        try:
            body = await response.aread()
        finally:
            await response.aclose()
    return Got(
        response.status_code,
        response.headers.raw,
        body,
        response.extensions["http_version"],
        response.extensions["reason_phrase"],
    )


async def works(transport: httpx.AsyncBaseTransport, server: Server, name: object = "") -> None:
    """The transport is as good as new: a request gets its own reply."""
    got = await fetch(transport, f"{server.url}/ok/{name}")
    assert (got.status, got.body) == (200, f"/ok/{name}".encode())


def all_idle(transport: Transport) -> bool:
    """Whether no connection is open but those that wait for a request."""
    found = transport.connections()
    return found.open == found.idle


# -- the rest --------------------------------------------------------------------------------------


async def settle(rounds: int = 5) -> None:
    """Let the other side see what was sent."""
    for _ in range(rounds):
        await anyio.lowlevel.checkpoint()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event."""
    with anyio.fail_after(LIMIT):
        # Most of what is waited for here needs no time, only its turn.
        for _ in range(30):
            if condition():
                return
            await anyio.lowlevel.checkpoint()
        while not condition():
            await anyio.sleep(0.001)


def open_files() -> int:
    """How many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


async def all_of(jobs: Iterable[Callable[[], Awaitable[Any]]], at_once: int = 40) -> None:
    """Run them, many at a time; the first failure is raised as itself."""
    waiting = iter(jobs)
    failure: BaseException | None = None

    async def worker() -> None:
        nonlocal failure
        for job in waiting:
            try:
                await job()
            except Exception as error:
                failure = failure or error
                tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for _ in range(at_once):
            tasks.start_soon(worker)
    if failure is not None:
        raise failure
