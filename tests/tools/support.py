"""What the tests of tools share: what the server keeps of a schema, and scripted replies."""

from __future__ import annotations

from typing import Any

from ollama_sc import Message
from ollama_sc.testing import Reply

USER = Message("user", "Will it rain?")
KEPT = ("anyOf", "type", "items", "description", "enum", "properties", "required")


def kept(schema: dict[str, Any]) -> dict[str, Any]:
    """What the server's structs keep of a tool's parameters: see section 2.1 of the API."""
    found = {key: schema[key] for key in ("type", "items", "required", "$defs") if key in schema}
    found["properties"] = {name: of_property(one) for name, one in schema["properties"].items()}
    return found


def of_property(schema: dict[str, Any]) -> dict[str, Any]:
    found = {key: value for key, value in schema.items() if key in KEPT and value not in (None, [])}
    if "anyOf" in found:
        found["anyOf"] = [of_property(one) for one in found["anyOf"]]
    if "properties" in found:
        found["properties"] = {name: of_property(one) for name, one in found["properties"].items()}
    return found


def calls(*given: tuple[str, dict[str, Any]], at_end: bool = False) -> Reply:
    """A reply that wants tools called."""
    wanted = [{"name": name, "arguments": arguments} for name, arguments in given]
    return Reply.chat_text(tool_calls=wanted, calls_at_end=at_end)


def answer(text: str = "It rains.") -> Reply:
    """A reply in words."""
    return Reply.chat_text(text)
