"""Arguments into the body of a request, or into an error that says what is wrong. No I/O."""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from inspect import Parameter, signature
from pathlib import Path, PurePath
from typing import Any, TypeVar, cast
from urllib.parse import unquote

import msgspec

from ollama_sc._errors import RequestError
from ollama_sc._http.messages import Request
from ollama_sc._wire_object import WireObject
from ollama_sc.types import ChatResponse, Message, Options, Tool

from . import hints
from .body import ImageFile, dump_model, encode, plain
from .field_texts import with_field_texts
from .fields import BodyFields
from .tools import as_tool

F = TypeVar("F", bound=Callable[..., Any])

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_NOT_SENT = BodyFields.__annotations__.keys()
_LABEL_TEXT = 100
# What takes long and changes what the server has: to do it twice is not to do it once.
_DONE_ONCE = {"/api/pull", "/api/push", "/api/create"}
_UNORDERED = (Mapping, AbstractSet, WireObject, str, bytes, bytearray)
_TEXT: frozenset[type] = frozenset({str})
# What Go reads as one.
_DURATION = r"[+-]?(0|((\d+\.?\d*|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h))+)"
# Names that Python cannot have, or that would look private.
_WIRE_NAMES = {"debug_render_only": "_debug_render_only", "from_": "from"}


def expand_kwargs(fields: type, defaults: Mapping[str, Any] | None = None) -> Callable[[F], F]:
    """Let a method's ``**fields`` show as the keyword parameters that they are.

    Type checkers read them from the annotation; this is for `help`, which has each field's text as
    well, and `inspect.signature`. Where the method is a tool, no model is told of them.
    """
    default = (defaults or {}).get

    def expand(function: F) -> F:
        shown = signature(function)
        keywords = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default(name), annotation=annotation)
            for name, annotation in fields.__annotations__.items()
        ]
        parameters = [p for p in shown.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        function.__signature__ = shown.replace(parameters=[*parameters, *keywords])  # type: ignore[attr-defined]
        function.__callers_fields__ = frozenset(fields.__annotations__)  # type: ignore[attr-defined]
        function.__doc__ = with_field_texts(function.__doc__, fields)
        return function

    return expand


def reject_unknown(fields: Mapping[str, Any], allowed: type) -> None:
    """Raise TypeError for a field that a call does not have, as Python does."""
    unknown = fields.keys() - allowed.__annotations__.keys()
    if unknown:
        raise TypeError(hints.unknown_argument(min(unknown), allowed))


def build_request(
    path: str,
    model: str,
    allowed: type,
    fields: Mapping[str, Any],
    *,
    method: str = "POST",
    **body: object,
) -> Request:
    """A request about a model, with a JSON body.

    Raises:
        TypeError: a field that the call does not have.
        RequestError: a value that cannot be right.
    """
    label = label_of(path, model, method)
    try:
        model = name("model", model)
        if fields:
            reject_unknown(fields, allowed)
            body.update((key, value) for key, value in fields.items() if key not in _NOT_SENT)
        sent: dict[str, Any] = {"model": model}
        for key, value in body.items():
            if value is not None:
                sent[_WIRE_NAMES.get(key, key)] = value
        if fields:
            sent.update(_extra(fields))
        for key, value in sent.items():
            check = _CHECKS.get(key)
            if check is not None and value is not None:
                sent[key] = check(key, value)
    except RequestError as error:
        error.request = label
        raise
    return Request(method, path, label, encode(sent, label), _is_repeatable(method, path))


def label_of(path: str, model: object, method: str = "POST") -> str:
    """How errors call a request about a model."""
    return f"{method} {path}, model {shown(model)}"


def _is_repeatable(method: str, path: str) -> bool:
    """Whether a request that may have been done already can be sent again."""
    return method != "DELETE" and path not in _DONE_ONCE


def _climbs(path: str) -> bool:
    """Whether a path leaves the host's prefix, in any spelling that is read so on the way."""
    if "." not in path and "%" not in path:
        return False
    plain = path.partition("?")[0]
    while (decoded := unquote(plain)) != plain:  # a proxy decodes, and the server behind it again
        plain = decoded
    return any(part.partition(";")[0] == ".." for part in plain.replace("\\", "/").split("/"))


def _extra(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = fields.get("extra")
    found: Mapping[str, Any] = {} if extra is None else _mapping("extra", extra)
    if "stream" in found:
        raise RequestError("extra cannot decide on stream: the call has an argument for that")
    return found


def shown(model: object) -> str:
    """How errors call a model."""
    text = repr(plain(model))
    return text if len(text) <= _LABEL_TEXT else f"{text[:_LABEL_TEXT]}…"


def raw_request(
    method: str, path: str, json: object = None, *, fields: Mapping[str, Any] | None = None
) -> Request:
    """A request to any endpoint; `json` is its body, where there is one."""
    method = method.upper() if isinstance(method, str) else method  # pyright: ignore[reportUnnecessaryIsInstance]
    if method not in _METHODS:
        raise RequestError(f"the method must be one of {', '.join(_METHODS)}, not {method!r}")
    whole = isinstance(path, str) and path.startswith("/")  # pyright: ignore[reportUnnecessaryIsInstance]
    if not whole or not path.isprintable() or {" ", "#"} & set(path) or _climbs(path):
        raise RequestError(
            "the path must begin with a slash and have no space, no '..' and no '#', "
            f"not {path!r:.80}"
        )
    label = f"{method} {path.partition('?')[0][:_LABEL_TEXT]}"  # a query can hold a key
    if isinstance(json, Mapping):
        mapping = cast("Mapping[str, Any]", json)
        model = mapping.get("model")
        label += f", model {shown(model)}" if isinstance(model, str) else ""
        json = {**mapping, **_extra(fields or {})}
    body = None if json is None else encode(json, label)
    return Request(method, path, label, body, _is_repeatable(method, path))


# -- values ----------------------------------------------------------------------------------------


def name(what: str, given: object) -> str:
    """A name that is not empty."""
    if not isinstance(given, str) or not given.strip():
        example = " such as 'llama3.2'" if what == "model" else ""
        raise RequestError(f"the {what} must be a name{example}, not {given!r:.80}")
    return str.__str__(given)


def text(what: str, given: object) -> str | None:
    """A text, or nothing."""
    if given is not None and not isinstance(given, str):
        raise RequestError(f"{what} must be text, not {type(given).__name__}")
    return given


def embed_input(given: object) -> str | list[str]:
    """A text, or several."""
    if isinstance(given, str):
        return given
    if isinstance(given, bytes) or not isinstance(given, Sequence):
        raise RequestError(f"input must be a text or a list of texts, not {type(given).__name__}")
    items = list(cast("Sequence[object]", given))
    if _TEXT.issuperset(map(type, items)):
        return cast("list[str]", items)
    for number, item in enumerate(items):
        if not isinstance(item, str):
            raise RequestError(f"input[{number}] must be text, not {type(item).__name__}")
    return cast("list[str]", items)


def messages(given: object) -> list[object]:
    """A conversation, each message checked; replies stand for their messages."""
    if given is None:
        return []
    example = "such as [{'role': 'user', 'content': 'Hello'}]"
    return [
        _message(f"messages[{number}]", item)
        for number, item in enumerate(_items("messages", given, f"messages, {example}"))
    ]


def _message(what: str, item: object) -> object:
    if isinstance(item, ChatResponse):
        item = item.message
    if isinstance(item, Message):
        _check_message(what, item.role, item.content)
        if item.images is None:
            return item
        return msgspec.structs.replace(item, images=_images(f"{what}: images", item.images))
    if type(item) is not dict:
        item = dump_model(item)
    if not isinstance(item, Mapping):
        raise RequestError(
            f"{what} must be a Message, a mapping or a ChatResponse, not {type(item).__name__}"
        )
    mapping = dict(cast("Mapping[str, Any]", item))
    _check_message(what, mapping.get("role"), mapping.get("content"))
    if mapping.get("images") is not None:
        mapping["images"] = _images(f"{what}: images", mapping["images"])
    return mapping


def _check_message(what: str, role: object, content: object) -> None:
    if not isinstance(role, str) or not role.strip():
        raise RequestError(f"{what} needs a role: 'system', 'user', 'assistant' or 'tool'")
    if content is not None and not isinstance(content, str):
        raise RequestError(
            f"{what}: the content must be text, not {type(content).__name__}; "
            "images go into a list of their own, 'images'"
        )


def _images(what: str, given: object) -> list[object]:
    if isinstance(given, str | bytes | PurePath):
        raise RequestError(f"{what} must be a list of images: write [image] for a single one")
    return [
        _image(f"{what}[{number}]", item)
        for number, item in enumerate(_items(what, given, "images"))
    ]


def _image(what: str, item: object) -> object:
    item = dump_model(item)
    if isinstance(item, Path):
        return ImageFile(item)
    if not isinstance(item, str | bytes | bytearray):
        raise RequestError(
            f"{what} must be bytes, base64 text or a Path, not {type(item).__name__}"
        )
    if len(item) == 0:
        raise RequestError(f"{what} is empty")
    if isinstance(item, str):
        return _base64(what, item)
    return base64.b64encode(item).decode()


def _base64(what: str, given: str) -> str:
    """Base64 text as the server reads it: without line breaks, and without what makes it a URL."""
    text = given
    if text[:5].lower() == "data:":
        kind, comma, text = text.partition(",")
        if not comma or not kind.lower().rstrip().endswith(";base64"):
            raise RequestError(f"{what} is a data URL without base64")
        text = unquote(text)
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        text = "".join(text.split())
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(
            f"{what} is no base64 text ({error}); give a file as Path(...)"
        ) from error
    if not decoded:
        raise RequestError(f"{what} is empty")
    return str.__str__(text)


def tools(what: str, given: object) -> list[Tool | Mapping[str, Any]]:
    """What the server hears of tools, each checked."""
    return [
        as_tool(f"{what}[{number}]", item)
        for number, item in enumerate(_items(what, given, "tools"))
    ]


def _list(what: str, given: object, of: str) -> Sequence[object]:
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Sequence):
        raise RequestError(f"{what} must be a list of {of}, not {type(given).__name__}")
    return cast("Sequence[object]", given)


def _items(what: str, given: object, of: str) -> Iterable[object]:
    """A list, or what a generator makes one by one: anything that has an order."""
    if type(given) is list:  # what most are, before questions that take longer
        return cast("list[object]", given)
    if not isinstance(given, Iterable) or isinstance(given, _UNORDERED):
        return _list(what, cast("object", given), of)
    return cast("Iterable[object]", given)


def _mapping(what: str, given: object) -> Mapping[str, Any]:
    if isinstance(given, Options):
        return dict(given)
    given = dump_model(given)
    if not isinstance(given, Mapping):
        raise RequestError(f"{what} must be a mapping, not {type(given).__name__}")
    return dict(cast("Mapping[str, Any]", given))


def _keep_alive(what: str, given: object) -> object:
    if isinstance(given, timedelta):
        return given.total_seconds()
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise RequestError(
            f"{what} must be seconds, a duration such as '1h30m' or a timedelta, not {given!r}"
        )
    if isinstance(given, float) and not math.isfinite(given):
        raise RequestError(f"{what} must be finite; a negative number keeps the model loaded")
    if isinstance(given, str) and not re.fullmatch(_DURATION, str.__str__(given)):
        raise RequestError(f"{what} cannot be {given!r:.80}: {hints.duration(str.__str__(given))}")
    return given


def _format(what: str, given: object) -> object:
    if isinstance(given, str) and given in ("", "json"):
        return given
    if advice := hints.schema_of(given):
        raise RequestError(f"{what} must be 'json' or a JSON schema, not {advice}")
    if isinstance(given, str):
        raise RequestError(f"{what} must be 'json' or a JSON schema, not {given!r:.80}")
    return _mapping(what, given)


def _yes_or_no(what: str, given: object) -> object:
    if not isinstance(given, bool):
        raise RequestError(f"{what} must be True or False, not {given!r:.80}")
    return given


def _number(what: str, given: object) -> object:
    if isinstance(given, bool) or not isinstance(given, int) or abs(given) >= 1 << 63:
        raise RequestError(f"{what} must be a whole number, not {given!r:.80}")
    return given


def count(what: str, given: object) -> object:
    """A whole number above zero, or nothing."""
    if given is None:
        return None
    if cast("int", _number(what, given)) < 1:
        raise RequestError(f"{what} must be above zero, not {given!r:.80}")
    return given


def _numbers(what: str, given: object) -> list[object]:
    return [_number(f"{what}[{n}]", item) for n, item in enumerate(_list(what, given, "numbers"))]


def _think(what: str, given: object) -> object:
    if not isinstance(given, bool | str):
        raise RequestError(f"{what} must be True, False or a level, not {given!r:.80}")
    return given


def _license(what: str, given: object) -> object:
    return given if isinstance(given, str) else list(_list(what, given, "texts"))


_CHECKS: dict[str, Callable[[str, Any], object]] = {
    **dict.fromkeys(("options", "parameters", "files", "adapters", "draft_files"), _mapping),
    **dict.fromkeys(
        ("system", "template", "from", "quantize", "draft_quantize", "renderer", "parser"), text
    ),
    **dict.fromkeys(("requires", "remote_host"), text),
    **dict.fromkeys(
        ("raw", "truncate", "shift", "logprobs", "_debug_render_only", "verbose", "insecure"),
        _yes_or_no,
    ),
    **dict.fromkeys(("stream",), _yes_or_no),
    **dict.fromkeys(("top_logprobs", "dimensions", "width", "height", "steps"), _number),
    "context": _numbers,
    "format": _format,
    "images": _images,
    "info": _mapping,
    "keep_alive": _keep_alive,
    "license": _license,
    "messages": lambda _, given: messages(given),
    "prompt": text,
    "suffix": text,
    "think": _think,
    "tools": tools,
}
