"""A type as a JSON schema, and JSON as a value of that type.

msgspec knows types; what it does not know of pydantic's, `models` does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import UnionType
from typing import Any, ForwardRef, Literal, NewType, TypeVar, cast, get_origin

import msgspec

from . import descriptions, models
from .narrow import resolved
from .unsafe import refuse_unsafe

T = TypeVar("T")

_MANY_TYPES = 256  # those of a program that makes them at run time must not stay for ever
# msgspec says where a misfit is at the end of its text, unless that is the whole value.
_AT = re.compile(r"(?s)(.*) - at `(key in )?\$(.*)`$")
# What msgspec says of a type that it does not know, with what its hooks would be.
_CUSTOM = re.compile(r"(?s)custom type.*type (?:<class '|`)?(.+?)(?:'>|`)? is not supported")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[(\.\.\.)\]")
# A text that is JSON in a text, in a list: each of these costs one more conversion.
_MOST_TEXTS = 16


@lru_cache(_MANY_TYPES)
def _remembered(function: Callable[[Any], T], type_: Any) -> T:
    return function(type_)


def once_for_each(function: Callable[[Any], T], type_: Any) -> T:
    """What a function makes of a type, once: making it costs a hundred times what using it does."""
    try:
        hash(type_)
    except TypeError:  # with a list in its annotations
        return function(type_)
    found: T = _remembered(function, type_)
    return found


class Misfit(Exception):  # noqa: N818 - no error of the library: its users make one of it
    """A value that does not fit its type.

    Attributes:
        path: where in it, such as ``"$.cities[0].name"``.
        problem: what is wrong there.
    """

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(f"{problem} (at {path})")
        self.path = path
        self.problem = problem


def is_type_form(given: object) -> bool:
    """Whether something stands for a type: a class, a union, an alias, `Literal[...]`."""
    if isinstance(given, type | UnionType | NewType | ForwardRef | TypeVar):
        return True
    # Aliases by the `type` statement and those of typing_extensions are instances of two classes.
    return given is Any or get_origin(given) is not None or type(given).__name__ == "TypeAliasType"


def name_of(type_: object) -> str:
    """How a type is written."""
    return type_.__name__ if isinstance(type_, type) else str(type_)


def schemas_of(types: Sequence[Any]) -> list[dict[str, Any]]:
    """The JSON schemas of types, with no references in them.

    Raises:
        TypeError: one of them has no form in JSON.
    """
    plain = [type_ for type_ in types if not models.mentions_checks(type_)]
    found = iter(_plain_schemas(plain))
    return [
        _of_model(models.json_schema(type_), type_)
        if models.mentions_checks(type_)
        else next(found)
        for type_ in types
    ]


def _plain_schemas(types: Sequence[Any]) -> list[dict[str, Any]]:
    refuse_unsafe(types)
    try:
        found, parts = msgspec.json.schema_components(types, schema_hook=_schema_hook)
        descriptions.describe_fields(types, parts)
        for schema, type_ in zip(found, types, strict=True):
            descriptions.describe_items(schema, type_)
        return [resolved(one, parts) for one in found]
    except RecursionError:
        raise TypeError("it is nested without an end") from None
    except NameError as error:
        raise TypeError(f"it cannot be read: {error}") from error
    except TypeError as error:
        if custom := _CUSTOM.search(str(error)):
            raise TypeError(f"{custom[1]} has no form in JSON") from error
        raise


def _schema_hook(type_: Any) -> dict[str, Any]:
    return _of_model(models.schema_of_model(type_), type_)


def _of_model(found: dict[str, Any], type_: Any) -> dict[str, Any]:
    parts = found.pop("$defs", {})
    descriptions.describe_fields([type_], {name_of(type_): found, **parts})
    return resolved(found, parts)


def schema_of(type_: Any) -> dict[str, Any]:
    """The JSON schema of a type, with no references in it; also of what only pydantic can read.

    Raises:
        TypeError: it has no form in JSON.
    """
    try:
        return schemas_of([type_])[0]
    except TypeError:
        if not models.mentions_model(type_):
            raise
    # msgspec takes no union of two models.
    return _of_model(models.json_schema(type_), type_)


def decode(text: str, type_: Any) -> Any:
    """The value that a text is, read as a type, and strictly.

    Raises:
        Misfit: it is JSON of another form.
        ValueError: it is no JSON.
    """
    if models.mentions_checks(type_):
        return _decode_as_model(text, type_)
    try:
        decoder = once_for_each(_decoder, type_)
    except TypeError:
        if not models.mentions_model(type_):
            raise
        return _decode_as_model(text, type_)
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        value = _loads(text)  # the misfit can come before what makes it no JSON
        raise misfit_of(error, value) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ValueError(str(error)) from error


def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_, dec_hook=models.read_model)


def _decode_as_model(text: str, type_: Any) -> Any:
    return _read_as_model(_loads(text), type_)


def _read_as_model(value: object, type_: Any) -> Any:
    try:
        return once_for_each(models.adapter, type_).validate_python(value)
    except ValueError as error:
        raise misfit_of(error, value) from error


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(str(error)) from error


def convert(value: object, type_: Any) -> Any:
    """The value that a model has given as an argument, converted to a type.

    A text stands for a number, and for a list or an object where it is JSON of that, inside of
    others too.

    Raises:
        Misfit: it does not fit.
    """
    for _ in range(_MOST_TEXTS):
        try:
            return _converted(value, type_)
        except Misfit as misfit:
            replaced, value = _with_json_read(value, _steps(misfit.path))
            if not replaced:
                raise
    raise Misfit("$", "too many texts that are JSON")


def _converted(value: object, type_: Any) -> Any:
    try:
        if not models.mentions_checks(type_):
            return msgspec.convert(value, type_, strict=False, dec_hook=models.read_model)
    except TypeError:
        if not models.mentions_model(type_):
            raise
    except (msgspec.ValidationError, RecursionError) as error:
        raise misfit_of(error, value) from error
    return _read_as_model(value, type_)


def _with_json_read(value: Any, steps: Sequence[str | int | None]) -> tuple[bool, Any]:
    """The value with the text at a place read as JSON, and whether there was one.

    A step that is ``None`` leads to each value of a mapping: msgspec does not say to which.
    """
    if not steps:
        if not isinstance(value, str):
            return False, value
        try:
            found = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False, value
        return isinstance(found, list | dict), found
    step = steps[0]
    if step is None:
        if not isinstance(value, dict):
            return False, value
        pairs = cast("dict[Any, Any]", value)
        found = {key: _with_json_read(one, steps[1:]) for key, one in pairs.items()}
        replaced = any(one[0] for one in found.values())
        return replaced, {key: one[1] for key, one in found.items()}
    try:
        replaced, inner = _with_json_read(value[step], steps[1:])
    except (LookupError, TypeError):
        return False, value
    if not replaced:
        return False, value
    copied: Any = dict(cast("Any", value)) if isinstance(value, Mapping) else list(value)
    copied[step] = inner
    return True, copied


def _steps(path: str) -> list[str | int | None]:
    return [None if any_ else name or int(index) for name, index, any_ in _STEP.findall(path)]


def misfit_of(error: BaseException, value: Any) -> Misfit:
    """What msgspec or pydantic says is wrong with a value, and where."""
    text, path = str(error), "$"
    if found := _AT.match(text):
        text, path = found[1], f"${found[3]}"
    try:
        for step in _steps(path):
            value = value[step]
    except (LookupError, TypeError):  # a key that is missing
        value = None
    inner = models.first_error(error, value) or models.first_error(error.__cause__, value)
    if inner is not None:
        path, text = path + inner[0], inner[1]
    return Misfit(path, text)


def to_json(value: object, *, order: Literal["deterministic"] | None = None) -> str:
    """A value as JSON text; sets and mappings as they are, or in an order that is always the same.

    Raises:
        TypeError: it has no form in JSON.
    """
    try:
        return msgspec.json.encode(value, enc_hook=models.write_model, order=order).decode()
    except OverflowError:  # an integer of more than 64 bits
        return json.dumps(value, ensure_ascii=False)
    except (NotImplementedError, RecursionError, ValueError) as error:
        raise TypeError(str(error)) from error
