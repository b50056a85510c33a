"""Functions that block: run in a thread, or in place where there are no threads.

This module knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TypeVar, TypeVarTuple

import anyio.to_thread
from anyio.lowlevel import EventLoopToken, checkpoint

from ollama_sc._errors import RequestError
from ollama_sc._platform import in_browser

T = TypeVar("T")
Args = TypeVarTuple("Args")


async def run_in_thread(
    function: Callable[[*Args], T],
    *args: *Args,
    abandon_on_cancel: bool = False,
) -> T:
    """Call a function that blocks, in a thread; in a browser here and now, after a checkpoint.

    Files are in memory there, so that nothing waits for a disk.
    """
    if in_browser():
        await checkpoint()
        return function(*args)
    return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=abandon_on_cancel)


class ThreadedWork:
    """What a thread does for a task, which waits for it as long as it takes.

    Nothing stops a thread. But what it waits for in this library, such as the reply to a call of a
    blocking client, can be given up, and is when the task is cancelled. Both sides use what is
    atomic, and no lock.

    Args:
        token: the event loop of the task.
        what: what the thread runs, as errors call it.

    Attributes:
        cancelled: whether the task was cancelled.
    """

    def __init__(self, token: EventLoopToken, what: str) -> None:
        self.what = what
        self.cancelled = False
        self._loop = token.native_token
        self._waits: set[Callable[[], object]] = set()

    def is_waited_for_in(self, token: EventLoopToken | None) -> bool:
        """Whether the task is one of that event loop, which cannot end before the thread."""
        return token is not None and token.native_token is self._loop

    def cancel(self) -> None:
        """Give up what the thread waits for, now and from now on; in the task's event loop."""
        self.cancelled = True
        for give_up in tuple(self._waits):
            give_up()

    def begin_wait(self, give_up: Callable[[], object]) -> None:
        """The thread is about to wait for what this function gives up, maybe more than once."""
        self._waits.add(give_up)
        if self.cancelled:
            give_up()

    def end_wait(self, give_up: Callable[[], object]) -> None:
        """It does not wait any more."""
        self._waits.discard(give_up)


# Of the running code, where that is in a thread that works for a task.
current_threaded_work: ContextVar[ThreadedWork | None] = ContextVar(
    "current_threaded_work", default=None
)


def require_threads(what: str, instead: str) -> None:
    """Raise RequestError where what needs a thread of its own cannot have one."""
    if in_browser():
        raise RequestError(f"{what} has a thread of its own, and a browser has none: {instead}")
