"""A task that enters and leaves something, for programs that open and close it in two places.

On asyncio alone: on trio a task group belongs to the place where it is entered. This module knows
nothing of requests.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from .shielding import wait_shielded

_holding: set[asyncio.Task[None]] = set()  # event loops have weak references alone


class Holder:
    """Holds a context manager open in a task of its own.

    Args:
        held: what it enters, and leaves when it is closed, or when the event loop ends its tasks.
    """

    def __init__(self, held: AbstractAsyncContextManager[object]) -> None:
        self._held = held
        self._loop = asyncio.get_running_loop()
        self._opened = asyncio.Event()
        self._closing = asyncio.Event()
        self._ended = asyncio.Event()
        self._error: BaseException | None = None

    @property
    def is_here(self) -> bool:
        """Whether the running event loop is the one that it belongs to."""
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:  # trio's
            return False

    async def open(self, seconds: float) -> None:
        """Enter it; raise what that raises. A cancelled call leaves it, within so many seconds."""
        task = self._loop.create_task(self._hold(), name="ollama_sc client")
        _holding.add(task)
        task.add_done_callback(_holding.discard)
        try:
            await self._opened.wait()
        except BaseException:
            task.cancel()
            await wait_shielded(self._ended.wait, seconds)
            raise
        self._raise_error()

    async def aclose(self, seconds: float) -> None:
        """Leave it, and wait so many seconds for that; raise what that raises.

        A cancelled call leaves it all the same.
        """
        self._closing.set()
        await wait_shielded(self._ended.wait, seconds)
        self._raise_error()

    async def _hold(self) -> None:
        try:
            async with self._held:
                self._opened.set()
                await self._closing.wait()
        except Exception as error:  # noqa: BLE001 - whoever opens or closes it gets it
            self._error = error
        finally:
            self._opened.set()
            self._ended.set()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
