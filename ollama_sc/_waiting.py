"""Events and scopes made of the event loop's own means.

Each request has a scope and waits for events, and so does each network read of a stream; anyio's
cost more. This module knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, cast

import anyio
from anyio.lowlevel import EventLoopToken

if TYPE_CHECKING:
    import asyncio


# Whoever takes or sends data in a loop has a checkpoint in one of so many turns. Where data is
# there already, nothing else lets other tasks run. And on asyncio a scope of anyio's cancels a task
# only while what it waits for has not happened: where data comes faster than it is taken, each wait
# is over before the loop asks, and a cancellation would have to wait for the end of the data.
TURNS_UNTIL_CHECKPOINT = 16


class Event(Protocol):
    """Happens once; any number of tasks can wait for it, in one event loop."""

    def set(self) -> None:
        """Let it happen, and wake all who wait."""

    def is_set(self) -> bool:
        """Whether it has happened."""
        ...

    async def wait(self) -> None:
        """Wait for it."""


class Scope(Protocol):
    """A cancel scope that nothing outside of it cancels."""

    @property
    def deadline(self) -> float:
        """When it is cancelled by itself, on the event loop's clock."""
        ...

    @deadline.setter
    def deadline(self, value: float, /) -> None: ...

    @property
    def cancel_called(self) -> bool:
        """Whether it was cancelled, or its deadline has passed."""
        ...

    def cancel(self) -> object:
        """Cancel what runs in it."""

    def __enter__(self) -> object: ...

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> bool | None: ...


def is_trio(token: EventLoopToken) -> bool:
    """Whether an event loop is trio's, and not asyncio's."""
    return token.backend_class.__name__ == "TrioBackend"


def scope_maker(token: EventLoopToken) -> Callable[[], Scope]:
    """What makes shielded scopes for an event loop."""
    if is_trio(token):
        import trio  # noqa: PLC0415

        return partial(trio.CancelScope, shield=True)
    return partial(anyio.CancelScope, shield=True)


def event_maker(token: EventLoopToken) -> Callable[[], Event]:
    """What makes events for an event loop."""
    if is_trio(token):
        import trio  # noqa: PLC0415 - only who runs on it has it

        return trio.Event
    return partial(_AsyncioEvent, cast("asyncio.AbstractEventLoop", token.native_token))


class _AsyncioEvent:
    """asyncio's own asks for the running loop, and is not made to be made so often."""

    __slots__ = ("_loop", "_others", "_set", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._set = False
        self._waiter: asyncio.Future[Any] | None = None
        self._others: set[asyncio.Future[Any]] | None = None  # mostly there is one at a time

    def set(self) -> None:
        if not self._set:
            self._set = True
            for waiter in (self._waiter, *(self._others or ())):
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)

    def is_set(self) -> bool:
        return self._set

    async def wait(self) -> None:
        if not self._set:
            waiter = self._loop.create_future()
            if self._waiter is None:
                self._waiter = waiter
            elif self._others is None:
                self._others = {waiter}
            else:
                self._others.add(waiter)
            try:
                await waiter
            finally:
                if self._waiter is waiter:
                    self._waiter = None
                elif self._others is not None:
                    self._others.discard(waiter)
