"""A reply that is not quite the API's, field by field. No I/O.

The second try, where the decoder of a whole type has refused it: each leaf that cannot be read is
what it is where the server leaves it out, singly, and its siblings stay. Only a type's strict
fields (`WireObject.__strict__`: what carries the answer) make it an error.

Of a list, items that cannot be read are left out; but a list of numbers is one leaf.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from types import UnionType
from typing import Any, NoReturn, TypeVar, Union, cast, get_args, get_origin

import msgspec
from msgspec.structs import fields

from ollama_sc._wire_object import WireObject, with_extras
from ollama_sc.types import (
    UNREAD_ARGUMENTS,
    ChatResponse,
    Function,
    GenerateResponse,
    Message,
    ProgressResponse,
)

from .open_types import OPEN

W = TypeVar("W", bound=WireObject)

# What stands for a field that has no default of its own.
_BLANKS: dict[tuple[type, str], Any] = {(Message, "role"): "assistant"}
_EMPTY: dict[object, Callable[[], Any]] = {str: str, list: list, dict: dict}
# A part without its text is one all the same where it brings one of these.
_INSTEAD: dict[type, tuple[str, ...]] = {
    GenerateResponse: ("image", "completed", "total", "thinking", "context", "tool_calls"),
    ProgressResponse: ("digest", "total", "completed"),
}
# Characters in two halves, and halves alone, behind any number of escaped backslashes.
_HALVES = (
    rb"(?<!\\)(?:\\\\)*+"
    rb"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)


def parse(data: bytes) -> Any:
    """What JavaScript and Python take for JSON, as plain values.

    Numbers beyond what a float or the interpreter can hold are None.

    Raises:
        msgspec.DecodeError: it is no JSON.
    """
    try:
        return msgspec.json.decode(data)
    except msgspec.ValidationError:  # such a number
        data = with_whole_characters(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        if b"\\u" not in data:
            raise
        data = with_whole_characters(data)
        try:
            return msgspec.json.decode(data)
        except msgspec.ValidationError:
            pass
    try:
        return json.loads(
            data.decode(), parse_int=_integer, parse_float=_finite, parse_constant=_not_json
        )
    except ValueError as error:
        raise msgspec.DecodeError(str(error)) from error


def with_whole_characters(data: bytes) -> bytes:
    """The same JSON with U+FFFD for every escaped half of a character that has no other half.

    JavaScript and Python read and write such halves; UTF-8, and so a request, cannot have them.
    """
    whole = bytearray()  # the pieces that `sub` makes take many times as much
    end = 0
    for match in re.finditer(_HALVES, data):
        if match[1]:
            whole += data[end : match.start(1)]
            whole += b"\\ufffd"
            end = match.end()
    return bytes(whole + data[end:]) if end else data


def _integer(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:
        return None


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if abs(value) != float("inf") else None


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def read(cls: type[W], found: object) -> W:
    """What a parsed JSON value says, as that type.

    Raises:
        msgspec.ValidationError: it is no object, or a strict field cannot be read.
    """
    if not isinstance(found, dict):
        raise msgspec.ValidationError(f"Expected `object`, got `{type(found).__name__}`")
    given = cast("dict[str, Any]", found)
    values: dict[str, Any] = {}
    for field in _fields(cls):
        value = given.get(field.wire)
        if value is not None:
            try:
                values[field.name] = field.read(value)
                continue
            except msgspec.ValidationError as error:
                if field.strict:
                    raise msgspec.ValidationError(f"{error} - at `$.{field.wire}`") from error
        elif field.answer and not _may_lack_answer(cls, given):
            raise msgspec.ValidationError(f"Object missing required field `{field.wire}`")
        values[field.name] = field.blank()
    if cls is ChatResponse and not values["done"] and not _has_any(given["message"]):
        raise msgspec.ValidationError("Object missing required field `content` - at `$.message`")
    if cls in OPEN:
        known = {field.wire for field in _fields(cls)}
        extra = {k: v for k, v in given.items() if k not in known and v is not None}
        return with_extras(cls, values, extra)
    return cls(**values)


def _may_lack_answer(cls: type[WireObject], given: dict[str, Any]) -> bool:
    return given.get("done") is True or any(
        given.get(name) is not None for name in _INSTEAD.get(cls, ())
    )


def _has_any(message: dict[str, Any]) -> bool:
    """Whether a message has anything that can be read."""
    return any(
        value is not None and (key != "role" or isinstance(value, str))
        for key, value in message.items()
    )


class _Field:
    """How one field of a type is read.

    Attributes:
        strict: whether what cannot be read is an error.
        answer: whether there is no reply without it.
    """

    def __init__(self, cls: type[WireObject], info: Any) -> None:
        self.name: str = info.name
        self.wire: str = info.encode_name
        self.strict = info.name in cls.__strict__
        self.answer = self.strict and info.required
        type_: Any = _without_none(info.type)
        self.read = _reader(type_)
        if cls is Function and info.name == "arguments":
            self.read = _arguments
        if info.default is not msgspec.NODEFAULT:
            default = info.default
            self.blank: Callable[[], Any] = lambda: default
        elif info.default_factory is not msgspec.NODEFAULT:
            self.blank = info.default_factory
        elif (cls, info.name) in _BLANKS:
            self.blank = lambda: _BLANKS[cls, info.name]
        elif _is_wire_object(type_):
            self.blank = lambda: read(type_, {})
        else:
            origin: object = get_origin(type_) or type_
            self.blank = _EMPTY.get(origin, lambda: None)


@lru_cache(256)
def _fields(cls: type[WireObject]) -> list[_Field]:
    return [_Field(cls, info) for info in fields(cls)]


def _without_none(type_: Any) -> Any:
    if get_origin(type_) in (Union, UnionType):
        inner = [item for item in get_args(type_) if item is not type(None)]
        return inner[0] if len(inner) == 1 else Union[tuple(inner)]  # noqa: UP007
    return type_


def _reader(type_: Any) -> Callable[[Any], Any]:
    if _is_wire_object(type_):
        return lambda value: read(type_, value)
    if get_origin(type_) is list:
        (item,) = get_args(type_)
        if item is str or _is_wire_object(item):
            return lambda value: _items(value, _reader(item))
    if get_origin(type_) is dict:  # free form, however deep
        return _object
    if type_ is int:
        return _whole_number
    return lambda value: msgspec.convert(value, type_)


def _is_wire_object(type_: Any) -> bool:
    return isinstance(type_, type) and issubclass(type_, WireObject)


def _items(value: object, read_item: Callable[[Any], Any]) -> list[Any]:
    if not isinstance(value, list):
        raise msgspec.ValidationError(f"Expected `array`, got `{type(value).__name__}`")
    found: list[Any] = []
    for item in cast("list[Any]", value):
        try:
            found.append(read_item(item))
        except msgspec.ValidationError:
            continue
    return found


def _whole_number(value: object) -> int:
    """Also one that a server's language writes as 12.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return msgspec.convert(value, int)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise msgspec.ValidationError(f"Expected `object`, got `{type(value).__name__}`")
    return cast("dict[str, Any]", value)


def _arguments(value: object) -> dict[str, Any]:
    """Arguments as an object, or as the text of one."""
    if isinstance(value, dict):
        return cast("dict[str, Any]", value)
    if isinstance(value, str):
        if not value.strip():
            return {}
        try:
            inner = parse(value.encode())
        except (msgspec.DecodeError, RecursionError):
            inner = None
        if isinstance(inner, dict):
            return cast("dict[str, Any]", inner)
        if inner is None and value.strip() == "null":
            return {}
    return {UNREAD_ARGUMENTS: value}
