"""An event loop in a thread, and calls into it that block the calling thread.

Calling threads share no lock with the event loop. A KeyboardInterrupt inside a
`threading.Condition`, which futures and anyio's portal are made of, can leave it locked, and the
event loop would block on it. So they share queues and flags, whose operations are atomic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context, ContextVar, copy_context
from copy import copy
from functools import partial
from queue import Empty, SimpleQueue
from sys import is_finalizing
from threading import Thread, current_thread, local
from typing import Any, Generic, TypeVar

import anyio
from anyio.lowlevel import current_token

from ollama_sc._errors import AbortError, ClientClosedError, OllamaError, RequestError
from ollama_sc._loop.primitives import UNOPENED, Runtime, Scope, is_trio
from ollama_sc._loop.shielding import CLEANUP_SECONDS
from ollama_sc._loop.task_group import NativeTaskGroup
from ollama_sc._loop.threads import ThreadedWork, current_threaded_work

_library: ContextVar[str | None] | None = None
with suppress(ImportError):  # trio brings it; without it, nobody asks
    from sniffio import current_async_library_cvar as _library

T = TypeVar("T")


class _WakeUp(local):
    """Whether this thread is waking the event loop; a signal handler can interrupt it there."""

    running = False


class Worker:
    """A thread with an event loop, in which something is open as long as it runs.

    It has no reference to its owner, which can be garbage-collected while it runs.

    Args:
        backend: the event loop, ``"asyncio"`` or ``"trio"``.
        what: what owns it, as errors and the thread's name say it: ``"client"``.
    """

    _is_finalizing = staticmethod(is_finalizing)  # modules lose their names at the very end

    def __init__(self, backend: str, what: str) -> None:
        self._backend = backend
        self._what = what
        # A daemon, which does not delay the exit of the program; in a context of its own, because
        # the calling thread may be inside of anything.
        self._thread = Thread(
            target=Context().run, args=(self._run,), name=f"ollama_sc {what}", daemon=True
        )
        # Of the event loop: calls a function in its thread, soon.
        self._schedule: Callable[[Callable[[], object]], object] | None = None
        self._callbacks: deque[Callable[[], object]] = deque()
        self._stop: anyio.Event | None = None
        self._stop_requested = False
        self._wake_up = _WakeUp()
        self._ended = False
        self._error: BaseException | None = None  # that ended it, without a request to stop
        self._close_error: BaseException | None = None  # of closing what was open
        self._pending: set[PendingCall[Any]] = set()  # whose callers wait
        self._running: set[PendingCall[Any]] = set()  # that have a task
        self._tasks: NativeTaskGroup | None = None  # as long as calls can start
        self._opened = False
        self._runtime: Runtime = UNOPENED

    def _resources(self) -> AbstractAsyncContextManager[object]:
        """What is opened when the event loop starts, and closed when it ends."""
        raise NotImplementedError

    # -- for any thread ----------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, without waiting: calls wait until its resources are open."""
        self._thread.start()

    @property
    def started(self) -> bool:
        """Whether its thread runs, or did; an exception can interrupt its start."""
        return self._thread.ident is not None

    @property
    def ended(self) -> bool:
        """Whether it accepts no more calls; when the interpreter ends, no thread does."""
        return self._ended or self._is_finalizing()

    def end(self) -> None:
        """Note that its thread runs no more, or not in this process."""
        self._ended = True

    @property
    def is_current(self) -> bool:
        """Whether the calling thread is the event loop's own."""
        return current_thread() is self._thread

    def call(
        self, work: Callable[[], Awaitable[T]], discard: Callable[[T], object] | None = None
    ) -> T:
        """Run some work in the event loop, and return its result. Blocks the calling thread.

        The work runs in a copy of the caller's context. An exception that interrupts the wait, such
        as KeyboardInterrupt, cancels the work, and is raised when that has ended. In a thread that
        works for a task, the end of that task cancels it.

        Args:
            work: to be called and awaited in the event loop.
            discard: called there with a result that nobody gets any more.

        Raises:
            RequestError: it is called in the event loop's own thread.
            ClientClosedError: it was stopped before.
            AbortError: it was stopped during the call, or cancelled.
            Exception: what the work raises, or opening the resources does.
        """
        if self.is_current:
            raise RequestError(
                f"the {self._what} cannot be called in its own event loop, where its hooks, "
                "progress functions and asynchronous tools run"
            )
        if self._stop_requested:
            raise ClientClosedError(closed(self._what))
        call = PendingCall(work, discard, copy_context())
        caller = current_threaded_work.get()
        give_up = partial(self._call_soon, partial(self._give_up, call, caller))
        try:
            self._pending.add(call)
            self._call_soon(partial(self._start_call, call))
            if caller is not None:
                caller.begin_wait(give_up)
            if self.ended:  # maybe before it saw this call
                call.complete(self._end_error())
            call.completion.get()
        except BaseException:
            self._call_soon(partial(self._abandon, call))
            # If it is completed, the interrupt came just after that.
            if not (call.completed or self.ended):
                call.completion.get()
            raise
        finally:
            self._pending.discard(call)
            if caller is not None:
                caller.end_wait(give_up)
        return call.outcome()

    def call_now(self, function: Callable[[], T], otherwise: T) -> T:
        """Call an ordinary function in the event loop's thread; `otherwise` where it has ended.

        Any thread can call it, the event loop's own and signal handlers too.
        """
        if self.is_current:
            return function()
        call: PendingCall[T] = PendingCall(None, None, None)
        try:
            self._pending.add(call)
            self._call_soon(partial(self._complete_with, call, function))
            if self.ended:
                call.complete()
            # A signal handler may have interrupted what wakes the event loop, which may hold a lock
            # that the loop takes when it ends.
            with suppress(Empty):
                call.completion.get(timeout=CLEANUP_SECONDS if self._wake_up.running else None)
        finally:
            self._pending.discard(call)
        result = call.outcome()
        return otherwise if result is None else result  # pyright: ignore[reportUnnecessaryComparison]

    def run_soon(self, work: Callable[[], Awaitable[object]]) -> None:
        """Run some work in the event loop, unless it ends before that; nobody waits for it."""
        self._call_soon(partial(self._start_call, PendingCall(work, None, copy_context())))

    def schedule(self, function: Callable[[], object]) -> None:
        """Have the event loop's thread call a function, unless it ends before that."""
        self._call_soon(function)

    def stop(self) -> None:
        """Request that it cancels all work, closes its resources and ends; without waiting."""
        self._stop_requested = True
        self._wake()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the thread has ended; raise what closing its resources has raised."""
        if self.wait_ended(seconds):
            error, self._close_error = self._close_error, None
            if error is not None:
                raise error

    def wait_ended(self, seconds: float | None = None) -> bool:
        """Wait until the thread has ended; false where that cannot be waited for.

        There is no wait in the thread itself, nor in one that it waits for, nor in a signal handler
        that interrupts its start, or a wake-up: the thread could be waiting for the lock that the
        interrupted code holds.
        """
        if not self.started or self.is_current or self._wake_up.running or self._is_finalizing():
            return False
        caller = current_threaded_work.get()
        if caller is not None and caller.is_waited_for_in(self._runtime.token):
            return False
        self._thread.join(seconds)
        return True

    def _call_soon(self, function: Callable[[], object]) -> None:
        self._callbacks.append(function)
        self._wake()

    def _wake(self) -> None:
        # There is no need before it runs: the main task looks for callbacks first. Once it has
        # ended, the loop may be gone, and so may modules, where the program exits.
        if self._schedule is not None and not self.ended:
            before, self._wake_up.running = self._wake_up.running, True
            try:
                with suppress(RuntimeError):  # the loop is closed
                    self._schedule(self._notify)
            finally:
                self._wake_up.running = before

    def _end_error(self) -> BaseException:
        """What a call gets that was pending when it ended."""
        error = self._error
        if error is None:
            return AbortError(f"the {self._what} was closed")
        return copy(error) if isinstance(error, OllamaError) else error

    def __repr__(self) -> str:
        if self.ended:
            state = "ended"
        elif self._stop_requested:
            state = "stopping"
        elif self._tasks is None:
            state = "starting"
        else:
            state = "running"
        return f"<Worker on {self._backend}, {state}, {len(self._pending)} pending calls>"

    # -- in its thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            anyio.run(self._main, backend=self._backend)
        except BaseException as error:  # noqa: BLE001 - the callers get it
            if self._stop_requested:
                self._close_error = error
            else:
                self._error = error
        # A call that came before this is completed here, or sees the flag and completes itself.
        self.end()
        for call in tuple(self._pending):
            call.complete(self._end_error() if call.work else None)

    async def _main(self) -> None:
        self._stop = anyio.Event()
        self._runtime = Runtime.of(current_token())
        self._schedule = _scheduler()
        async with self._resources():
            tasks = NativeTaskGroup()
            await tasks.open()
            self._tasks = tasks
            self._opened = True
            try:
                self._notify()
                await self._stop.wait()
            except BaseException as error:
                self._tasks = None
                await tasks.close(
                    self._end_calls, CLEANUP_SECONDS, type(error), error, error.__traceback__
                )
                raise
            self._tasks = None
            await tasks.close(self._end_calls, CLEANUP_SECONDS, None, None, None)

    async def _end_calls(self) -> None:
        self._notify()
        for call in tuple(self._running):
            self._abandon(call)

    def _notify(self) -> None:
        """Call what other threads want called; in the loop's thread, soon after they said so."""
        if not self._opened:
            return  # the main task sees to it
        # While it ends, too: it may be waiting for a thread that waits for one of these.
        while self._callbacks:
            self._callbacks.popleft()()
        if self._stop_requested and self._stop is not None:
            self._stop.set()

    def _start_call(self, call: PendingCall[Any]) -> None:
        if self._tasks is None:  # it is ending
            return
        assert call.context is not None
        call.scope = self._runtime.new_scope()
        self._running.add(call)
        # In the caller's context: hooks, tools and telemetry see its variables.
        try:
            call.context.run(self._start_task, self._tasks, call)
        except RuntimeError:  # something has just ended the loop, which completes the call
            self._running.discard(call)

    def _start_task(self, tasks: NativeTaskGroup, call: PendingCall[Any]) -> None:
        _say_library(self._backend)
        tasks.start(self._run_call, call, name=f"ollama_sc {self._what}'s call")

    async def _run_call(self, call: PendingCall[Any]) -> None:
        """Do the work of a call; the function of its task.

        There are four cases. The work returns, or raises: that is the outcome. The scope was
        cancelled, because the caller was interrupted or this ends. Anything else ends the event
        loop, but for a cancellation by asyncio's own means.
        """
        assert call.scope is not None
        assert call.work is not None
        error: BaseException | None = None
        done = False
        try:
            with call.scope:
                if call.abandoned:
                    call.scope.cancel()
                call.result = await call.work()
                done = True
        except Exception as raised:  # noqa: BLE001 - the caller gets it
            error = raised
        except BaseException as raised:
            native = isinstance(raised, anyio.get_cancelled_exc_class())
            error = AbortError("aborted: its task was cancelled") if native else raised
            raise
        finally:
            self._running.discard(call)
            if error is None and not done:
                error = call.why_cancelled or self._end_error()
            call.complete(error)
            if call.abandoned:
                call.discard_result()
            del error

    def _complete_with(self, call: PendingCall[T], function: Callable[[], T]) -> None:
        try:
            call.result = function()
        except Exception as error:  # noqa: BLE001 - the caller gets it
            call.complete(error)
        else:
            call.complete()

    def _give_up(self, call: PendingCall[Any], caller: ThreadedWork | None) -> None:
        """End a call whose caller works for a task that was cancelled."""
        if caller is not None:
            why = f"{caller.what} was cancelled"
            call.why_cancelled = AbortError(f"aborted: {why}", reason=why)
        self._abandon(call)

    def _abandon(self, call: PendingCall[Any]) -> None:
        """End a call whose caller was interrupted."""
        call.abandoned = True
        if call.completed:
            call.discard_result()
        elif call.scope is not None:
            call.scope.cancel()
        else:
            call.complete(call.why_cancelled or self._end_error())


def _say_library(name: str) -> None:
    """Say which event loop it is, in a context of a thread, which may say another one."""
    if _library is not None:
        _library.set(name)


def _scheduler() -> Callable[[Callable[[], object]], object]:
    """What calls a function in the running event loop's thread soon, from any other thread."""
    token = current_token()
    native: Any = token.native_token
    if is_trio(token):
        return native.run_sync_soon  # type: ignore[no-any-return]
    # Not in the context of the calling thread, which may be inside of anything.
    return partial(native.call_soon_threadsafe, context=copy_context())


def closed(what: str) -> str:
    """What calls of a closed owner say."""
    return f"the {what} is closed: make another one"


class PendingCall(Generic[T]):
    """One call into the event loop, shared by the calling thread and the loop.

    Attributes:
        work: to be done in the loop.
        context: of its caller, in which it is done.
        abandoned: its caller was interrupted.
        why_cancelled: what it raises when its scope was cancelled, if that is known.
        scope: of its task, once that was started.
        result, error: its outcome.
        completed: its outcome is final.
        completion: gets one item then, which wakes the caller.
    """

    __slots__ = (
        "_discard",
        "abandoned",
        "completed",
        "completion",
        "context",
        "error",
        "result",
        "scope",
        "why_cancelled",
        "work",
    )

    def __init__(
        self,
        work: Callable[[], Awaitable[T]] | None,
        discard: Callable[[T], object] | None,
        context: Context | None,
    ) -> None:
        self.work = work
        self.context = context
        self._discard = discard
        self.abandoned = False
        self.why_cancelled: AbortError | None = None
        self.scope: Scope | None = None
        self.result: T | None = None
        self.error: BaseException | None = None
        self.completed = False
        self.completion: SimpleQueue[None] = SimpleQueue()

    def complete(self, error: BaseException | None = None) -> None:
        """Fix the outcome and wake the caller, once; later calls do nothing."""
        if not self.completed:
            self.error = error
            self.completed = True
            self.completion.put(None)

    def discard_result(self) -> None:
        """Give up a result that nobody gets any more."""
        discard, self._discard = self._discard, None
        if discard is not None and self.result is not None:
            discard(self.result)

    def outcome(self) -> T:
        """The result; or raise the error."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback refers to this frame
        return self.result  # type: ignore[return-value]  # no error, hence a result

    def __repr__(self) -> str:
        if self.completed:
            state = "completed"
        elif self.abandoned:
            state = "abandoned"
        else:
            state = "started" if self.scope is not None else "waiting"
        return f"<PendingCall, {state}>"
