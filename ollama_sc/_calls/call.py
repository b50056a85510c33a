"""The life of a request: its task, its cancel scope, its phase, its outcome.

A `Call` is one task in the client's task group, once it has its place. It ends in one of these ways
and in no other: its work is done, its work fails, its caller is cancelled, it is aborted, a timeout
expires.

This module may know the errors and the timeouts; it knows nothing of HTTP or of what is asked.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from functools import partial
from typing import Any, Generic, Literal, Protocol, get_args

import anyio
from typing_extensions import TypeVar

from ollama_sc._errors import AbortError, ClientClosedError, OllamaError, RequestTimeout
from ollama_sc._loop.primitives import Event, Runtime, Scope
from ollama_sc._loop.shielding import CLEANUP_SECONDS, wait_shielded
from ollama_sc._timeouts import Timeouts

from .limiter import NO_LIMIT
from .observing import CallObserver
from .outcome import End, end_of

T = TypeVar("T")
Phase = Literal["waiting", "connecting", "sending", "receiving"]
PHASES: tuple[Phase, ...] = get_args(Phase)
TimeoutName = Literal["connect", "first_chunk", "idle", "total"]

# The operation that the running code belongs to: a call that is started in it is its child.
current_operation: ContextVar[Call[Any] | None] = ContextVar("current_operation", default=None)


def running_operations() -> Iterator[Call[Any]]:
    """The operations that the running code belongs to, of whichever clients; inner ones first."""
    operation = current_operation.get()
    while operation is not None:
        if not operation.ended.is_set():
            yield operation
        operation = operation.around


class Disconnects(Protocol):
    """A connection that a request has."""

    def disconnect(self) -> None:
        """Close it now, in whatever state, for a request that was cancelled."""


class Call(Generic[T]):
    """One request, or one operation of several requests: a task in the client's group.

    The caller starts it with `CallGroup.start` and waits with `outcome`. `work` runs inside the
    call's own cancel scope, which is shielded: what is cancelled around the *client* is no reason
    for a request to end, because its caller may be somewhere else, or be shielded itself.

    Attributes:
        phase: where it is; ``None`` for an operation, which is no request itself.
        ended: set once nothing of it is running any more.
        completed: whether its outcome is final: nothing can abort it any more.
        way: the proxy that its request goes through, as errors name it.
        interrupted: whether its consumer was cancelled while it waited for more.
        parent: the operation of the same client that it is a part of.
        client: of an operation, what tells its client from others.
        around: of an operation, the one that it was started in, of whichever client.
        links: of an operation, calls that stand for it at further clients.
        on_end: called with it when it has ended, by the group that started it.
        limiter: what its place is of.
        has_place: whether it has one, which it releases in the end.
        has_task: whether its task was started: one that waits for a place mostly has none yet.
        observer: is told how it proceeds; mostly there is none.
    """

    # Thousands can be active at a time.
    __slots__ = (
        "_abandoned",
        "_connection",
        "_deadline",
        "_error",
        "_reason",
        "_result",
        "_running_timeout",
        "_scope",
        "_total_deadline",
        "aborted",
        "around",
        "client",
        "completed",
        "ended",
        "has_place",
        "has_task",
        "interrupted",
        "label",
        "limiter",
        "links",
        "observer",
        "on_end",
        "parent",
        "phase",
        "runtime",
        "timeouts",
        "way",
    )

    observed_as_one = False  # of an operation: with all its requests
    # How long its caller and a closing client wait for its end: longer only for what runs code of
    # users in threads, which nothing can stop.
    cleanup_seconds = CLEANUP_SECONDS

    def __init__(self, runtime: Runtime, label: str, timeouts: Timeouts) -> None:
        self.runtime = runtime
        self.label = label
        self.timeouts = timeouts
        self.phase: Phase | None = "waiting"
        self.ended = runtime.new_event()
        self.interrupted = False
        self.completed = False
        self.way = ""
        self.parent: Call[Any] | None = None
        self.client: object = None
        self.around: Call[Any] | None = None
        self.links: Sequence[Call[Any]] = ()
        self.observer: CallObserver | None = None
        self.on_end: Callable[[Call[Any]], object] | None = None
        self.limiter = NO_LIMIT
        self.has_place = False
        self.has_task = False
        self.aborted = False
        self._scope: Scope | None = None  # until its task runs
        self._connection: Disconnects | None = None
        self._reason: object = None
        self._abandoned = False
        self._error: BaseException | None = None
        self._result: T | None = None
        self._running_timeout: TimeoutName = "total"
        self._deadline = self._total_deadline = math.inf
        if timeouts.total is not None:
            self._deadline = self._total_deadline = runtime.clock() + timeouts.total

    # -- for its caller, and for whoever ends it ---------------------------------------------

    def abort(self, reason: object) -> bool:
        """End it now, in whatever phase it is; whether there was anything to end.

        Raises:
            ClientClosedError: this is not its event loop's thread. Half of an abort would be done
                there, and nothing could end the call any more.
        """
        if self.completed or self.aborted or self.ended.is_set():
            return False
        if not self.runtime.is_here():
            raise ClientClosedError(
                "abort() was called outside of the event loop that the request runs in: "
                "from a thread it is anyio.from_thread.run_sync(client.abort)",
                request=self.label,
            )
        if self._is_whole():
            return False
        self.aborted = True
        self._reason = reason
        self._stop()
        if self._connection is not None:
            self._connection.disconnect()  # the server is to know before its task has its turn
        self._notify_abort()
        return True

    def _is_whole(self) -> bool:
        """Whether all of it has arrived, though nobody has taken note of that yet."""
        return self.completed

    def _stop(self) -> None:
        """Let it end: in its task, where it has one; if that has not begun yet, it sees it then."""
        if self._scope is not None:
            self._scope.cancel()
        elif not self.has_task:
            self.finalize()

    async def wait(self, event: Event) -> None:
        """Wait for an event of this call, as its caller.

        Cancelling the caller cancels the call: the caller's cancellation goes on after the call has
        ended.
        """
        try:
            await event.wait()
        except BaseException:
            self._abandoned = True
            self._stop()
            await self.wait_ended()
            raise

    async def wait_ended(self) -> None:
        """Wait, shielded, until the call has ended; not in its own work, where it cannot end."""
        if not self.ended.is_set() and self not in running_operations():
            await wait_shielded(self.ended.wait, self.cleanup_seconds, self.runtime.shield)

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

    # -- for its work: phases and timeouts ---------------------------------------------------

    def restart_timeout(self, name: TimeoutName | None) -> None:
        """Restart the clock of a timeout, in place of the one that ran; ``None`` stops it."""
        seconds = None if name is None else getattr(self.timeouts, name)
        if seconds is None and self._deadline == self._total_deadline:
            return  # as before
        scope = self._scope
        assert scope is not None
        if scope.cancel_called:
            return  # a timeout has expired already, and is the one to be named
        deadline = math.inf if seconds is None else self.runtime.clock() + seconds
        if name is None or deadline >= self._total_deadline:
            name, deadline = "total", self._total_deadline
        self._running_timeout = name
        if deadline != self._deadline:
            self._deadline = scope.deadline = deadline

    def on_connecting(self) -> None:
        """A connection is being opened for it."""
        self.phase = "connecting"
        self.restart_timeout("connect")

    def on_sending(self, connection: Disconnects | None = None) -> None:
        """There is a connection, which can be closed at once where it is known."""
        self.phase = "sending"
        self._connection = connection
        self.restart_timeout(None)
        if self.observer is not None:
            self.observer.connected()

    def on_sent(self) -> None:
        """All of it is on its way: the response is next."""
        self.phase = "receiving"
        self.restart_timeout("first_chunk")
        if self.observer is not None:
            self.observer.sent()

    def on_released(self) -> None:
        """The connection is no longer its own."""
        self._connection = None

    def timed_out(self, timeout: TimeoutName) -> RequestTimeout:
        """The error for a timeout that expired."""
        seconds = getattr(self.timeouts, timeout)
        what = {
            "connect": "no connection",
            "first_chunk": "no answer",
            "idle": "nothing sent or received",
            "total": "not done",
        }[timeout]
        within = ("in time" if seconds is None else f"within {seconds:g} s") + self.way
        return RequestTimeout(
            f"{what} {within} (the limit {timeout!r})",
            limit=timeout,
            seconds=seconds,
            request=self.label,
        )

    # -- its task ----------------------------------------------------------------------------

    async def run(self, work: Callable[[], Awaitable[T]]) -> None:  # noqa: C901 - one case each
        """Run the call; the function of its task.

        There are five cases. It was ended before. The work returns, or raises an exception: either
        is stored for the caller. The scope was cancelled, by an abort, an abandoning caller or a
        timeout: the error that says so is stored, and the cancellation ends at the scope. Anything
        else ends the program or comes from asyncio's own `Task.cancel`: an `AbortError` is stored,
        and it leaves, but for the latter.
        """
        if self.aborted or self._abandoned:
            self.finalize()
            return
        self._scope = scope = self.runtime.new_scope(deadline=self._deadline)
        try:
            with scope:
                if not self.has_place:
                    turn = self.runtime.new_event()
                    self.limiter.wait(self, turn.set)
                    await turn.wait()
                if self.observer is not None:
                    self.observer.slot_acquired()
                begun = work()
                del work  # it holds all that is sent
                result = await begun
                if not self.aborted:
                    self._result = result
                    self.completed = True
            if not self.completed:
                self._error = self._cancellation_error()
        except Exception as error:  # noqa: BLE001 - the caller gets it
            if not self.completed:
                self._error = self._abort_error(error) if self.aborted else error
        except BaseException as error:
            if not self.completed:
                self._error = self._abort_error(error)
            native = isinstance(error, anyio.get_cancelled_exc_class())
            if native and anyio.current_effective_deadline() != -math.inf:
                # Somebody cancelled this very task, with asyncio's own means. Leaving as a
                # cancellation would make the group cancel itself and with it the user's code.
                return
            raise
        finally:
            self.finalize()

    def _cancellation_error(self) -> OllamaError:
        if self.aborted or self._abandoned:
            return self._abort_error()
        return self.timed_out(self._running_timeout)

    def _abort_error(self, cause: BaseException | None = None) -> AbortError:
        """The error for an abort, or else for what ended the task from outside of this library."""
        reason = self._reason if self.aborted else "its task was cancelled"
        text = "aborted" if reason is None else f"aborted: {reason}"
        error = AbortError(text, reason=reason, request=self.label)
        error.__cause__ = cause
        return error

    def finalize(self, _task: object = None) -> None:
        """Fix the outcome, leave the registry, wake all waiters; also where the task never ran.

        Its place goes to the next one, whose task may start in here.
        """
        if self.ended.is_set():
            return
        if not self.completed and self._error is None:
            self._error = self._abort_error()
        self._connection = None
        if self.on_end is not None:
            self.on_end(self)
        if self.observer is not None:
            self.observer.ended(self)
        self.ended.set()
        self._notify_end()
        if self.has_place:
            self.has_place = False
            self.limiter.release()
        else:
            self.limiter.withdraw(self)

    # -- for its observer --------------------------------------------------------------------

    def end(self) -> tuple[End, BaseException | None]:
        """How it ended, and with which error."""
        error = self._error
        how = end_of(
            error,
            completed=self.completed,
            aborted=self.aborted,
            abandoned=self._abandoned,
            reason=self._reason,
        )
        return how, error

    @property
    def is_part_of_one(self) -> bool:
        """Whether it belongs to a job, which is observed as one."""
        return self.parent is not None and self.parent.observed_as_one

    @property
    def reply(self) -> object:
        """What it has brought; of a stream, what has arrived."""
        return self._result

    # -- for streams -------------------------------------------------------------------------

    def _notify_abort(self) -> None:
        """Discard what waits for the consumer, whatever the task is doing."""

    def _notify_end(self) -> None:
        """Tell the consumer that nothing more will come."""

    def __repr__(self) -> str:
        if self.ended.is_set():
            state = "aborted" if self.aborted else "ended"
        elif self.aborted:
            state = "aborting"
        else:
            state = self.phase or "running"
        return f"<{type(self).__name__} {self.label}: {state}>"


def abort_unclosed(
    handle: object, call: Call[Any] | None, what: str, use: str = "async with"
) -> None:
    """Abort a call whose consumer has dropped its handle; the body of the handle's ``__del__``.

    The garbage collector runs in any thread and at any point: this only schedules the abort.
    """
    if call is None or call.completed or call.aborted or call.ended.is_set():
        return
    token: Any = call.runtime.token and call.runtime.token.native_token
    schedule = getattr(token, "run_sync_soon", None) or token.call_soon_threadsafe
    with suppress(RuntimeError):  # that loop is gone, and the request with it
        schedule(partial(call.abort, f"the {what} was dropped"))
    # Last, because it can raise. A consumer that was cancelled had no chance to close.
    if not call.interrupted:
        warnings.warn(
            f"{handle!r} was dropped without being closed: use `{use}`",
            ResourceWarning,
            stacklevel=3,
            source=handle,
        )
