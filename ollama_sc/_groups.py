"""The calls that live: their registry, their places, what can be done to all of them.

A `CallGroup` holds the calls of a client or of a group below it; groups form a tree, and `abort`
reaches down. This module may know the calls; it knows nothing of what is being asked.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import anyio
from anyio.lowlevel import EventLoopToken, current_token

from ._calls import CLEANUP_SECONDS, PHASES, Call, Phase, operation_of
from ._errors import ClientClosedError
from ._owner import TaskOwner, insist
from ._timeouts import Timeouts
from ._waiting import Event, Scope, event_maker, scope_maker

T = TypeVar("T")


class Slots:
    """The places for requests in flight: first come, first served; unlimited by default."""

    def __init__(self, limit: int | None) -> None:
        # fast_acquire: a request has many checkpoints of its own.
        self._semaphore = (
            None if limit is None else anyio.Semaphore(limit, max_value=limit, fast_acquire=True)
        )

    async def acquire(self) -> None:
        """Wait for a place. A wait that is cancelled takes none."""
        if self._semaphore is not None:
            await self._semaphore.acquire()

    def release(self) -> None:
        """Give a place back."""
        if self._semaphore is not None:
            self._semaphore.release()

    @property
    def free(self) -> float:
        """The places that nobody has."""
        return math.inf if self._semaphore is None else self._semaphore.value


class Statistics(NamedTuple):
    """What a client or group is doing at this moment.

    The first four count requests by phase, those of groups below included; the last two count
    connections of the whole client (zero where a transport of your own does not tell).
    """

    waiting: int
    connecting: int
    sending: int
    receiving: int
    open: int
    idle: int

    @property
    def in_flight(self) -> int:
        """The requests that `max_in_flight` counts: all but those that wait for a place."""
        return self.connecting + self.sending + self.receiving


class CallGroup:
    """The calls that live, and the groups below."""

    def __init__(self, owner: TaskOwner, slots: Slots, name: str = "client") -> None:
        self.live: set[Call[Any]] = set()
        self.name = name
        self._slots = slots
        self.token: EventLoopToken | None = None
        self.new_event: Callable[[], Event] = anyio.Event
        self.new_scope: Callable[[], Scope] = anyio.CancelScope
        self._owner = owner
        self._parent: CallGroup | None = None
        self._groups: set[CallGroup] = set()
        self._draining = False
        self._closed = f"the {name} is not open: use `async with`"

    def open(self, parent: CallGroup | None = None) -> None:
        """Let requests in, from now on; once."""
        if self.token is not None:
            raise ClientClosedError(f"a {self.name} can be opened only once: make another one")
        if parent is not None:
            parent.check_open()
            parent._groups.add(self)
            self._parent = parent
        self.token = current_token()
        self.new_event = event_maker(self.token)
        self.new_scope = scope_maker(self.token)
        self._closed = ""

    def check_open(self, label: str | None = None) -> None:
        """Raise `ClientClosedError` unless requests may start."""
        if self._closed:
            raise ClientClosedError(self._closed, request=label)

    def start(
        self, call: Call[T], work: Callable[[], Awaitable[T]], slots: Slots | None = None
    ) -> None:
        """Start the task of a call. It is registered before anything else can run."""
        part_of = call.part_of
        if not (self._draining and part_of is not None and not part_of.ended.is_set()):
            self.check_open(call.label)
        token = self.token
        if token is None or current_token().native_token is not token.native_token:
            raise ClientClosedError(
                f"the {self.name} was opened in another event loop", request=call.label
            )
        self.live.add(call)
        try:
            self._owner.start(
                call.run,
                work,
                slots or self._slots,
                name=f"ollama_sc {call.label}",
                ended=call.settle,
            )
        except BaseException:
            self.live.discard(call)
            raise

    async def operation(
        self, label: str, timeouts: Timeouts, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Run something that makes requests of its own, as a call that takes no place itself.

        Abort and close reach it between its requests as they reach those.
        """
        call = Call[T](self, label, timeouts)
        self.start_operation(call, work)
        return await call.outcome()

    def start_operation(self, call: Call[T], work: Callable[[], Awaitable[T]]) -> None:
        """Start the task of an operation; whoever does waits for it, or holds it, by itself."""
        call.phase = None

        async def inside() -> T:
            operation_of.set(call)
            return await work()

        self.start(call, inside, slots=Slots(None))

    @property
    def state(self) -> str:
        """``"open"``, or why it is not."""
        return self._closed or "open"

    def settle(self) -> None:
        """Give calls an outcome whose task never ran; once the task group has ended."""
        for call in tuple(self.calls()):
            call.settle()

    def calls(self) -> Iterator[Call[Any]]:
        """Every call that lives here and below."""
        yield from tuple(self.live)
        for group in tuple(self._groups):
            yield from group.calls()

    def abort(self, reason: object) -> int:
        """End every call here and below; how many that were, the parts of one not counted."""
        return sum(call.abort(reason) and call.part_of is None for call in tuple(self.calls()))

    def refuse(self, why: str, *, draining: bool = False) -> None:
        """Let no request in any more; while draining, operations that live may still finish."""
        self._closed = why
        self._draining = draining
        for group in self._groups:
            group.refuse(why, draining=draining)

    async def end(self, reason: object) -> int:
        """End every call here and below, and wait until they are gone; how many that were."""
        count = self.abort(reason)
        await insist(self.all_ended, CLEANUP_SECONDS)
        return count

    async def drain(self, grace: float) -> int:
        """Wait until nothing lives, at most `grace` seconds; end the rest; how many that were.

        A waiter that is cancelled ends the rest at once.
        """
        count = 0
        try:
            with anyio.move_on_after(grace):
                await self.all_ended()
        finally:
            count = await self.end(f"the {self.name} is shutting down")
        return count

    async def all_ended(self) -> None:
        """Wait until nothing lives here and below."""
        while calls := tuple(self.calls()):
            for call in calls:
                await call.ended.wait()

    async def leave(self) -> None:
        """Close a group below a client or another group: end what is left of its calls."""
        self.refuse(f"the {self.name} is closed")
        try:
            await self.end(f"{self.name} closed")
        finally:
            if self._parent is not None:
                self._parent._groups.discard(self)

    def phases(self) -> dict[Phase, int]:
        """How many requests are in which phase."""
        counts: dict[Phase, int] = dict.fromkeys(PHASES, 0)
        for call in self.calls():
            if call.phase is not None:
                counts[call.phase] += 1
        return counts
