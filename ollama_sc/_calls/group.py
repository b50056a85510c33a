"""The active calls: their registry, and what can be done to all of them.

A `CallGroup` holds the calls of a client or of a group below it; groups form a tree, and `abort`
reaches down. This module may know the calls; it knows nothing of what is being asked.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextvars import copy_context
from typing import Any, NamedTuple, TypeVar

import anyio

from ollama_sc._errors import ClientClosedError
from ollama_sc._loop.primitives import UNOPENED, Runtime
from ollama_sc._loop.shielding import CLEANUP_SECONDS, wait_shielded
from ollama_sc._loop.task_group import NativeTaskGroup
from ollama_sc._timeouts import Timeouts

from . import observing
from .call import PHASES, Call, Phase, current_operation, running_operations
from .limiter import NO_LIMIT, Limiter

T = TypeVar("T")


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
        """The requests that `max_in_flight` counts: all but those that wait for the limiter."""
        return self.connecting + self.sending + self.receiving


class CallGroup:
    """The active calls of a client or group, and the groups below it.

    Attributes:
        active: the calls that were started here and have not ended.
        name: what errors call it: ``"client"`` or ``"group"``.
        runtime: the event loop that it was opened in.
    """

    def __init__(self, tasks: NativeTaskGroup, limiter: Limiter, name: str = "client") -> None:
        self.active: set[Call[Any]] = set()
        self.name = name
        self.runtime: Runtime = UNOPENED
        self._discard = self.active.discard  # bound once, not for each call
        self._tasks = tasks
        self._limiter = limiter
        self._parent: CallGroup | None = None
        self._client: object = self  # one for all groups of a client
        self._groups: set[CallGroup] = set()
        self._draining = False
        self._closed = f"the {name} is not open: use `async with`"

    # -- opening and closing -----------------------------------------------------------------

    def open(self, parent: CallGroup | None = None) -> None:
        """Accept requests from now on; once."""
        if self.runtime.token is not None:
            raise ClientClosedError(f"a {self.name} can be opened only once: make another one")
        if parent is not None:
            parent.check_open()
            parent._groups.add(self)
            self._parent = parent
            self._client = parent._client
        self.runtime = Runtime.of(anyio.lowlevel.current_token())
        self._closed = ""

    def check_open(self, label: str | None = None) -> None:
        """Raise `ClientClosedError` unless requests are accepted."""
        if self._closed:
            raise ClientClosedError(self._closed, request=label)

    @property
    def state(self) -> str:
        """``"open"``, or why it is not."""
        return self._closed or "open"

    def stop_accepting(self, why: str, *, draining: bool = False) -> None:
        """Reject new requests; while draining, not those of operations that are still active."""
        for group in self._tree():
            group._closed = why
            group._draining = draining

    async def aclose(self) -> None:
        """Close a group below a client or another group: end what is left of its calls."""
        self.stop_accepting(f"the {self.name} is closed")
        try:
            await self.abort_and_wait(f"{self.name} closed")
        finally:
            if self._parent is not None:
                self._parent._groups.discard(self)

    # -- calls -------------------------------------------------------------------------------

    def start(
        self,
        call: Call[T],
        work: Callable[[], Awaitable[T]],
        limiter: Limiter | None = None,
        subject: object = None,
    ) -> None:
        """Start the task of a call. It is registered before anything else can run.

        `subject` is for its observers: what it is about.
        """
        if current_operation.get() is not None:
            call.parent = self._running_operation()
        if call.parent is None or not self._draining:
            self.check_open(call.label)
        if not self.runtime.is_current():
            raise ClientClosedError(
                f"the {self.name} was opened in another event loop", request=call.label
            )
        self.active.add(call)
        call.on_end = self._discard
        if observing.is_observed():
            call.observer = observing.started(call, subject)
        if limiter is None and anyio.current_effective_deadline() == -math.inf:
            return  # its caller has been cancelled: nothing is sent, and the wait for it ends it
        call.limiter = limiter or self._limiter
        call.has_place = call.limiter.acquire()
        if not call.has_place and call.timeouts.total is None:
            # Its task starts when it has its turn. Until then nothing of it runs, and waiting costs
            # little. Where there is a clock to keep, the task keeps it, and waits itself.
            context = copy_context()
            call.limiter.wait(call, lambda: context.run(self._start_late, call, work))
            return
        try:
            self._start_task(call, work)
        except BaseException:
            call.finalize()
            raise

    def _start_task(self, call: Call[T], work: Callable[[], Awaitable[T]]) -> None:
        self._tasks.start(call.run, work, name=f"ollama_sc {call.label}", ended=call.finalize)
        call.has_task = True

    def _start_late(self, call: Call[T], work: Callable[[], Awaitable[T]]) -> None:
        """Start the task of a call that has waited for its place, in its caller's context."""
        try:
            self._start_task(call, work)
        except RuntimeError:  # the client's tasks are about to end
            call.finalize()

    def _running_operation(self) -> Call[Any] | None:
        """The operation of this client that the running code belongs to.

        Operations are known by a context variable, which other clients' code can see as well: in
        a tool that calls one, or in a thread that was started with this context.
        """
        for operation in running_operations():
            for one in (operation, *operation.links):
                if one.client is self._client and not one.ended.is_set():
                    return one
        return None

    async def operation(
        self, label: str, timeouts: Timeouts, work: Callable[[], Awaitable[T]]
    ) -> T:
        """Run something that makes requests of its own, as a call that the limiter does not count.

        Abort and close reach it between its requests as they reach those.
        """
        call: Call[T] = Call(self.runtime, label, timeouts)
        self.start_operation(call, work)
        return await call.outcome()

    def start_operation(
        self, call: Call[T], work: Callable[[], Awaitable[T]], subject: object = None
    ) -> None:
        """Start the task of an operation, without waiting for it."""
        call.phase = None
        call.client = self._client
        call.around = next(running_operations(), None)

        async def inside() -> T:
            current_operation.set(call)
            return await work()

        self.start(call, inside, limiter=NO_LIMIT, subject=subject)

    # -- all of them at once -----------------------------------------------------------------

    def _tree(self) -> Iterator[CallGroup]:
        """Yield this group and all below it, however deep they are nested."""
        waiting: list[CallGroup] = [self]
        while waiting:
            group = waiting.pop()
            waiting += group._groups
            yield group

    def calls(self) -> Iterator[Call[Any]]:
        """Every active call here and below."""
        for group in self._tree():
            yield from tuple(group.active)

    def phases(self) -> dict[Phase, int]:
        """How many requests are in which phase."""
        counts: dict[Phase, int] = dict.fromkeys(PHASES, 0)
        for call in self.calls():
            if call.phase is not None:
                counts[call.phase] += 1
        return counts

    def abort(self, reason: object) -> int:
        """End every call here and below; how many that were, parts of operations not counted."""
        return sum(call.abort(reason) and call.parent is None for call in tuple(self.calls()))

    async def abort_and_wait(self, reason: object) -> int:
        """End every call here and below, and wait until they have ended; how many that were."""
        count = self.abort(reason)
        await wait_shielded(self.all_ended, self.cleanup_seconds())
        return count

    def cleanup_seconds(self) -> float:
        """How long to wait for what was aborted."""
        return max((call.cleanup_seconds for call in self.calls()), default=CLEANUP_SECONDS)

    async def drain(self, grace: float) -> int:
        """Wait at most `grace` seconds until no call is active; abort the rest; how many that were.

        A cancelled wait aborts the rest at once.
        """
        count = 0
        try:
            with anyio.move_on_after(grace):
                await self.all_ended()
        finally:
            count = await self.abort_and_wait(f"the {self.name} is shutting down")
        return count

    async def all_ended(self) -> None:
        """Wait until no call is active here and below, but for those that this is a part of."""
        around = set(running_operations())
        while calls := [call for call in self.calls() if call not in around]:
            for call in calls:
                await call.ended.wait()

    def finalize(self) -> None:
        """Fix the outcome of calls whose task never ran; once the task group has ended."""
        for call in tuple(self.calls()):
            call.finalize()
