"""Connected sockets as a connection needs them. No HTTP in here.

anyio opens a connection (name lookup, happy eyeballs); its descriptor is then taken over, because
a socket of our own reads with one system call where anyio's stream takes three on asyncio, holds
nothing back, and closes at once.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

import anyio
from anyio.lowlevel import checkpoint, current_token

from ollama_sc._waiting import TURNS_UNTIL_CHECKPOINT, is_trio

if TYPE_CHECKING:
    import asyncio

READ_BYTES = 64 * 1024


def broken() -> tuple[type[BaseException], ...]:
    """What a socket raises when there is no use in it any more; for an ``except`` clause."""
    trio = sys.modules.get("trio")
    more = () if trio is None else (trio.ClosedResourceError,)
    return (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, *more)


class Socket:
    """A connected socket: plain, on any event loop."""

    def __init__(
        self,
        sock: socket.socket,
        readable: Callable[[socket.socket], Awaitable[None]] | None = None,
    ) -> None:
        self._sock = sock
        self._readable = readable or anyio.wait_readable
        self._full = False  # the last read took all that it was allowed to
        self._closed = False
        self._turns = 0  # reading or sending
        self._sending = anyio.Lock(fast_acquire=True)

    async def receive(self) -> bytes:
        """What has arrived, at least a byte; empty at the end.

        A cancelled wait loses nothing.
        """
        if self._full:
            await checkpoint()  # more will be there: others get their turn all the same
        else:
            await self._readable(self._sock)
        while True:
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                await self._readable(self._sock)
            else:
                self._full = len(data) == READ_BYTES
                return data

    def send_now(self, data: bytes) -> int:
        """Send what the kernel takes at once; how many bytes that was."""
        try:
            return self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    async def send(self, data: bytes | memoryview) -> None:
        """Send all of it. A cancelled one has sent some."""
        self._turns += 1
        if self._turns % TURNS_UNTIL_CHECKPOINT == 0:
            await checkpoint()
        async with self._sending:  # TLS can have to send while it reads
            view = memoryview(data)
            while view:
                try:
                    view = view[self._sock.send(view) :]
                except (BlockingIOError, InterruptedError):
                    await anyio.wait_writable(self._sock)

    def is_silent(self) -> bool:
        """Whether the other side has sent nothing that was not read, nor closed."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close it now. Whoever waits for it gets `anyio.ClosedResourceError`."""
        if not self._closed:
            self._closed = True
            anyio.notify_closing(self._sock)
            self._sock.close()


class AsyncioSocket(Socket):
    """The same for asyncio: it stays registered with the loop between two reads.

    Registering for each read, as `anyio.wait_readable` has to, costs two system calls. The loop's
    callback reads one block; before that is taken it reads no further.
    """

    def __init__(self, sock: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(sock)
        self._loop = loop
        self._watching = False
        self._arrived: bytes | None = None
        self._failure: OSError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._watch()  # says at once whether this loop can do it

    async def receive(self) -> bytes:
        self._turns += 1
        if self._turns % TURNS_UNTIL_CHECKPOINT == 0:
            await checkpoint()
        if self._arrived is None:
            if self._closed:
                raise anyio.ClosedResourceError
            if not self._watching:
                self._watch()
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._failure is not None:
            raise self._failure
        data, self._arrived = self._arrived, None
        if data is None:
            raise anyio.ClosedResourceError
        return data

    def _watch(self) -> None:
        self._loop.add_reader(self._sock, self._on_readable)
        self._watching = True

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._sock)

    def _on_readable(self) -> None:
        if self._arrived is not None:
            self._unwatch()  # nobody takes it: the kernel's buffer fills, and the sender waits
            return
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._failure = error
            data = b""
        if not data:
            self._unwatch()
        self._arrived = data
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def is_silent(self) -> bool:
        return self._arrived is None and super().is_silent()

    def close(self) -> None:
        if not self._closed and not self._loop.is_closed():
            self._unwatch()
        super().close()
        self._wake()


async def connect(host: str, port: int) -> Socket:
    """Connect; several addresses of a name are tried as anyio does.

    Raises:
        OSError: there is no connection.
    """
    from anyio.abc import SocketAttribute  # noqa: PLC0415 - with the rest of `connect_tcp`

    try:
        stream = await anyio.connect_tcp(host, port)
    except UnicodeError as error:
        raise OSError(f"{host!r} cannot be looked up") from error
    sock: socket.socket | None = None
    try:
        try:
            raw: Any = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - no Django
            sock = socket.socket(fileno=os.dup(raw.fileno()))
        finally:
            # anyio's own descriptor: the connection lives on in ours.
            await anyio.aclose_forcefully(stream)
        sock.settimeout(0)
        return _fitting(sock)
    except BaseException:
        if sock is not None:
            sock.close()
        raise


def _fitting(sock: socket.socket) -> Socket:
    """What reads it best on the running event loop."""
    token = current_token()
    if is_trio(token):
        from trio.lowlevel import wait_readable  # noqa: PLC0415 - only who runs on it has it

        return Socket(sock, wait_readable)
    try:
        return AsyncioSocket(sock, cast("asyncio.AbstractEventLoop", token.native_token))
    except NotImplementedError:  # Windows' default loop
        return Socket(sock)
