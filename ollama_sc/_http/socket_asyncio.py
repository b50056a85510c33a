"""Sockets on asyncio and uvloop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

import anyio
from anyio.lowlevel import checkpoint

from ollama_sc._loop.primitives import CHECKPOINT_INTERVAL

from .sockets import ERROR, READ_BYTES, Socket


class AsyncioSocket(Socket):
    """A connected socket on asyncio: it stays registered with the loop between two reads.

    Registering for each read, as `anyio.wait_readable` has to, costs two system calls. The loop's
    callback reads one block; before that is taken it reads no further. While it pumps, the callback
    hands over what it has read, and no task has to run for that.
    """

    __slots__ = (
        "_arrived",
        "_failure",
        "_loop",
        "_loses_errors",
        "_pump_error",
        "_take",
        "_waiter",
        "_watching",
        "_write_waiter",
    )

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._loop = loop = asyncio.get_running_loop()
        self._watching = False
        self._arrived: bytes | None = None
        self._failure: OSError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._write_waiter: asyncio.Future[None] | None = None
        self._take: Callable[[bytes], bool] | None = None  # while it pumps
        self._pump_error: BaseException | None = None
        # Where data and a reset arrive together, uvloop calls the reader once, which gets the data,
        # and never again.
        self._loses_errors = type(loop).__module__.startswith("uvloop")
        self._watch()  # says at once whether this loop can do it

    async def receive(self) -> bytes:
        self._turns += 1
        if self._turns % CHECKPOINT_INTERVAL == 0:
            await checkpoint()
        if self._arrived is None and self._failure is not None:
            self._arrived = b""
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
        data, self._arrived = self._arrived, None
        if data is None:
            raise anyio.ClosedResourceError
        if not data and self._failure is not None:
            self._arrived = b""
            raise self._failure
        return data

    async def pump(self, take: Callable[[bytes], bool]) -> None:
        arrived = self._arrived is not None or self._failure is not None
        if arrived and not take(await self.receive()):
            return
        if self._closed:
            raise anyio.ClosedResourceError
        if not self._watching:
            self._watch()
        self._waiter = self._loop.create_future()
        self._take = take
        try:
            await self._waiter
            stopped = self._take is None
        finally:
            self._waiter = self._take = None
        if not stopped:
            raise anyio.ClosedResourceError
        error, self._pump_error = self._pump_error, None
        if error is not None:
            try:
                raise error
            finally:
                del error

    # The loop gets numbers: of a socket that it does not know, asyncio's selectors make a text.

    def _watch(self) -> None:
        self._loop.add_reader(self._sock.fileno(), self._on_readable)
        self._watching = True

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            self._loop.remove_reader(self._sock.fileno())

    def _on_readable(self) -> None:  # noqa: C901 - in one frame, as it runs for each token
        if self._arrived is not None:
            self._unwatch()  # nobody takes it: the kernel's buffer fills, and the sender waits
            return
        try:
            data = self._sock.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as failure:
            self._failure = failure
            data = b""
        if not data:
            self._unwatch()
        elif self._loses_errors and (code := self._sock.getsockopt(*ERROR)):
            self._failure = OSError(code, os.strerror(code))
        take = self._take
        if take is None:
            self._arrived = data
            self._wake()
            return
        # It pumps in here. What that raises is raised in the task that waits for it.
        error: BaseException | None = self._failure
        try:
            if (data or error is None) and not take(data):
                error = None  # a failure is told at the next read
            elif data and error is None:
                return
        except BaseException as raised:
            if self._waiter is None or self._waiter.done():
                raise  # the task was cancelled meanwhile, and nobody else would see a Ctrl-C
            error = raised
        self._pump_error = error
        self._take = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def is_idle_clean(self) -> bool:
        return self._arrived is None and super().is_idle_clean()

    # Not by anyio's means, which are for tasks: a callback of the loop can abort, too.

    def disconnect(self) -> None:
        self.close()

    async def _wait_writable(self) -> None:
        waiter = self._write_waiter = self._loop.create_future()
        self._loop.add_writer(self._sock.fileno(), self._end_write_wait)
        try:
            await waiter
        finally:
            self._end_write_wait()
        if self._closed:
            raise anyio.ClosedResourceError

    def _end_write_wait(self) -> None:
        waiter, self._write_waiter = self._write_waiter, None
        if waiter is not None:
            self._loop.remove_writer(self._sock.fileno())
            if not waiter.done():
                waiter.set_result(None)

    def _notify_closing(self) -> None:
        if not self._loop.is_closed():
            self._unwatch()
            self._end_write_wait()
            self._wake()
