"""The life of a request: its task, its cancel scope, its phase, its outcome.

A `Call` is one task in the client's task group. It ends in one of these ways and in no other: its
work is done, its work fails, its caller is cancelled, it is aborted, a time limit passes.

This module may know the errors and the limits; it knows nothing of HTTP or of what is being asked.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, get_args

import anyio
from typing_extensions import TypeVar

from ._errors import AbortError, OllamaError, RequestTimeout
from ._owner import insist
from ._timeouts import Timeouts
from ._waiting import Event

if TYPE_CHECKING:
    from ._groups import CallGroup, Slots

T = TypeVar("T")
Phase = Literal["waiting", "connecting", "sending", "receiving"]
PHASES: tuple[Phase, ...] = get_args(Phase)
LimitName = Literal["connect", "first_chunk", "idle", "total"]

# How long anybody waits, under a shield, for a cancelled call to be gone. Closing a connection
# takes microseconds; the limit is for what nobody foresaw.
CLEANUP_SECONDS = 5.0


# The operation that the running code belongs to: what it asks for is a part of it.
operation_of: ContextVar[Call[Any] | None] = ContextVar("operation_of", default=None)


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
        self.part_of = operation_of.get()
        self.group = group
        self._scope = group.new_scope()
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

    def settle(self, _task: object = None) -> None:
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
