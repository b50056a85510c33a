"""One connection: a request goes out, a reply comes in, one after the other.

Failures come out as httpx's exceptions. Whatever goes wrong, and wherever a request is cancelled:
only a request that was sent whole and a reply that was read to its end leave a connection that can
be used again.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast

import anyio
import httpx
import msgspec

from ollama_sc._calls import CLEANUP_SECONDS

from .messages import Progress
from .reader import ReplyReader
from .sockets import Socket, broken

_PIECE_BYTES = 64 * 1024
# How much of a reply is read while its request is still being sent.
_EARLY_BYTES = 64 * 1024
# How long to look for the reply of a server that stopped reading.
_LAST_WORDS_SECONDS = 1.0


class Limits(msgspec.Struct, frozen=True, gc=False):
    """Seconds for connecting, for each silence while reading, for each piece sent."""

    connect: float | None = None
    read: float | None = None
    write: float | None = None


class Outgoing(msgspec.Struct, frozen=True):
    """A request in the bytes of HTTP.

    Attributes:
        head: up to the blank line.
        body: what follows; pieces are read once.
        size: of a body in pieces, where the head promises one.
        bodiless: whether no reply to it has a body: HEAD.
        last: whether it says that its connection is closed after it.
    """

    head: bytes
    body: bytes | AsyncIterator[bytes]
    size: int | None = None
    bodiless: bool = False
    last: bool = False


class Connection:
    """An open connection to one server.

    Attributes:
        reply: the reply that is being read, or was last; ``None`` while nothing of it has come.
        used: whether another request went over it before.
    """

    def __init__(self, socket: Socket) -> None:
        self.reply: ReplyReader | None = None
        self.used = False
        self.idle_since = 0.0
        self._socket = socket
        self._asked = False
        self._bodiless = False
        self._all_sent = False
        self._last = False
        self._write_failure: BaseException | None = None

    async def ask(self, message: Outgoing, limits: Limits, progress: Progress) -> ReplyReader:
        """Send a request and read the head of its reply, which can have some of its body behind it.

        Raises:
            httpx.ReadError, httpx.RemoteProtocolError: there is no reply, or none of HTTP.
            httpx.ReadTimeout, httpx.WriteTimeout: a limit passed.
        """
        self.used = self._asked
        self._asked = True
        self._all_sent = False
        self._last = message.last
        self._write_failure = None
        self.reply = None
        self._bodiless = message.bodiless
        progress.sending()
        await self._send(message, limits)
        progress.sent()
        while True:
            # Not bound before that: a request that waits is to hold little.
            reply = self.reply
            if reply is not None:
                if reply.failure is not None:
                    raise reply.failure
                if reply.head_complete:
                    return reply
            await self.read(limits)

    async def read(self, limits: Limits) -> None:
        """Read on in the reply, which can mean that it has failed.

        Raises:
            httpx.ReadError: the connection broke.
            httpx.ReadTimeout: a limit passed.
        """
        try:
            if limits.read is None:
                data = await self._socket.receive()
            else:
                data = await self._receive_within(limits.read)
        except broken() as error:
            cause = self._write_failure or error
            raise httpx.ReadError(reason(cause)) from cause
        self._take(data)

    @property
    def is_answering(self) -> bool:
        """Whether a byte of the reply has come."""
        return self.reply is not None and self.reply.begun

    def is_reusable(self) -> bool:
        """Whether another request can follow; once the reply is done with."""
        whole = self.reply is not None and self.reply.close()
        return whole and self._all_sent and not self._last

    def is_silent(self) -> bool:
        """Whether nothing came while it was idle: neither an end nor bytes that nobody awaits."""
        return self._socket.is_silent()

    def close(self) -> None:
        """Close it now, in whatever state."""
        if self.reply is not None:
            self.reply.close()
        self._socket.close()

    async def _receive_within(self, seconds: float) -> bytes:
        with anyio.move_on_after(seconds):
            return await self._socket.receive()
        raise httpx.ReadTimeout("nothing was received")

    def _take(self, data: bytes) -> ReplyReader:
        reply = self.reply
        if reply is None:
            reply = self.reply = ReplyReader(bodiless=self._bodiless)
        if data:
            reply.feed(data)
        else:
            reply.end()
        return reply

    # -- sending -------------------------------------------------------------------------------

    async def _send(self, message: Outgoing, limits: Limits) -> None:
        """Send it all, or else as much as the server wants before it answers."""
        body = message.body
        data = message.head + body if isinstance(body, bytes) else message.head
        pieces = None if isinstance(body, bytes) else body
        try:
            sent = self._socket.send_now(data)
            if pieces is None and sent < len(data) <= _PIECE_BYTES:
                await self._send_piece(memoryview(data)[sent:], limits)
                sent = len(data)
        except (httpx.WriteError, OSError) as error:
            self._write_failure = error  # it may have answered all the same
            return
        if pieces is None and sent == len(data):
            self._all_sent = True
        else:
            await self._send_and_read(memoryview(data)[sent:], pieces, message.size, limits)

    async def _send_piece(self, piece: bytes | memoryview, limits: Limits) -> None:
        try:
            if limits.write is None:
                await self._socket.send(piece)
                return
            with anyio.move_on_after(limits.write):
                await self._socket.send(piece)
                return
        except broken() as error:
            raise httpx.WriteError(reason(error)) from error
        raise httpx.WriteTimeout("nothing was sent")

    async def _send_and_read(
        self,
        rest: memoryview,
        pieces: AsyncIterator[bytes] | None,
        size: int | None,
        limits: Limits,
    ) -> None:
        """Send a body that takes its time, and read meanwhile.

        A server that refuses an upload answers before its end and reads no further.
        """
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read_early, tasks.cancel_scope)
            try:
                for start in range(0, len(rest), _PIECE_BYTES):
                    await self._send_piece(rest[start : start + _PIECE_BYTES], limits)
                if pieces is not None:
                    try:
                        await self._send_pieces(pieces, size, limits)
                    finally:
                        await _finish(pieces)
                self._all_sent = True
                tasks.cancel_scope.cancel()
            except httpx.WriteError as error:
                self._write_failure = error
                tasks.cancel_scope.deadline = anyio.current_time() + _LAST_WORDS_SECONDS
            except Exception as error:  # noqa: BLE001 - raised below, not out of the group
                failure = error
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _send_pieces(
        self, pieces: AsyncIterator[bytes], size: int | None, limits: Limits
    ) -> None:
        total = 0
        async for piece in pieces:
            total += len(piece)
            if size is not None and total > size:
                break
            if size is None:
                piece = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""  # noqa: PLW2901
            await self._send_piece(piece, limits)
        if size is None:
            await self._send_piece(b"0\r\n\r\n", limits)
        elif total != size:
            what = "more" if total > size else "less"
            raise httpx.LocalProtocolError(f"the body is {what} than the {size} bytes announced")

    async def _read_early(self, scope: anyio.CancelScope) -> None:
        """Read a whole reply, or that the connection ended: there is no use in sending on then."""
        size = 0
        try:
            while size < _EARLY_BYTES:
                data = await self._socket.receive()
                reply = self._take(data)
                if reply.complete or reply.failure is not None:
                    break
                size += len(data)
        except broken() as error:
            if self._write_failure is None:
                self._write_failure = error
        scope.cancel()


async def _finish(pieces: AsyncIterator[bytes]) -> None:
    """Close a generator that was not read to its end, here and not wherever it is collected."""
    if isinstance(pieces, AsyncGenerator):
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            await cast("AsyncGenerator[bytes]", pieces).aclose()


def reason(error: BaseException) -> str:
    """What an error says, or else what caused it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ExceptionGroup):  # several addresses were tried
            tried = cast("ExceptionGroup[Exception]", found).exceptions
            return "; ".join(dict.fromkeys(map(reason, tried)))
        if isinstance(found, ssl.SSLCertVerificationError):
            return found.verify_message
        text = (isinstance(found, OSError) and found.strerror) or str(found)
        if text and not (found.__cause__ and isinstance(found, OSError)):
            return text
        found = found.__cause__ or found.__context__
    return type(error).__name__
