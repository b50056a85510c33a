"""The base of messages and replies: a Struct that can be read like a dictionary."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, TypeVar, cast

from msgspec import Struct, defstruct, field, to_builtins

W = TypeVar("W", bound="WireObject")
V = TypeVar("V")

_REPR_TEXT = 60
_REPR_ITEMS = 3
_REPR_WIDTH = 240


def always(value: Callable[[], V]) -> V:
    """A field that servers always send: it stays in JSON where it is as blank as its default.

    Left out is what *is* the default; but never what a function of somebody's made anew.
    """
    made: V = field(default_factory=value)
    return made


def empty_list() -> list[Any]:
    """What `always` needs for a list: msgspec knows `list` itself."""
    return []


class WireObject(Struct, omit_defaults=True, gc=False):
    """A JSON object of the API.

    Its fields are attributes, and keys too: ``reply["message"]["content"]``,
    ``message.get("thinking")``, ``"thinking" in message``, ``dict(message)``. A field that the
    server left out is ``None`` as an attribute and absent as a key. Messages, tool calls and their
    functions keep what a server puts into them that the API does not have, as keys alone.

    It has no part in garbage collection (`gc=False`: a stream makes thousands); do not build a
    reference cycle through one.
    """

    # The fields of a reply that are an error where they cannot be read.
    __strict__: ClassVar[tuple[str, ...]] = ()
    # Of a stand-in: the class that it stands for, and the keys that this one does not know.
    __public__: ClassVar[type[WireObject] | None] = None
    __extra__: ClassVar[tuple[str, ...]] = ()

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, _attributes(type(self))[key], value)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def get(self, key: str, default: Any = None) -> Any:
        """The field's value, or `default` where the server left it out or it does not exist."""
        name = _attributes(type(self)).get(key)
        value = None if name is None else getattr(self, name)
        return default if value is None else value

    def keys(self) -> list[str]:
        """The names of the fields that have a value, as the API spells them."""
        return [wire for _, wire in _present(self)]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers, as in the API's JSON.

        What the API always sends is in it, also where it is empty or false; what it can leave out
        is where it has a value. `msgspec.json.encode` writes the same, but for unknown keys with
        quotation marks, backslashes or control characters in them.
        """
        result: dict[str, Any] = to_builtins(self)
        return _with_real_keys(self, result) if _any_renamed else result

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WireObject) or public_type(type(self)) is not public_type(
            type(other)
        ):
            return NotImplemented
        return _values(self) == _values(other)

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__: ClassVar[None] = None  # type: ignore[assignment]  # it can be changed

    def __reduce__(self) -> Any:
        cls = type(self)
        if cls.__public__ is None:
            return Struct.__reduce__(self)
        values = {name: getattr(self, name) for name in cls.__struct_fields__}
        return _rebuild, (cls.__public__, cls.__extra__, values)

    def __repr__(self) -> str:
        parts: list[str] = []
        for name, shown in _repr_order(type(self)):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{shown}={_short(value)}")
        text = f"{type(self).__name__}({', '.join(parts)})"
        return text if len(text) <= _REPR_WIDTH else f"{text[: _REPR_WIDTH - 2]}…)"


# -- stand-ins -------------------------------------------------------------------------------------

# Whether there was a key that a Struct's field cannot have: such a field has another name.
_any_renamed = False
_NO_NAME = r'["\\\x00-\x1f]|^~'


@lru_cache(512)
def stand_in(cls: type[W], keys: tuple[str, ...] = ()) -> type[W]:
    """A class like this one, with fields for keys of a server's that it does not know.

    All that Structs do, such as copying, replacing and encoding, holds for these too.
    """
    return define_stand_in(cls, keys)


def define_stand_in(
    cls: type[W], keys: tuple[str, ...], fields: list[Any] | None = None, *, strict: bool = False
) -> type[W]:
    """A new stand-in, whose `fields` take the place of the class's own.

    A decoder of a strict one refuses keys that it does not know.
    """
    names = {f"_extra{number}": _field_name(key) for number, key in enumerate(keys)}
    made = defstruct(
        cls.__name__,
        [*(fields or []), *((name, Any, None) for name in names)],
        bases=(cls,),
        rename=names,
        kw_only=True,
        gc=False,
        omit_defaults=True,
        forbid_unknown_fields=strict,
        module=cls.__module__,
        namespace={"__public__": cls, "__extra__": keys, "__doc__": cls.__doc__},
    )
    return cast("type[W]", made)


def with_extras(cls: type[W], values: dict[str, Any], extra: dict[str, Any]) -> W:
    """An object with these values of fields, and those of keys that the class does not know."""
    if not extra:
        return cls(**values)
    keys = tuple(sorted(extra))
    names = {f"_extra{number}": extra[key] for number, key in enumerate(keys)}
    whole: W = stand_in(cls, keys)(**values, **names)
    return whole


def extras(whole: WireObject) -> dict[str, Any]:
    """The values of its keys that the public class does not know."""
    return {
        key: value
        for name, key in _extra_names(type(whole))
        if (value := getattr(whole, name)) is not None
    }


@lru_cache(512)
def _extra_names(cls: type[WireObject]) -> list[tuple[str, str]]:
    return [(f"_extra{number}", key) for number, key in enumerate(cls.__extra__)]


def public_type(cls: type[WireObject]) -> type[WireObject]:
    """The class that a stand-in stands for; any other itself."""
    return cls.__public__ or cls


def _field_name(key: str) -> str:
    if re.search(_NO_NAME, key) is None:
        return key
    global _any_renamed  # noqa: PLW0603 - it changes once
    _any_renamed = True
    return f"~{key.encode().hex()}"


def _rebuild(cls: type[WireObject], keys: tuple[str, ...], values: dict[str, Any]) -> WireObject:
    whole: WireObject = stand_in(cls, keys)(**values)
    return whole


def _with_real_keys(whole: WireObject, found: dict[str, Any]) -> dict[str, Any]:
    cls = type(whole)
    names = _wire_names(cls)
    result: dict[str, Any] = {}
    for name, encoded in zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True):
        if encoded in found:
            result[names[name]] = _with_real_keys_inside(getattr(whole, name), found[encoded])
    return result


def _with_real_keys_inside(value: object, found: Any) -> Any:
    if isinstance(value, WireObject):
        return _with_real_keys(value, found)
    if isinstance(value, list):
        items = cast("list[object]", value)
        return [_with_real_keys_inside(*pair) for pair in zip(items, found, strict=True)]
    return found


def _values(whole: WireObject) -> dict[str, Any]:
    return {wire: getattr(whole, name) for name, wire in _present(whole)}


def _present(whole: WireObject) -> list[tuple[str, str]]:
    names = _wire_names(type(whole)).items()
    return [(name, wire) for name, wire in names if getattr(whole, name) is not None]


# -- replies with a value of a user's type ---------------------------------------------------------


@lru_cache(16)
def _with_room(cls: type[WireObject]) -> type[WireObject]:
    """A stand-in with room for a value that is no field, and that copies take along."""
    namespace = {
        "__public__": cls,
        "__doc__": cls.__doc__,
        "__copy__": _copied,
        "__deepcopy__": _deeply_copied,
        "__reduce__": _reduced,
    }
    made = defstruct(
        cls.__name__, [], bases=(cls,), dict=True, gc=True, module=cls.__module__,
        namespace=namespace, omit_defaults=True,
    )  # fmt: skip
    return cast("type[WireObject]", made)


def with_parsed(whole: W, value: object) -> W:
    """The same reply with a value of a user's type, which is no field of it."""
    public = public_type(type(whole))
    fields = {name: getattr(whole, name) for name in public.__struct_fields__}
    made = cast("W", _with_room(public)(**fields))
    vars(made)["parsed"] = value
    return made


def parsed_of(whole: WireObject) -> object:
    """That value; ``None`` where there is none."""
    found: dict[str, object] = getattr(whole, "__dict__", {})
    return found.get("parsed")


def _copied(whole: W) -> W:
    return with_parsed(whole, parsed_of(whole))


def _deeply_copied(whole: W, memo: dict[int, Any]) -> W:
    made: W = with_parsed(whole, deepcopy(parsed_of(whole), memo))
    for name in type(made).__struct_fields__:
        setattr(made, name, deepcopy(getattr(whole, name), memo))
    return made


def _reduced(whole: WireObject) -> Any:
    public = public_type(type(whole))
    fields = {name: getattr(whole, name) for name in public.__struct_fields__}
    return _rebuilt_with, (public, fields, parsed_of(whole))


def _rebuilt_with(cls: type[W], fields: dict[str, Any], value: object) -> W:
    return with_parsed(cls(**fields), value)


# -- names -----------------------------------------------------------------------------------------


@lru_cache(512)
def _wire_names(cls: type[WireObject]) -> dict[str, str]:
    """The API's spelling by attribute, in the order of the public class."""
    public = public_type(cls)
    own = zip(public.__struct_fields__, public.__struct_encode_fields__, strict=True)
    return dict(own) | dict(_extra_names(cls))


@lru_cache(512)
def _attributes(cls: type[WireObject]) -> dict[str, str]:
    """Keys to attribute names: the API's spelling and our own."""
    names = public_type(cls).__struct_fields__
    return {n: n for n in names} | {wire: name for name, wire in _wire_names(cls).items()}


@lru_cache(512)
def _repr_order(cls: type[WireObject]) -> list[tuple[str, str]]:
    """What is particular to a class first, times last: people look for a reply's text."""
    public = public_type(cls)
    inherited = {name for base in public.__bases__ for name in _fields_of(base)}
    order = sorted(
        public.__struct_fields__,
        key=lambda name: (name in inherited, name.endswith(("_duration", "_at"))),
    )
    extra = [(name, wire) for name, wire in _wire_names(cls).items() if name not in order]
    return [*((n, n) for n in order), *(pair for pair in extra if pair[1].isidentifier())]


def _fields_of(cls: type) -> tuple[str, ...]:
    return cls.__struct_fields__ if issubclass(cls, Struct) else ()


def _short(value: object) -> str:
    if isinstance(value, str) and len(value) > _REPR_TEXT:
        return f"{value[:_REPR_TEXT]!r}… ({len(value)} characters)"
    if isinstance(value, list):
        items = cast("list[Any]", value)
        more = f", … {len(items)} items" if len(items) > _REPR_ITEMS else ""
        return f"[{', '.join(map(_short, items[:_REPR_ITEMS]))}{more}]"
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return (
        text
        if isinstance(value, WireObject) or len(text) <= _REPR_TEXT
        else f"{text[:_REPR_TEXT]}…"
    )
