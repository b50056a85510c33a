"""Types to decode into that notice, or have, keys which the public ones do not know. No I/O.

What a model said goes back to its server with everything in it: some refuse the next turn without a
field of their own. So messages, tool calls and their functions are decoded into stand-ins of the
public classes that refuse unknown keys, which costs nothing; what they refuse is read in another
way (`lenient`), and a stream goes on with stand-ins that have the keys which it has met (`learn`).
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple, cast

from ollama_sc._wire_object import WireObject, define_stand_in
from ollama_sc.types import (
    ChatResponse,
    Function,
    GenerateResponse,
    Message,
    ShowResponse,
    ToolCall,
)

OPEN: frozenset[type[WireObject]] = frozenset({Message, ToolCall, Function})
_MOST_KEYS = 64


class Keys(NamedTuple):
    """The unknown keys of each of the open types."""

    message: frozenset[str] = frozenset()
    call: frozenset[str] = frozenset()
    function: frozenset[str] = frozenset()


NO_KEYS = Keys()


def decoding_type(type_: Any, keys: Keys = NO_KEYS) -> Any:
    """The type to decode into in place of a public one; any other is itself."""
    return _stand_ins(keys).get(type_, type_)


@lru_cache(64)
def _stand_ins(keys: Keys) -> dict[Any, Any]:
    function = define_stand_in(Function, tuple(sorted(keys.function)), strict=True)
    call = define_stand_in(
        ToolCall, tuple(sorted(keys.call)), [("function", function)], strict=True
    )
    calls = ("tool_calls", list[call] | None, None)  # type: ignore[valid-type]
    message = define_stand_in(Message, tuple(sorted(keys.message)), [calls], strict=True)
    found: dict[Any, Any] = {Function: function, ToolCall: call, Message: message}
    for cls, field in (
        (ChatResponse, ("message", message)),
        (GenerateResponse, calls),
        (ShowResponse, ("messages", list[message] | None, None)),  # type: ignore[valid-type]
    ):
        found[cls] = define_stand_in(cls, (), [field])
        found[cls[Any] if cls is not ShowResponse else cls] = found[cls]  # type: ignore[index]
    return found


def _without(cls: type[WireObject], names: tuple[str, ...], *fields: Any) -> Any:
    absent = [(name, None, None) for name in names]
    return define_stand_in(cls, (), [*absent, *fields], strict=cls in OPEN)


@cache
def plain_chat() -> type[ChatResponse[Any]]:
    """What most parts of chats are: their class alone says that they have nothing rare in them."""
    call: Any = decoding_type(ToolCall)
    calls = ("tool_calls", list[call] | None, None)
    message = _without(Message, ("images", "tool_name", "tool_call_id"), calls)
    rare = ("logprobs", "remote_model", "remote_host")
    plain: type[ChatResponse[Any]] = _without(ChatResponse, rare, ("message", message))
    return plain


def learn(keys: Keys, found: object) -> Keys:
    """These keys, and those of a parsed part that the public types do not know."""
    if not isinstance(found, dict):
        return keys
    part = cast("dict[str, Any]", found)
    message = part.get("message")
    calls = [part.get("tool_calls")]
    names: list[set[str]] = [set(), set(), set()]
    if isinstance(message, dict):
        inner = cast("dict[str, Any]", message)
        names[0] |= _unknown(Message, inner)
        calls.append(inner.get("tool_calls"))
    for call in (call for some in calls if isinstance(some, list) for call in cast("Any", some)):
        if isinstance(call, dict):
            inner = cast("dict[str, Any]", call)
            names[1] |= _unknown(ToolCall, inner)
            function = inner.get("function")
            if isinstance(function, dict):
                names[2] |= _unknown(Function, cast("dict[str, Any]", function))
    learned = Keys(*(old | new for old, new in zip(keys, names, strict=True)))
    return learned if sum(map(len, learned)) <= _MOST_KEYS else keys


def _unknown(cls: type[WireObject], found: dict[str, Any]) -> set[str]:
    return found.keys() - set(cls.__struct_encode_fields__)
