"""One connection: reads and parses requests, and concurrently sends their responses in order."""

import ssl
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.abc

from ollama_sc.testing._replies import Message, Reply

from .llhttp import httptools
from .request import RecordedRequest, Recording
from .sending import Ending, send_reply
from .stream import RawStream

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

_BAD_REQUEST = Reply.text("400 Bad Request").replace(status=400, keep_alive=False)
_DISCONNECTED = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    ssl.SSLError,
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_DRAINED = 256 << 10  # bytes of an unneeded body, which Go reads to keep the connection
_RESET_AVOIDANCE = 0.5  # seconds that Go gives a client to read the response to an unread body


class Server(Protocol):
    """What a connection needs from the server."""

    reuse: bool

    def started(self, request: Recording) -> tuple[Reply, bool] | None:
        """Record a request whose headers have been received, if it is recorded that early.

        Returns its reply and whether its body is needed; None for a request that is recorded
        when it is complete.
        """
        ...

    def received(self, request: RecordedRequest) -> Reply:
        """Record a complete request and return its reply."""
        ...

    def completed(self, request: RecordedRequest) -> None:
        """The body of an already recorded request is complete."""
        ...

    def slot(self, request: RecordedRequest) -> "AbstractAsyncContextManager[bool]":
        """Hold one of the slots for parallel requests; False if the queue is full."""
        ...

    async def message(self, request: RecordedRequest, reply: Reply, *, busy: bool) -> Message:
        """The message for a reply."""
        ...

    def ended(self, request: RecordedRequest) -> None:
        """A request is no longer in progress."""
        ...

    def crashed(self, error: Exception) -> None:
        """The fake itself has failed."""
        ...


@dataclass(slots=True)
class _Exchange:
    """A request and its response.

    Attributes:
        early: The response precedes the body, of which nothing more is read.
        unneeded: The body is read and discarded, unless it proves to be large.
        complete: The whole request has been received.

    """

    request: Recording
    reply: Reply | None = None
    early: bool = False
    unneeded: bool = False
    complete: bool = False


class _Parser:
    """Parses the requests of one connection, however its bytes are split."""

    def __init__(self, server: Server, number: int) -> None:
        self.exchanges: deque[_Exchange] = deque()
        self.requests: list[Recording] = []
        self.expects_continue = False
        self._server = server
        self._number = number
        self._parser = httptools.HttpRequestParser(self)
        self._target = bytearray()
        self._headers: dict[str, str] = {}
        self._exchange: _Exchange | None = None

    def feed(self, data: bytes) -> None:
        """Parse received bytes. Raises httptools.HttpParserError."""
        while data and not self.reading_stopped:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                # The server does not upgrade: the rest is the next request.
                data = data[exc.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                continue
            break

    @property
    def reading_stopped(self) -> bool:
        """Whether nothing more is read from this connection."""
        return self._exchange is not None and self._exchange.early

    def drop(self) -> None:
        """Drop an incomplete request."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange in self.exchanges:
            self.exchanges.remove(exchange)
            self._server.ended(exchange.request)

    def on_message_begin(self) -> None:
        self._target.clear()
        self._headers = {}

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip()
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        if self.reading_stopped:
            return
        request = Recording(
            method=self._parser.get_method().decode("latin-1"),
            target=self._target.decode("latin-1"),
            headers=self._headers,
            connection=self._number,
            http_version=self._parser.get_http_version(),
        )
        self.expects_continue = self._headers.get("expect", "").lower() == "100-continue"
        exchange = self._exchange = _Exchange(request)
        started = self._server.started(request)
        if started is not None:
            exchange.reply, needed = started
            exchange.unneeded = not needed
            self.requests.append(request)
            self.exchanges.append(exchange)
            if exchange.reply.early or (not needed and self._is_large(request)):
                exchange.early = True

    def _is_large(self, request: Recording) -> bool:
        """Whether Go closes the connection instead of reading this unneeded body."""
        length = request.content_length
        announced = length is not None and (length > _DRAINED)
        return announced or (self.expects_continue and length != 0)

    def on_body(self, body: bytes) -> None:
        exchange = self._exchange
        if exchange is None or exchange.early:
            return
        exchange.request.feed(body)
        if exchange.unneeded and exchange.request.body_size > _DRAINED:
            exchange.early = True

    def on_message_complete(self) -> None:
        exchange = self._exchange
        self.expects_continue = False
        if exchange is None or exchange.early:
            return
        self._exchange = None
        request = exchange.request
        request.complete()
        request.keep_alive = self._parser.should_keep_alive()
        exchange.complete = True
        if exchange.reply is None:
            self.requests.append(request)
            exchange.reply = self._server.received(request)
            self.exchanges.append(exchange)
        else:
            self._server.completed(request)


class Connection:
    """Serves one connection until either side closes it."""

    def __init__(self, server: Server, stream: anyio.abc.ByteStream, number: int) -> None:
        self._server = server
        self._stream = stream
        self._parser = _Parser(server, number)
        self._exchanges = self._parser.exchanges
        self._arrived = anyio.Event()
        self._refuse = False
        self._scope = anyio.CancelScope()
        self.ending: Ending = "keep"

    async def serve(self) -> None:
        """Read and respond until the end; `ending` then says how to close the socket."""
        try:
            async with anyio.create_task_group() as group:
                self._scope = group.cancel_scope
                group.start_soon(self._respond_to_all)
                await self._read_all()
                group.cancel_scope.cancel()
        finally:
            self._mark_closed(by_client=False)
            for exchange in self._exchanges:
                self._server.ended(exchange.request)

    async def _read_all(self) -> None:
        while True:
            try:
                data = await self._stream.receive()
            except _DISCONNECTED:
                self._mark_closed(by_client=True)
                return
            if self._refuse:
                continue  # after an invalid request only the end of the connection matters
            try:
                self._parser.feed(data)
            except httptools.HttpParserCallbackError as exc:
                defect = exc.__context__
                self._server.crashed(defect if isinstance(defect, Exception) else exc)
                self._refuse = True
            except httptools.HttpParserError:
                self._parser.drop()
                self._refuse = True
            self._arrived.set()
            if self._parser.reading_stopped:
                await anyio.sleep_forever()
            if self._parser.expects_continue:
                self._parser.expects_continue = False
                await self._send_continue()

    async def _send_continue(self) -> None:
        if any(exchange.complete for exchange in self._exchanges):
            return  # its response makes the 100 unnecessary
        try:
            await self._stream.send(_CONTINUE)
        except (anyio.BrokenResourceError, anyio.BusyResourceError):
            return  # disconnected, as the next read reports

    async def _respond_to_all(self) -> None:
        """Respond to one request after the other, concurrently with the reading."""
        try:
            while self.ending == "keep":
                exchange = await self._next_exchange()
                if exchange is None:
                    self.ending = await self._refuse_request()
                    break
                self.ending = await self._respond(exchange)
                self._exchanges.popleft()
                self._server.ended(exchange.request)
                if (
                    exchange.early
                    and self.ending == "close"
                    and isinstance(self._stream, RawStream)
                ):
                    self._stream.finish()
                    await anyio.sleep(_RESET_AVOIDANCE)
        except _DISCONNECTED:
            self._mark_closed(by_client=True)
        except Exception as exc:  # noqa: BLE001 - `FakeOllama.__aexit__` raises it
            self._server.crashed(exc)
            self.ending = "reset"
        self._scope.cancel()

    async def _next_exchange(self) -> _Exchange | None:
        """The next request that can be responded to; None if there will be none."""
        while True:
            if self._exchanges and (self._exchanges[0].complete or self._exchanges[0].early):
                return self._exchanges[0]
            if self._refuse and not self._exchanges:
                return None
            self._arrived = anyio.Event()
            await self._arrived.wait()

    async def _respond(self, exchange: _Exchange) -> Ending:
        request = exchange.request
        reply = exchange.reply or Reply()
        if exchange.early:
            request.keep_alive = False
        async with self._server.slot(request) as free:
            if reply.content == "silence":
                await anyio.sleep_forever()
            try:
                message = await self._server.message(request, reply, busy=not free)
                try:
                    return await self._send(request, message, reply)
                finally:
                    if message.source is not None:
                        await message.source.aclose()
            except _DISCONNECTED:
                raise
            except Exception as exc:
                if request.headers_sent_at is not None:
                    raise
                self._server.crashed(exc)
                # Go's response when a handler has panicked; here the connection is closed, too.
                reply = Reply(keep_alive=False)
                return await self._send(request, Message(500, None, (b"",)), reply)

    async def _send(self, request: Recording, message: Message, reply: Reply) -> Ending:
        reuse = self._server.reuse
        return await send_reply(self._stream, request, message, reply, reuse=reuse)

    async def _refuse_request(self) -> Ending:
        request = Recording(method="", target="", headers={}, connection=0)
        message = Message(400, "text/plain; charset=utf-8", (b"400 Bad Request",))
        return await send_reply(self._stream, request, message, _BAD_REQUEST, reuse=False)

    def _mark_closed(self, *, by_client: bool) -> None:
        for request in self._parser.requests:
            request.mark_closed(by_client=by_client)
