"""HTTP/1.1 on connections of our own: what stands below httpx, and beside it.

`Transport` is a transport of httpx, and the pool of one client: a stack of idle connections for
each server, and nothing that queues. The state of the pool changes in synchronous code only.
"""

from __future__ import annotations

import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import anyio
import httpx

from . import sockets
from .connection import Connection, Limits, Outgoing, reason
from .messages import Progress
from .reader import ReplyReader, llhttp

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PORTS = {"http": 80, "https": 443}
# A burst of requests leaves as many connections: those that were not needed again end after this.
_IDLE_SECONDS = 60.0
# Under these, a request's `extensions` say who is told of its progress, and a reply's hold it.
PROGRESS = "ollama_sc.progress"
REPLY = "ollama_sc.reply"


class Origin(NamedTuple):
    """What a connection goes to."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx.URL) -> Self:
        """Where a URL leads.

        Raises:
            httpx.UnsupportedProtocol: it is neither http nor https.
        """
        if url.scheme not in _PORTS or not url.host:
            raise httpx.UnsupportedProtocol(f"the URL {url.scheme}://… is none of http or https")
        return cls(url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])


class Connections(NamedTuple):
    """How many connections are open, and how many of these are idle."""

    open: int
    idle: int


class _Silent:
    """For whoever does not want to know of the progress."""

    def connecting(self) -> None: ...

    def sending(self) -> None: ...

    def sent(self) -> None: ...


class Reply:
    """A reply whose head is here; its body is received block by block."""

    def __init__(
        self, transport: Transport, connection: Connection, reader: ReplyReader, limits: Limits
    ) -> None:
        self.reader = reader
        self._transport = transport
        self._connection: Connection | None = connection
        self._limits = limits

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.reader.status

    def header(self, name: str) -> str | None:
        """A header, by its name in lower case."""
        value = self.reader.fields.get(name.encode())
        return None if value is None else value.strip(b" \t").decode("latin-1")

    @property
    def is_read(self) -> bool:
        """Whether there is nothing more to receive."""
        return self.reader.is_read

    async def receive(self) -> bytes:
        """The next block of the body: what a network read brought; empty at the end.

        Raises:
            httpx.TransportError: the body breaks off.
        """
        reader = self.reader
        while self._connection is not None:
            block = reader.take()
            if block:
                return block
            if reader.failure is not None:
                raise reader.failure
            if reader.complete:
                break
            await self._connection.read(self._limits)
        if not reader.complete:
            raise httpx.ReadError("the reply was closed before its end")
        return b""

    async def receive_all(self, most: int) -> bytes:
        """What is left of the body, or more than `most` bytes of it, or up to what is wrong in it.

        Raises:
            httpx.TransportError: the body breaks off.
        """
        reader = self.reader
        while self._connection is not None and reader.waiting <= most:
            if reader.complete or reader.failure is not None:
                break
            await self._connection.read(self._limits)
        return reader.take()

    def close(self, *, reuse: bool = True) -> None:
        """Give the connection back, or close it where the reply was not read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._transport.release(connection, reuse=reuse)


class Transport(httpx.AsyncBaseTransport):
    """Connections to any number of servers, without limits of its own.

    Args:
        verify, cert, trust_env: how https servers are verified; as for httpx. What they say is
            read when the first connection needs it, or `prepare_tls` asks for it.
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | str | bool = True,
        cert: Any = None,
        trust_env: bool = True,
    ) -> None:
        llhttp()  # the first request need not wait for its import
        self._tls_settings = (verify, cert, trust_env)
        self._context: ssl.SSLContext | None = None
        self._handshaking: set[sockets.Socket] = set()
        self._open: dict[Connection, Origin] = {}
        self._idle: dict[Origin, deque[Connection]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Be httpx's transport."""
        origin = Origin.of(request.url)
        given: dict[str, float | None] = request.extensions.get("timeout", {})
        limits = Limits(given.get("connect"), given.get("read"), given.get("write"))
        progress: Progress = request.extensions.get(PROGRESS) or _Silent()
        reply = await self.ask(origin, await _outgoing(request), limits, progress)
        return httpx.Response(
            reply.status,
            headers=reply.reader.headers,
            stream=_ReplyStream(reply),
            extensions={
                "http_version": f"HTTP/{reply.reader.version}".encode(),
                "reason_phrase": reply.reader.reason,
                REPLY: reply,
            },
        )

    async def ask(
        self, origin: Origin, message: Outgoing, limits: Limits, progress: Progress
    ) -> Reply:
        """Send a request, and return when the head of its reply is here.

        A connection that was idle and turns out to be dead before the answer's first byte is
        replaced, once.

        Raises:
            httpx.TransportError: there is no answer.
        """
        connection = None
        if isinstance(message.body, bytes):
            connection = self._take_idle(origin)
        else:
            # What is read while it is sent cannot be sent twice: it gets a new connection. A
            # server that serves one at a time must not wait for one that is idle meanwhile.
            self.close_idle(origin)
        while True:
            if connection is None:
                connection = await self._connect(origin, limits, progress)
            try:
                reader = await connection.ask(message, limits, progress)
            except (httpx.ReadError, httpx.RemoteProtocolError):
                self._close(connection)
                if not connection.used or connection.is_answering:
                    raise
                # Where one is dead, others are.
                self.close_idle(origin)
                connection = None
            except BaseException:
                self._close(connection)
                raise
            else:
                return Reply(self, connection, reader, limits)

    async def _connect(self, origin: Origin, limits: Limits, progress: Progress) -> Connection:
        progress.connecting()
        with anyio.move_on_after(limits.connect):
            try:
                context = self.prepare_tls() if origin.scheme == "https" else None
                socket = await sockets.connect(origin.host, origin.port)
                if context is not None:
                    socket = await self._secured(socket, origin.host, context)
            except sockets.broken() as error:
                raise httpx.ConnectError(reason(error)) from error
            connection = Connection(socket)
            self._open[connection] = origin
            return connection
        raise httpx.ConnectTimeout("no connection")

    async def _secured(
        self, socket: sockets.Socket, host: str, context: ssl.SSLContext
    ) -> sockets.Socket:
        from . import tls  # noqa: PLC0415 - many clients never need it

        self._handshaking.add(socket)
        try:
            return await tls.wrap(socket, host, context)
        finally:
            self._handshaking.discard(socket)

    # -- the pool ------------------------------------------------------------------------------

    def _take_idle(self, origin: Origin) -> Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_silent():
                return connection
            self._close(connection)
        return None

    def release(self, connection: Connection, *, reuse: bool) -> None:
        """Take a connection back: to be used again, or to be closed if that is not possible."""
        origin = self._open.get(connection)
        if origin is None or not reuse or not connection.is_reusable():
            self._close(connection)
            return
        idle = self._idle.get(origin)
        if idle is None:
            idle = self._idle[origin] = deque()
        connection.idle_since = now = time.monotonic()
        idle.append(connection)
        while idle[0].idle_since < now - _IDLE_SECONDS:
            self._close(idle.popleft())

    def _close(self, connection: Connection) -> None:
        self._open.pop(connection, None)
        connection.close()

    def close_idle(self, origin: Origin) -> None:
        """Close what is idle."""
        for connection in self._idle.pop(origin, ()):
            self._close(connection)

    def connections(self) -> Connections:
        """How many there are."""
        return Connections(len(self._open), sum(map(len, self._idle.values())))

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
        self._idle.clear()
        for socket in tuple(self._handshaking):
            socket.close()
        for connection in tuple(self._open):
            self._close(connection)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    def prepare_tls(self) -> ssl.SSLContext:
        """The settings for TLS, made when they are first needed: that takes a tenth of a second."""
        if self._context is None:
            verify, cert, trust_env = self._tls_settings
            self._context = httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)
        return self._context


class _ReplyStream(httpx.AsyncByteStream):
    """A reply's body for httpx."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        block = await self._reply.receive()
        if not block:
            raise StopAsyncIteration
        return block

    async def aclose(self) -> None:
        self._reply.close()


# -- requests into bytes -----------------------------------------------------------------------


def is_token(name: bytes) -> bool:
    """Whether a method or a header can be called so."""
    return re.fullmatch(_TOKEN, name) is not None


def header_lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Headers in the bytes of HTTP.

    Raises:
        httpx.LocalProtocolError: one of them would be something else there.
    """
    for name, value in headers:
        if not is_token(name):
            raise httpx.LocalProtocolError(f"{name!r} cannot be the name of a header")
        if any(byte in value for byte in (b"\r", b"\n", b"\0")):
            raise httpx.LocalProtocolError(f"the header {name!r} has a value that cannot be sent")
    return b"".join(b"%b: %b\r\n" % header for header in headers)


async def _outgoing(request: httpx.Request) -> Outgoing:
    """What httpx wants sent."""
    method = request.method.encode("ascii")
    if not is_token(method):
        raise httpx.LocalProtocolError(f"{request.method!r} cannot be a method")
    lines = header_lines(request.headers.raw)
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, request.url.raw_path, lines)
    stream = request.stream
    bodiless = request.method == "HEAD"
    last = "close" in request.headers.get("connection", "").lower()
    if isinstance(stream, httpx.ByteStream):
        body = b"".join([piece async for piece in stream])
        return Outgoing(head, body, bodiless=bodiless, last=last)
    assert isinstance(stream, httpx.AsyncByteStream)
    length = request.headers.get("content-length")
    size = int(length) if length is not None else None
    return Outgoing(head, aiter(stream), size=size, bodiless=bodiless, last=last)
