"""The types of a request's fields, and the errors of Go's decoder for values of other types."""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import cast

ANY_MAP = "map[string]interface {}"
_MODEL_AND_NAME: dict[str, str] = dict.fromkeys(("model", "name"), "string")
_TRANSFER = _MODEL_AND_NAME | {
    "username": "string",
    "password": "string",
    "insecure": "bool",
    "stream": "bool",
}
_GENERATION = {
    "model": "string",
    "options": ANY_MAP,
    "stream": "bool",
    "truncate": "bool",
    "shift": "bool",
    "logprobs": "bool",
    "top_logprobs": "int",
    "_debug_render_only": "bool",
}

# Fields not listed take any value, or are unknown. Names in lower case, as they are compared.
STRUCTS: Mapping[str, Mapping[str, str]] = {
    "GenerateRequest": _GENERATION
    | dict.fromkeys(("prompt", "suffix", "system", "template"), "string")
    | dict.fromkeys(("width", "height", "steps"), "int32")
    | {"context": "[]int", "images": "[]api.ImageData", "raw": "bool"},
    "ChatRequest": _GENERATION | {"messages": "[]api.Message", "tools": "[]api.Tool"},
    "Message": dict.fromkeys(("role", "content", "thinking", "tool_name", "tool_call_id"), "string")
    | {"images": "[]api.ImageData", "tool_calls": "[]api.ToolCall"},
    "ToolCall": {"id": "string", "function": "api.ToolCallFunction"},
    "ToolCallFunction": {"index": "int", "name": "string", "arguments": ANY_MAP},
    "Tool": {"type": "string", "function": "api.ToolFunction"},
    "ToolFunction": {
        "name": "string",
        "description": "string",
        "parameters": "api.ToolFunctionParameters",
    },
    "ToolFunctionParameters": {"type": "string", "required": "[]string", "properties": ANY_MAP},
    "EmbedRequest": {
        "model": "string",
        "truncate": "bool",
        "dimensions": "int",
        "options": ANY_MAP,
    },
    "EmbeddingRequest": {"model": "string", "prompt": "string", "options": ANY_MAP},
    "openai.EmbedRequest": {"model": "string", "dimensions": "int", "encoding_format": "string"},
    "ShowRequest": _MODEL_AND_NAME
    | {"system": "string", "template": "string", "verbose": "bool", "options": ANY_MAP},
    "WebSearchRequest": {"query": "string", "max_results": "int"},
    "WebFetchRequest": {"url": "string"},
    "CopyRequest": {"source": "string", "destination": "string"},
    "DeleteRequest": _MODEL_AND_NAME,
    "PullRequest": _TRANSFER,
    "PushRequest": _TRANSFER,
    "CreateRequest": _MODEL_AND_NAME
    | dict.fromkeys(("from", "template", "system", "renderer", "parser", "requires"), "string")
    | dict.fromkeys(("remote_host", "quantize", "quantization", "draft_quantize"), "string")
    | dict.fromkeys(("files", "adapters", "draft_files"), "map[string]string")
    | {"stream": "bool", "messages": "[]api.Message", "parameters": ANY_MAP, "info": ANY_MAP},
}

_PLAIN: Mapping[str, type[object]] = {
    "string": str,
    "bool": bool,
    "int": int,
    "int32": int,
    ANY_MAP: dict,
}
_BITS = {"int": 64, "int32": 32}
_FOUND: Mapping[type[object], str] = {
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    list: "array",
}


def mismatch(value: object, where: str, kind: str) -> str:
    """Go's error text for a value that is not of its field's type."""
    found = _FOUND.get(type(value), "object")
    if kind in _BITS and found == "number":
        found = f"number {json.dumps(value)}"
    return f"json: cannot unmarshal {found} into Go struct field {where} of type {kind}"


def first_mismatch(value: object, kind: str, where: str = "") -> str | None:
    """Go's error text for the first wrong type in a value; None if all types are right.

    Args:
        value: The decoded value.
        kind: A Go type: one of the table above, with a leading `[]` for a list, or a plain one.
        where: The field that holds the value.

    """
    if value is None:
        return None
    struct = STRUCTS.get(kind.removeprefix("api."))
    if kind.startswith("[]"):
        if not isinstance(value, list):
            return mismatch(value, where, kind)
        parts = ((item, kind[2:], where) for item in cast("list[object]", value))
    elif struct is not None or kind == "map[string]string":
        if not isinstance(value, dict):
            return mismatch(value, where, kind)
        items = cast("dict[str, object]", value).items()
        if struct is None:
            parts = ((item, "string", where) for _, item in items)
        else:
            name = kind.rpartition(".")[2]
            parts = (
                (item, struct[key.lower()], f"{name}.{key.lower()}")
                for key, item in items
                if key.lower() in struct
            )
    elif kind == "api.ImageData":
        return _bad_image(value, where)
    else:
        return None if _is_plain(value, kind) else mismatch(value, where, kind)
    found = (first_mismatch(*part) for part in parts)
    return next((text for text in found if text is not None), None)


def _bad_image(value: object, where: str) -> str | None:
    if not isinstance(value, str):
        return mismatch(value, where, "[]uint8")
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return "illegal base64 data at input byte 0"
    return None


def _is_plain(value: object, kind: str) -> bool:
    if not isinstance(value, _PLAIN[kind]):
        return False
    bits = _BITS.get(kind)
    if bits is None:
        return True
    limit = 1 << (bits - 1)
    return not isinstance(value, bool) and -limit <= cast("int", value) < limit
