"""JSONL and plain lines into rows."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pyarrow as pa

from ollama_sc.cli._bytes import Lines, RowHash
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._inputs import Input
from ollama_sc.cli._rows import Key, Row

_LOOKED_AT = 1000  # rows, of which at least one must have the field
_INT64 = range(-(2**63), 2**63)
_UNSET = msgspec.UNSET


class LinesReader:
    """Reads plain lines: each is a text, an empty one too."""

    def __init__(self, source: Input, skip: int, mark: str | None) -> None:
        self._input = source
        self._sources = iter(source.sources)
        self._lines: Lines | None = None
        self._number = 0
        self._skip = skip
        self._mark = mark
        self._hash = RowHash() if source.is_pipe else None

    @property
    def key_type(self) -> pa.DataType:
        """The row number."""
        return pa.int64()

    async def block(self) -> Sequence[Row]:
        """See `Reader`.

        Raises:
            Refused: the pipe does not begin with the rows that are done.
        """
        while (lines := await self._next_lines()) is not None:
            if rows := self._rows(*lines):
                return rows
        if self._hash is not None and self._number < self._skip:
            raise self._another_pipe()
        return []

    async def aclose(self) -> None:
        """Close what is open."""
        if self._lines is not None:
            await self._lines.aclose()

    async def _next_lines(self) -> tuple[str, int, Sequence[bytes]] | None:
        """The next lines with their file and the number of the first; None at the end of all."""
        while True:
            if self._lines is None:
                source = next(self._sources, None)
                if source is None:
                    return None
                self._lines = Lines(source)
            first = self._lines.count + 1
            if lines := await self._lines.next():
                return self._lines.source.name, first, lines
            await self._lines.aclose()
            self._lines = None

    def _rows(self, name: str, first: int, lines: Sequence[bytes]) -> list[Row]:
        rows: list[Row] = []
        for place, line in enumerate(lines, first):
            if not self._is_row(line):
                continue
            mark = None
            if self._hash is not None:
                self._hash.update(line)
                if self._number >= self._skip - 1:
                    mark = self._hash.digest()
            number = self._number
            self._number += 1
            if number >= self._skip:
                rows.append(self._row(number, f"{name}:{place}", line, mark))
            elif number == self._skip - 1 and mark != self._mark:
                raise self._another_pipe()
        return rows

    def _another_pipe(self) -> Refused:
        return Refused(
            f"{self._input.sources[0].name} does not begin with the {self._skip:,} rows that are "
            "done: pipe the same input in, or use another folder"
        )

    def _is_row(self, line: bytes) -> bool:
        del line
        return True

    def _row(self, number: int, where: str, line: bytes, mark: str | None) -> Row:
        try:
            text = line.removesuffix(b"\r").decode()
        except UnicodeDecodeError as error:
            return Row(number, where, number, None, _not_utf8(error), mark)
        return Row(number, where, number, text, None, mark)


class JsonLinesReader(LinesReader):
    """Reads JSONL: an object on each line that is not blank."""

    def __init__(
        self,
        source: Input,
        skip: int,
        mark: str | None,
        *,
        field: str,
        key: str | None,
        key_type: pa.DataType | None,
    ) -> None:
        super().__init__(source, skip, mark)
        self._field = field
        self._key = key
        self._key_type = key_type if key is not None else pa.int64()
        self._found_field = skip > 0
        self._first_problem = ""
        self._decoder = _decoder(field, key)

    @property
    def key_type(self) -> pa.DataType:
        """Integers where the first row's key is one, text otherwise."""
        assert self._key_type is not None, "it is known once a row was read"
        return self._key_type

    async def block(self) -> Sequence[Row]:
        """See `Reader`.

        Raises:
            Refused: also where the first rows all lack the field.
        """
        rows = await super().block()
        if not rows and self._number and not self._found_field:
            raise self._no_field()
        return rows

    def _is_row(self, line: bytes) -> bool:
        return bool(line.strip())

    def _row(self, number: int, where: str, line: bytes, mark: str | None) -> Row:
        key: object = _UNSET
        text: object = _UNSET
        problem: str | None = None
        try:
            if self._decoder is None:
                text, key, problem = self._look_closely(line)
            else:
                found = self._decoder.decode(line)
                text = found.text
                key = text if self._key == self._field else getattr(found, "key", _UNSET)
        except UnicodeDecodeError as error:
            problem = _not_utf8(error)
        except msgspec.ValidationError:
            text, key, problem = self._look_closely(line)
        except msgspec.DecodeError as error:
            problem = f"not JSON: {error}"
        if problem is None:
            problem = self._field_problem(text)
        row = Row(number, where, None, text if isinstance(text, str) else None, problem, mark)
        if not self._found_field:
            self._miss_field(row, line)
        return self._with_key(row, key)

    def _look_closely(self, line: bytes) -> tuple[object, object, str | None]:
        """Text, key and problem of a line that has something of another type."""
        value: object = msgspec.json.decode(line)
        if not isinstance(value, dict):
            return _UNSET, _UNSET, "not an object"
        fields = cast("dict[str, object]", value)
        text = fields.get(self._field, _UNSET)
        key = _UNSET if self._key is None else fields.get(self._key, _UNSET)
        problem: str | None = None
        if not isinstance(text, str | None | msgspec.UnsetType):
            self._found_field = True
            problem = f'"{self._field}" is not text but {_kind(text)}'
        return text, key, problem

    def _field_problem(self, text: object) -> str | None:
        if text is _UNSET:
            return f'no field "{self._field}"'
        self._found_field = True
        return None if isinstance(text, str) else f'"{self._field}" is null'

    def _miss_field(self, row: Row, line: bytes) -> None:
        """Keep the first problem, and end where too many rows had no field."""
        if not self._first_problem:
            self._first_problem = f"{row.where}: {row.problem}"
            if row.problem is not None and row.problem.startswith("no field"):
                names = msgspec.json.decode(line, type=dict[str, Any])
                self._first_problem += f" (it has: {', '.join(names) or 'nothing'})"
        if self._number >= _LOOKED_AT:
            raise self._no_field()

    def _no_field(self) -> Refused:
        return Refused(
            f'none of the first {self._number:,} rows has a text in "{self._field}": see --field\n'
            f"{self._first_problem}"
        )

    def _with_key(self, row: Row, key: object) -> Row:
        """The row with its key, as the key column can hold it."""
        text = row.text if row.problem is None else None
        if self._key is None:
            return row._replace(key=row.number, text=text)
        if self._key_type is None:  # the first row of all
            self._key_type = pa.int64() if _is_integer(key) else pa.string()
        found, problem = self._checked_key(key)
        problem = row.problem or problem
        return row._replace(key=found, text=text if problem is None else None, problem=problem)

    def _checked_key(self, key: object) -> tuple[Key, str | None]:
        if self._key_type == pa.int64():
            if _is_integer(key) and key in _INT64:
                return cast("int", key), None
            wanted = "an integer of 64 bits"
        else:
            if isinstance(key, str):
                return key, None
            if _is_integer(key):
                return str(key), None
            wanted = "text"
        if key is _UNSET:
            return None, f'no key "{self._key}"'
        return None, f'the key "{self._key}" is not {wanted} but {_kind(key)}'


def _decoder(field: str, key: str | None) -> "msgspec.json.Decoder[Any] | None":
    """What takes the two fields from a line and passes over the others.

    None where a name has what msgspec takes in no name.
    """
    names = {"text": field}
    fields: list[tuple[str, Any, Any]] = [("text", str | None | msgspec.UnsetType, _UNSET)]
    if key not in (None, field):
        names["key"] = key
        fields.append(("key", int | str | None | msgspec.UnsetType, _UNSET))
    try:
        return msgspec.json.Decoder(msgspec.defstruct("Found", fields, rename=names))
    except ValueError:
        return None


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: object) -> str:
    """What JSON calls it, with the value where that is short."""
    if value is None:
        return "null"
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    shown = msgspec.json.encode(value).decode()
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"not UTF-8: {error.reason} (byte {error.object[error.start]:#04x})"
