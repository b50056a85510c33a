"""Types of Parquet columns: which can be texts and keys, and one for the keys of all files."""

from __future__ import annotations

# What pyarrow's stubs leave open is used in a few lines here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
import decimal
import math
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

_UUID, _JSON = "arrow.uuid", "arrow.json"  # types that extend others


class UnfitKeyError(Exception):
    """A key has no value in the type of its column."""


def plain_type(type_: pa.DataType) -> pa.DataType:
    """A type without what does not matter here: dictionaries, views, JSON that is text."""
    found: Any = type_
    if pa.types.is_dictionary(found):
        found = found.value_type
    if isinstance(found, pa.BaseExtensionType) and found.extension_name == _JSON:
        found = found.storage_type
    if pa.types.is_string_view(found):
        return pa.string()
    return pa.binary() if pa.types.is_binary_view(found) else found


def is_text(type_: pa.DataType) -> bool:
    """Whether a column can hold texts: text, JSON, bytes that may be UTF-8, or only nulls."""
    plain = plain_type(type_)
    return _is_string(plain) or pa.types.is_null(plain) or _is_bytes(plain)


def common_key_type(types: Sequence[pa.DataType]) -> pa.DataType | None:
    """The type of the key column for files with these; None where there is none.

    Files that have the same keep it, and columns of nothing but nulls fit any. Integers of several
    sizes become the largest; with floats, they stay integers. Bytes and texts are bytes. Everything
    else is text beside text, and is not mixed otherwise.
    """
    plain = [plain_type(type_) for type_ in types]
    kinds = list(dict.fromkeys(type_ for type_ in plain if not pa.types.is_null(type_)))
    if not all(map(_is_key, kinds)):
        return None
    if len(kinds) <= 1:
        return kinds[0] if kinds else pa.null()
    if all(map(_is_number, kinds)):
        return _common_number_type(kinds)
    if any(map(_is_bytes, kinds)):
        return pa.binary() if all(_is_bytes(kind) or _is_string(kind) for kind in kinds) else None
    return pa.string() if any(map(_is_string, kinds)) else None


def _common_number_type(kinds: Sequence[pa.DataType]) -> pa.DataType:
    if all(map(pa.types.is_floating, kinds)):
        return pa.float64()
    integers = [kind for kind in kinds if pa.types.is_integer(kind)]
    if all(map(pa.types.is_unsigned_integer, integers)):
        return max(integers, key=lambda kind: kind.bit_width) if integers == kinds else pa.uint64()
    # A key beyond 2^63 in an unsigned column is one that fails.
    return pa.int64()


def _is_key(type_: pa.DataType) -> bool:
    return (
        _is_number(type_)
        or _is_string(type_)
        or _is_bytes(type_)
        or _is_uuid(type_)
        or pa.types.is_decimal(type_)
    )


def _is_number(type_: pa.DataType) -> bool:
    return pa.types.is_integer(type_) or pa.types.is_floating(type_)


def _is_string(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _is_bytes(type_: pa.DataType) -> bool:
    return (
        pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_fixed_size_binary(type_)
    )


def _is_uuid(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.BaseExtensionType) and type_.extension_name == _UUID


def converter(found: pa.DataType, wanted: pa.DataType) -> Callable[[Any], Any] | None:
    """What makes keys of one type of those of another; None where they are the same.

    It is not called for nulls, and raises `UnfitKeyError`.
    """
    plain = plain_type(found)
    if plain == wanted or pa.types.is_null(plain):
        return None
    if _is_string(wanted):
        return None if _is_string(plain) else _to_text
    if _is_bytes(wanted):
        return None if _is_bytes(plain) else str.encode
    if pa.types.is_integer(wanted):
        width = wanted.bit_width
        signed = pa.types.is_signed_integer(wanted)
        room = range(-(2 ** (width - 1)), 2 ** (width - 1)) if signed else range(2**width)
        return lambda value: _to_integer(value, room)
    return None


def _to_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float | uuid.UUID | decimal.Decimal):
        return str(value)
    raise UnfitKeyError


def _to_integer(value: float, room: range) -> int:
    if not math.isfinite(value) or value != int(value) or int(value) not in room:
        raise UnfitKeyError
    return int(value)
