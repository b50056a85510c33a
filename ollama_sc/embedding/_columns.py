"""Texts out of the arrays that engines hand over, and vectors into one. Knows no requests.

What numpy, pandas, pyarrow and others hold texts in is told apart by how it becomes a list, so that
none of them need be installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

from ollama_sc._errors import RequestError

from ._vectors import Vectors

_NULLS = {"NoneType", "NAType", "NaTType", "NullType"}


@runtime_checkable
class Frame(Protocol):
    """What is used of a pandas DataFrame."""

    @property
    def columns(self) -> Any:
        """The names of the columns."""

    def assign(self, **columns: Any) -> Any:
        """Make a copy with more columns."""

    def __getitem__(self, name: Any, /) -> Any:
        """Get a column."""


class HasToList(Protocol):
    """What is used of a numpy array or a pandas Series."""

    def tolist(self) -> Any:
        """Make a list."""


class HasToPylist(Protocol):
    """What is used of an array of pyarrow."""

    def to_pylist(self) -> Any:
        """Make a list."""


# No plain Iterable: a mapping is one too, and type checkers have to tell them apart.
Column: TypeAlias = Sequence[str] | Iterator[str] | HasToList | HasToPylist


def texts_of(column: object, name: str) -> list[str]:
    """The texts in an array or iterable.

    Args:
        column: a list, numpy array, pandas Series, pyarrow array or any other iterable.
        name: what errors call it.

    Raises:
        RequestError: it holds something else than texts, or a null.
    """
    if isinstance(column, str | bytes | bytearray):
        raise RequestError(f"{name} must be many texts, not one {type(column).__name__}")
    if getattr(column, "ndim", 1) != 1:
        raise RequestError(f"{name} must have one dimension, not the shape {_shape(column)}")
    to_list = getattr(column, "to_pylist", None) or getattr(column, "tolist", None)
    if to_list is not None:
        texts: list[object] = to_list()
    elif isinstance(column, Iterable):
        texts = list(cast("Iterable[object]", column))
    else:
        raise RequestError(f"{name} must be texts, not {type(column).__name__}")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestError(f"{name}[{number}] {_problem(text)}")
    return cast("list[str]", texts)


def objects(vectors: Vectors) -> Any:
    """A column that holds an array in each row, whatever their number."""
    import numpy as np  # noqa: PLC0415 - there are vectors, so it is installed

    column = np.empty(len(vectors), dtype=object)
    for number, vector in enumerate(vectors):
        column[number] = vector
    return column


def _problem(value: object) -> str:
    kind = type(value).__name__
    if kind in _NULLS or (isinstance(value, float) and value != value):  # noqa: PLR0124 - NaN
        return f"is null ({value!r}): drop such rows, or fill them in"
    return f"must be text, not {kind}"


def _shape(array: object) -> str:
    return str(getattr(array, "shape", "of more"))
