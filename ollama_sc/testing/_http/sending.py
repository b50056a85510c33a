"""Frames a message as HTTP/1.1 and sends it with the faults of a reply."""

from collections.abc import Iterator
from http import HTTPStatus
from typing import Literal

import anyio
import anyio.abc

from ollama_sc.testing._go import gojson
from ollama_sc.testing._replies import Message, Reply

from .request import Recording

_AT_ONCE = 65536  # bytes joined into one send where the response is not split
_CHUNKED_ABOVE = 2048  # Go's buffer: a body that fits in it gets a Content-Length
_PIECE_GAP = 0.001  # seconds between pieces, so that the client's reads do not join them

Ending = Literal["keep", "close", "reset"]


class _Broken(Exception):  # noqa: N818 - it ends the response and is not an error
    """A fault has ended the response."""

    def __init__(self, how: Literal["cut", "reset", "stall"]) -> None:
        self.how: Literal["cut", "reset", "stall"] = how


async def send_reply(
    stream: anyio.abc.ByteStream,
    request: Recording,
    message: Message,
    reply: Reply,
    *,
    reuse: bool,
) -> Ending:
    """Send a message with the faults of a reply, and record it on the request.

    Returns how the connection goes on or ends. A stall does not return: it is cancelled when the
    client disconnects. Raises anyio.BrokenResourceError if the client has disconnected.
    """
    response = _Response(request, message, reply, reuse=reuse)
    sender = _Sender(stream, request, reply)
    try:
        if reply.delay + message.delay > 0:
            sender.check()
            await anyio.sleep(reply.delay + message.delay)
        await sender.send_all(response)
    except _Broken as exc:
        if exc.how == "stall":
            await anyio.sleep_forever()
        return "reset" if exc.how == "reset" else "close"
    request.mark_finished()
    return "keep" if response.keep_alive else "close"


class _Response:
    """The bytes of a response: its head, and its pieces, each flagged if it is a stream's line."""

    def __init__(self, request: Recording, message: Message, reply: Reply, *, reuse: bool) -> None:
        self.stream = message.stream
        self.rate = (reply.rate or message.rate) if message.stream else None
        self._message = message
        self._trailing = reply.trailing
        self._no_body = request.method == "HEAD" and not message.raw
        if message.raw:
            head, end, _ = self._body().partition(b"\r\n\r\n")
            lives = message.keep_alive if reply.keep_alive is None else reply.keep_alive
            self.keep_alive = lives and request.keep_alive
            self.head = b""
            self.head_length = len(head + end)
            self._chunked = False
            return
        self.keep_alive = request.keep_alive and reuse and reply.keep_alive is not False
        self._chunked = self._choose_chunked(request, reply)
        if message.stream and not self._chunked:
            self.keep_alive = False
        self.head = self._make_head()
        self.head_length = len(self.head)

    def _choose_chunked(self, request: Recording, reply: Reply) -> bool:
        if request.http_version == "1.0":
            return False
        for chunked in (reply.chunked, self._message.chunked):
            if chunked is not None:
                return chunked
        return self._message.stream or len(self._body()) > _CHUNKED_ABOVE

    def _body(self) -> bytes:
        parts = self._message.parts = tuple(self._message.parts)
        return b"".join(parts)

    def _make_head(self) -> bytes:
        message = self._message
        headers = {name.title(): value for name, value in message.headers.items()}
        if message.content_type is not None:
            headers.setdefault("Content-Type", message.content_type)
        fields = [*sorted(headers.items())]
        if "Date" not in headers:
            fields.append(("Date", gojson.http_date()))
        # In a response to HEAD, Go announces only what a handler has written.
        silent = self._no_body and message.content_type is None
        framed = self._chunked or message.stream or silent
        if not framed and "Content-Length" not in headers:
            fields.append(("Content-Length", str(len(self._body()))))
        if not self.keep_alive:
            fields.append(("Connection", "close"))
        if self._chunked:
            fields.append(("Transfer-Encoding", "chunked"))
        try:
            phrase = HTTPStatus(message.status).phrase
        except ValueError:
            phrase = "status code " + str(message.status)
        lines = [f"HTTP/1.1 {message.status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in fields]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def pieces(self) -> Iterator[tuple[bytes, bool]]:
        """The pieces after the head that are known already."""
        message = self._message
        if not self._no_body:
            for part in message.parts:
                yield self._framed(part), message.stream

    async def later(self) -> bytes | None:
        """The next line that the source produces; None at its end."""
        source = self._message.source
        if source is None or self._no_body:
            return None
        part = await source.next()
        return None if part is None else self._framed(part)

    def end(self) -> Iterator[tuple[bytes, bool]]:
        """The pieces after the last line."""
        if self._chunked and not self._no_body:
            # A separate send, as in Go, which sends it when the handler has returned.
            yield b"0\r\n\r\n", False
        if self._trailing:
            yield self._trailing, False

    def _framed(self, part: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(part), part) if self._chunked and part else part


class _Sender:
    """Sends a response, counts its bytes, and applies the faults."""

    def __init__(self, stream: anyio.abc.ByteStream, request: Recording, reply: Reply) -> None:
        self._stream = stream
        self._request = request
        self._reply = reply
        self._joins = not reply.flush or reply.split_at is not None
        self._splits = sorted(reply.split_at or ())
        self._sent = 0
        self._head_length = 0
        self._buffer = bytearray()
        self._buffered_lines = 0
        self._lines = 0
        self._rate: float | None = None
        self._start: float | None = None
        ends: list[tuple[int, Literal["cut", "reset", "stall"]]] = []
        if reply.cut_at is not None:
            ends.append((reply.cut_at, "cut"))
        if reply.reset_at is not None:
            ends.append((reply.reset_at, "reset"))
        if reply.stall_at is not None:
            ends.append((reply.stall_at, "stall"))
        self._end = min(ends, default=None)
        line_ends: list[tuple[int, Literal["cut", "reset", "stall"]]] = []
        if reply.cut_after is not None:
            line_ends.append((reply.cut_after, "cut"))
        if reply.reset_after is not None:
            line_ends.append((reply.reset_after, "reset"))
        if reply.stall_after is not None:
            line_ends.append((reply.stall_after, "stall"))
        self._line_end = min(line_ends, default=None)

    def check(self) -> None:
        """Raise if a fault ends the response before its first byte."""
        if self._end is not None and self._end[0] <= self._sent:
            raise _Broken(self._end[1])

    async def send_all(self, response: _Response) -> None:
        self.check()
        self._head_length = response.head_length
        self._buffer += response.head
        if self._line_end is not None and self._line_end[0] == 0:
            await self._flush()
        self._rate = response.rate
        for data, is_line in response.pieces():
            await self._add(data, is_line=is_line)
        while (line := await response.later()) is not None:
            await self._add(line, is_line=True)
        for data, is_line in response.end():
            await self._add(data, is_line=is_line)
        await self._flush()

    async def _add(self, data: bytes, *, is_line: bool) -> None:
        """Send a piece when it is due, together with the buffered ones before it."""
        if is_line:
            self._break_after(self._lines)
            if self._rate:
                if self._start is None:
                    self._start = anyio.current_time()
                await self._pace(self._start + self._lines / self._rate)
            self._lines += 1
        self._buffer += data
        self._buffered_lines += is_line
        if self._line_end is not None and is_line and self._lines >= self._line_end[0]:
            await self._flush()
            self._break_after(self._lines)
        if not self._joins or len(self._buffer) >= _AT_ONCE:
            await self._flush()

    def _break_after(self, lines: int) -> None:
        if self._line_end is not None and lines >= self._line_end[0]:
            raise _Broken(self._line_end[1])

    async def _pace(self, until: float) -> None:
        if until > anyio.current_time():
            await self._flush()
            await anyio.sleep_until(until)

    async def _flush(self) -> None:
        if not self._buffer:
            return
        data = bytes(self._buffer)
        lines = self._buffered_lines
        self._buffer.clear()
        self._buffered_lines = 0
        if self._end is not None and self._sent + len(data) >= self._end[0]:
            await self._send(data[: self._end[0] - self._sent])
            raise _Broken(self._end[1])
        await self._send(data)
        self._request.parts_sent += lines

    async def _send(self, data: bytes) -> None:
        if self._reply.drip is not None:
            for position in range(len(data)):
                await self._send_piece(data[position : position + 1])
                if self._reply.drip > 0:
                    await anyio.sleep(self._reply.drip)
            return
        begin = self._sent
        cuts = [at - begin for at in self._splits if begin < at < begin + len(data)]
        position = 0
        for cut in cuts:
            await self._send_piece(data[position:cut])
            await anyio.sleep(_PIECE_GAP)
            position = cut
        await self._send_piece(data[position:])

    async def _send_piece(self, data: bytes) -> None:
        if not data:
            return
        await self._stream.send(data)
        self._sent += len(data)
        if self._sent >= self._head_length:
            self._request.mark_headers_sent()
