"""Rows of bytes into what users compute with: numpy's arrays, or the standard library's."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ollama_sc._errors import RequestError

from ._wire import VALUE_BYTES, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors: TypeAlias = NDArray[np.float32]
else:
    Vectors: TypeAlias = Any


@cache
def has_numpy() -> bool:
    """Whether numpy is installed; imports it, which takes a tenth of a second or two."""
    try:
        import_module("numpy")
    except ImportError:
        return False
    return True


def need_numpy() -> None:
    """Raise RequestError where numpy is not installed."""
    if not has_numpy():
        raise RequestError("one array needs numpy: pip install 'ollama-sc[numpy]'")


def nan_row(dimensions: int) -> Row:
    """A row that is not a number."""
    return b"\x00\x00\xc0\x7f" * dimensions


def vectors(rows: Sequence[Row], dimensions: int) -> Vectors:
    """The rows as one float32 array of n by d; without numpy, as a list of ``array.array("f")``."""
    if not has_numpy():
        return cast("Vectors", [_array(row) for row in rows])
    import numpy as np  # noqa: PLC0415

    whole = np.frombuffer(bytearray().join(rows), dtype="<f4").reshape(len(rows), dimensions)
    return whole.astype(np.float32, copy=False)


def not_finite(found: Vectors) -> list[int]:
    """The rows that have an infinity or a NaN."""
    if not has_numpy():
        return [number for number, row in enumerate(found) if not math.isfinite(sum(row))]
    import numpy as np  # noqa: PLC0415

    finite = np.isfinite(found)
    return [] if finite.all() else np.flatnonzero(~finite.all(axis=1)).tolist()


def _array(row: Row) -> array[float]:
    values = array("f", row)
    assert values.itemsize == VALUE_BYTES
    if sys.byteorder == "big":
        values.byteswap()
    return values
