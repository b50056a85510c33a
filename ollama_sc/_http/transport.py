"""HTTP/1.1 on connections of our own: what stands below httpx, and beside it.

`Transport` is a transport of httpx, and the pool of one client: a stack of idle connections for
each server, and nothing that queues. The state of the pool changes in synchronous code only.
"""

from __future__ import annotations

import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import anyio
import httpx
import msgspec

from .connecting import connect
from .connection import Connection, EncodedRequest, IoTimeouts, reason
from .lookup import Lookups
from .messages import RequestEvents
from .reader import ReplyReader, llhttp
from .sockets import Socket, socket_errors

if TYPE_CHECKING:
    from ollama_sc._calls.call import Disconnects

    from .socket_trio import TrioSocket

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PORTS = {"http": 80, "https": 443}
# A burst of requests leaves as many connections: those that were not needed again end after this.
_IDLE_SECONDS = 60.0
# Under these, a request's `extensions` hold its `RequestEvents`, and a response's the `Reply`.
EVENTS = "ollama_sc.events"
REPLY = "ollama_sc.reply"
# Whether a request may be sent again where its connection has died.
REPEATABLE = "ollama_sc.repeatable"


class Origin(msgspec.Struct, frozen=True):
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


class NoEvents:
    """For callers that want to know of no event."""

    def on_connecting(self) -> None: ...

    def on_sending(self, connection: Disconnects | None = None) -> None: ...

    def on_sent(self) -> None: ...

    def on_released(self) -> None: ...


_NO_EVENTS = NoEvents()


class ReceivedReply(Protocol):
    """What a reply's body is taken from, whoever has the connection."""

    @property
    def is_read(self) -> bool:
        """Whether there is nothing more to receive."""
        ...

    async def receive(self) -> bytes:
        """The next block of the body; empty at the end."""
        ...

    def close(self, *, reuse: bool = True) -> None:
        """Release the connection, which is closed where the reply was not read to its end."""


class Reply:
    """A reply whose head is here; its body is received block by block."""

    __slots__ = ("_closed", "_connection", "_events", "_timeouts", "_transport", "reader")

    def __init__(
        self,
        transport: Transport,
        connection: Connection,
        reader: ReplyReader,
        timeouts: IoTimeouts,
        events: RequestEvents,
    ) -> None:
        self.reader = reader
        self._transport = transport
        self._connection = connection
        self._closed = False
        self._timeouts = timeouts
        self._events = events

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.reader.status

    def header(self, name: str) -> str | None:
        """A header, by its name in lower case."""
        value = self.reader.fields.get(name.encode())
        return None if value is None else value.strip(b" \t").decode("latin-1")

    @property
    def source(self) -> TrioSocket | None:
        """What another task can read from while this one pumps."""
        return self._connection.source

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
        while not self._closed:
            block = reader.take()
            if block:
                return block
            if reader.failure is not None:
                raise reader.failure
            if reader.complete:
                break
            await self._connection.read(self._timeouts)
        if not reader.complete:
            raise httpx.ReadError("the reply was closed before its end")
        return b""

    async def pump(self, take: Callable[[bytes], bool]) -> None:
        """Call `take` with what each network read brings of the body until it returns False.

        At the end it gets no bytes. A cancelled one has handed over all that was received.

        Raises:
            httpx.TransportError: the body breaks off.
        """
        reader = self.reader
        wanted = True

        def on_read(data: bytes) -> bool:
            nonlocal wanted
            if data:
                block = reader.read(data)
            else:
                reader.end()
                block = reader.take()
            if block:
                wanted = take(block)
            return wanted and not reader.complete and reader.failure is None

        if block := reader.take():  # behind the head
            wanted = take(block)
        if wanted and not reader.complete and reader.failure is None and not self._closed:
            await self._connection.pump(on_read)
        if wanted:
            if reader.failure is not None:
                raise reader.failure
            if not reader.complete:
                raise httpx.ReadError("the reply was closed before its end")
            take(b"")

    async def receive_all(self, most: int) -> bytes:
        """What is left of the body, or more than `most` bytes of it, or up to what is wrong in it.

        Raises:
            httpx.TransportError: the body breaks off.
        """
        reader = self.reader
        while not self._closed and reader.waiting <= most:
            if reader.complete or reader.failure is not None:
                break
            await self._connection.read(self._timeouts)
        return reader.take()

    def close(self, *, reuse: bool = True) -> None:
        """Release the connection, which is closed where the reply was not read to its end.

        Without `reuse` it is closed even if it was released before: a hook of httpx can have read
        a reply to its end that turns out to be none of the API's after that.
        """
        if not self._closed:
            self._closed = True
            self._events.on_released()
            self._events = _NO_EVENTS  # httpx keeps this until the garbage collector finds it
            self._transport.release(self._connection, reuse=reuse)
        elif not reuse:
            self._transport.discard(self._connection)


class Transport(httpx.AsyncBaseTransport):
    """Connections to any number of servers, without timeouts of its own.

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
        self._lookups = Lookups()
        self._handshaking: set[Socket] = set()
        self._open: dict[Connection, Origin] = {}
        self._idle: dict[Origin, deque[Connection]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request of httpx's; what makes this a transport of httpx."""
        origin = Origin.of(request.url)
        given: dict[str, float | None] = request.extensions.get("timeout", {})
        timeouts = IoTimeouts(given.get("connect"), given.get("read"), given.get("write"))
        events: RequestEvents = request.extensions.get(EVENTS) or _NO_EVENTS
        reply = await self.ask(origin, await _encoded(request), timeouts, events)
        return httpx.Response(
            reply.status,
            headers=reply.reader.headers,
            stream=ReplyStream(reply),
            extensions={
                "http_version": f"HTTP/{reply.reader.version}".encode(),
                "reason_phrase": reply.reader.reason,
                REPLY: reply,
            },
        )

    async def ask(
        self, origin: Origin, message: EncodedRequest, timeouts: IoTimeouts, events: RequestEvents
    ) -> Reply:
        """Send a request, and return when the head of its reply is here.

        There are three cases. A body of bytes takes an idle connection where there is one; if that
        turns out to have been dead, the request is sent once more, on a new connection (see
        `Connection.was_dead`). A body of bytes without an idle connection gets a new one, whose
        failure is final. So does a body that is read while it is sent, which cannot be sent twice.

        Raises:
            httpx.TransportError: there is no reply.
        """
        connection = None
        if isinstance(message.body, bytes):
            connection = self._take_idle(origin)
        else:
            # A server that serves one connection at a time must not wait for an idle one meanwhile.
            self.close_idle(origin)
        while True:
            if connection is None:
                connection = await self._connect(origin, timeouts, events)
            try:
                reader = await connection.ask(message, timeouts, events)
            except (httpx.ReadError, httpx.RemoteProtocolError):
                self._close(connection)
                if not connection.was_dead(message):
                    raise
                # Where one is dead, others are.
                self.close_idle(origin)
                connection = None
            except BaseException:
                self._close(connection)
                raise
            else:
                return Reply(self, connection, reader, timeouts, events)

    async def _connect(
        self, origin: Origin, timeouts: IoTimeouts, events: RequestEvents
    ) -> Connection:
        begun = time.monotonic()
        socket: Socket | None = None
        try:
            if timeouts.connect is None:  # a scope would cost a twentieth of it all
                socket = await self._open_socket(origin, events)
            else:
                with anyio.move_on_after(timeouts.connect):
                    socket = await self._open_socket(origin, events)
        except socket_errors() as error:
            raise httpx.ConnectError(reason(error)) from error
        if socket is None:
            raise httpx.ConnectTimeout("no connection")
        connection = Connection(socket, time.monotonic() - begun)
        self._open[connection] = origin
        return connection

    async def _open_socket(self, origin: Origin, events: RequestEvents) -> Socket:
        if origin.scheme == "http":
            return await connect(origin.host, origin.port, self._lookups, events.on_connecting)
        context = self.prepare_tls()
        events.on_connecting()  # until the handshake is done
        unheard = NoEvents().on_connecting
        socket = await connect(origin.host, origin.port, self._lookups, unheard)
        return await self._start_tls(socket, origin.host, context)

    async def _start_tls(self, socket: Socket, host: str, context: ssl.SSLContext) -> Socket:
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
            if connection.is_idle_clean():
                return connection
            self._close(connection)
        return None

    def release(self, connection: Connection, *, reuse: bool) -> None:
        """Return a connection to the pool, or close it where it cannot be reused."""
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

    def discard(self, connection: Connection) -> None:
        """Close a connection that was released already."""
        origin = self._open.get(connection)
        if origin is not None:
            with suppress(KeyError, ValueError):  # another request has it
                self._idle[origin].remove(connection)
            self._close(connection)

    def _close(self, connection: Connection) -> None:
        self._open.pop(connection, None)
        connection.close()

    def close_idle(self, origin: Origin) -> None:
        """Close the idle connections to a server."""
        for connection in self._idle.pop(origin, ()):
            self._close(connection)

    def connections(self) -> Connections:
        """How many connections are open and idle."""
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

    def __repr__(self) -> str:
        now = self.connections()
        return f"<Transport: {now.open} open, {now.idle} idle>"

    def prepare_tls(self) -> ssl.SSLContext:
        """The settings for TLS, made when they are first needed: that takes a tenth of a second."""
        if self._context is None:
            verify, cert, trust_env = self._tls_settings
            self._context = httpx.create_ssl_context(verify=verify, cert=cert, trust_env=trust_env)
        return self._context


class ReplyStream(httpx.AsyncByteStream):
    """A reply's body for httpx."""

    def __init__(self, reply: ReceivedReply) -> None:
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


async def _encoded(request: httpx.Request) -> EncodedRequest:
    """What httpx wants sent."""
    method = request.method.encode("ascii")
    if not is_token(method):
        raise httpx.LocalProtocolError(f"{request.method!r} cannot be a method")
    lines = header_lines(request.headers.raw)
    head = b"%b %b HTTP/1.1\r\n%b\r\n" % (method, request.url.raw_path, lines)
    stream = request.stream
    is_head = request.method == "HEAD"
    repeatable = bool(request.extensions.get(REPEATABLE, request.method != "DELETE"))
    closes = "close" in request.headers.get("connection", "").lower()
    if isinstance(stream, httpx.ByteStream):
        body = b"".join([piece async for piece in stream])
        return EncodedRequest(head, body, is_head=is_head, closes=closes, repeatable=repeatable)
    assert isinstance(stream, httpx.AsyncByteStream)
    length = request.headers.get("content-length")
    size = int(length) if length is not None else None
    return EncodedRequest(
        head, aiter(stream), size=size, is_head=is_head, closes=closes, repeatable=repeatable
    )
