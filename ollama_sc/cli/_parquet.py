"""Parquet files into rows."""

from __future__ import annotations

# What pyarrow's stubs leave open is used in a few lines here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, BinaryIO

import anyio.to_thread
import pyarrow as pa
import pyarrow.parquet as pq

from ollama_sc.cli._errors import Refused, Stopped
from ollama_sc.cli._inputs import Input, InputFile, identity_of
from ollama_sc.cli._parquet_types import (
    UnfitKeyError,
    common_key_type,
    converter,
    is_text,
    plain_type,
)
from ollama_sc.cli._rows import Row
from ollama_sc.cli._shown import on_one_line, shown, shown_names

_BATCH_ROWS = 1024  # rows that are decoded at once, at most
_BATCH_BYTES = 1 << 20  # and the bytes that these are to have, where rows are long
_BUFFER_BYTES = 64 << 10  # of a column, read at once
# The binary type of each type of text, for text that is not UTF-8.
_BINARY_TYPES: dict[str, Any] = {
    "string": pa.binary(),
    "large_string": pa.large_binary(),
    "string_view": pa.binary_view(),
}


@dataclass(frozen=True, slots=True)
class ParquetColumns:
    """The number of rows in all files, and the type of their key column."""

    rows: int
    key_type: pa.DataType


def columns_of(job_input: Input, field: str, key: str | None) -> ParquetColumns:
    """Check the schema of all files, before the job starts.

    Raises:
        Refused: a file is no Parquet, a column is missing or of an unsupported type, or the key has
            another type in another file.
    """
    rows = 0
    key_types: list[pa.DataType] = []
    for file in job_input.files:
        try:
            with _open(file) as data, _parquet_file(data) as parquet:
                schema, found = parquet.schema_arrow, parquet.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise Refused(f"cannot read {file.name}: {on_one_line(error)}") from error
        rows += found
        text_type = _type_of(schema, field, file.name, "--field")
        if not is_text(text_type):
            raise Refused(f'{file.name}: "{shown(field)}" is not text but {plain_type(text_type)}')
        found_type = pa.int64() if key is None else _type_of(schema, key, file.name, "--key")
        if common_key_type([found_type]) is None:
            raise Refused(
                f'{file.name}: the key "{shown(key)}" is {found_type}, and neither a number, text, '
                "binary nor a UUID"
            )
        key_types.append(found_type)
        if common_key_type(key_types) is None:
            before = common_key_type(key_types[:-1])
            raise Refused(
                f'{file.name}: the key "{shown(key)}" is {found_type}, '
                f"and {before} in the files before"
            )
    key_type = common_key_type(key_types)
    assert key_type is not None, "checked for each file"
    return ParquetColumns(rows, key_type)


def _open(file: InputFile) -> BinaryIO:
    assert file.path is not None, "Parquet is never piped"
    return file.path.open("rb")


def _parquet_file(data: BinaryIO) -> pq.ParquetFile:
    """A file whose columns are read as they are needed; by default each is read as a whole."""
    # Arrow's own allocators keep what another thread has freed: here that is most of it.
    pa.set_memory_pool(pa.system_memory_pool())
    return pq.ParquetFile(data, pre_buffer=False, buffer_size=_BUFFER_BYTES)


def _type_of(schema: pa.Schema, name: str, file: str, option: str) -> pa.DataType:
    found_columns = schema.names.count(name)
    if found_columns > 1:
        raise Refused(f'{file} has {found_columns} columns "{shown(name)}"')
    if not found_columns:
        found = shown_names(schema.names)
        raise Refused(f'{file} has no column "{shown(name)}" but {found}: see {option}')
    type_: pa.DataType = schema.field(name).type
    return type_


class ParquetReader:
    """A `RowReader` of Parquet files.

    Args:
        job_input: the files.
        skip: how many rows are done.
        field: the column of the texts.
        key: the column of the keys; None takes the row's number.
        key_type: of the key column.
    """

    def __init__(
        self, job_input: Input, skip: int, *, field: str, key: str | None, key_type: pa.DataType
    ) -> None:
        self._key_type = key_type
        self._field = field
        self._key = key
        self._batches = _iter_batches(
            job_input.files, skip, [field] if key in (None, field) else [field, key]
        )
        self._number = skip

    @property
    def key_type(self) -> pa.DataType:
        """The one that holds the keys of all files; see `common_key_type`."""
        return self._key_type

    async def next_rows(self) -> Sequence[Row]:
        """See `RowReader`.

        Raises:
            Stopped: a file cannot be read.
            Refused: a file is not the one that was hashed.
        """
        return await anyio.to_thread.run_sync(self._next_rows)

    async def aclose(self) -> None:
        """Close the open file."""
        self._batches.close()

    def _next_rows(self) -> Sequence[Row]:
        found = next(self._batches, None)
        if found is None:
            return []
        texts = _texts(found.columns[self._field])
        numbers = range(self._number, self._number + len(texts))
        keys = numbers if self._key is None else self._keys(found.columns[self._key])
        self._number += len(texts)
        return [
            self._row(number, f"{found.name}:{row_number}", key, text)
            for number, row_number, key, text in zip(
                numbers, count(found.first + 1), keys, texts, strict=False
            )
        ]

    def _keys(self, column: pa.Array[Any]) -> list[Any]:
        """The keys of a column in the type of the job's; for one that does not fit, the error."""
        convert = converter(column.type, self._key_type)
        keys = _values(column)
        if convert is None:
            return keys
        converted: list[Any] = []
        for key in keys:
            try:
                known = key is None or isinstance(key, UnicodeDecodeError)
                converted.append(key if known else convert(key))
            except UnfitKeyError as error:
                converted.append(error)
        return converted

    def _row(self, number: int, where: str, key: Any, text: Any) -> Row:
        if isinstance(key, UnicodeDecodeError):
            return Row(number, where, None, None, f'the key "{shown(self._key)}" is not UTF-8')
        if isinstance(key, UnfitKeyError):
            return Row(
                number, where, None, None, f'the key "{shown(self._key)}" is no {self._key_type}'
            )
        if isinstance(text, UnicodeDecodeError):
            return Row(number, where, key, None, f'"{shown(self._field)}" is not UTF-8')
        if text is None:
            return Row(number, where, key, None, f'"{shown(self._field)}" is null')
        return Row(number, where, key, text)


@dataclass(frozen=True, slots=True)
class _RowBatch:
    """Some rows of a file; `first` is the number of the first one in it, from zero."""

    name: str
    first: int
    columns: dict[str, pa.Array[Any]]


def _iter_batches(
    files: Sequence[InputFile], skip: int, columns: list[str]
) -> Generator[_RowBatch]:
    """The rows of all files but the first `skip`."""
    for file in files:
        try:
            with _open(file) as data, _parquet_file(data) as parquet:
                rows = parquet.metadata.num_rows
                if skip < rows:
                    yield from _iter_file_batches(file.name, parquet, skip, columns)
                skip = max(0, skip - rows)
                if file.identity not in (None, identity_of(data.fileno())):
                    raise Refused(f"{file.name} was changed while it was read")
        except (pa.ArrowException, OSError) as error:
            raise Stopped(f"cannot read {file.name}: {on_one_line(error)}") from error


def _iter_file_batches(
    name: str, parquet: pq.ParquetFile, skip: int, columns: list[str]
) -> Generator[_RowBatch]:
    first = 0
    groups = list(range(parquet.metadata.num_row_groups))
    while (rows := parquet.metadata.row_group(groups[0]).num_rows) <= skip - first:
        first += rows
        groups.pop(0)
    batches = parquet.iter_batches(
        _batch_rows(parquet.metadata, groups, columns),
        row_groups=groups,
        columns=columns,
        use_threads=False,
    )
    for batch in batches:
        rows = batch.num_rows
        skipped = min(rows, max(0, skip - first))
        if skipped < rows:
            rest = batch.slice(skipped)
            yield _RowBatch(
                name, first + skipped, {column: rest.column(column) for column in columns}
            )
        first += rows


def _batch_rows(metadata: Any, groups: Sequence[int], columns: Sequence[str]) -> int:
    """How many rows to decode at once."""
    size = rows = 0
    for number in groups:
        group = metadata.row_group(number)
        rows += group.num_rows
        chunks = map(group.column, range(group.num_columns))
        size += sum(
            chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns
        )
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * rows // max(1, size)))


def _texts(column: pa.Array[Any]) -> list[Any]:
    """The texts of a column; for text that is not UTF-8, the error."""
    return [_decode(text) if isinstance(text, bytes) else text for text in _values(column)]


def _values(column: pa.Array[Any]) -> list[Any]:
    """The values of a column; for text that is not UTF-8, the error."""
    found: Any = column
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    if isinstance(found.type, pa.BaseExtensionType) and found.type != plain_type(found.type):
        found = found.storage
    try:
        values: list[Any] = found.to_pylist()
    except UnicodeDecodeError:
        raw: pa.Array[Any] = found.view(_BINARY_TYPES[str(found.type)])
        values = [_decode(value) for value in raw.to_pylist()]
    return values


def _decode(value: bytes | None) -> str | UnicodeDecodeError | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        return error
