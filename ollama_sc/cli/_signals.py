"""SIGINT and SIGTERM cancel the job; a second one ends the process at once."""

import os
import signal
from collections.abc import Awaitable, Callable

import anyio
from anyio.abc import TaskStatus


async def run_until_signal(
    work: Callable[[], Awaitable[None]], on_signal: Callable[[signal.Signals], None]
) -> signal.Signals | None:
    """Run a function that the first signal cancels, at once told by `on_signal`; returns it."""
    caught: signal.Signals | None = None
    failure: Exception | None = None
    scope = anyio.CancelScope()

    async def watch(*, task_status: TaskStatus[None]) -> None:
        nonlocal caught
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                if caught is not None:
                    os._exit(128 + number)  # safe: files are replaced atomically
                caught = number
                scope.cancel()
                on_signal(number)

    async with anyio.create_task_group() as tasks:
        with scope:
            await tasks.start(watch)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - raised below, where no group wraps it
                failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return caught if scope.cancelled_caught else None
