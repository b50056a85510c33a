"""One connection: reads and parses its requests, and beside that sends the replies in order."""

import ssl
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import anyio
import anyio.abc
import httptools

from ollama_sc.testing._replies import Message, Reply
from ollama_sc.testing._request import RecordedRequest, Recording
from ollama_sc.testing._sending import Ending, send_reply
from ollama_sc.testing._stream import RawStream

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
_DRAINED = 256 << 10  # bytes of a body that nobody wants, which Go reads to keep the connection
_RESET_AVOIDANCE = 0.5  # seconds that Go leaves a client to read the reply to an unread body


class Answering(Protocol):
    """What a connection needs of the server."""

    reuse: bool

    def started(self, request: Recording) -> tuple[Reply, bool] | None:
        """Record a request of which only the headers have come, where that is wanted.

        Returns the reply that is meant for it and whether its body is needed; None for a request
        that is recorded when it is complete.
        """
        ...

    def received(self, request: RecordedRequest) -> Reply:
        """Record a complete request; returns the reply that is meant for it."""
        ...

    def completed(self, request: RecordedRequest) -> None:
        """The body of a request has come that had been recorded before."""
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


@dataclass(slots=True)
class _Turn:
    """A request that waits for its answer.

    Attributes:
        early: It is answered before its body, of which nothing more is read.
        unwanted: Its body is read and forgotten, unless it turns out to be large.
        complete: All of it has come.

    """

    request: Recording
    reply: Reply | None = None
    early: bool = False
    unwanted: bool = False
    complete: bool = False


class _Parser:
    """Finds the requests of one connection in any division of its bytes, and what they want."""

    def __init__(self, server: Answering, number: int) -> None:
        self.turns: deque[_Turn] = deque()
        self.requests: list[Recording] = []
        self.wants_continue = False
        self._server = server
        self._number = number
        self._parser = httptools.HttpRequestParser(self)
        self._target = bytearray()
        self._headers: dict[str, str] = {}
        self._turn: _Turn | None = None

    def feed(self, data: bytes) -> None:
        """Take some more bytes. Raises httptools.HttpParserError."""
        while data and not self.deaf:
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as exc:
                # The server upgrades to nothing: what follows is the next request.
                data = data[exc.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
                continue
            break

    @property
    def deaf(self) -> bool:
        """Whether nothing more is read of this connection."""
        return self._turn is not None and self._turn.early

    def drop(self) -> None:
        """Forget a request that is not complete."""
        turn, self._turn = self._turn, None
        if turn is not None and turn in self.turns:
            self.turns.remove(turn)
            self._server.ended(turn.request)

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
        if self.deaf:
            return
        request = Recording(
            method=self._parser.get_method().decode("latin-1"),
            target=self._target.decode("latin-1"),
            headers=self._headers,
            connection=self._number,
            http_version=self._parser.get_http_version(),
        )
        self.wants_continue = self._headers.get("expect", "").lower() == "100-continue"
        turn = self._turn = _Turn(request)
        started = self._server.started(request)
        if started is not None:
            turn.reply, wanted = started
            turn.unwanted = not wanted
            self.requests.append(request)
            self.turns.append(turn)
            if turn.reply.early or (not wanted and self._is_large(request)):
                turn.early = True

    def _is_large(self, request: Recording) -> bool:
        """Whether Go would rather close the connection than read this body in vain."""
        length = request.content_length
        announced = length is not None and (length > _DRAINED)
        return announced or (self.wants_continue and length != 0)

    def on_body(self, body: bytes) -> None:
        turn = self._turn
        if turn is None or turn.early:
            return
        turn.request.feed(body)
        if turn.unwanted and turn.request.body_size > _DRAINED:
            turn.early = True

    def on_message_complete(self) -> None:
        turn = self._turn
        self.wants_continue = False
        if turn is None or turn.early:
            return
        self._turn = None
        request = turn.request
        request.complete()
        request.keep_alive = self._parser.should_keep_alive()
        turn.complete = True
        if turn.reply is None:
            self.requests.append(request)
            turn.reply = self._server.received(request)
            self.turns.append(turn)
        else:
            self._server.completed(request)


class Connection:
    """Serves one connection until either side closes it."""

    def __init__(self, server: Answering, stream: anyio.abc.ByteStream, number: int) -> None:
        self._server = server
        self._stream = stream
        self._parser = _Parser(server, number)
        self._turns = self._parser.turns
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
            for turn in self._turns:
                self._server.ended(turn.request)

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
                self._parser.feed(data)
            except httptools.HttpParserCallbackError as exc:
                defect = exc.__context__
                self._server.crashed(defect if isinstance(defect, Exception) else exc)
                self._refuse = True
            except httptools.HttpParserError:
                self._parser.drop()
                self._refuse = True
            self._arrived.set()
            if self._parser.deaf:
                await anyio.sleep_forever()
            if self._parser.wants_continue:
                self._parser.wants_continue = False
                await self._send_continue()

    async def _send_continue(self) -> None:
        if any(turn.complete for turn in self._turns):
            return  # a reply is on its way, as good as this
        try:
            await self._stream.send(_CONTINUE)
        except (anyio.BrokenResourceError, anyio.BusyResourceError):
            return  # gone, which the next read tells

    async def _answer_all(self) -> None:
        """Answer one request after the other; runs beside the reading."""
        try:
            while self.ending == "keep":
                turn = await self._next_turn()
                if turn is None:
                    self.ending = await self._refuse_request()
                    break
                self.ending = await self._answer(turn)
                self._turns.popleft()
                self._server.ended(turn.request)
                if turn.early and self.ending == "close" and isinstance(self._stream, RawStream):
                    self._stream.finish()
                    await anyio.sleep(_RESET_AVOIDANCE)
        except _GONE:
            self._mark_closed(by_client=True)
        except Exception as exc:  # noqa: BLE001 - leaving the server raises it
            self._server.crashed(exc)
            self.ending = "reset"
        self._scope.cancel()

    async def _next_turn(self) -> _Turn | None:
        """The next request that can be answered; None where there will be none."""
        while True:
            if self._turns and (self._turns[0].complete or self._turns[0].early):
                return self._turns[0]
            if self._refuse and not self._turns:
                return None
            self._arrived = anyio.Event()
            await self._arrived.wait()

    async def _answer(self, turn: _Turn) -> Ending:
        request = turn.request
        reply = turn.reply or Reply()
        if turn.early:
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
            except _GONE:
                raise
            except Exception as exc:
                if request.headers_sent_at is not None:
                    raise
                self._server.crashed(exc)
                # As Go answers when a handler has panicked; but no more over this connection.
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
