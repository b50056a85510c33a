"""Arguments into the body of a request, or into an error that says what is wrong. No I/O."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from inspect import Parameter, signature
from pathlib import Path, PurePath
from typing import Any, TypeVar, cast

import msgspec

from ._errors import RequestError
from ._fields import BodyFields
from ._http import Request
from .types import ChatResponse, Message, Options, Tool

F = TypeVar("F", bound=Callable[..., Any])

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_NOT_SENT = BodyFields.__annotations__.keys()
# Names that Python cannot have, or that would look private.
_SPELLED = {"debug_render_only": "_debug_render_only", "from_": "from"}


def accepts(fields: type) -> Callable[[F], F]:
    """Let a method's ``**fields`` show as the keyword parameters that they are.

    Type checkers read them from the annotation; this is for `help` and `inspect.signature`.
    """

    def spelled_out(function: F) -> F:
        shown = signature(function)
        keywords = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in fields.__annotations__.items()
        ]
        parameters = [p for p in shown.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
        function.__signature__ = shown.replace(parameters=[*parameters, *keywords])  # type: ignore[attr-defined]
        return function

    return spelled_out


def known(fields: Mapping[str, Any], allowed: type) -> None:
    """Raise TypeError for a field that a call does not have, as Python does."""
    unknown = fields.keys() - allowed.__annotations__.keys()
    if unknown:
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")


def build(
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
    known(fields, allowed)
    name("model", model)
    sent: dict[str, Any] = {"model": model, **body}
    sent.update((key, value) for key, value in fields.items() if key not in _NOT_SENT)
    sent = {_SPELLED.get(key, key): value for key, value in sent.items() if value is not None}
    extra = fields.get("extra")
    sent.update({} if extra is None else _mapping("extra", extra))
    for key, check in _CHECKS.items():
        if sent.get(key) is not None:
            sent[key] = check(key, sent[key])
    label = f"{method} {path}, model {model!r}"
    return Request(method, path, label, encode(sent, label))


def plain(
    method: str, path: str, json: object = None, *, fields: Mapping[str, Any] | None = None
) -> Request:
    """A request to any endpoint; `json` is its body, where there is one."""
    method = method.upper() if isinstance(method, str) else method  # pyright: ignore[reportUnnecessaryIsInstance]
    if method not in _METHODS:
        raise RequestError(f"the method must be one of {', '.join(_METHODS)}, not {method!r}")
    whole = isinstance(path, str) and path.startswith("/")  # pyright: ignore[reportUnnecessaryIsInstance]
    if not whole or not path.isprintable() or " " in path:
        raise RequestError(
            f"the path must begin with a slash and be printable without spaces, not {path!r}"
        )
    label = f"{method} {path}"
    if isinstance(json, Mapping):
        mapping = cast("Mapping[str, Any]", json)
        model = mapping.get("model")
        label += f", model {model!r}" if isinstance(model, str) else ""
        json = {**mapping, **_mapping("extra", (fields or {}).get("extra") or {})}
    return Request(method, path, label, None if json is None else encode(json, label))


# -- JSON ------------------------------------------------------------------------------------------


class _ImageFile:
    """An image that is a file: read when the request is sent, in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path


def encode(body: object, label: str) -> bytes | Callable[[], bytes]:
    """JSON, or a function that makes it where files have to be read; or an error.

    Raises:
        RequestError: it is no JSON; the function: a file cannot be read.
    """
    files: list[_ImageFile] = []

    def note(thing: object) -> object:
        if isinstance(thing, _ImageFile):
            files.append(thing)
            return ""
        return _plain(thing)

    try:
        encoded = msgspec.json.encode(body, enc_hook=note)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise RequestError(f"the request is no JSON: {error}", request=label) from error
    if not files:
        return encoded
    return lambda: msgspec.json.encode(body, enc_hook=_read)


def _plain(thing: object) -> object:
    """What msgspec does not know but JSON has a form for."""
    if isinstance(thing, Mapping):
        return dict(cast("Mapping[str, Any]", thing))
    if isinstance(thing, Sequence):
        return list(cast("Sequence[object]", thing))
    raise TypeError(f"objects of type {type(thing).__name__} have no form in JSON")


def _read(thing: object) -> object:
    if not isinstance(thing, _ImageFile):
        return _plain(thing)
    path = thing.path
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"the image {str(path)!r} cannot be read: {error.strerror}") from error
    if not data:
        raise RequestError(f"the image {str(path)!r} is empty")
    return data


# -- values ----------------------------------------------------------------------------------------


def name(what: str, given: object) -> str:
    """A name that is not empty."""
    if not isinstance(given, str) or not given.strip():
        example = " such as 'llama3.2'" if what == "model" else ""
        raise RequestError(f"the {what} must be a name{example}, not {given!r}")
    return given


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
        for number, item in enumerate(_list("messages", given, f"messages, {example}"))
    ]


def _message(what: str, item: object) -> object:
    if isinstance(item, ChatResponse):
        item = item.message
    if isinstance(item, Message):
        _check_message(what, item.role, item.content)
        if item.images is None:
            return item
        return msgspec.structs.replace(item, images=_images(f"{what}: images", item.images))
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
        for number, item in enumerate(_list(what, given, "images"))
    ]


def _image(what: str, item: object) -> object:
    if isinstance(item, Path):
        return _ImageFile(item)
    if not isinstance(item, str | bytes | bytearray):
        raise RequestError(
            f"{what} must be bytes, base64 text or a Path, not {type(item).__name__}"
        )
    if len(item) == 0:
        raise RequestError(f"{what} is empty")
    if isinstance(item, str):
        try:
            base64.b64decode(item, validate=True)
        except (binascii.Error, ValueError) as error:
            raise RequestError(
                f"{what} is no base64 text ({error}); give a file as Path(...)"
            ) from error
    return item


def _tools(what: str, given: object) -> list[object]:
    found: list[object] = []
    for number, tool in enumerate(_list(what, given, "tools")):
        if not isinstance(tool, Tool | Mapping):
            raise RequestError(
                f"{what}[{number}] must be a Tool or a mapping, not {type(tool).__name__}"
            )
        found.append(cast("object", tool))
    return found


def _list(what: str, given: object, of: str) -> Sequence[object]:
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Sequence):
        raise RequestError(f"{what} must be a list of {of}, not {type(given).__name__}")
    return cast("Sequence[object]", given)


def _mapping(what: str, given: object) -> Mapping[str, Any]:
    if isinstance(given, Options):
        return given.to_dict()
    if not isinstance(given, Mapping):
        raise RequestError(f"{what} must be a mapping, not {type(given).__name__}")
    found = dict(cast("Mapping[str, Any]", given))
    for key, value in found.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{what}: {key} is {value}, which JSON does not have")
    return found


def _keep_alive(what: str, given: object) -> object:
    if isinstance(given, timedelta):
        return given.total_seconds()
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise RequestError(
            f"{what} must be seconds, a duration such as '1h30m' or a timedelta, not {given!r}"
        )
    if isinstance(given, float) and not math.isfinite(given):
        raise RequestError(f"{what} must be finite; a negative number keeps the model loaded")
    return given


_CHECKS: dict[str, Callable[[str, Any], object]] = {
    "options": _mapping,
    "parameters": _mapping,
    "keep_alive": _keep_alive,
    "images": _images,
    "tools": _tools,
}
