"""An event on trio that takes little while nobody waits for it. Imported only there.

trio's own has a set, which takes four times as much as all of this one: requests have several
events each, and wait for few of them. This module knows nothing of requests.
"""

from __future__ import annotations

from typing import Any

from trio.lowlevel import (
    Abort,
    Task,
    checkpoint,
    current_task,
    reschedule,
    wait_task_rescheduled,
)


class TrioEvent:
    """Is set once; any number of tasks can wait for it."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[Task] | None = None

    def set(self) -> None:
        """Set it, and wake all waiters."""
        self._is_set = True
        waiting, self._waiting = self._waiting, None
        for task in waiting or ():
            reschedule(task)

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    async def wait(self) -> None:
        """Wait for it."""
        if self._is_set:
            await checkpoint()
            return
        task = current_task()
        waiting = self._waiting
        if waiting is None:
            waiting = self._waiting = []
        waiting.append(task)

        def abort(_: Any) -> Abort:
            waiting.remove(task)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)
