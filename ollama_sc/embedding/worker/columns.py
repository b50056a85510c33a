"""Texts out of the columns that engines pass, and vectors into one. Knows nothing of requests.

The arrays of numpy, pandas, pyarrow and others are told apart by their method that makes a list, so
that none of these packages need be installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

from ollama_sc._errors import RequestError
from ollama_sc._jobs.vectors import Vectors

_TO_LIST = ("to_pylist", "tolist", "to_list")  # of pyarrow, of numpy and pandas, of polars
_NULLS = {"NoneType", "NAType", "NaTType", "NullType"}


@runtime_checkable
class Frame(Protocol):
    """The part of a pandas DataFrame that is used here."""

    @property
    def columns(self) -> Any:
        """The names of its columns."""

    def assign(self, **columns: Any) -> Any:
        """Copy it, with more columns."""

    def __getitem__(self, name: Any, /) -> Any:
        """Get a column."""


@runtime_checkable
class ArrowTable(Protocol):
    """The part of a pyarrow Table or RecordBatch that is used here."""

    @property
    def column_names(self) -> Any:
        """The names of its columns."""

    def column(self, name: Any, /) -> Any:
        """Get a column."""

    def append_column(self, name: Any, column: Any, /) -> Any:
        """Copy it, with one more column."""


@runtime_checkable
class PolarsFrame(Protocol):
    """The part of a polars DataFrame that is used here."""

    @property
    def columns(self) -> Any:
        """The names of its columns."""

    def get_column(self, name: str, /) -> Any:
        """Get a column."""

    def with_columns(self, column: Any, /) -> Any:
        """Copy it, with one more column."""


class HasToList(Protocol):
    """The part of a numpy array or a pandas Series that is used here."""

    def tolist(self) -> Any:
        """Make a list."""


class HasToPylist(Protocol):
    """The part of a pyarrow array that is used here."""

    def to_pylist(self) -> Any:
        """Make a list."""


# No plain Iterable: a mapping is one too, and type checkers have to tell them apart.
Column: TypeAlias = Sequence[str] | Iterator[str] | HasToList | HasToPylist


def texts_of(column: object, name: str) -> list[str]:
    """The texts of a column, as a list.

    Args:
        column: a list, numpy array, pandas Series, pyarrow array or any other iterable.
        name: what errors call it.

    Raises:
        RequestError: it has more than one dimension, or holds a null or anything else that is no
            text.
    """
    if isinstance(column, str | bytes | bytearray):
        raise RequestError(f"{name} must be many texts, not one {type(column).__name__}")
    if getattr(column, "ndim", 1) != 1:
        raise RequestError(f"{name} must have one dimension, not the shape {_shape(column)}")
    to_list = next(
        (found for name in _TO_LIST if (found := getattr(column, name, None)) is not None), None
    )
    if to_list is not None:
        texts: list[object] = to_list()
    elif isinstance(column, Iterable):
        texts = list(cast("Iterable[object]", column))
    else:
        raise RequestError(f"{name} must be texts, not {type(column).__name__}")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestError(f"{name}[{number}] {_describe_problem(text)}")
    return cast("list[str]", texts)


def object_column(vectors: Vectors) -> Any:
    """Vectors as a numpy array of objects: n arrays of d, which pandas takes for one column."""
    import numpy as np  # noqa: PLC0415 - there are vectors, so it is installed

    column = np.empty(len(vectors), dtype=object)
    for number, vector in enumerate(vectors):
        column[number] = vector
    return column


def arrow_column(vectors: Vectors) -> Any:
    """Vectors as an array of pyarrow: lists of a fixed size."""
    import pyarrow as pa  # noqa: PLC0415 - there is a table of it, so it is installed

    values: Any = pa.array(vectors.reshape(-1))
    kind: Any = pa.FixedSizeListArray
    return kind.from_arrays(values, vectors.shape[1])


def polars_column(vectors: Vectors, name: str) -> Any:
    """Vectors as a Series of polars: arrays of a fixed size."""
    from importlib import import_module  # noqa: PLC0415

    polars: Any = import_module("polars")  # there is a frame of it, so it is installed
    return polars.Series(name, vectors, dtype=polars.Array(polars.Float32, vectors.shape[1]))


def _describe_problem(value: object) -> str:
    """What is wrong with a value that is no text."""
    kind = type(value).__name__
    if kind in _NULLS or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN
        return f"is null ({value!r}): drop such rows, or fill them in"
    return f"must be text, not {kind}"


def _shape(array: object) -> str:
    return str(getattr(array, "shape", "of more"))
