"""The base of messages and replies: a Struct that can be read like a dictionary."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any, cast

from msgspec import Struct, to_builtins

_REPR_TEXT = 60
_REPR_ITEMS = 3
_REPR_WIDTH = 240


class WireObject(Struct, omit_defaults=True, gc=False):
    """A JSON object of the API.

    Its fields are attributes, and keys too: ``reply["message"]["content"]``,
    ``message.get("thinking")``, ``"thinking" in message``, ``dict(message)``. A field that the
    server left out is ``None`` as an attribute and absent as a key.

    It has no part in garbage collection (`gc=False`: a stream makes thousands); do not build a
    reference cycle through one.
    """

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
        cls = type(self)
        pairs = zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)
        return [wire for name, wire in pairs if getattr(self, name) is not None]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers, as in the API's JSON."""
        result: dict[str, Any] = to_builtins(self)
        return result

    def __repr__(self) -> str:
        parts: list[str] = []
        for name in _repr_order(type(self)):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name}={_short(value)}")
        text = f"{type(self).__name__}({', '.join(parts)})"
        return text if len(text) <= _REPR_WIDTH else f"{text[: _REPR_WIDTH - 2]}…)"


@cache
def _attributes(cls: type[WireObject]) -> dict[str, str]:
    """Keys to attribute names: the API's spelling and our own."""
    names = cls.__struct_fields__
    return dict(zip(cls.__struct_encode_fields__, names, strict=True)) | {n: n for n in names}


@cache
def _repr_order(cls: type[WireObject]) -> list[str]:
    """What is particular to a class first, times last: people look for a reply's text."""
    own = cls.__dict__.get("__annotations__", ())
    return sorted(
        cls.__struct_fields__,
        key=lambda name: (name not in own, name.endswith(("_duration", "_at"))),
    )


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
