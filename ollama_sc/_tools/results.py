"""What comes out of a run: its result, a record of each call, and the events of a streamed one."""

from __future__ import annotations

from typing import Any, Generic, Literal

import msgspec
from typing_extensions import TypeVar

from ollama_sc.types import ChatResponse, Message, ToolCall

T = TypeVar("T", default=None)

Stopped = Literal["answered", "max_rounds", "repeated", "unfinished"]
CallOutcome = Literal["returned", "failed", "misfit", "unknown", "refused", "repeated"]


class ToolCallRecord(msgspec.Struct, kw_only=True, eq=False):
    """A call of a tool, and what became of it.

    Attributes:
        call: as the model made it.
        number: its place among the calls of the run, from zero.
        round: the round that it belongs to, from one.
        arguments: those that it ran with, as `approve` left them and before they were converted.
        outcome: ``"returned"``; ``"failed"`` by an exception; or else it did not run, because its
            arguments do not fit (``"misfit"``), there is no such tool (``"unknown"``), `approve`
            said no (``"refused"``), or it is one of `max_repeats` (``"repeated"``).
        message: the result as the model gets it.
        result: what the tool returned.
        error: what it raised.
        seconds: how long it ran.
    """

    call: ToolCall
    number: int
    round: int
    arguments: dict[str, Any]
    outcome: CallOutcome
    message: Message
    result: Any = None
    error: Exception | None = None
    seconds: float = 0.0


class ToolRun(msgspec.Struct, Generic[T], kw_only=True, eq=False):
    """What a run of tools came to.

    Attributes:
        response: the model's last reply; the answer, unless `stopped` says otherwise.
        messages: the whole conversation: those that were given, and those of the run. It can go on
            with them: there is no call in it without its result.
        calls: a record of each call, round by round, in the model's order.
        rounds: how often the model was asked.
        stopped: why the run ended: the model ``"answered"``, it was asked `max_rounds` times, or it
            has ``"repeated"`` one call `max_repeats` times. What a stream has before its end is
            ``"unfinished"``.
    """

    response: ChatResponse[T]
    messages: list[Message]
    calls: list[ToolCallRecord]
    rounds: int
    stopped: Stopped

    @property
    def text(self) -> str:
        """The text of the last reply."""
        return self.response.message.content


class ToolStarted(msgspec.Struct, kw_only=True, eq=False):
    """A call begins to run.

    Attributes:
        call, number, round, arguments: as in `ToolCallRecord`.
    """

    call: ToolCall
    number: int
    round: int
    arguments: dict[str, Any]


class ToolEnded(msgspec.Struct, eq=False):
    """A call is over, also one that did not run.

    Attributes:
        record: what became of it.
    """

    record: ToolCallRecord


class RoundEnded(msgspec.Struct, kw_only=True, eq=False):
    """A reply of the model is whole, and so are all of its calls.

    Attributes:
        round: the how-manieth, from one.
        response: the reply.
        messages: those that the round has added: the reply's, and the results of its calls.
    """

    round: int
    response: ChatResponse[Any]
    messages: list[Message]


ToolEvent = ChatResponse | ToolStarted | ToolEnded | RoundEnded
