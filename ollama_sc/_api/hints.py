"""What to write in place of an argument that cannot be right. Only errors come here."""

from __future__ import annotations

import math
import sys
from types import CodeType, FrameType
from typing import get_origin

from ollama_sc.types import Options

_MODEL_PARAMETERS = Options.__struct_fields__
_ALIKE = 0.7  # names that share less are other words
# What other clients and APIs have, by what it is called here.
_OTHER_WORDS = {
    "max_tokens": "num_predict",
    "max_completion_tokens": "num_predict",
    "max_new_tokens": "num_predict",
    "max_length": "num_ctx",
    "context_length": "num_ctx",
    "response_format": "format",
    "json_schema": "format",
    "schema": "format",
    "functions": "tools",
    "reasoning": "think",
    "reasoning_effort": "think",
    "ttl": "keep_alive",
    "stream": "stream",
    "streaming": "stream",
}
# What a call is about, in the words of all of them.
_SUBJECTS = {"message", "messages", "prompt", "input", "inputs", "text", "texts"}
_STREAMED = {"chat", "run_tools", "generate", "pull", "push", "create"}
_SUBJECT_OF = {
    "chat": "messages",
    "run_tools": "messages",
    "generate": "prompt",
    "embed": "input",
    "embed_many": "texts",
    "embed_array": "texts",
    "embeddings": "prompt",
}
_OF_CLIENT = "it is a setting of AsyncClient()"
_ELSEWHERE = {
    ("chat", "system"): "write a message with the role 'system'",
    ("chat", "images"): "they belong into a message",
    ("create", "modelfile"): "write its lines as from_=, system=, template=, parameters=",
    ("create", "path"): "create_blob() uploads a file, and files= names it",
    **{("", name): _OF_CLIENT for name in ("host", "headers", "api_key", "verify", "proxy")},
}


def unknown_argument(name: str, allowed: type) -> str:
    """What to say of a keyword that a call does not have."""
    fields = allowed.__annotations__
    call, parameters = _call()
    text = f"{call}() got an unexpected keyword argument {name!r}"
    if "options" in fields and name in _MODEL_PARAMETERS:
        return f"{text}: it is a parameter of the model, write options={{{name!r}: ...}}"
    word = name.lower()
    meant = _OTHER_WORDS.get(word, "")
    if call in _SUBJECT_OF and word in _SUBJECTS:
        meant = _SUBJECT_OF[call]
    elif meant in _MODEL_PARAMETERS and "options" in fields:
        return f"{text}: did you mean options={{{meant!r}: ...}}?"
    elif meant not in fields and (meant != "stream" or call not in _STREAMED):
        meant = ""
    if meant:
        return f"{text}: did you mean {meant!r}?"
    if advice := _ELSEWHERE.get((call, name)) or _ELSEWHERE.get(("", name)):
        return f"{text}: {advice}"
    from difflib import get_close_matches  # noqa: PLC0415 - for who makes a mistake

    close = get_close_matches(word, [*parameters, *fields], 1, _ALIKE)
    if close:
        return f"{text}: did you mean {close[0]!r}?"
    options = _MODEL_PARAMETERS if "options" in fields else ()
    close = get_close_matches(word, options, 1, _ALIKE)
    if close:
        return f"{text}: did you mean options={{{close[0]!r}: ...}}?"
    if "extra" in fields:
        return f"{text}: a field that this library does not know goes into extra={{{name!r}: ...}}"
    return text


def _call() -> tuple[str, list[str]]:
    """The public method that is being called, and the parameters that it has by itself.

    From the stack: none of them has to hand it down.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name, owner = frame.f_code.co_name, frame.f_locals.get("self")
        if owner is not None and name == "__init__":
            return type(owner).__name__, _parameters(frame.f_code)
        if owner is not None and not name.startswith("_"):
            return name, _parameters(frame.f_code)
        frame = frame.f_back
    return "the call", []


def _parameters(code: CodeType) -> list[str]:
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    return [name for name in names if name != "self" and not name.startswith("_")]


def schema_of(given: object) -> str:
    """What a thing that is no JSON schema is, and how to write it as ``format=``."""
    if isinstance(given, str):
        word = str.__str__(given).strip()
        if word.startswith("{"):
            return "text: write json.loads(...)"
        return f"{given!r:.80}: write 'json'" if word.lower() == "json" else ""
    if not isinstance(given, type) and get_origin(given) is None:
        if hasattr(given, "model_json_schema"):  # an object that would fit it
            return f"a {type(given).__name__}: write {type(given).__name__}.model_json_schema()"
        return f"{given!r:.80}: call it" if callable(given) else ""
    if isinstance(given, type) and get_origin(given) is None:
        name = given.__name__
        what = f"the class {name}"
    else:
        name = str(given)
        what = f"the type {name}"
    if hasattr(given, "model_json_schema"):
        return f"{what}: write {name}.model_json_schema()"
    adapter = f"pydantic's TypeAdapter({name}).json_schema()"
    return f"{what}: write msgspec.json.schema({name}), or {adapter}"


def duration(given: str) -> str:
    """What to write for a text that is no duration."""
    try:
        number = float(given)
    except ValueError:
        return "a duration has units, such as '1h30m', '90s' or '-1m'"
    if not math.isfinite(number):
        return "a negative number keeps the model loaded"
    shown = int(number) if number.is_integer() else number
    return f"write {shown} as a number, or with a unit, such as '{shown}m'"
