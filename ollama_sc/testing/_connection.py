"""One connection: reads and parses its requests, and beside that sends the replies in order."""

import ssl
from collections import deque
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.abc
import httptools

from ollama_sc.testing._replies import Message, Reply
from ollama_sc.testing._request import RecordedRequest, Recording
from ollama_sc.testing._sending import Ending, send_reply

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

_BAD_REQUEST = Reply.text("400 Bad Request").but(status=400, keep_alive=False)
_GONE = (
    anyio.EndOfStream,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    ssl.SSLError,
)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Answering(Protocol):
    """What a connection needs of the server."""

    reuse: bool

    def received(self, request: RecordedRequest) -> Reply:
        """Record a complete request; returns the reply that is meant for it."""
        ...

    def slot(self, request: RecordedRequest) -> "AbstractAsyncContextManager[bool]":
        """Hold one of the places of parallel requests; False: the queue is full."""
        ...

    async def message(self, request: RecordedRequest, reply: Reply, *, busy: bool) -> Message:
        """The message of a reply."""
        ...

    def ended(self, request: RecordedRequest) -> None:
        """A request is no longer being answered."""
        ...

    def crashed(self, error: Exception) -> None:
        """The fake itself has failed."""
        ...


class _Parser:
    """Collects the requests of one connection out of any division of its bytes."""

    def __init__(self, connection: int) -> None:
        self.requests: list[Recording] = []
        self.wants_continue = False
        self._connection = connection
        self._parser = httptools.HttpRequestParser(self)
        self._target = bytearray()
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def feed(self, data: bytes) -> list[Recording]:
        """The requests that these bytes complete. Raises httptools.HttpParserError."""
        self.requests = []
        self.wants_continue = False
        while data:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                # The server upgrades to nothing: what follows is the next request.
                data = data[exc.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                continue
            break
        return self.requests

    def on_message_begin(self) -> None:
        self._target.clear()
        self._headers = {}
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip()
        known = self._headers.get(key)
        self._headers[key] = text if known is None else f"{known}, {text}"

    def on_headers_complete(self) -> None:
        self.wants_continue = self._headers.get("expect", "").lower() == "100-continue"

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.wants_continue = False
        request = Recording(
            method=self._parser.get_method().decode("latin-1"),
            target=self._target.decode("latin-1"),
            headers=self._headers,
            connection=self._connection,
            http_version=self._parser.get_http_version(),
        )
        request.body = bytes(self._body)
        request.keep_alive = self._parser.should_keep_alive()
        self.requests.append(request)


class Connection:
    """Serves one connection until either side closes it."""

    def __init__(self, server: Answering, stream: anyio.abc.ByteStream, number: int) -> None:
        self._server = server
        self._stream = stream
        self._parser = _Parser(number)
        self._requests: list[Recording] = []
        self._queue: deque[tuple[Recording, Reply]] = deque()
        self._arrived = anyio.Event()
        self._refuse = False
        self._scope = anyio.CancelScope()
        self.ending: Ending = "keep"

    async def serve(self) -> None:
        """Read and answer until the end; `ending` says what is to become of the socket."""
        try:
            async with anyio.create_task_group() as group:
                self._scope = group.cancel_scope
                group.start_soon(self._answer_all)
                await self._read_all()
                group.cancel_scope.cancel()
        finally:
            self._mark_closed(by_client=False)
            for request, _ in self._queue:
                self._server.ended(request)

    async def _read_all(self) -> None:
        while True:
            try:
                data = await self._stream.receive()
            except _GONE:
                self._mark_closed(by_client=True)
                return
            if self._refuse:
                continue  # a broken request: only the end of the connection is of interest now
            try:
                requests = self._parser.feed(data)
            except httptools.HttpParserError:
                requests = self._parser.requests
                self._refuse = True
            for request in requests:
                self._requests.append(request)
                request.received_at = anyio.current_time()
                self._queue.append((request, self._server.received(request)))
            if self._parser.wants_continue and not self._queue:
                await self._send_continue()
            self._arrived.set()

    async def _send_continue(self) -> None:
        try:
            await self._stream.send(_CONTINUE)
        except (anyio.BrokenResourceError, anyio.BusyResourceError):
            return  # gone, which the next read tells; or a reply is on its way, as good as this

    async def _answer_all(self) -> None:
        """Answer one request after the other; runs beside the reading."""
        try:
            while self.ending == "keep":
                while not self._queue and not self._refuse:
                    self._arrived = anyio.Event()
                    await self._arrived.wait()
                if self._queue:
                    request, reply = self._queue[0]
                    self.ending = await self._answer(request, reply)
                    self._queue.popleft()
                    self._server.ended(request)
                else:
                    self.ending = await self._refuse_request()
        except _GONE:
            self._mark_closed(by_client=True)
        except Exception as exc:  # noqa: BLE001 - leaving the server raises it
            self._server.crashed(exc)
            self.ending = "reset"
        self._scope.cancel()

    async def _answer(self, request: Recording, reply: Reply) -> Ending:
        async with self._server.slot(request) as free:
            if reply.content == "silence":
                await anyio.sleep_forever()
            message = await self._server.message(request, reply, busy=not free)
            return await send_reply(self._stream, request, message, reply, reuse=self._server.reuse)

    async def _refuse_request(self) -> Ending:
        request = Recording(method="", target="", headers={}, connection=0)
        message = Message(400, "text/plain; charset=utf-8", (b"400 Bad Request",))
        return await send_reply(self._stream, request, message, _BAD_REQUEST, reuse=False)

    def _mark_closed(self, *, by_client: bool) -> None:
        for request in self._requests:
            request.mark_closed(by_client=by_client)
