"""Rows of JSON: finds the text and the key of each, and says what is wrong with them."""

import json
from collections.abc import Mapping

import msgspec
import pyarrow as pa

from ollama_sc.cli._errors import Refused
from ollama_sc.cli._json_scan import ScanError, top_level
from ollama_sc.cli._keys import KeyColumn, describe
from ollama_sc.cli._rows import Key, Row, not_utf8
from ollama_sc.cli._shown import shown, shown_names

_MAX_SEARCHED = 1000  # rows that may lack the field or the key before one has it

_object_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text_decoder = msgspec.json.Decoder(str)
_NOT_DECODED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class JsonLines:
    """A `LineFormat`: a JSON object on each line that is not blank.

    Only the text and the key are decoded: what other fields hold does not matter.

    Args:
        field: of the text.
        key: the field of the key; None takes the row's number.
        key_type: of the key column, where an earlier run has decided it.
        resuming: whether an earlier run has read rows.
        learn_rows: how many rows may decide the type of the key column.
    """

    arrays = True

    def __init__(
        self,
        field: str,
        key: str | None,
        key_type: pa.DataType | None,
        *,
        resuming: bool,
        learn_rows: int = 0,
    ) -> None:
        self._field = field
        self._key = key
        self._keys = None if key is None else KeyColumn(key, key_type, learn_rows)
        self.learn_rows = 0 if self._keys is None or key_type is not None else learn_rows
        # The fields that no row had so far, and the options that name them.
        self._missing_fields: dict[str, str] = {}
        if not resuming:
            self._missing_fields = (
                {field: "--field"} if key is None else {key: "--key", field: "--field"}
            )
        self._searched = 0  # rows, while fields are missing
        self._first_problem = ""

    @property
    def key_type(self) -> pa.DataType:
        """Integers if the key of the first row is one, text otherwise."""
        return pa.int64() if self._keys is None else self._keys.type

    def is_row(self, line: bytes) -> bool:
        """Whether a line is not blank."""
        return bool(line.strip())

    def parse(self, row: Row, line: bytes) -> Row:
        """Fill in a row.

        Raises:
            Refused: none of the first rows has the field, or the key.
        """
        fields, problem = _decode_object(line)
        text: str | None = None
        if problem is None:
            text, problem = self._decode_text(fields.get(self._field))
        key: Key = row.number
        if self._keys is not None:
            value = fields.get(self._key or "")
            key, key_problem = self._keys.convert(
                None if value is None else bytes(value), row.number
            )
            problem = problem or key_problem
        if self._missing_fields:
            self._search_fields(fields, f"{row.where}: {problem}")
        return row._replace(key=key, text=text if problem is None else None, problem=problem)

    def finish(self) -> None:
        """Check that fields were found, at the end of the input.

        Raises:
            Refused: no row had the field, or the key.
        """
        if self._searched and self._missing_fields:
            raise self._missing_field_error()

    # -- the text ----------------------------------------------------------------------------

    def _decode_text(self, value: bytes | msgspec.Raw | None) -> tuple[str | None, str | None]:
        """The text; or None and the problem."""
        if value is None:
            return None, f'no field "{shown(self._field)}"'
        data = bytes(value)
        if not data.startswith(b'"'):
            what = "null" if data == b"null" else f"not text but {describe(data)}"
            return None, f'"{shown(self._field)}" is {what}'
        try:
            return _text_decoder.decode(data), None
        except _NOT_DECODED as error:
            return None, _problem(data, error)

    # -- a wrong --field or --key ------------------------------------------------------------

    def _search_fields(self, fields: Mapping[str, object], problem: str) -> None:
        """Look for the fields that no row had so far; remember the first problem.

        Raises:
            Refused: too many rows lack them.
        """
        for name in self._missing_fields.keys() & fields.keys():
            del self._missing_fields[name]
        if not self._missing_fields:
            return
        self._searched += 1
        if self._searched == 1:
            names = f" (it has: {shown_names([*fields])})" if fields else ""
            self._first_problem = f"{problem}{names}"
        if self._searched >= _MAX_SEARCHED:
            raise self._missing_field_error()

    def _missing_field_error(self) -> Refused:
        name, option = next(reversed(self._missing_fields.items()))
        return Refused(
            f'none of the first {self._searched:,} rows has a field "{shown(name)}": see {option}\n'
            f"{self._first_problem}"
        )


def _decode_object(line: bytes) -> tuple[Mapping[str, bytes | msgspec.Raw], str | None]:
    """The fields of a line, not decoded; none and the problem where it is no JSON object."""
    try:
        return _object_decoder.decode(line), None
    except msgspec.ValidationError:
        return {}, "not an object"
    except _NOT_DECODED as error:
        try:
            return top_level(line), None
        except ScanError:
            if line.lstrip()[:1] in (b"[", b'"'):
                return {}, "not an object"
            return {}, _problem(line, error)


def _problem(data: bytes, error: Exception) -> str:
    """Why bytes are no JSON."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    try:
        data.decode()  # msgspec from 0.23 on does not say where it is no UTF-8
    except UnicodeDecodeError as not_text:
        return not_utf8(not_text)
    try:
        json.loads(data)  # takes halves of surrogate pairs, which msgspec calls cut or malformed
    except (ValueError, RecursionError):
        return f"not JSON: {error}"
    return "it is not Unicode: half of a surrogate pair"
