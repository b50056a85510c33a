"""Connected sockets as a connection needs them. No HTTP in here.

`Socket` works on any event loop. `socket_asyncio` and `socket_trio` have what reads with the fewest
steps on these two, `tls` what encrypts, `connecting` what makes them.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

import anyio

from ollama_sc._loop.primitives import CHECKPOINT_INTERVAL

READ_BYTES = 64 * 1024
ERROR = (socket.SOL_SOCKET, socket.SO_ERROR)


def socket_errors() -> tuple[type[BaseException], ...]:
    """What a socket raises that is broken or closed; for an ``except`` clause."""
    trio = sys.modules.get("trio")
    more = () if trio is None else (trio.ClosedResourceError,)
    return (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, *more)


class Socket:
    """A connected socket: plain, on any event loop.

    One of our own costs a fifth of what anyio's stream costs to open, reads with one system call
    where that takes three on asyncio, holds nothing back, and closes at once.

    Attributes:
        lends: whether another task can read for the one that pumps, see `TrioSocket`.
    """

    __slots__ = ("_closed", "_full", "_process", "_sock", "_turns", "_unsent")

    lends: ClassVar[bool] = False

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._full = False  # the last read took all that it was allowed to
        self._closed = False
        self._turns = 0  # reading or sending
        self._unsent: memoryview | None = None
        self._process = os.getpid()

    async def receive(self) -> bytes:
        """What has arrived, at least a byte; empty at the end.

        A cancelled wait loses nothing.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        if self._full:
            # More will be there: others get their turn all the same.
            await anyio.lowlevel.checkpoint()
        else:
            await self._wait_readable()
        while True:
            try:
                data = self._sock.recv(READ_BYTES)
            except (BlockingIOError, InterruptedError):
                await self._wait_readable()
            else:
                self._full = len(data) == READ_BYTES
                return data

    async def pump(self, take: Callable[[bytes], bool]) -> None:
        """Call `take` with what arrives, as soon as it does, until it returns False.

        At the end it gets no bytes. A cancelled one has handed over all that it has received.
        """
        while True:
            data = await self.receive()
            if not take(data) or not data:
                return

    def send_now(self, data: bytes) -> bool:
        """Send what the kernel takes at once; whether that was all.

        What is left is kept for `send_more`; there must be nothing left of what was sent before.
        """
        try:
            sent = self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        self._unsent = None if sent == len(data) else memoryview(data)[sent:]
        return self._unsent is None

    async def send(self, data: bytes) -> None:
        """Send all of it. A cancelled one has sent some."""
        done = self.send_now(data)
        if done:
            self._turns += 1
            if self._turns % CHECKPOINT_INTERVAL == 0:
                await anyio.lowlevel.checkpoint()
        while not done:
            done = await self.send_more()

    async def send_more(self) -> bool:
        """Wait until the kernel takes more of what is left, and send that; whether that was all.

        A cancelled wait has sent nothing, and what is left stays.
        """
        self._turns += 1
        if self._turns % CHECKPOINT_INTERVAL == 0:
            await anyio.lowlevel.checkpoint()
        if self._unsent is not None:
            await self._wait_writable()
            with suppress(BlockingIOError, InterruptedError):
                self._unsent = self._unsent[self._sock.send(self._unsent) :] or None
        return self._unsent is None

    def is_idle_clean(self) -> bool:
        """Whether the other side has sent nothing that was not read, nor closed."""
        try:
            self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close it now. A task that waits for it gets `anyio.ClosedResourceError`.

        Processes that were forked hold the connection, too, so closing the descriptor alone would
        not let the server know. In one of these it ends nothing: the connection, and the event
        loop that watches it, are the parent's.
        """
        if self._closed:
            return
        self._closed = True
        if self._is_own():
            self._notify_closing()
            with suppress(OSError):  # the other side has gone
                self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def disconnect(self) -> None:
        """Close it now from outside of any task, too; nothing where that cannot be done."""

    # -- the event loop's own means ------------------------------------------------------------

    async def _wait_readable(self) -> None:
        await anyio.wait_readable(self._sock)

    async def _wait_writable(self) -> None:
        await anyio.wait_writable(self._sock)

    def _notify_closing(self) -> None:
        """Wake whoever waits for it."""
        anyio.notify_closing(self._sock)

    def _is_own(self) -> bool:
        return self._process == os.getpid()
