"""The calls of one reply: side by side, each with a result, whatever becomes of it."""

from __future__ import annotations

import inspect
import json
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from typing import Any, cast

import anyio

from ollama_sc._calls import observing
from ollama_sc._errors import AbortError, RequestError, RequestTimeout, ToolError
from ollama_sc._schemas.functions import is_async
from ollama_sc.types import Message, ToolCall

from .fields import Approve
from .results import CallOutcome, ToolCallRecord, ToolEnded, ToolEvent, ToolStarted
from .threads import run_in_thread
from .toolbox import ReadyCall, Toolbox, Unfit, UnknownTool, result_message

Emit = Callable[[ToolEvent], Awaitable[None]]


class Caller:
    """Makes the calls of a run.

    Args:
        toolbox: the tools.
        max_parallel, max_repeats, tell, approve: see `LoopFields`; `tell` is whether the model is
            told of exceptions.
        emit: takes the events, where anybody wants them.
        label: how errors call the run.

    Attributes:
        repeated: whether a call was made so often that it was not run any more.
    """

    def __init__(
        self,
        toolbox: Toolbox,
        *,
        max_parallel: int,
        max_repeats: int | None,
        tell: bool,
        approve: Approve | None,
        emit: Emit | None,
        label: str,
    ) -> None:
        self.repeated = False
        self._toolbox = toolbox
        self._max_repeats = math.inf if max_repeats is None else max_repeats
        self._tell = tell
        self._approve = approve
        self._emit = emit
        self._label = label
        self._max_parallel = max_parallel
        self._made: Counter[str] = Counter()
        self._failure: BaseException | None = None
        self._scope: anyio.CancelScope | None = None

    async def make(self, calls: list[ToolCall], round: int, first: int) -> list[ToolCallRecord]:
        """Make the calls of one reply; their records, in the order of the calls.

        The first exception that is not told to the model ends all of them, and is raised as it is.

        Args:
            calls: in the model's order.
            round: from one.
            first: the number of the first call in the run.
        """
        records: dict[int, ToolCallRecord] = {}
        self._turns = anyio.Semaphore(self._max_parallel)
        # The threads of this run are counted for themselves: waiting for those of others could
        # be waiting for ever, where these wait for this run. One more is that of `approve`.
        self._threads = anyio.CapacityLimiter(self._max_parallel + 1)
        async with anyio.create_task_group() as tasks:
            self._scope = tasks.cancel_scope
            for number, call in enumerate(calls, first):
                one = _Pending(call, number, round, records)
                ready = await self._guarded(partial(self._prepare, one))
                if self._failure is not None:
                    break
                if ready is not None:
                    tasks.start_soon(self._guarded, partial(self._run, one, ready))
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure
        if len(records) < len(calls):  # a task was cancelled before it began
            why = "a task of the run was cancelled"
            raise AbortError(why, reason=why, request=self._label)
        return [records[number] for number in range(first, first + len(calls))]

    async def _guarded(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Do a part of a call. What it raises ends the round."""
        try:
            return await work()
        except anyio.get_cancelled_exc_class() as error:
            if anyio.current_effective_deadline() == -math.inf:
                raise
            # As in a tool, below.
            why = "a task of the run was cancelled"
            failure = AbortError(why, reason=why, request=self._label)
            failure.__cause__ = error
            self._fail(failure)
        except BaseException as error:  # noqa: BLE001 - raised in `make`, where no group wraps it
            self._fail(error)
        return None

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        assert self._scope is not None
        self._scope.cancel()

    async def _prepare(self, one: _Pending) -> ReadyCall | None:
        """What is to be run, once it is its turn; nothing where the call cannot run or may not."""
        call = one.call
        key = _key_of(call)
        self._made[key] += 1
        if self._made[key] >= self._max_repeats:
            self.repeated = True
            why = f"this call was made {self._made[key]} times with the same arguments"
            await self._end(one, "repeated", f"Error: {why}; it was not run again")
            return None
        ready = await self._ready(one)
        if ready is not None and self._approve is not None:
            refusal = await self._ask(one)
            if refusal is not None:
                await self._end(one, "refused", refusal)
                return None
            if one.arguments is not call.function.arguments:
                ready = await self._ready(one)
        if ready is None:
            return None
        # Here and not in the tool's task: tasks begin in any order, and tools in the model's.
        await self._turns.acquire()
        if self._emit is not None:
            started = ToolStarted(
                call=call, number=one.number, round=one.round, arguments=one.arguments
            )
            await self._emit(started)
        return ready

    async def _ready(self, one: _Pending) -> ReadyCall | None:
        """A call with its arguments converted; nothing where the model is told that they cannot."""
        try:
            return self._toolbox.ready(one.call, one.arguments)
        except Unfit as unfit:
            outcome: CallOutcome = "unknown" if isinstance(unfit, UnknownTool) else "misfit"
            await self._end(one, outcome, f"Error: {unfit}")
        except Exception as error:  # of a check in the user's own types
            if not await self._tell_of(one, error):
                raise
        return None

    async def _ask(self, one: _Pending) -> str | None:
        """Whether a call may run: ``None``, or what the model is told instead."""
        approve = cast("Approve", self._approve)
        try:
            if is_async(approve):
                verdict: Any = approve(one.call)
            else:
                work = partial(approve, one.call)
                verdict = await run_in_thread(work, "the function `approve`", self._threads)
            if inspect.isawaitable(verdict):
                verdict = await verdict
        except ToolError as error:
            verdict = _text_of(error)
        if verdict is True:
            return None
        if verdict is False:
            return "Error: this call was refused"
        if isinstance(verdict, str):
            return f"Error: this call was refused: {verdict}"
        if isinstance(verdict, Mapping):
            one.arguments = dict(cast("Mapping[str, Any]", verdict))
            return None
        raise RequestError(
            f"approve must return True, False, a reason or other arguments, not {verdict!r:.80}",
            request=self._label,
        )

    async def _run(self, one: _Pending, ready: ReadyCall) -> None:
        one.started = anyio.current_time()
        try:
            call_id = one.call.id
            with observing.tool(one.call.function.name, call_id=call_id, arguments=one.arguments):
                result = await self._call(one, ready)
            message = result_message(one.call, result)
        except Exception as error:
            if not await self._tell_of(one, error):
                raise
        else:
            await self._end(one, "returned", message, result=result)
        finally:
            self._turns.release()

    async def _call(self, one: _Pending, ready: ReadyCall) -> Any:
        """Run a tool, and wait for what it returns."""
        callee, positional, by_name = ready
        name = one.call.function.name
        result: Any = None
        with anyio.move_on_after(callee.timeout) as scope:
            try:
                if callee.is_async:
                    result = callee.function(*positional, **by_name)
                else:
                    result = await run_in_thread(
                        partial(callee.function, *positional, **by_name),
                        f"the tool {name!r}",
                        self._threads,
                        abandon=callee.abandon,
                    )
                if inspect.isawaitable(result):
                    result = await result
            except anyio.get_cancelled_exc_class() as error:
                if anyio.current_effective_deadline() == -math.inf:
                    raise
                # Somebody cancelled a task that the tool waits for, with asyncio's own means.
                why = f"the tool {name!r} was cancelled"
                raise AbortError(why, reason=why, request=self._label) from error
        if scope.cancel_called:
            raise RequestTimeout(
                f"the tool {name!r} took longer than {callee.timeout:g} s",
                limit="tool",
                seconds=callee.timeout,
                request=self._label,
            )
        return result

    async def _tell_of(self, one: _Pending, error: Exception) -> bool:
        """Tell the model of an exception, if it is to hear of it."""
        leaves = list(_leaves(error))
        if not self._tell and not all(isinstance(leaf, ToolError) for leaf in leaves):
            return False
        await self._end(one, "failed", "\n".join(map(_described, leaves)), error=error)
        return True

    async def _end(
        self,
        one: _Pending,
        outcome: CallOutcome,
        message: str | Message,
        *,
        result: Any = None,
        error: Exception | None = None,
    ) -> None:
        """Note what became of a call."""
        if isinstance(message, str):
            message = result_message(one.call, message)
        record = ToolCallRecord(
            call=one.call,
            number=one.number,
            round=one.round,
            arguments=one.arguments,
            outcome=outcome,
            message=message,
            result=result,
            error=error,
            seconds=0.0 if one.started is None else anyio.current_time() - one.started,
        )
        one.records[one.number] = record
        if self._emit is not None:
            await self._emit(ToolEnded(record))


class _Pending:
    """A call that has no result yet."""

    __slots__ = ("arguments", "call", "number", "records", "round", "started")

    def __init__(
        self, call: ToolCall, number: int, round: int, records: dict[int, ToolCallRecord]
    ) -> None:
        self.call = call
        self.number = number
        self.round = round
        self.records = records
        self.arguments: dict[str, Any] = call.function.arguments
        self.started: float | None = None


def _key_of(call: ToolCall) -> str:
    arguments = json.dumps(call.function.arguments, sort_keys=True, default=str)
    return f"{call.function.name} {arguments}"


def _leaves(error: Exception) -> Iterator[Exception]:
    """What has happened: the exceptions of a group, which a tool's own task group raises."""
    if isinstance(error, ExceptionGroup):
        for inner in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _leaves(inner)
    else:
        yield error


def _described(error: Exception) -> str:
    if isinstance(error, ToolError):
        return _text_of(error)
    try:
        return f"Error: {type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its own text is what fails
        return f"Error: {type(error).__name__}"


def _text_of(error: ToolError) -> str:
    return str(error.args[0]) if error.args else "Error"
