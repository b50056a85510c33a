"""Signals end the demo in order; Ctrl-Z stops it with the terminal as it was."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

import anyio
from anyio.abc import TaskStatus


async def until_signal(
    work: Callable[[], Awaitable[None]], stopped: Callable[[], AbstractContextManager[None]]
) -> int | None:
    """Run something that a signal cancels; returns that signal's number.

    Args:
        work: it.
        stopped: what holds while Ctrl-Z has stopped the process.
    """
    if sys.platform == "win32":  # asyncio has no such handlers there
        await work()
        return None
    ending = [signal.SIGINT, signal.SIGTERM, signal.SIGQUIT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        ending.append(signal.SIGHUP)
    caught: int | None = None
    scope = anyio.CancelScope()

    async def watch(*, task_status: TaskStatus[None]) -> None:
        nonlocal caught
        while True:
            with anyio.open_signal_receiver(*ending, signal.SIGTSTP) as signals:
                task_status.started()
                async for number in signals:
                    if number == signal.SIGTSTP:
                        break
                    # The end takes a moment: further signals change nothing.
                    caught = caught or number
                    scope.cancel()
            with stopped():
                os.killpg(0, signal.SIGTSTP)  # now with its usual meaning: the whole job stops
            task_status = anyio.TASK_STATUS_IGNORED

    async with anyio.create_task_group() as tasks:
        with scope:
            await tasks.start(watch)
            await work()
        tasks.cancel_scope.cancel()
    return caught if scope.cancelled_caught else None
