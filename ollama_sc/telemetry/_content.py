"""Messages as the GenAI conventions write them, where the program has opted in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec

from ollama_sc._http.messages import Request
from ollama_sc._wire_object import WireObject

from ._asked import body_of

_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
_YES = {"true", "1", "yes", "on", "span_only", "span_and_event"}


def wants_content(given: bool | None) -> bool:  # noqa: FBT001 - what `enable` was given
    """Whether spans hold texts: what is given, or else what the environment says."""
    if given is not None:
        return given
    return os.environ.get(_VARIABLE, "").strip().lower() in _YES


def as_json(value: object) -> str:
    """A value as the text of an attribute."""
    return json.dumps(value, ensure_ascii=False, default=str)


def of_request(request: Request) -> dict[str, Any]:
    """The messages or the prompt of a request; images without their data."""
    try:
        body: Any = msgspec.json.decode(body_of(request))
        return _of_fields(cast("dict[str, Any]", body)) if isinstance(body, dict) else {}
    except (msgspec.MsgspecError, AttributeError, TypeError):  # a body that nobody has checked
        return {}


def _of_fields(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    messages: Any = fields.get("messages")
    if messages is None and fields.get("prompt") is not None:
        messages = [
            {"role": "user", "content": fields["prompt"], "images": fields.get("images")},
        ]
    if isinstance(messages, list):
        sent = [_message(each) for each in cast("list[dict[str, Any]]", messages)]
        found["gen_ai.input.messages"] = as_json(sent)
    if fields.get("system"):
        parts = [{"type": "text", "content": fields["system"]}]
        found["gen_ai.system_instructions"] = as_json(parts)
    if fields.get("tools"):
        found["gen_ai.tool.definitions"] = as_json(fields["tools"])
    return found


def of_reply(reply: Any) -> dict[str, Any]:
    """The message of a reply, typed or as plain JSON, or as much of it as has arrived."""
    if not isinstance(reply, dict | WireObject):
        return {}
    get = cast("Callable[[str], Any]", reply.get)  # pyright: ignore[reportUnknownMemberType]
    message = get("message")
    if message is None and get("response") is not None:
        message = {"content": get("response"), "thinking": get("thinking")}
    if isinstance(message, WireObject):
        message = message.to_dict()
    if not isinstance(message, dict):
        return {}
    try:
        written = _message({"role": "assistant"} | cast("dict[str, Any]", message))
    except (AttributeError, TypeError):  # plain JSON that nobody has checked
        return {}
    written["finish_reason"] = get("done_reason") or ""
    return {"gen_ai.output.messages": as_json([written])}


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    role = message.get("role") or "user"
    content = message.get("content")
    parts: list[dict[str, Any]] = []
    if message.get("thinking"):
        parts.append({"type": "reasoning", "content": message["thinking"]})
    if role == "tool":
        which = {"id": message["tool_call_id"]} if message.get("tool_call_id") else {}
        parts.append({"type": "tool_call_response"} | which | {"response": content or ""})
    elif content:
        parts.append({"type": "text", "content": content})
    parts += [{"type": "blob", "modality": "image"} for _ in message.get("images") or ()]
    for call in message.get("tool_calls") or ():
        function: dict[str, Any] = call.get("function") or {}
        part: dict[str, Any] = {
            "type": "tool_call",
            "name": function.get("name", ""),
            "arguments": function.get("arguments"),
        }
        parts.append(part | ({"id": call["id"]} if call.get("id") else {}))
    return {"role": role, "parts": parts}
