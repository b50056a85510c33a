"""The keys of JSONL, and the type of their column: integers or text, as the first key is."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import msgspec
import pyarrow as pa

from ollama_sc.cli._shown import printable, shown

_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)
_BIGGEST_EXPONENT = 30  # no integer of 64 bits has as many digits
_MAX_SHOWN_CHARS = 40  # characters of a value in a message
_text_decoder = msgspec.json.Decoder(str)


class KeyColumn:
    """Converts keys to the type of their column.

    The column of integers is one of signed integers, or of unsigned ones where one of the first
    rows has an integer beyond 2^63; which of both is open until these rows were seen.

    Args:
        name: of the field.
        type: of the column, where an earlier run has decided it.
        learn_rows: how many rows may decide it, those of the first shard.
    """

    def __init__(self, name: str, type: pa.DataType | None, learn_rows: int) -> None:
        self._name = name
        self._type = type
        self._learn_rows = learn_rows
        self._has_negative = False
        self._lacks_keys = False  # rows had none, and the type is still open

    @property
    def type(self) -> pa.DataType:
        """The type of the column, as far as the rows so far tell it."""
        return pa.string() if self._type is None else self._type

    def convert(self, value: bytes | None, row: int) -> tuple[int | str | None, str | None]:
        """Convert a key to the type of its column; None and the problem where that is impossible.

        There are four cases: an integer in a column of integers, also one that is written as a
        float; text in a column of text; a number in a column of text, which becomes text; anything
        else, which is a problem.

        Args:
            value: as JSON; None where there is none.
            row: its number.
        """
        number = _integer(value)
        if self._type is None:  # no row so far had a key
            if row < self._learn_rows and not _can_be_key(value):
                self._lacks_keys = True
                return None, self._problem(value, "a number or text")
            # Where the first shard has none, it was written as text.
            is_late = self._lacks_keys and row >= self._learn_rows
            self._type = pa.string() if is_late else _first_type(number)
        if self._type == pa.string():
            return self._convert_to_text(value, number)
        if number is not None and self._fits(number, row):
            return number, None
        sign = " without a sign" if self._type == pa.uint64() else ""
        return None, self._problem(value, f"an integer of 64 bits{sign}")

    def _fits(self, number: int, row: int) -> bool:
        """Whether a column of integers has room for a number; it may change its type for that."""
        if number < 0:
            self._has_negative = self._has_negative or number in _INT64
            return self._type == pa.int64() and number in _INT64
        if number in _INT64:
            return True
        if row < self._learn_rows and not self._has_negative and number in _UINT64:
            self._type = pa.uint64()
        return self._type == pa.uint64() and number in _UINT64

    def _convert_to_text(
        self, value: bytes | None, number: int | None
    ) -> tuple[str | None, str | None]:
        if number is not None:
            return str(number), None
        if value is not None and _is_number(value):
            return value.decode(), None
        try:
            return _text_decoder.decode(value or b""), None
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None, self._problem(value, "text")

    def _problem(self, value: bytes | None, expected: str) -> str:
        if value is None:
            return f'no key "{shown(self._name)}"'
        return f'the key "{shown(self._name)}" is not {expected} but {describe(value)}'


def _first_type(number: int | None) -> pa.DataType:
    """The type of the column by the first key, if that is an integer."""
    if number is None:
        return pa.string()
    return pa.uint64() if number in _UINT64 and number not in _INT64 else pa.int64()


def _can_be_key(value: bytes | None) -> bool:
    """Whether a value is text or a number; what is neither says nothing about other keys."""
    return value is not None and (value[:1] == b'"' or _is_number(value))


def _is_number(value: bytes) -> bool:
    return value[:1] in (b"-", *(b"%d" % digit for digit in range(10)))


def _integer(value: bytes | None) -> int | None:
    """A number that is whole, such as ``7`` or ``7.0``, exactly; None where it is none."""
    if value is None or not _is_number(value):
        return None
    try:
        number = Decimal(value.decode())
    except (InvalidOperation, UnicodeDecodeError):
        return None
    if not number.is_finite() or number.adjusted() > _BIGGEST_EXPONENT:
        return None
    return int(number) if number == number.to_integral_value() else None


def describe(value: bytes) -> str:
    """A value in a message: its JSON, shortened; of arrays and objects only the type."""
    if value[:1] in (b"[", b"{"):
        return "an array" if value.startswith(b"[") else "an object"
    text = value.decode("utf-8", "replace")
    cut = text if len(text) <= _MAX_SHOWN_CHARS else f"{text[: _MAX_SHOWN_CHARS - 3]}..."
    return printable(cut).replace("\n", "\\n")
