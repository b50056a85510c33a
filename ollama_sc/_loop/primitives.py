"""Events and scopes made of the event loop's own means.

Each request has a scope and waits for events, and so does each network read of a stream; anyio's
cost more. This module knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import anyio
from msgspec import Struct

from ollama_sc._platform import in_browser

from .webloop import mend_deadlines

if TYPE_CHECKING:
    import asyncio

    from anyio.lowlevel import EventLoopToken


# A loop that receives or sends data has a checkpoint every so many iterations. Where data is there
# already, nothing else lets other tasks run. And on asyncio a scope of anyio's cancels a task
# only while what it waits for has not happened: where data comes faster than it is taken, each wait
# is over before the loop asks, and a cancellation would have to wait for the end of the data.
CHECKPOINT_INTERVAL = 16


class Event(Protocol):
    """Is set once; any number of tasks can wait for it, in one event loop."""

    def set(self) -> None:
        """Set it, and wake all waiters."""

    def is_set(self) -> bool:
        """Whether it is set."""
        ...

    async def wait(self) -> None:
        """Wait for it."""


class Waiter(Protocol):
    """Is awaited by one task, which `set_result` wakes: a future, where there are such."""

    def done(self) -> bool:
        """Whether nobody waits any more: it was woken, or cancelled."""
        ...

    def set_result(self, result: None, /) -> None:
        """Wake it."""

    def __await__(self) -> Generator[Any, None, None]: ...


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


class Runtime(Struct, frozen=True):
    """An event loop, and the cheapest events and shielded scopes that it has.

    Attributes:
        token: the event loop; ``None`` where it is not known yet.
        is_current: whether this code runs in a task of it.
        is_here: whether this code runs in its thread while it runs, in a task or in a callback.
        clock: what its deadlines are on; may be asked in its callbacks, too.
        new_event: makes an event.
        new_waiter: makes what one task can wait for, once.
        new_scope: makes a shielded cancel scope, with a `deadline` or without one.
    """

    token: EventLoopToken | None
    is_current: Callable[[], bool]
    is_here: Callable[[], bool]
    clock: Callable[[], float]
    new_event: Callable[[], Event]
    new_waiter: Callable[[], Waiter]
    new_scope: Callable[..., Scope]

    @classmethod
    def of(cls, token: EventLoopToken) -> Self:
        """The runtime of an event loop."""
        if in_browser() and not is_trio(token):
            mend_deadlines(token.native_token)
        return cls(
            token,
            _asker(token),
            _place_asker(token),
            _clock(token),
            _event_maker(token),
            _waiter_maker(token),
            _scope_maker(token),
        )

    def shield(self, seconds: float) -> Scope:
        """A shielded scope, at most for so many seconds."""
        return self.new_scope(deadline=self.clock() + seconds)


class _EventWaiter:
    """One where there are no futures."""

    __slots__ = ("_event", "done")

    def __init__(self, new_event: Callable[[], Event]) -> None:
        self._event = new_event()
        self.done = self._event.is_set

    def set_result(self, _result: None) -> None:
        self._event.set()

    def __await__(self) -> Generator[Any, None, None]:
        return self._event.wait().__await__()


# By functions: anyio loads most of itself when one of these names is first used.
UNOPENED = Runtime(
    None,
    lambda: False,
    lambda: True,
    lambda: anyio.current_time(),  # noqa: PLW0108 - see above
    lambda: anyio.Event(),  # noqa: PLW0108
    lambda: _EventWaiter(anyio.Event),
    lambda: anyio.CancelScope(shield=True),
)


def _clock(token: EventLoopToken) -> Callable[[], float]:
    if is_trio(token):
        import trio  # noqa: PLC0415

        return trio.current_time
    return cast("asyncio.AbstractEventLoop", token.native_token).time


def _asker(token: EventLoopToken) -> Callable[[], bool]:
    """Each request asks, and `current_token` takes three times as long."""
    native: Any = token.native_token
    if is_trio(token):
        from trio.lowlevel import current_trio_token  # noqa: PLC0415

        def in_trio() -> bool:
            try:
                return current_trio_token() is native
            except RuntimeError:
                return False

        return in_trio
    from asyncio import current_task, get_running_loop  # noqa: PLC0415

    def in_asyncio() -> bool:
        try:  # it may run trio as its guest, whose tasks are none of its own
            return get_running_loop() is native and current_task(native) is not None
        except RuntimeError:
            return False

    return in_asyncio


def _place_asker(token: EventLoopToken) -> Callable[[], bool]:
    if is_trio(token):
        return _asker(token)  # true in callbacks, too
    from asyncio import get_running_loop  # noqa: PLC0415

    def in_asyncio() -> bool:
        try:
            return get_running_loop() is token.native_token
        except RuntimeError:
            return False

    return in_asyncio


def _scope_maker(token: EventLoopToken) -> Callable[..., Scope]:
    if is_trio(token):
        import trio  # noqa: PLC0415

        return partial(trio.CancelScope, shield=True)
    # Not by `anyio.CancelScope`, which asks each time which event loop runs.
    return partial(token.backend_class.create_cancel_scope, shield=True)


def _event_maker(token: EventLoopToken) -> Callable[[], Event]:
    if is_trio(token):
        from .trio_event import TrioEvent  # noqa: PLC0415 - only who runs on it has it

        return TrioEvent
    return partial(_AsyncioEvent, cast("asyncio.AbstractEventLoop", token.native_token))


def _wake(waiter: asyncio.Future[Any]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _waiter_maker(token: EventLoopToken) -> Callable[[], Waiter]:
    if is_trio(token):
        return partial(_EventWaiter, _event_maker(token))

    loop = cast("asyncio.AbstractEventLoop", token.native_token)
    return cast("Callable[[], Waiter]", loop.create_future)


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
            if self._waiter is not None:
                _wake(self._waiter)
            for waiter in self._others or ():
                _wake(waiter)

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
