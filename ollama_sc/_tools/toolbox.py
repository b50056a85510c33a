"""The tools of a run by their names, a call of one made ready, and its result as a message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from ollama_sc._api import arguments
from ollama_sc._api.fields import ToolLike
from ollama_sc._errors import RequestError
from ollama_sc._schemas.callees import Callee
from ollama_sc._schemas.forms import Misfit, to_json
from ollama_sc.types import UNREAD_ARGUMENTS, Message, Tool, ToolCall


class ReadyCall(NamedTuple):
    """What is to be called, and with what."""

    callee: Callee
    positional: list[Any]
    by_name: dict[str, Any]


class Unfit(Exception):  # noqa: N818 - it is told to the model, and to nobody else
    """A call that cannot run; its text is for the model."""


class UnknownTool(Unfit):
    """There is no tool of that name that can be run."""


class Toolbox:
    """The tools of a run.

    Attributes:
        sent: what the server hears of them.

    Raises:
        RequestError: one of them is no tool, or two have one name.
    """

    def __init__(self, given: Sequence[ToolLike]) -> None:
        self.sent = arguments.tools("tools", given)
        self._callees: dict[str, Callee] = {}
        names: set[str] = set()
        for number, tool in enumerate(self.sent):
            name = _name_of(tool)
            if name in names:
                raise RequestError(f"tools[{number}]: there is a tool {name!r} before it")
            names.add(name)
            callee = vars(tool).get("callee") if isinstance(tool, Tool) else None
            if callee is not None:
                self._callees[name] = cast("Callee", callee)

    def ready(self, call: ToolCall, given: Mapping[str, Any]) -> ReadyCall:
        """A call with its arguments converted to what the tool takes.

        Raises:
            Unfit: it cannot run.
        """
        name = call.function.name
        callee = self._callees.get(name)
        if callee is None:
            names = ", ".join(map(repr, self._callees)) or "none"
            raise UnknownTool(f"there is no tool {name!r}: the tools are {names}")
        if set(given) == {UNREAD_ARGUMENTS} and not _takes(callee, UNREAD_ARGUMENTS):
            raise Unfit(f"the arguments of {name!r} must be a JSON object")
        if callee.takes_mapping:
            return ReadyCall(callee, [dict(given)], {})
        if callee.signature is None:
            return ReadyCall(callee, [], dict(given))
        try:
            return ReadyCall(callee, *callee.signature.bind(given))
        except Misfit as misfit:
            raise Unfit(f"the arguments do not fit {name!r}: {misfit}") from misfit


def _takes(callee: Callee, name: str) -> bool:
    return callee.signature is not None and name in callee.signature.parameters


def _name_of(tool: Tool | Mapping[str, Any]) -> str:
    if isinstance(tool, Tool):
        return tool.function.name
    function: object = tool.get("function")
    return (
        str(cast("Mapping[str, Any]", function).get("name"))
        if isinstance(function, Mapping)
        else ""
    )


def _json_of(call: ToolCall, result: object) -> str:
    try:
        return to_json(result)
    except TypeError as error:
        raise TypeError(f"what the tool {call.function.name!r} has returned: {error}") from error


def result_message(call: ToolCall, result: object) -> Message:
    """A tool's result as the model gets it: text and messages as they are, all else as JSON.

    Raises:
        TypeError: it has no form in JSON.
    """
    if not isinstance(result, Message):
        text = "" if result is None else result
        if not isinstance(text, str):
            text = _json_of(call, text)
        # A lone surrogate, as of a file's name, is no text that could be sent.
        text = str.__str__(text).encode("utf-8", "replace").decode()
        result = Message("tool", text)
    elif result.role != "tool":
        return result
    names: dict[str, Any] = {}
    if result.tool_name is None:
        names["tool_name"] = call.function.name
    if result.tool_call_id is None and call.id is not None:
        names["tool_call_id"] = call.id
    return msgspec.structs.replace(result, **names) if names else result
