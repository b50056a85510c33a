"""Keys and vectors as a Parquet file of two columns."""

from __future__ import annotations

# What pyarrow's stubs leave open is used in a few lines here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ollama_sc.cli._rows import Key

Vectors = npt.NDArray[np.float32]

EMBEDDING = "embedding"  # the column of the vectors


class CannotRead(Exception):  # noqa: N818 - what happened
    """A file is not there, or none of ours."""


class KeyedVectors(NamedTuple):
    """Rows of the output.

    Attributes:
        keys: one for each row.
        vectors: of n by d; anything in the rows that have none.
        good: which rows have one.
    """

    keys: Sequence[Key]
    vectors: Vectors
    good: Sequence[bool]


def write(file: BinaryIO, key: str, key_type: pa.DataType, rows: KeyedVectors) -> None:
    """Write a file: the key column, and vectors as lists of a fixed size.

    A row without a vector has a list of nulls: of lists that are null themselves, pyarrow before 26
    can neither write nor read a file. Neither a compressor nor a dictionary finds anything in the
    bits of vectors.
    """
    length = int(rows.vectors.shape[1])
    missing = None if all(rows.good) else np.repeat(~np.array(rows.good, bool), length)
    values = pa.array(rows.vectors.reshape(-1), mask=missing)
    vectors: Any = pa.FixedSizeListArray.from_arrays(values, length)
    table = pa.table({key: pa.array(rows.keys, key_type), EMBEDDING: vectors})
    pq.write_table(table, file, compression="none", use_dictionary=False, write_statistics=[key])


def read(path: Path, count: int) -> KeyedVectors:
    """The first rows of a file, or fewer if it has fewer.

    Raises:
        CannotRead: see there.
    """
    try:
        with path.open("rb") as data, pq.ParquetFile(data) as file:
            table = file.read().slice(0, count)
    except (OSError, pa.ArrowException) as error:
        raise CannotRead(str(error)) from error
    lists: Any = table.column(EMBEDDING).combine_chunks()
    length: int = lists.type.list_size
    values = lists.flatten()
    vectors: Vectors = values.to_numpy(zero_copy_only=False).reshape(-1, length)
    good: list[bool] = values.is_valid().to_numpy(zero_copy_only=False)[::length].tolist()
    return KeyedVectors(table.column(0).to_pylist(), vectors, good)
