"""Keys and vectors as a Parquet file of two columns."""

from __future__ import annotations

# What pyarrow's stubs leave open is used in a few lines here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ollama_sc.cli._files import open_file
from ollama_sc.cli._rows import Key
from ollama_sc.cli._shown import on_one_line
from ollama_sc.embedding.folder import EMBEDDING, fill, vector_length

Vectors = npt.NDArray[np.float32]

DEFAULT_KEY = "row"  # the key column of jobs without --key
_MAX_VALUES = 1 << 30  # in a list array, whose offsets have 32 bits


class ShardReadError(Exception):
    """A file is missing, or no Parquet."""


class KeyedVectors(NamedTuple):
    """Rows of the output.

    Attributes:
        keys: one for each row.
        vectors: n by d; undefined where a row has none.
        valid: which rows have one.
    """

    keys: Sequence[Key]
    vectors: Vectors
    valid: Sequence[bool]


def write_shard(
    file: BinaryIO, key: str | None, key_type: pa.DataType, rows: KeyedVectors, *, format: int
) -> None:
    """Write a file: the key column, and the vectors.

    A row without a vector has a null. The lists have no fixed size, because no pyarrow before 26
    can read null lists that have one. In the first format they have, and such a row has a list of
    nulls. Compression and dictionaries are off: vectors gain nothing by them. Pages have checksums.

    Args:
        file: to write to.
        key: the name of the key column; ``None`` are row numbers.
        key_type: of the key column.
        rows: to write.
        format: see `ollama_sc.embedding.folder`.
    """
    name = key or DEFAULT_KEY
    vectors: Any = _fixed_lists(rows) if format == 1 else _lists(rows)
    keys: Any = pa.array(rows.keys, key_type)
    table = pa.table([keys, vectors], names=[name, EMBEDDING])
    if format > 1 and key is not None and pa.types.is_integer(key_type):
        table = table.replace_schema_metadata(_nullable_in_pandas(name, key_type))
    pq.write_table(
        table,
        file,
        compression="none",
        use_dictionary=False,
        write_statistics=[name],
        write_page_checksum=True,
    )


def _lists(rows: KeyedVectors) -> pa.ChunkedArray[Any]:
    valid = np.array(rows.valid, bool)
    dimensions = int(rows.vectors.shape[1])
    step = max(1, _MAX_VALUES // max(1, dimensions))
    chunks: list[Any] = []
    for start in range(0, len(valid), step):
        some = valid[start : start + step]
        vectors = rows.vectors[start : start + step]
        ends = np.concatenate([[0], np.cumsum(some * dimensions)])
        offsets: Any = pa.array(ends, pa.int32())
        whole = bool(some.all())
        values: Any = pa.array((vectors if whole else vectors[some]).reshape(-1))
        mask: Any = None if whole else pa.array(~some)
        chunks.append(pa.ListArray.from_arrays(offsets, values, mask=mask))
    type_: Any = pa.list_(pa.float32())
    found: pa.ChunkedArray[Any] = pa.chunked_array(chunks, type_)
    return found


def _fixed_lists(rows: KeyedVectors) -> pa.ChunkedArray[Any]:
    dimensions = int(rows.vectors.shape[1])
    missing = None if all(rows.valid) else np.repeat(~np.array(rows.valid, bool), dimensions)
    values = pa.array(rows.vectors.reshape(-1), mask=missing)
    array: Any = pa.FixedSizeListArray.from_arrays(values, dimensions)
    return pa.chunked_array([array])


def _nullable_in_pandas(name: str, type_: pa.DataType) -> dict[str, str]:
    """Metadata by which pandas has a column of integers, with nulls too, and not of floats."""
    shown = str(type_)
    dtype = shown.replace("uint", "UInt").replace("int", "Int")
    columns = [(name, shown, dtype), (EMBEDDING, "list[float]", "object")]
    pandas = {
        "index_columns": [],
        "column_indexes": [],
        "columns": [
            {
                "name": column,
                "field_name": column,
                "pandas_type": pandas_type,
                "numpy_type": numpy_type,
                "metadata": None,
            }
            for column, pandas_type, numpy_type in columns
        ],
        "pandas_version": "1.0.0",
    }
    return {"pandas": json.dumps(pandas)}


def read_shard(path: Path, count: int) -> KeyedVectors:
    """Read the first `count` rows of a file, or fewer if it has fewer.

    Raises:
        ShardReadError: the file is missing, damaged, or no Parquet.
    """
    try:
        with (
            open_file(path, os.O_RDONLY) as data,
            pq.ParquetFile(data, page_checksum_verification=True) as file,
        ):
            table = file.read().slice(0, count)
    except (OSError, pa.ArrowException) as error:
        raise ShardReadError(on_one_line(error)) from error
    column = table.column(EMBEDDING)
    vectors: Vectors = np.full((len(table), vector_length(column)), np.nan, np.float32)
    if vectors.shape[1]:
        fill(vectors, column)
    # A vector of the job's is finite.
    finite: Any = np.isfinite(vectors).any(axis=1)
    valid: list[bool] = finite.tolist()
    return KeyedVectors(table.column(0).to_pylist(), vectors, valid)


def count_rows(path: Path) -> int:
    """How many rows a file has, as its index says, which is at its end.

    Raises:
        ShardReadError: the file is missing, cut, or no Parquet.
    """
    try:
        with open_file(path, os.O_RDONLY) as data:
            return pq.read_metadata(data).num_rows
    except (OSError, pa.ArrowException) as error:
        raise ShardReadError(on_one_line(error)) from error
