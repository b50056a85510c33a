"""Functions of users that are not asynchronous, in worker threads."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint, current_token

from ollama_sc._loop.shielding import wait_shielded
from ollama_sc._loop.threads import ThreadedWork, current_threaded_work
from ollama_sc._platform import in_browser

T = TypeVar("T")

# After so many seconds a cancelled caller that still waits for a thread is told for which.
LATE_SECONDS = 5.0


class _Work(ThreadedWork):
    """What a thread does, and whether it has done it.

    Attributes:
        ended: set when the function has returned.
        result: what it returned; trio lets no thread return a coroutine, as some functions do.
    """

    def __init__(self, function: Callable[[], Any], what: str, *, abandon: bool) -> None:
        token = current_token()
        super().__init__(token, what)
        self.ended = anyio.Event()
        self.result: Any = None
        self._function = function
        self._lock = threading.Lock()
        self._started = self._dropped = self._returned = False
        self._abandon = abandon
        native: Any = token.native_token
        self._schedule = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe

    def run(self) -> None:
        """Call the function, in the thread."""
        with self._lock:
            if self._dropped:
                return
            self._started = True
        # In a copy of the task's context. What was abandoned is for nobody.
        current_threaded_work.set(None if self._abandon else self)
        try:
            self.result = self._function()
        finally:
            self._returned = True
            with suppress(RuntimeError):  # that loop has gone, and left this thread alone
                self._schedule(self.ended.set)

    async def wait(self) -> None:
        """Wait until the function has returned, if it was called at all; it waits for nothing."""
        with self._lock:
            self._dropped = not self._started
        if self._dropped:
            self.ended.set()
        else:
            self.give_up_waits()
            await wait_shielded(self.ended.wait, math.inf)

    def give_up_waits(self) -> None:
        """Where the function still runs, let it wait for nothing."""
        if not self._returned:
            self.cancel()


async def run_in_thread(
    function: Callable[[], T], what: str, limiter: anyio.CapacityLimiter, *, abandon: bool = False
) -> T:
    """Call a function in a worker thread, in a browser in place, and wait as long as it takes.

    A cancelled caller waits as well: nothing can stop a thread. It is warned of after five seconds.
    The function can ask `anyio.from_thread.check_cancelled` whether it should end; a call of a
    blocking client in it is cancelled.

    Args:
        function: what is called, in a copy of this context.
        what: how the warning calls it.
        limiter: how many threads there may be.
        abandon: whether a cancelled caller leaves the thread alone instead.
    """
    if in_browser():  # there are no threads
        await checkpoint()
        return function()
    work = _Work(function, what, abandon=abandon)
    if abandon:
        await anyio.to_thread.run_sync(work.run, abandon_on_cancel=True, limiter=limiter)
        return work.result  # type: ignore[no-any-return]
    failure: Exception | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_when_cancelled, work)
            try:
                await anyio.to_thread.run_sync(work.run, limiter=limiter)
            except Exception as error:  # noqa: BLE001 - raised below, where no group wraps it
                failure = error
            finally:
                # A native cancellation on asyncio goes through every shield.
                await work.wait()
                tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None  # of the warning, where warnings are errors
    if failure is not None:
        try:
            raise failure
        finally:
            del failure
    return work.result  # type: ignore[no-any-return]


async def _when_cancelled(work: _Work) -> None:
    """Once its caller is cancelled, let the thread wait for nothing, and warn when it is late."""
    try:
        await anyio.sleep_forever()
    finally:
        work.give_up_waits()
        with anyio.move_on_after(LATE_SECONDS, shield=True):
            await work.ended.wait()
        if not work.ended.is_set():
            warnings.warn(
                f"{work.what} was cancelled and is still running in its thread, which is waited "
                "for: let it call anyio.from_thread.check_cancelled(), or use abandon=True",
                ResourceWarning,
                stacklevel=1,
            )
