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

from ._blobs import open_regular
from ._errors import RequestError
from ._fields import BodyFields
from ._http import Request
from ._wire_object import WireObject
from .types import ChatResponse, Message, Options, Tool

F = TypeVar("F", bound=Callable[..., Any])

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_NOT_SENT = BodyFields.__annotations__.keys()
_LABEL_TEXT = 100
_PLAIN: frozenset[type] = frozenset({str, bool, int, type(None)})
_TEXT: frozenset[type] = frozenset({str})
# Names that Python cannot have, or that would look private.
_SPELLED = {"debug_render_only": "_debug_render_only", "from_": "from"}


def accepts(fields: type, defaults: Mapping[str, Any] | None = None) -> Callable[[F], F]:
    """Let a method's ``**fields`` show as the keyword parameters that they are.

    Type checkers read them from the annotation; this is for `help` and `inspect.signature`.
    """
    default = (defaults or {}).get

    def spelled_out(function: F) -> F:
        shown = signature(function)
        keywords = [
            Parameter(name, Parameter.KEYWORD_ONLY, default=default(name), annotation=annotation)
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
    label = f"{method} {path}, model {_shortened(model)}"
    try:
        name("model", model)
        if fields:
            known(fields, allowed)
            body.update((key, value) for key, value in fields.items() if key not in _NOT_SENT)
        sent: dict[str, Any] = {"model": model}
        for key, value in body.items():
            if value is not None:
                sent[_SPELLED.get(key, key)] = value
        if fields:
            sent.update(_extra(fields))
        for key, value in sent.items():
            check = _CHECKS.get(key)
            if check is not None and value is not None:
                sent[key] = check(key, value)
    except RequestError as error:
        error.request = label
        raise
    return Request(method, path, label, encode(sent, label))


def _extra(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = fields.get("extra")
    found: Mapping[str, Any] = {} if extra is None else _mapping("extra", extra)
    if "stream" in found:
        raise RequestError("extra cannot decide on stream: the call has an argument for that")
    return found


def _shortened(model: object) -> str:
    text = repr(model)
    return text if len(text) <= _LABEL_TEXT else f"{text[:_LABEL_TEXT]}…"


def plain(
    method: str, path: str, json: object = None, *, fields: Mapping[str, Any] | None = None
) -> Request:
    """A request to any endpoint; `json` is its body, where there is one."""
    method = method.upper() if isinstance(method, str) else method  # pyright: ignore[reportUnnecessaryIsInstance]
    if method not in _METHODS:
        raise RequestError(f"the method must be one of {', '.join(_METHODS)}, not {method!r}")
    whole = isinstance(path, str) and path.startswith("/")  # pyright: ignore[reportUnnecessaryIsInstance]
    if not whole or not path.isprintable() or {" ", "#"} & set(path) or "/../" in f"{path}/":
        raise RequestError(
            "the path must begin with a slash and have no space, no '..' and no '#', "
            f"not {path!r:.80}"
        )
    label = f"{method} {path.partition('?')[0][:_LABEL_TEXT]}"  # a query can hold a key
    if isinstance(json, Mapping):
        mapping = cast("Mapping[str, Any]", json)
        model = mapping.get("model")
        label += f", model {_shortened(model)}" if isinstance(model, str) else ""
        json = {**mapping, **_extra(fields or {})}
    return Request(method, path, label, None if json is None else encode(json, label))


# -- JSON ------------------------------------------------------------------------------------------


class _ImageFile:
    """An image that is a file: read when the request is sent, in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path


def encode(body: object, label: str) -> bytes | Callable[[], bytes]:
    """JSON, or a function that makes it where files have to be read.

    Raises:
        RequestError: it is no JSON; the function: a file cannot be read.
    """
    files: list[Path] = []
    try:
        plain_body = _plain(body, "", files)
        encoded = msgspec.json.encode(plain_body, enc_hook=_unread)
    except RequestError as error:
        error.request = label
        raise
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise RequestError(f"the request is no JSON: {error}", request=label) from error
    if not files:
        return encoded
    return lambda: msgspec.json.encode(plain_body, enc_hook=_read)


def _plain(value: object, where: str, files: list[Path]) -> object:  # noqa: C901 - one case each
    """What JSON has a form for, and nothing that would change on its way into it."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RequestError(f"{where[1:] or 'the body'} is {value}, which JSON does not have")
        return value
    if isinstance(value, _ImageFile):
        files.append(value.path)
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, WireObject):
        return {
            wire: _plain(value[wire], f"{where}.{wire}", files)
            for wire in value.keys()  # noqa: SIM118
        }
    if type(value) is list and _PLAIN.issuperset(map(type, cast("list[object]", value))):
        return cast("list[object]", value)
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {_key(key, where): _plain(item, f"{where}.{key}", files) for key, item in pairs}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        items = cast("Sequence[object]", value)
        return [_plain(item, f"{where}[{n}]", files) for n, item in enumerate(items)]
    dumped = msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else _dumped(value)
    if dumped is not value:
        return _plain(dumped, where, files)
    raise RequestError(
        f"{where[1:] or 'the body'} cannot be {type(value).__name__}, which has no form in JSON"
    )


def _dumped(value: object) -> object:
    """What pydantic's objects hold, and so the official client's; all others as they are."""
    dump = getattr(value, "model_dump", None)
    return value if dump is None or isinstance(value, type) else dump(exclude_none=True)


def _key(key: object, where: str) -> object:
    if not isinstance(key, str | int):
        raise RequestError(f"{where[1:] or 'the body'} has a key that is no text: {key!r:.80}")
    return key


def _unread(thing: object) -> object:
    assert isinstance(thing, _ImageFile)
    return ""


def _read(thing: object) -> object:
    assert isinstance(thing, _ImageFile)
    with open_regular(thing.path) as file:
        try:
            data = file.read()
        except OSError as error:
            why = f"the image {str(thing.path)!r} cannot be read: {error.strerror}"
            raise RequestError(why) from error
    if not data:
        raise RequestError(f"the image {str(thing.path)!r} is empty")
    return base64.b64encode(data).decode()


# -- values ----------------------------------------------------------------------------------------


def name(what: str, given: object) -> str:
    """A name that is not empty."""
    if not isinstance(given, str) or not given.strip():
        example = " such as 'llama3.2'" if what == "model" else ""
        raise RequestError(f"the {what} must be a name{example}, not {given!r:.80}")
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
    item = _dumped(item)
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
    return base64.b64encode(item).decode()


def _tools(what: str, given: object) -> list[object]:
    found: list[object] = []
    for number, tool in enumerate(_list(what, given, "tools")):
        plain_tool = _dumped(tool)
        if not isinstance(plain_tool, Tool | Mapping):
            raise RequestError(
                f"{what}[{number}] must be a Tool or a mapping with the function's JSON schema, "
                f"not {type(tool).__name__}"
            )
        found.append(cast("object", plain_tool))
    return found


def _list(what: str, given: object, of: str) -> Sequence[object]:
    if isinstance(given, str | bytes | bytearray) or not isinstance(given, Sequence):
        raise RequestError(f"{what} must be a list of {of}, not {type(given).__name__}")
    return cast("Sequence[object]", given)


def _mapping(what: str, given: object) -> Mapping[str, Any]:
    if isinstance(given, Options):
        return given.to_dict()
    given = _dumped(given)
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
    return given


def _format(what: str, given: object) -> object:
    return given if isinstance(given, str) else _mapping(what, given)


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
    if _number(what, given) == 0 or str(given).startswith("-"):
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
    "tools": _tools,
}
