"""Fields that are null, absent or unknown, and values that are kept."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ollama_sc import ChatResponse, GenerateResponse
from tests.replies.support import A, decode, part

FULL: dict[str, Any] = {
    "model": "x",
    "remote_model": "y",
    "remote_host": "https://z",
    "created_at": "2026-08-01T10:20:30Z",
    "message": {
        "role": "assistant",
        "content": "text",
        "thinking": "hm",
        "images": ["aGk="],
        "tool_calls": [
            {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"n": 1}}}
        ],
        "tool_name": "f",
        "tool_call_id": "call_1",
    },
    "done": True,
    "done_reason": "stop",
    "_debug_info": {"rendered_template": "t"},
    "logprobs": [
        {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}],
        }
    ],
    "total_duration": 1,
    "load_duration": 2,
    "prompt_eval_count": 3,
    "prompt_eval_duration": 4,
    "eval_count": 5,
    "eval_duration": 6,
}
GENERATED: dict[str, Any] = {
    **{key: value for key, value in FULL.items() if key != "message"},
    "response": "text",
    "thinking": "hm",
    "context": [1, 2],
    "tool_calls": FULL["message"]["tool_calls"],
    "image": "aGk=",
    "completed": 1,
    "total": 2,
}


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = []
    if isinstance(value, dict):
        for key, item in value.items():
            if path[-1:] not in [("arguments",), ("_debug_info",)]:
                found += [(*path, key), *paths(item, (*path, key))]
    elif isinstance(value, list):
        for number, item in enumerate(value):
            found += paths(item, (*path, number))
    return found


def changed(whole: dict[str, Any], path: tuple[Any, ...], *, absent: bool) -> bytes:
    copy = json.loads(json.dumps(whole))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if absent:
        del inner[path[-1]]
    else:
        inner[path[-1]] = None
    return json.dumps(copy).encode()


@pytest.mark.parametrize(
    ("type_", "whole", "path"),
    [
        pytest.param(type_, whole, path, id=f"{type_.__name__} {'.'.join(map(str, path))}")
        for type_, whole in ((ChatResponse, FULL), (GenerateResponse, GENERATED))
        for path in paths(whole)
    ],
)
def test_null_is_the_same_as_absent(
    type_: type, whole: dict[str, Any], path: tuple[Any, ...]
) -> None:
    """A null in any field means what leaving the field out means, in a stream and in a reply."""
    absent = decode([changed(whole, path, absent=True)], type_=type_, cut=False)
    null = decode([changed(whole, path, absent=False) + b"\n"], type_=type_, cut=False)
    assert null.parts == absent.parts
    assert type(null.error) is type(absent.error)
    assert absent.error is None
    assert len(absent.parts) == 1


@pytest.mark.parametrize("null", ["content", "done", "none of them"])
def test_a_null_inside_tool_arguments_is_a_value(null: str) -> None:
    """An argument that the model gave as null is kept, also beside a field that is null."""
    arguments = {"unit": None, "deep": {"a": None, "b": [None, {"c": None}]}}
    whole = json.loads(part("x", tool_calls=[{"function": {"name": "f", "arguments": arguments}}]))
    if null == "content":
        whole["message"]["content"] = None
    elif null == "done":
        whole["done"] = None
    outcome = decode([json.dumps(whole).encode() + b"\n"])
    assert outcome.error is None
    [call] = outcome.parts[0].message.tool_calls
    assert call.function.arguments == arguments


@pytest.mark.parametrize(
    "unknown", ['"new":1', '"new":null', '"new":{"a":[{}]}', '"":""', '"done_":true', '"Done":true']
)
def test_unknown_fields_of_a_reply_are_ignored(unknown: str) -> None:
    """Fields of a reply that this library does not know change nothing."""
    plain = decode([A]).parts
    outer = A[:-1] + f",{unknown}}}".encode()
    assert decode([outer + b"\n" + A + b"\n"]).parts == plain * 2


def test_numbers_and_text_keep_their_values() -> None:
    """Escapes, raw characters, big integers and small floats arrive as what they are."""
    line = (
        b'{"message":{"role":"assistant","content":"\\u003cb\\u003e \\u0026 \\u2028 \xc3\xa9'
        b'\xf0\x9f\x99\x82 \\ud83d\\ude42 \\"\\\\\\n\\u0000"},"done":true,"total_duration":'
        b'9007199254740993,"logprobs":[{"token":"a","logprob":-1.7888544e-7},{"token":"b",'
        b'"logprob":-0},{"token":"c","logprob":1}]}'
    )
    [reply] = decode([line]).parts
    assert reply.message.content == '<b> & \u2028 é🙂 🙂 "\\\n\0'
    assert reply.total_duration == 2**53 + 1
    assert [item.logprob for item in reply.logprobs] == [-1.7888544e-7, 0.0, 1.0]
