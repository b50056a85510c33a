"""Parquet into rows."""

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
from ollama_sc.cli._inputs import Input, Source, identity_of
from ollama_sc.cli._rows import Row

_AT_ONCE = 1024  # rows
# What text is where it is not UTF-8.
_BYTES: dict[str, Any] = {
    "string": pa.binary(),
    "large_string": pa.large_binary(),
    "string_view": pa.binary_view(),
}


@dataclass(frozen=True, slots=True)
class ParquetColumns:
    """What the files have: how many rows, and the type of their key column."""

    rows: int
    key_type: pa.DataType


def columns_of(source: Input, field: str, key: str | None) -> ParquetColumns:
    """Look at all files before the job begins.

    Raises:
        Refused: a file is no Parquet, a column is missing or of a type that cannot be used, or the
            files do not fit together.
    """
    rows = 0
    key_type: pa.DataType | None = None
    for file in source.sources:
        try:
            with _opened(file) as data, pq.ParquetFile(data) as parquet:
                schema, found = parquet.schema_arrow, parquet.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise Refused(f"cannot read {file.name}: {error}") from error
        rows += found
        text_type = _type_of(schema, field, file.name, "--field")
        if not _is_text(text_type):
            raise Refused(f'{file.name}: "{field}" is not text but {text_type}')
        found_type = pa.int64() if key is None else _type_of(schema, key, file.name, "--key")
        if not (pa.types.is_integer(found_type) or _is_text(found_type) or _is_bytes(found_type)):
            raise Refused(f'{file.name}: the key "{key}" is neither integer, text nor binary')
        if key_type is not None and found_type != key_type:
            raise Refused(
                f'{file.name}: the key "{key}" is {found_type}, and {key_type} in the files before'
            )
        key_type = found_type
    assert key_type is not None, "there is a file"
    return ParquetColumns(rows, key_type)


def _opened(source: Source) -> BinaryIO:
    assert source.path is not None, "Parquet is never piped"
    return source.path.open("rb")


def _type_of(schema: pa.Schema, name: str, file: str, option: str) -> pa.DataType:
    if schema.names.count(name) != 1:
        found = ", ".join(schema.names)
        raise Refused(f'{file} has no column "{name}" but {found}: see {option}')
    type_: Any = schema.field(name).type
    plain: pa.DataType = type_.value_type if pa.types.is_dictionary(type_) else type_
    return pa.string() if pa.types.is_string_view(plain) else plain


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_)


def _is_bytes(type_: pa.DataType) -> bool:
    return (
        pa.types.is_binary(type_)
        or pa.types.is_large_binary(type_)
        or pa.types.is_fixed_size_binary(type_)
    )


class ParquetReader:
    """Reads Parquet, a block of rows at a time."""

    def __init__(
        self, source: Input, skip: int, *, field: str, key: str | None, key_type: pa.DataType
    ) -> None:
        self._key_type = key_type
        self._field = field
        self._key = key
        self._batches = _batches(
            source.sources, skip, [field] if key in (None, field) else [field, key]
        )
        self._number = skip

    @property
    def key_type(self) -> pa.DataType:
        """That of the input, without a dictionary."""
        return self._key_type

    async def block(self) -> Sequence[Row]:
        """See `Reader`.

        Raises:
            Stopped: a file cannot be read.
            Refused: a file is not the one that was hashed.
        """
        return await anyio.to_thread.run_sync(self._block)

    async def aclose(self) -> None:
        """Close what is open."""
        self._batches.close()

    def _block(self) -> Sequence[Row]:
        found = next(self._batches, None)
        if found is None:
            return []
        texts = _values(found.columns[self._field])
        numbers = range(self._number, self._number + len(texts))
        keys = numbers if self._key is None else _values(found.columns[self._key])
        self._number += len(texts)
        return [
            self._row(number, f"{found.name}:{place}", key, text)
            for number, place, key, text in zip(
                numbers, count(found.first + 1), keys, texts, strict=False
            )
        ]

    def _row(self, number: int, where: str, key: Any, text: Any) -> Row:
        if isinstance(key, UnicodeDecodeError):
            return Row(number, where, None, None, f'the key "{self._key}" is not UTF-8')
        if isinstance(text, UnicodeDecodeError):
            return Row(number, where, key, None, f'"{self._field}" is not UTF-8')
        if text is None:
            return Row(number, where, key, None, f'"{self._field}" is null')
        return Row(number, where, key, text)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some rows of a file, of which the first has this number in it."""

    name: str
    first: int
    columns: dict[str, pa.Array[Any]]


def _batches(sources: Sequence[Source], skip: int, columns: list[str]) -> Generator[_Batch]:
    """The rows of all files after the first `skip`."""
    for source in sources:
        try:
            with _opened(source) as file, pq.ParquetFile(file) as parquet:
                rows = parquet.metadata.num_rows
                if skip < rows:
                    yield from _file_batches(source.name, parquet, skip, columns)
                skip = max(0, skip - rows)
                if source.identity not in (None, identity_of(file.fileno())):
                    raise Refused(f"{source.name} was changed while it was read")
        except (pa.ArrowException, OSError) as error:
            raise Stopped(f"cannot read {source.name}: {error}") from error


def _file_batches(
    name: str, parquet: pq.ParquetFile, skip: int, columns: list[str]
) -> Generator[_Batch]:
    first = 0
    groups = list(range(parquet.metadata.num_row_groups))
    while (rows := parquet.metadata.row_group(groups[0]).num_rows) <= skip - first:
        first += rows
        groups.pop(0)
    for batch in parquet.iter_batches(_AT_ONCE, row_groups=groups, columns=columns):
        rows = batch.num_rows
        cut = min(rows, max(0, skip - first))
        if cut < rows:
            kept = batch.slice(cut)
            yield _Batch(name, first + cut, {each: kept.column(each) for each in columns})
        first += rows


def _values(column: pa.Array[Any]) -> list[Any]:
    """What a column holds; in place of text that is none stands the error."""
    type_: Any = column.type
    if pa.types.is_dictionary(type_):
        column = column.cast(type_.value_type)
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        raw: pa.Array[Any] = column.view(_BYTES[str(column.type)])
        return [_decoded(value) for value in raw.to_pylist()]


def _decoded(value: bytes | None) -> str | UnicodeDecodeError | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        return error
