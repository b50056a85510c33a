"""Objects into the JSON of a request's body, and nothing that would change on its way. No I/O."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec

from ollama_sc._errors import RequestError
from ollama_sc._wire_object import WireObject

_BUILTIN_TYPES: frozenset[type] = frozenset({str, bool, int, type(None)})


class ImageFile:
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
        builtins = _to_builtins(body, "", files)
        encoded = _json(builtins, _image_unread_hook)
    except RequestError as error:
        error.request = label
        raise
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise RequestError(f"the request is no JSON: {error}", request=label) from error
    if not files:
        return encoded
    return _BodyWithFiles(builtins)


class _BodyWithFiles:
    """A body that is made when the request is sent, in a thread: files are read for it."""

    def __init__(self, builtins: object) -> None:
        self._builtins = builtins

    def __call__(self) -> bytes:
        return _json(self._builtins, _image_read_hook)

    def without_files(self) -> bytes:
        """The same with no content where the files would be."""
        return _json(self._builtins, _image_unread_hook)


def _json(builtins: object, hook: Callable[[object], object]) -> bytes:
    try:
        return msgspec.json.encode(builtins, enc_hook=hook)
    except OverflowError:  # an integer of more than 64 bits, as a model may have given it
        return json.dumps(builtins, default=hook, ensure_ascii=False).encode()


def _to_builtins(value: object, where: str, files: list[Path]) -> object:  # noqa: C901, PLR0912 - one case each
    """What JSON has a form for, and nothing that would change on its way into it."""
    kind = type(value)
    if kind in _BUILTIN_TYPES:
        return value
    if kind is dict:  # what most are, before questions that take longer
        return _dict_to_builtins(cast("dict[object, object]", value), where, files)
    if kind is list:
        items = cast("list[object]", value)
        if _BUILTIN_TYPES.issuperset(map(type, items)):
            return items
        return _list_to_builtins(items, where, files)
    if isinstance(value, float):
        value = float.__float__(value)
        if not math.isfinite(value):
            raise RequestError(f"{where[1:] or 'the body'} is {value}, which JSON does not have")
        return value
    if isinstance(value, str | int):
        return plain(value)
    if isinstance(value, ImageFile):
        files.append(value.path)
        return value
    if isinstance(value, WireObject):
        return {
            wire: _to_builtins(value[wire], f"{where}.{wire}", files)
            for wire in value.keys()  # noqa: SIM118
        }
    if isinstance(value, Mapping):
        return _dict_to_builtins(cast("Mapping[object, object]", value), where, files)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return _list_to_builtins(cast("Sequence[object]", value), where, files)
    if isinstance(value, msgspec.Struct):
        dumped = msgspec.to_builtins(value, enc_hook=_plain_hook)
    else:
        dumped = dump_model(value)
    if dumped is not value:
        return _to_builtins(dumped, where, files)
    raise RequestError(
        f"{where[1:] or 'the body'} cannot be {type(value).__name__}, which has no form in JSON"
    )


def _list_to_builtins(value: Sequence[object], where: str, files: list[Path]) -> list[object]:
    return [_to_builtins(item, f"{where}[{n}]", files) for n, item in enumerate(value)]


def _dict_to_builtins(
    value: Mapping[object, object], where: str, files: list[Path]
) -> dict[object, object]:
    return {
        key if type(key) is str else _key(key, where): (
            item if type(item) in _BUILTIN_TYPES else _to_builtins(item, f"{where}.{key}", files)
        )
        for key, item in value.items()
    }


def plain(value: object) -> object:
    """What a subclass of a built-in type stands for, whatever its own `str()` shows.

    That of ``class Role(str, Enum)`` would be ``"Role.USER"``.
    """
    if type(value) in _BUILTIN_TYPES:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    return float.__float__(value) if isinstance(value, float) else value


def dump_model(value: object) -> object:
    """What pydantic's objects hold, and so the official client's; all others as they are."""
    dump = getattr(value, "model_dump", None)
    if dump is None or isinstance(value, type):
        return value
    return dump(exclude_none=True, by_alias=True)  # such as `$defs`


def _key(key: object, where: str) -> object:
    if not isinstance(key, str | int) or isinstance(key, bool):
        raise RequestError(f"{where[1:] or 'the body'} has a key that is no text: {key!r:.80}")
    return plain(key)


def _plain_hook(value: object) -> object:
    found = plain(value)
    if found is value:
        raise NotImplementedError
    return found


def _image_unread_hook(thing: object) -> object:
    assert isinstance(thing, ImageFile)
    return ""


def _image_read_hook(thing: object) -> object:
    from .files import open_regular  # noqa: PLC0415 - most requests have no files

    assert isinstance(thing, ImageFile)
    with open_regular(thing.path) as file:
        try:
            data = file.read()
        except OSError as error:
            why = f"the image {str(thing.path)!r} cannot be read: {error.strerror}"
            raise RequestError(why) from error
    if not data:
        raise RequestError(f"the image {str(thing.path)!r} is empty")
    return base64.b64encode(data).decode()
