"""A task group that one object owns, and whose end changes no exception.

A plain task group wraps whatever leaves it in an ``ExceptionGroup`` and cancels its tasks when the
body fails. The owner of requests needs neither: its requests end because they are told to, and an
exception of the body leaves as itself. This module knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup


async def insist(wait: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Wait for what will come, under a shield, at most so long.

    asyncio's own cancellation goes through every shield: it is held back, and raised in the end.
    """
    held_back: BaseException | None = None
    with anyio.move_on_after(seconds, shield=True) as scope:
        while True:
            try:
                await wait()
            except anyio.get_cancelled_exc_class() as error:
                if scope.cancel_called:
                    raise
                held_back = error
            else:
                break
    if held_back is not None:
        try:
            raise held_back
        finally:
            del held_back


class TaskOwner:
    """Opens a task group in `open()` and leaves it in `close()`, in one and the same task."""

    __slots__ = ("_group",)

    def __init__(self) -> None:
        self._group: TaskGroup | None = None

    async def open(self) -> None:
        """Enter the group."""
        group = anyio.create_task_group()
        await group.__aenter__()
        self._group = group

    def start(
        self, function: Callable[..., Coroutine[Any, Any, None]], *args: object, name: str
    ) -> None:
        """Start a task. It hands its outcome over itself: only what ends the program leaves it."""
        assert self._group is not None
        self._group.start_soon(function, *args, name=name)

    async def close(
        self,
        end_tasks: Callable[[], object],
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Tell the tasks to end with `end_tasks`, and wait until they have.

        The wait is shielded: a cancellation that arrives meanwhile neither stops it nor replaces
        the body's exception. Where a task died of a ``BaseException`` (a KeyboardInterrupt), that
        one is raised.
        """
        group = self._group
        assert group is not None
        body: tuple[Any, Any, Any] = (None, None, None)
        if group.cancel_scope.cancel_called:
            # Nobody here cancels the group, so a task died of a BaseException and the body was
            # cancelled for it. The group has to see that cancellation to settle it.
            body = (exc_type, exc, traceback)
        group.cancel_scope.shield = True
        end_tasks()
        try:
            await group.__aexit__(*body)
        except BaseExceptionGroup as group_error:
            raise _root(group_error) from None
        except anyio.get_cancelled_exc_class():
            # A native cancellation on asyncio, which no shield keeps out.
            if exc is None:
                raise
        finally:
            del exc, traceback, body, group


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
