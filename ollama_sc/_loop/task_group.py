"""The event loop's own task group, whose end changes no exception.

A plain task group wraps whatever leaves it in an ``ExceptionGroup`` and cancels its tasks when the
body fails. A client needs neither: its requests end because they are aborted, and an exception of
the body leaves as itself. This module knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import anyio

from .primitives import is_trio
from .shielding import wait_shielded

if TYPE_CHECKING:
    import trio


class NativeTaskGroup:
    """A task group that is entered in `open()` and left in `close()`, in one and the same task.

    It is the event loop's own: a task of anyio's group costs four times as much to start, and on
    asyncio one that is cancelled by asyncio's means takes the group down with it.
    """

    __slots__ = ("_group", "_nursery")

    def __init__(self) -> None:
        self._group: Any = None  # what is left in the end
        self._nursery: trio.Nursery | None = None

    async def open(self) -> None:
        """Enter the group."""
        if is_trio(anyio.lowlevel.current_token()):
            import trio  # noqa: PLC0415 - only who runs on it has it

            self._group = trio.open_nursery()
            self._nursery = await self._group.__aenter__()
        else:
            import asyncio  # noqa: PLC0415

            self._group = asyncio.TaskGroup()
            await self._group.__aenter__()

    def start(
        self,
        function: Callable[..., Coroutine[Any, Any, None]],
        *args: object,
        name: str,
        ended: Callable[[object], object] | None = None,
    ) -> None:
        """Start a task, which stores its outcome itself: only what ends the program leaves it.

        On asyncio `ended` is called with the task when it has ended: one that is natively cancelled
        before its first step never runs, and could not say so itself.

        Raises:
            RuntimeError: something did leave one, and asyncio's group accepts no more.
        """
        if self._nursery is not None:
            self._nursery.start_soon(function, *args, name=name)
            return
        coroutine = function(*args)
        try:
            task = self._group.create_task(coroutine, name=name)
        except RuntimeError:
            coroutine.close()
            raise
        if ended is not None:
            task.add_done_callback(ended)

    async def close(
        self,
        clean_up: Callable[[], Coroutine[Any, Any, None]],
        seconds: float,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Run `clean_up` as the last task, at most so many seconds, and wait until all have ended.

        The wait is shielded: a cancellation that arrives meanwhile neither stops it nor replaces
        the body's exception. Where a task died of a ``BaseException`` (a KeyboardInterrupt), that
        one is raised.
        """
        body: tuple[Any, Any, Any] = (None, None, None)
        nursery = self._nursery
        if nursery is not None:
            if nursery.cancel_scope.cancel_called:
                # Nobody here cancels the group, so a task died of a BaseException and the body was
                # cancelled for it. The group has to see that cancellation to settle it.
                body = (exc_type, exc, traceback)
            nursery.cancel_scope.shield = True
        try:
            try:
                # Not in the group's own exit: there, a native cancellation on asyncio would be
                # passed on to the task that cleans up.
                await wait_shielded(self.start_cleanup(clean_up), seconds)
            finally:
                if nursery is not None:
                    await self._group.__aexit__(*body)
                else:
                    with anyio.CancelScope(shield=True):
                        await self._group.__aexit__(None, None, None)
        except BaseExceptionGroup as group_error:
            raise _root(group_error) from None
        except anyio.get_cancelled_exc_class():
            # A native cancellation on asyncio, which no shield keeps out.
            if exc is None:
                raise
        finally:
            del exc, traceback, body, nursery

    def start_cleanup(
        self, clean_up: Callable[[], Coroutine[Any, Any, None]]
    ) -> Callable[[], Awaitable[object]]:
        """Start a task that cleans up; a function that waits for its end."""
        ended = anyio.Event()
        done = False

        async def run() -> None:
            nonlocal done
            try:
                await clean_up()
                done = True
            finally:
                ended.set()

        async def wait() -> None:
            await ended.wait()
            if not done:  # a group that is about to die cancels it, maybe before its first step
                await clean_up()

        try:
            self.start(run, name="ollama_sc closing", ended=lambda _: ended.set())
        except RuntimeError:  # asyncio's group has died: then it is no task of its own
            return clean_up
        return wait


def _root(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception that ended the group: rather a KeyboardInterrupt than what it set off."""
    leaves = list(_leaves(group))
    for leaf in leaves:
        if not isinstance(leaf, (Exception, anyio.get_cancelled_exc_class())):
            return leaf
    return leaves[0]


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(cast("BaseExceptionGroup[BaseException]", error))
        else:
            yield error
