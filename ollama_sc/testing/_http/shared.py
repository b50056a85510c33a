"""Events that tasks of any event loop can wait for, each woken in its own."""

import threading
from contextlib import suppress
from typing import Any

import anyio
from anyio.lowlevel import checkpoint, current_token

_lock = threading.Lock()


class SharedEvent:
    """Is set once, in any thread; any number of tasks can wait for it, in any event loops."""

    __slots__ = ("_set", "_waiters")

    def __init__(self) -> None:
        self._set = False
        self._waiters: list[tuple[Any, anyio.Event]] = []

    def set(self) -> None:
        """Set it, and wake all waiters."""
        with _lock:
            self._set = True
            waiters, self._waiters = self._waiters, []
        for loop, event in waiters:
            if loop is running_loop():
                event.set()
            else:
                schedule = getattr(loop, "run_sync_soon", None) or loop.call_soon_threadsafe
                with suppress(RuntimeError):  # that loop is gone, and its tasks with it
                    schedule(event.set)

    async def wait(self) -> None:
        """Wait for it."""
        await checkpoint()
        waiter = (running_loop(), anyio.Event())
        with _lock:
            if self._set:
                return
            self._waiters.append(waiter)
        try:
            await waiter[1].wait()
        finally:
            with _lock, suppress(ValueError):
                self._waiters.remove(waiter)


def running_loop() -> object | None:
    """The event loop that runs in this thread: asyncio's, or the token of trio's."""
    try:
        return current_token().native_token
    except RuntimeError:
        return None
