"""Lines of JSONL into rows: where the text and the key are, and what can be wrong with them."""

from typing import cast

import msgspec
import pyarrow as pa

from ollama_sc.cli._errors import Refused
from ollama_sc.cli._rows import Key, Row, not_utf8

_LOOKED_AT = 1000  # rows, of which at least one must have the field
_INT64 = range(-(2**63), 2**63)
_LONGEST_SHOWN = 40  # characters of a value in a message
_UNSET = msgspec.UNSET

_decoder = msgspec.json.Decoder[object]()


class JsonLines:
    """An object on each line that is not blank. See `LineFormat`.

    Args:
        field: where the text is.
        key: where the key is; None is the row's number.
        key_type: of the key column, if rows were read before.
        going_on: whether rows were read before.
    """

    def __init__(
        self, field: str, key: str | None, key_type: pa.DataType | None, *, going_on: bool
    ) -> None:
        self._field = field
        self._key = key
        self._key_type = key_type if key is not None else pa.int64()
        # What no row had so far, and the option that says it.
        self._sought: dict[str, str] = {}
        if not going_on:
            self._sought = {field: "--field"} if key is None else {key: "--key", field: "--field"}
        self._rows = 0  # that were read in vain
        self._first_problem = ""

    @property
    def key_type(self) -> pa.DataType:
        """Integers where the first row's key is one, text otherwise."""
        assert self._key_type is not None, "it is known once a row was read"
        return self._key_type

    def is_row(self, line: bytes) -> bool:
        """Whether there is anything in a line."""
        return bool(line.strip())

    def row(self, row: Row, line: bytes) -> Row:
        """Fill in a row.

        Raises:
            Refused: the first rows of all lack the field, or the key.
        """
        fields, problem = _object(line)
        text = fields.get(self._field, _UNSET)
        problem = problem or self._text_problem(text)
        key: Key = row.number
        if self._key is not None:
            key, key_problem = self._checked_key(fields.get(self._key, _UNSET))
            problem = problem or key_problem
        if self._sought:
            self._seek(fields, f"{row.where}: {problem}")
        text = cast("str", text) if problem is None else None
        return row._replace(key=key, text=text, problem=problem)

    def end(self) -> None:
        """The input has ended.

        Raises:
            Refused: no row had the field, or the key.
        """
        if self._rows and self._sought:
            raise self._not_found()

    # -- the text ----------------------------------------------------------------------------

    def _text_problem(self, text: object) -> str | None:
        if isinstance(text, str):
            return None
        if text is _UNSET:
            return f'no field "{self._field}"'
        if text is None:
            return f'"{self._field}" is null'
        return f'"{self._field}" is not text but {_shown(text)}'

    # -- a wrong --field or --key ------------------------------------------------------------

    def _seek(self, fields: dict[str, object], problem: str) -> None:
        """Keep the first problem, and end where too many rows had no such field."""
        for name in self._sought.keys() & fields.keys():
            del self._sought[name]
        if not self._sought:
            return
        self._rows += 1
        if self._rows == 1:
            names = f" (it has: {', '.join(fields)})" if fields else ""
            self._first_problem = f"{problem}{names}"
        if self._rows >= _LOOKED_AT:
            raise self._not_found()

    def _not_found(self) -> Refused:
        name, option = next(reversed(self._sought.items()))
        return Refused(
            f'none of the first {self._rows:,} rows has a field "{name}": see {option}\n'
            f"{self._first_problem}"
        )

    # -- the key -----------------------------------------------------------------------------

    def _checked_key(self, key: object) -> tuple[Key, str | None]:
        """The key as its column can hold it, and what is wrong with it."""
        integer = isinstance(key, int) and not isinstance(key, bool)
        if self._key_type is None:  # the first row of all
            self._key_type = pa.int64() if integer else pa.string()
        wanted = "text"
        if self._key_type == pa.int64():
            if integer and key in _INT64:
                return cast("int", key), None
            wanted = "an integer of 64 bits"
        elif isinstance(key, str):
            return key, None
        elif integer:
            return str(key), None
        if key is _UNSET:
            return None, f'no key "{self._key}"'
        return None, f'the key "{self._key}" is not {wanted} but {_shown(key)}'


def _object(line: bytes) -> tuple[dict[str, object], str | None]:
    """The fields of a line, and why there are none."""
    try:
        value = _decoder.decode(line)
    except UnicodeDecodeError as error:
        return {}, not_utf8(error)
    except RecursionError:
        return {}, "nested too deeply"
    except msgspec.DecodeError as error:
        return {}, f"not JSON: {error}"
    if not isinstance(value, dict):
        return {}, "not an object"
    return cast("dict[str, object]", value), None


def _shown(value: object) -> str:
    """What JSON calls it, or the value itself where that is short."""
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    shown = msgspec.json.encode(value).decode()
    return shown if len(shown) <= _LONGEST_SHOWN else f"{shown[: _LONGEST_SHOWN - 3]}..."
