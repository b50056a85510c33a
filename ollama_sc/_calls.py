"""The life of a request: its task, its cancel scope, its phase, its outcome.

A `Call` is one task in the client's task group. It ends in one of these ways and in no other: its
work is done, its work fails, its caller is cancelled, it is aborted, a time limit passes. A
`CallGroup` is the registry of the calls that live; groups form a tree, and `abort` reaches down.

This module may know the errors and the limits; it knows nothing of HTTP or of what is being asked.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from functools import partial
from typing import Any, Generic, Literal, NamedTuple, get_args

import anyio
from anyio.lowlevel import EventLoopToken, current_token
from typing_extensions import TypeVar

from ._errors import AbortError, ClientClosedError, OllamaError, RequestTimeout
from ._owner import TaskOwner, insist
from ._timeouts import Timeouts
from ._waiting import Event, event_maker

T = TypeVar("T")
Phase = Literal["waiting", "connecting", "sending", "receiving"]
PHASES: tuple[Phase, ...] = get_args(Phase)
LimitName = Literal["connect", "first_chunk", "idle", "total"]

# How long anybody waits, under a shield, for a cancelled call to be gone. Closing a connection
# takes microseconds; the limit is for what nobody foresaw.
CLEANUP_SECONDS = 5.0


# The operation that the running code belongs to: what it asks for is a part of it.
_operation: ContextVar[Call[Any] | None] = ContextVar("_operation", default=None)


class Call(Generic[T]):
    """One request, or one operation of several requests: a task in the client's group.

    The caller creates it with `CallGroup.start` and waits with `outcome`. `work` runs inside the
    call's own cancel scope, which is shielded: what is cancelled around the *client* is no reason
    for a request to end, because its caller may be somewhere else, or be shielded itself.
    """

    def __init__(self, group: CallGroup, label: str, timeouts: Timeouts) -> None:
        self.label = label
        self.timeouts = timeouts
        self.phase: Phase | None = "waiting"  # None: an operation, which is no request itself
        self.ended = group.new_event()
        self.interrupted = False  # its consumer was cancelled while it waited for more
        self.finished = False  # its outcome is certain: nothing can abort it any more
        self.part_of = _operation.get()
        self.group = group
        self._scope = anyio.CancelScope(shield=True)
        self.aborted = False
        self._reason: object = None
        self._abandoned = False
        self._error: BaseException | None = None
        self._result: T | None = None
        self._limit: LimitName = "total"
        self._deadline = self._total_deadline = math.inf
        if timeouts.total is not None:
            self._deadline = self._total_deadline = anyio.current_time() + timeouts.total
            self._scope.deadline = self._deadline

    # -- what others do to it ----------------------------------------------------------------

    def abort(self, reason: object) -> bool:
        """End it now, in whatever phase it is; whether there was anything to end."""
        if self.finished or self.aborted or self.ended.is_set():
            return False
        self.aborted = True
        self._reason = reason
        self._scope.cancel()
        self._on_abort()
        return True

    async def wait(self, event: Event) -> None:
        """Wait for an event of this call, as its caller.

        A caller that is cancelled takes the call along: it returns, with its own cancellation,
        after the call is gone.
        """
        try:
            await event.wait()
        except BaseException:
            self._abandoned = True
            self._scope.cancel()
            await self.gone()
            raise

    async def gone(self) -> None:
        """Wait until the call has ended, whatever happens to the one who waits."""
        await insist(self.ended.wait, CLEANUP_SECONDS)

    async def outcome(self) -> T:
        """Wait for the result, as its caller; raise what the call failed with."""
        await self.wait(self.ended)
        # The error's traceback holds this call, which must not hold the error any more: such
        # cycles would keep replies alive until the garbage collector comes.
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error
        return self._result  # type: ignore[return-value]  # no error, hence a result

    def raise_error(self) -> None:
        """Raise what the call failed with, if it did; as often as it is called."""
        error = self._error
        if error is None:
            return
        if isinstance(error, OllamaError):
            # For the next time, without the traceback that leads back here: see `outcome`.
            self._error = copy(error)
        try:
            raise error
        finally:
            del error

    # -- what its work tells it --------------------------------------------------------------

    def start_limit(self, name: LimitName | None) -> None:
        """Start the clock of a limit afresh, in place of the one that ran; ``None`` stops it."""
        seconds = None if name is None else getattr(self.timeouts, name)
        if seconds is None and self._deadline == self._total_deadline:
            return  # as before
        if self._scope.cancel_called:
            return  # a limit has passed already, and is the one to be named
        deadline = math.inf if seconds is None else anyio.current_time() + seconds
        if name is None or deadline >= self._total_deadline:
            name, deadline = "total", self._total_deadline
        self._limit = name
        if deadline != self._deadline:
            self._deadline = self._scope.deadline = deadline

    def connecting(self) -> None:
        """A connection is being opened for it."""
        self.phase = "connecting"
        self.start_limit("connect")

    def sending(self) -> None:
        """There is a connection."""
        self.phase = "sending"
        self.start_limit(None)

    def sent(self) -> None:
        """All of it is on its way: the answer is next."""
        self.phase = "receiving"
        self.start_limit("first_chunk")

    def timed_out(self, limit: LimitName) -> RequestTimeout:
        """Say that a limit passed."""
        seconds = getattr(self.timeouts, limit)
        what = {
            "connect": "no connection",
            "first_chunk": "no answer",
            "idle": "nothing sent or received",
            "total": "not done",
        }[limit]
        within = "in time" if seconds is None else f"within {seconds:g} s"
        return RequestTimeout(
            f"{what} {within} (the limit {limit!r})",
            limit=limit,
            seconds=seconds,
            request=self.label,
        )

    # -- its task ----------------------------------------------------------------------------

    async def run(self, work: Callable[[], Awaitable[T]], slots: Slots) -> None:
        """Be the task.

        Whatever happens is stored for the caller; nothing leaves but what ends the program, such
        as a KeyboardInterrupt.
        """
        try:
            with self._scope:
                await slots.acquire()
                try:
                    result = await work()
                finally:
                    slots.release()
                if not self.aborted:
                    self._result = result
                    self.finished = True
            if not self.finished:
                self._error = self._why_cancelled()
        except Exception as error:  # noqa: BLE001 - the caller gets it
            if not self.finished:
                self._error = self._abort_error(error) if self.aborted else error
        except BaseException as error:
            if not self.finished:
                self._error = self._abort_error(error)
            native = isinstance(error, anyio.get_cancelled_exc_class())
            if native and anyio.current_effective_deadline() != -math.inf:
                # Somebody cancelled this very task, with asyncio's own means. Leaving as a
                # cancellation would make the group cancel itself and with it the user's code.
                return
            raise
        finally:
            self.settle()

    def _why_cancelled(self) -> OllamaError:
        if self.aborted or self._abandoned:
            return self._abort_error()
        return self.timed_out(self._limit)

    def _abort_error(self, cause: BaseException | None = None) -> AbortError:
        """Say that it was aborted, or else that something outside of this library ended it."""
        reason = self._reason if self.aborted else "its task was cancelled"
        text = "aborted" if reason is None else f"aborted: {reason}"
        error = AbortError(text, reason=reason, request=self.label)
        error.__cause__ = cause
        return error

    def settle(self) -> None:
        """Leave the registry and wake who waits. A call whose task never ran is killed here."""
        if self.ended.is_set():
            return
        if not self.finished and self._error is None:
            self._error = self._abort_error()
        self.group.live.discard(self)
        self.ended.set()
        self._on_end()

    # -- for streams -------------------------------------------------------------------------

    def _on_abort(self) -> None:
        """Tell the consumer at once, whatever the task is doing."""

    def _on_end(self) -> None:
        """Tell the consumer that nothing more will come."""


def drop(handle: object, call: Call[Any] | None, what: str) -> None:
    """Be the ``__del__`` of what a consumer holds of a call: abort what nobody will take any more.

    The collector runs in any thread and at any point: this only asks the event loop to do it.
    """
    if call is None or call.finished or call.aborted or call.ended.is_set():
        return
    token: Any = call.group.token and call.group.token.native_token
    schedule = getattr(token, "run_sync_soon", None) or token.call_soon_threadsafe
    with suppress(RuntimeError):  # that loop is gone, and the request with it
        schedule(partial(call.abort, f"the {what} was dropped"))
    # Last, because it can raise. A consumer that was cancelled had no chance to close.
    if not call.interrupted:
        warnings.warn(
            f"{handle!r} was dropped without being closed: use `async with`",
            ResourceWarning,
            stacklevel=3,
            source=handle,
        )


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
            _operation.set(call)
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
