"""One connection: a request goes out, a reply comes in, one after the other.

Failures come out as httpx's exceptions. Whatever goes wrong, and wherever a request is cancelled:
only a request that was sent whole and a reply that was read to its end leave a connection that can
be used again.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import anyio
import httpx
import msgspec

from ollama_sc._loop.shielding import CLEANUP_SECONDS

from .messages import RequestEvents
from .reader import ReplyReader
from .sockets import Socket, socket_errors

if TYPE_CHECKING:
    from .socket_trio import TrioSocket

T = TypeVar("T")

# How much of a reply is read while its request is still being sent.
_EARLY_BYTES = 64 * 1024
# How long to wait for the early response of a server that stopped reading.
_EARLY_RESPONSE_TIMEOUT = 1.0
# How soon after the last byte was sent a connection ends that was dead before, at least.
DEAD_WITHIN = 0.05


class IoTimeouts(msgspec.Struct, frozen=True, gc=False):
    """Seconds for connecting, for each silence while reading, for each block sent."""

    connect: float | None = None
    read: float | None = None
    write: float | None = None


class EncodedRequest(msgspec.Struct, frozen=True):
    """A request in the bytes of HTTP.

    Attributes:
        head: up to the blank line.
        body: what follows; blocks are read once.
        size: of a body in blocks, where the head promises one.
        is_head: whether no reply to it has a body: HEAD.
        closes: whether it says that its connection is closed after it.
        repeatable: whether it may be sent again, once, if the connection turns out to be dead.
    """

    head: bytes
    body: bytes | AsyncIterator[bytes]
    size: int | None = None
    is_head: bool = False
    closes: bool = False
    repeatable: bool = True


class Connection:
    """An open connection to one server.

    Attributes:
        reply: the reply that is being read, or was last; ``None`` while nothing of it has come.
        used: whether another request was sent over it before.
    """

    __slots__ = (
        "_all_sent",
        "_any_sent",
        "_closes",
        "_dead_within",
        "_disconnected",
        "_is_closed",
        "_is_head",
        "_requests",
        "_sent_at",
        "_socket",
        "_write_failure",
        "idle_since",
        "reply",
        "used",
    )

    def __init__(self, socket: Socket, connect_seconds: float = 0.0) -> None:
        self.reply: ReplyReader | None = None
        self.used = False
        self.idle_since = 0.0
        self._socket = socket
        self._requests = 0  # sent over it
        self._is_closed = False
        self._disconnected = False
        self._is_head = False
        self._all_sent = False
        self._closes = False
        self._write_failure: BaseException | None = None
        self._any_sent = False
        self._sent_at = 0.0
        # A connection that was dead before the request says so about as fast as it was opened.
        self._dead_within = max(DEAD_WITHIN, 2 * connect_seconds)

    async def ask(
        self, message: EncodedRequest, timeouts: IoTimeouts, events: RequestEvents
    ) -> ReplyReader:
        """Send a request and read the head of its reply, which can have some of its body behind it.

        Raises:
            httpx.ReadError, httpx.RemoteProtocolError: there is no reply, or none of HTTP.
            httpx.ReadTimeout, httpx.WriteTimeout: a timeout expired.
        """
        self.used = self._requests > 0
        self._requests += 1
        self._all_sent = False
        self._closes = message.closes
        self._write_failure = None
        self._any_sent = False
        self.reply = None
        self._is_head = message.is_head
        events.on_sending(self)
        await self._send(message, timeouts)
        events.on_sent()
        while True:
            # Not bound before that: a request that waits is to hold little.
            reply = self.reply
            if reply is not None:
                if reply.failure is not None:
                    raise reply.failure
                if reply.head_complete:
                    return reply
            await self.read(timeouts)

    async def read(self, timeouts: IoTimeouts) -> None:
        """Read on in the reply, which can mean that it has failed.

        Raises:
            httpx.ReadError: the connection broke.
            httpx.ReadTimeout: a timeout expired.
        """
        try:
            if timeouts.read is None:
                data = await self._socket.receive()
            else:
                data = await self._receive_within(timeouts.read)
        except socket_errors() as error:
            cause = await self._read_failure(error)
            raise httpx.ReadError(reason(cause)) from cause
        self._take(data)

    async def pump(self, take: Callable[[bytes], bool]) -> None:
        """Call `take` with what each network read brings, until it returns False; see `Socket`.

        Raises:
            httpx.ReadError: the connection broke.
        """
        try:
            await self._socket.pump(take)
        except socket_errors() as error:
            cause = await self._read_failure(error)
            raise httpx.ReadError(reason(cause)) from cause

    async def _read_failure(self, error: BaseException) -> BaseException:
        """What came first says why, but for an alert of TLS, which says it in words."""
        if self._disconnected:
            await anyio.lowlevel.checkpoint()  # the cancellation that came before says why
        return error if isinstance(error, ssl.SSLError) else self._write_failure or error

    def was_dead(self, message: EncodedRequest) -> bool:
        """Whether a request that has failed can be sent again: the server was not at work on it.

        There are four cases. The connection was new, or a byte of the reply has come: no. The
        kernel took nothing of the request: yes. The request must not be done twice: no. The
        connection ended just after the last byte was sent: it was dead already, yes; later: no, for
        the server may have been at work since then.
        """
        if not self.used or (self.reply is not None and self.reply.begun):
            return False
        if not self._any_sent:
            return True
        return message.repeatable and time.monotonic() - self._sent_at <= self._dead_within

    @property
    def source(self) -> TrioSocket | None:
        """What another task can read from while this one pumps."""
        return cast("TrioSocket", self._socket) if self._socket.lends else None

    def is_reusable(self) -> bool:
        """Whether another request can follow; once the reply is done with."""
        whole = self.reply is not None and self.reply.close()
        return whole and self._all_sent and not self._closes and not self._disconnected

    def is_idle_clean(self) -> bool:
        """Whether nothing has arrived while it was idle, neither an end nor bytes."""
        return self._socket.is_idle_clean()

    def close(self) -> None:
        """Close it now, in whatever state."""
        self._is_closed = True
        if self.reply is not None:
            self.reply.close()
        self._socket.close()

    def __repr__(self) -> str:
        if self._is_closed:
            state = "closed"
        elif not self._requests:
            state = "new"
        elif not self._all_sent:
            state = "sending"
        elif self.reply is None:
            state = "waiting for the reply"
        elif not self.reply.complete:
            state = "receiving"
        else:
            state = "idle"
        return f"<Connection: {state}, request {self._requests}>"

    def disconnect(self) -> None:
        """Close the socket now, in whatever state, while a request that was cancelled has it."""
        self._disconnected = True
        self._socket.disconnect()

    async def _receive_within(self, seconds: float) -> bytes:
        with anyio.move_on_after(seconds):
            return await self._socket.receive()
        raise httpx.ReadTimeout("nothing was received")

    def _take(self, data: bytes) -> ReplyReader:
        reply = self.reply
        if reply is None:
            reply = self.reply = ReplyReader(is_head=self._is_head)
        if data:
            reply.feed(data)
        else:
            reply.end()
        return reply

    # -- sending -------------------------------------------------------------------------------

    async def _send(self, message: EncodedRequest, timeouts: IoTimeouts) -> None:
        """Send it all, or else as much as the server takes before it answers.

        There are three cases. The kernel takes all of the request at once, as it mostly does. It
        takes a part: then the rest is sent beside reading, since a server that refuses a request
        answers before its end and reads no further. Or the connection is broken: then the server
        may have answered all the same, which reading tells.
        """
        body = message.body
        blocks = None if isinstance(body, bytes) else body
        try:
            done = self._socket.send_now(
                message.head + body if isinstance(body, bytes) else message.head
            )
        except OSError as error:
            self._write_failure = error
            return
        self._any_sent = True
        try:
            if done and blocks is None:
                self._all_sent = True
            else:
                await self._send_and_read(blocks, message.size, timeouts)
        finally:
            self._sent_at = time.monotonic()

    async def _send_within(self, send: Callable[[], Awaitable[T]], timeouts: IoTimeouts) -> T:
        """Call one of the socket's ways to send, within the write timeout."""
        try:
            if timeouts.write is None:
                return await send()
            with anyio.move_on_after(timeouts.write):
                return await send()
        except socket_errors() as error:
            raise httpx.WriteError(reason(error)) from error
        raise httpx.WriteTimeout("nothing was sent")

    async def _send_rest(self, timeouts: IoTimeouts) -> None:
        """Send what the kernel has not taken yet."""
        while not await self._send_within(self._socket.send_more, timeouts):
            pass

    async def _send_block(self, block: bytes, timeouts: IoTimeouts) -> None:
        await self._send_within(partial(self._socket.send, block), timeouts)

    async def _send_and_read(
        self, blocks: AsyncIterator[bytes] | None, size: int | None, timeouts: IoTimeouts
    ) -> None:
        """Send what takes its time, and read meanwhile."""
        failure: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read_early, tasks.cancel_scope)
            try:
                await self._send_rest(timeouts)
                if blocks is not None:
                    try:
                        await self._send_blocks(blocks, size, timeouts)
                    finally:
                        await _finish(blocks)
                self._all_sent = True
                tasks.cancel_scope.cancel()
            except httpx.WriteError as error:
                self._write_failure = error
                tasks.cancel_scope.deadline = anyio.current_time() + _EARLY_RESPONSE_TIMEOUT
            except Exception as error:  # noqa: BLE001 - raised below, not out of the group
                failure = error
                tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _send_blocks(
        self, blocks: AsyncIterator[bytes], size: int | None, timeouts: IoTimeouts
    ) -> None:
        total = 0
        async for block in blocks:
            total += len(block)
            if size is not None and total > size:
                break
            if size is None:
                block = b"%x\r\n%b\r\n" % (len(block), block) if block else b""  # noqa: PLW2901
            await self._send_block(block, timeouts)
        if size is None:
            await self._send_block(b"0\r\n\r\n", timeouts)
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
        except socket_errors() as error:
            if self._write_failure is None:
                self._write_failure = error
        scope.cancel()


class UnreadableError(httpx.ConnectError):
    """A server answers, but the browser keeps the answer from this page. Says what to do."""


def is_unreadable(error: BaseException) -> bool:
    """Whether a call has failed because a page may not read what the server says.

    That stays so until somebody tells the server of the page: there is no use in trying again.
    """
    return isinstance(error.__cause__, UnreadableError)


async def _finish(blocks: AsyncIterator[bytes]) -> None:
    """Close a generator that was not read to its end, here and not wherever it is collected."""
    if isinstance(blocks, AsyncGenerator):
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            await cast("AsyncGenerator[bytes]", blocks).aclose()


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
        below = found.__cause__ or found.__context__
        # What httpx repeats of what is below has the words of the event loop.
        repeats = below is not None and text.endswith(str(below) or "\0")
        if text and not repeats and not (found.__cause__ and isinstance(found, OSError)):
            return text
        found = below
    return type(error).__name__
