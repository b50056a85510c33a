"""Vectors out of replies that are not quite the API's. No I/O.

Only what the decoders refuse comes here. A text without a usable vector (null, empty, with nulls or
what is no number of JSON) must not cost the other texts of its request theirs, and neither must an
index that nobody needs. What is no vector at all, or cannot be told apart, is left to an error.
"""

from __future__ import annotations

import binascii
import json
import math
import re
from collections.abc import Sequence
from typing import Any, cast

import msgspec

# What printf and other languages write for numbers that JSON does not have.
_NOT_FINITE = re.compile(
    rb"(?i)(?<=[\[,:\s])[-+]?(?:nan(?:\([^)\s]*\))?|inf(?:inity)?|1\.#\w+)(?=\s*[\],}])"
)
_NAN = float("nan")


class Item(msgspec.Struct, frozen=True):
    """One vector of a reply in OpenAI's form.

    Attributes:
        embedding: the bytes of its values, or a list of numbers that is not empty; no bytes where
            there is no vector.
        index: the place that the server says; ``None`` where it says none that can be read.
    """

    embedding: bytes | list[float]
    index: int | None


def parse(body: bytes) -> Any:
    """A reply as plain values; ``None`` where it is no JSON even so. Each number is a float."""
    try:
        return json.loads(_NOT_FINITE.sub(b"NaN", body), parse_int=float)
    except (ValueError, RecursionError):
        return None


def native(found: Any) -> list[list[float]] | None:
    """The vectors of a reply of ``/api/embed``; ``None`` where it has no list of vectors."""
    vectors = _list_at(found, "embeddings")
    try:
        return None if vectors is None else [_vector(vector) for vector in vectors]
    except (TypeError, ValueError):
        return None


def openai(found: Any) -> list[Item] | None:
    """The items of a reply of ``/v1/embeddings``; ``None`` where it has no list of vectors."""
    items = _list_at(found, "data")
    try:
        return None if items is None else [_item(item) for item in items]
    except (TypeError, ValueError):
        return None


def places(indexes: Sequence[int | None]) -> list[int] | None:
    """For each text the place of its vector in the reply; ``None`` where that is not certain.

    There are three cases. Every index that can be read is its own place: the reply is in order. All
    can be read, and each place has one: they say the order. Anything else is not to be trusted.
    """
    order = range(len(indexes))
    if all(index in (None, place) for place, index in enumerate(indexes)):
        return list(order)
    if set(indexes) == set(order):
        return sorted(order, key=lambda place: cast("int", indexes[place]))
    return None


def _list_at(found: Any, name: str) -> list[Any] | None:
    value: Any = cast("dict[str, Any]", found).get(name) if isinstance(found, dict) else None
    return cast("list[Any]", value) if isinstance(value, list) else None


def _item(item: Any) -> Item:
    if item is None:
        return Item(b"", None)
    if not isinstance(item, dict):
        raise TypeError("no vector")
    fields = cast("dict[str, Any]", item)
    embedding: Any = fields.get("embedding")
    index = _index(fields.get("index"))
    if isinstance(embedding, str) and _finite(embedding):
        return Item(binascii.a2b_base64(embedding, strict_mode=True), index)
    return Item(_vector(embedding) or b"", index)


def _index(value: Any) -> int | None:
    """An index; also one that is a float or text. Anything else is as good as none."""
    try:
        number = float(value) if isinstance(value, float | str) else _NAN
    except ValueError:
        return None
    return int(number) if number.is_integer() else None


def _vector(vector: Any) -> list[float]:
    """A vector: NaN for what is no number; empty where there is none, in whatever words."""
    if vector is None or vector == {} or (isinstance(vector, float | str) and not _finite(vector)):
        return []
    if not isinstance(vector, list):
        raise TypeError("no vector")
    values = cast("list[Any]", vector)
    if all(value is None for value in values):
        return []
    return [_number(value) for value in values]


def _finite(value: float | str) -> bool:
    """Whether a value that stands alone is more than a word for nothing, such as NaN."""
    if isinstance(value, str):
        try:
            value = float(value or "nan")
        except ValueError:
            return True
    return math.isfinite(value)


def _number(value: Any) -> float:
    if value is None:
        return _NAN
    if isinstance(value, bool) or not isinstance(value, float | str):
        raise TypeError("no number")
    number = float(value)
    return number if math.isfinite(number) else _NAN
