"""Events made of the event loop's own means.

Each request waits for some, and so does each network read of a stream; an `anyio.Event` costs
several times as much. This module knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast

from anyio.lowlevel import EventLoopToken

if TYPE_CHECKING:
    import asyncio


class Event(Protocol):
    """Happens once; any number of tasks can wait for it, in one event loop."""

    def set(self) -> None:
        """Let it happen, and wake all who wait."""

    def is_set(self) -> bool:
        """Whether it has happened."""
        ...

    async def wait(self) -> None:
        """Wait for it."""


def is_trio(token: EventLoopToken) -> bool:
    """Whether an event loop is trio's, and not asyncio's."""
    return token.backend_class.__name__ == "TrioBackend"


def event_maker(token: EventLoopToken) -> Callable[[], Event]:
    """What makes events for an event loop."""
    if is_trio(token):
        import trio  # noqa: PLC0415 - only who runs on it has it

        return trio.Event
    return partial(_AsyncioEvent, cast("asyncio.AbstractEventLoop", token.native_token))


class _AsyncioEvent:
    """asyncio's own asks for the running loop, and is not made to be made so often."""

    __slots__ = ("_loop", "_set", "_waiters")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._set = False
        self._waiters: list[asyncio.Future[Any]] = []

    def set(self) -> None:
        if not self._set:
            self._set = True
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def is_set(self) -> bool:
        return self._set

    async def wait(self) -> None:
        if not self._set:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)
