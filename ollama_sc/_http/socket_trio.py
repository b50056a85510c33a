"""Sockets on trio. Imported only there."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import anyio
import trio
from anyio.lowlevel import checkpoint
from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    Task,
    current_task,
    notify_closing,
    reschedule,
    wait_readable,
    wait_task_rescheduled,
    wait_writable,
)

from ollama_sc._loop.task_group import NativeTaskGroup

from .sockets import READ_BYTES, Socket

# How often it is looked for what has come for tasks that are busy, and after how many others get
# their turn.
_SWEEP_SECONDS = 0.05
_SWEEP_TURN = 64


class TrioSocket(Socket):
    """A connected socket on trio: while it pumps, another task can wait for what arrives.

    That is the task that wants it, which then need not be woken by the one that pumps. From the
    first time on the pump leaves reading to it; while it is busy elsewhere, a `Sweeper` reads, and
    whoever has to know what has come.

    Attributes:
        pumping: whether `wait_and_read` and `read_now` have somebody to hand over to.
        awaited: whether a task waits for what arrives.
    """

    __slots__ = ("_left_to_others", "_parked", "_pump_error", "_take", "awaited")

    lends = True

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.awaited = False
        self._take: Callable[[bytes], bool] | None = None
        self._pump_error: BaseException | None = None
        self._left_to_others = False
        self._parked: Task | None = None  # the one that pumps, where others read

    @property
    def pumping(self) -> bool:
        """See the attributes."""
        return self._take is not None and not self._closed

    async def pump(self, take: Callable[[bytes], bool]) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        self._take = take
        self._left_to_others = self.awaited
        try:
            while self._take is not None and not self._closed:
                if self._left_to_others:
                    self._parked = current_task()
                    await wait_task_rescheduled(self._unpark)
                else:
                    with suppress(trio.ClosedResourceError):  # it has been left to another task
                        await (checkpoint() if self._full else self._wait_readable())
                        if not self._left_to_others:
                            self.read_now()
            stopped = self._take is None
        finally:
            self._take = None
        error, self._pump_error = self._pump_error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        if not stopped:
            raise anyio.ClosedResourceError

    async def wait_and_read(self) -> None:
        """Wait until something arrives, and hand it over; or until there is no use in waiting."""
        if not self._left_to_others:
            self._left_to_others = True
            self._notify_closing()  # the task that pumps waits for it
        self.awaited = True
        try:
            await wait_readable(self._sock)
        except trio.ClosedResourceError:
            return
        finally:
            self.awaited = False
        self.read_now()

    def read_now(self) -> None:
        """Hand over what has arrived: one read."""
        take = self._take
        if take is None or self._closed:
            return
        error: BaseException | None = None
        try:
            data = self._sock.recv(READ_BYTES)
            self._full = len(data) == READ_BYTES
            more = take(data) and bool(data)
        except (BlockingIOError, InterruptedError):
            self._full = False
            return
        except BaseException as raised:  # noqa: BLE001 - raised by the task that pumps
            error, more = raised, False
        if (self.awaited or not more) and not self._closed:
            self._notify_closing()  # who waits need not any more
        if not more:
            self._pump_error = error
            self._take = None
            self._wake_pump()

    def close(self) -> None:
        super().close()
        if self._is_own():
            self._wake_pump()

    def _wake_pump(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None:
            reschedule(parked)

    def _unpark(self, _: RaiseCancelT) -> Abort:
        """Note that the task that pumps is cancelled."""
        self._parked = None
        return Abort.SUCCEEDED

    def disconnect(self) -> None:
        self.close()

    async def _wait_readable(self) -> None:
        await wait_readable(self._sock)

    async def _wait_writable(self) -> None:
        await wait_writable(self._sock)

    def _notify_closing(self) -> None:
        notify_closing(self._sock)


class Sweeper:
    """Reads for the tasks that are busy elsewhere: one task for a client, while there are any.

    Without it a reply that nobody iterates over any more would hold its place and its connection.
    """

    def __init__(self, tasks: NativeTaskGroup) -> None:
        self._tasks = tasks
        self._sockets: set[TrioSocket] = set()
        self._none_left: trio.Event | None = None

    def add(self, sock: TrioSocket) -> None:
        """Read for it from now on, whenever nobody waits for what arrives."""
        self._sockets.add(sock)
        if self._none_left is None:
            self._none_left = trio.Event()
            self._tasks.start(self._sweep, self._none_left, name="ollama_sc sweeper")

    def discard(self, sock: TrioSocket) -> None:
        """Read for it no more."""
        self._sockets.discard(sock)
        if not self._sockets and self._none_left is not None:
            self._none_left.set()
            self._none_left = None

    async def _sweep(self, none_left: trio.Event) -> None:
        while not none_left.is_set():
            with trio.move_on_after(_SWEEP_SECONDS):
                await none_left.wait()
            if none_left.is_set():
                return
            for number, sock in enumerate(tuple(self._sockets), 1):
                if not sock.awaited:
                    sock.read_now()
                if number % _SWEEP_TURN == 0:
                    await checkpoint()
