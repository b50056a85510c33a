"""What a run of tools accepts beside the model, the messages and the tools.

There is no ``from __future__ import annotations`` here, as in the API's `fields`.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Generic, Literal, TypeVar

from ollama_sc._api.fields import AnyFormat, GenerationFields, JSONFormat, TypedFormat
from ollama_sc.types import ToolCall

T = TypeVar("T")
Verdict = bool | str | Mapping[str, Any]
Approve = Callable[[ToolCall], Verdict | Awaitable[Verdict]]

RUN_DEFAULTS: Mapping[str, Any] = {
    "max_rounds": 8,
    "max_parallel": 4,
    "max_repeats": 3,
    "on_tool_error": "raise",
    "approve": None,
}


class LoopFields(GenerationFields, total=False):
    """What `run_tools` accepts beside the model, the messages, the tools and the format.

    Attributes:
        max_rounds: how often the model may be asked, each time with the results of its calls.
        max_parallel: how many calls of a round may run at the same time.
        max_repeats: the call that is the so-many-th of one tool with the same arguments is not run,
            and the run ends with its round; ``None`` for no limit.
        on_tool_error: what an exception of a tool does: ``"raise"`` ends the run with it,
            ``"tell"`` tells the model. A `ToolError` is told always.
        approve: called with each call before it runs, one after the other: a function, asynchronous
            or not. ``True`` lets it run, a mapping lets it run with these arguments, ``False`` or a
            text, which is the reason that the model gets, does not.
    """

    max_rounds: int
    max_parallel: int
    max_repeats: int | None
    on_tool_error: Literal["raise", "tell"]
    approve: Approve | None


class RunFields(LoopFields, JSONFormat, total=False):
    """What `run_tools` accepts beside the model, the messages and the tools; see `LoopFields`."""


class TypedRunFields(LoopFields, TypedFormat[T], Generic[T], total=False):
    """What `run_tools` accepts where the answer is a value of a type; see `TypedFormat`."""


class AnyRunFields(LoopFields, AnyFormat, total=False):
    """What `run_tools` accepts."""
