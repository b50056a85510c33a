"""The bytes of vectors into what users compute with: numpy's arrays, or the standard library's."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ollama_sc._errors import RequestError

from .endpoints import VALUE_BYTES, VectorBytes

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


def require_numpy() -> None:
    """Raise RequestError where numpy is not installed."""
    if not has_numpy():
        raise RequestError("one array needs numpy: pip install 'ollama-sc[numpy]'")


def nan_row(dimensions: int) -> VectorBytes:
    """A vector of NaNs: the row of a text that failed."""
    return b"\x00\x00\xc0\x7f" * dimensions


def to_vectors(rows: Sequence[VectorBytes], dimensions: int) -> Vectors:
    """Vectors as a ``float32`` array of n by d; without numpy, a list of ``array.array("f")``."""
    if not has_numpy():
        return cast("Vectors", [_array(row) for row in rows])
    import numpy as np  # noqa: PLC0415

    matrix = np.frombuffer(bytearray().join(rows), dtype="<f4").reshape(len(rows), dimensions)
    return matrix.astype(np.float32, copy=False)


def not_finite(vectors: Vectors) -> list[int]:
    """The numbers of the rows that hold an infinity or a NaN."""
    if not has_numpy():
        return [number for number, row in enumerate(vectors) if not math.isfinite(sum(row))]
    import numpy as np  # noqa: PLC0415

    finite = np.isfinite(vectors)
    return [] if finite.all() else np.flatnonzero(~finite.all(axis=1)).tolist()


def _array(row: VectorBytes) -> array[float]:
    values = array("f", row)
    assert values.itemsize == VALUE_BYTES
    if sys.byteorder == "big":
        values.byteswap()
    return values
