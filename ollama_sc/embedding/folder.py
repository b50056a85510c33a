"""The folder that ``ollama-sc embed`` writes: the names of its files, and reading it into memory.

The names begin with ``_`` or ``.``, but for the shards': what reads folders of Parquet passes such
files over. Folders of the first format have other names, and are read and continued as they are.
"""

from __future__ import annotations

# What pyarrow's stubs leave open is used in a few lines here.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec

from ollama_sc._errors import RequestError
from ollama_sc._jobs.vectors import Vectors

if TYPE_CHECKING:
    import pyarrow as pa

EMBEDDING = "embedding"  # the column of the vectors
SHARDS = "part-*.parquet"
_PACKAGES = ("numpy", "pyarrow")
_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of the files in a folder.

    Attributes:
        manifest: says what the job is, and how many rows are done.
        failures: a line for each row that has no vector.
        partial: the rows of the next shard that a stopped job has.
        ordered: whether the names of shards sort by number, however many there are.
    """

    manifest: str
    failures: str
    partial: str
    ordered: bool

    def shard(self, number: int) -> str:
        """The name of a shard.

        From 100,000 on, a letter before the number tells how many digits it has more than five: so
        it stands behind those with fewer wherever names are sorted.
        """
        digits = f"{number:0{_DIGITS}}"
        more = len(digits) - _DIGITS
        return f"part-{chr(ord('a') + more - 1) if more and self.ordered else ''}{digits}.parquet"


LAYOUTS = {
    1: Layout("manifest.json", "failures.jsonl", ".next.parquet", ordered=False),
    2: Layout("_manifest.json", "_failures.jsonl", ".next", ordered=True),
}
LATEST: Literal[2] = 2


class EmbeddedRows(NamedTuple):
    """What `read_folder` returns.

    Attributes:
        keys: the values of the key column, one for each row; ``None`` where a row has none.
        vectors: a ``float32`` array of n by d. The row of a text that failed is NaN.
    """

    keys: list[Any]
    vectors: Vectors


def read_folder(path: str | os.PathLike[str]) -> EmbeddedRows:
    """Read the keys and the vectors that ``ollama-sc embed`` has written, in the input's order.

    ::

        keys, vectors = read_folder("vectors/")

    It reads all whole shards, also while the job runs; the rows of a shard that is not full yet are
    not among them. Memory holds the array and one shard.

    Args:
        path: the folder.

    Raises:
        RequestError: there is no such folder, a shard that its manifest counts is missing or cut,
            or numpy or pyarrow is not installed (``ollama-sc[cli]``).
    """
    for package in _PACKAGES:
        try:
            import_module(package)
        except ImportError:
            raise RequestError(
                f"a folder is read with {package}: pip install 'ollama-sc[cli]'"
            ) from None
    import numpy as np  # noqa: PLC0415 - see above
    import pyarrow as pa  # noqa: PLC0415
    import pyarrow.parquet as pq  # noqa: PLC0415

    shards, dimensions = _shards_of(Path(path))
    counts: list[int] = []
    for shard in shards:
        try:
            counts.append(pq.read_metadata(shard.path).num_rows)
        except (OSError, pa.ArrowException) as error:
            raise RequestError(f"cannot read {shard.path}: {error}") from error
        if shard.rows is not None and counts[-1] < shard.rows:
            raise RequestError(f"{shard.path} is cut: it should have {shard.rows} rows")
    keys: list[Any] = []
    matrix = np.full((sum(counts), dimensions), np.nan, np.float32)
    for shard in shards:
        try:
            table = pq.read_table(
                shard.path, partitioning=None, pre_buffer=False, page_checksum_verification=True
            )
        except (OSError, pa.ArrowException) as error:
            raise RequestError(f"cannot read {shard.path}: {error}") from error
        if not dimensions and (dimensions := vector_length(table.column(EMBEDDING))):
            matrix = np.full((sum(counts), dimensions), np.nan, np.float32)
        start = len(keys)
        keys += table.column(0).to_pylist()
        if dimensions:
            fill(matrix[start : len(keys)], table.column(EMBEDDING))
    return EmbeddedRows(keys, matrix)


def fill(matrix: Vectors, column: pa.ChunkedArray[Any]) -> None:
    """Fill in the vectors of a column; rows without one are not touched."""
    start = 0
    for chunk in column.chunks:
        lists: Any = chunk
        rows = matrix[start : start + len(lists)]
        start += len(lists)
        # Lists of nulls, as the first format has them, become NaNs here.
        values = lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, matrix.shape[1])
        if lists.null_count:
            rows[lists.is_valid().to_numpy(zero_copy_only=False)] = values
        else:
            rows[:] = values


def vector_length(column: pa.ChunkedArray[Any]) -> int:
    """How long the vectors of a column are; zero where it has none."""
    for chunk in column.chunks:
        lists: Any = chunk
        if valid := len(lists) - lists.null_count:
            return int(len(lists.flatten()) // valid)
    return 0


class _Shard(NamedTuple):
    """A shard, and the rows that it must have; ``None`` where no manifest says that."""

    path: Path
    rows: int | None


class _Settings(msgspec.Struct):
    shard_rows: Annotated[int, msgspec.Meta(ge=1)]


class _Progress(msgspec.Struct):
    rows: Annotated[int, msgspec.Meta(ge=0)]
    vector_length: int | None
    done: bool


class _Manifest(msgspec.Struct):
    """The part of a manifest that is used here."""

    format: int
    settings: _Settings
    progress: _Progress


def _shards_of(folder: Path) -> tuple[list[_Shard], int]:
    """The shards of a folder, in order, and how long vectors are, as far as that is known.

    Raises:
        RequestError: there is neither a manifest nor a shard.
    """
    for layout in reversed(LAYOUTS.values()):
        try:
            data = (folder / layout.manifest).read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RequestError(f"cannot read {folder / layout.manifest}: {error}") from error
        try:
            manifest = msgspec.json.decode(data, type=_Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise RequestError(f"{folder / layout.manifest} is no manifest: {error}") from error
        full, rest = divmod(manifest.progress.rows, manifest.settings.shard_rows)
        sizes = [manifest.settings.shard_rows] * full
        if rest and manifest.progress.done:
            sizes.append(rest)
        shards = [_Shard(folder / layout.shard(n), rows) for n, rows in enumerate(sizes)]
        return shards, manifest.progress.vector_length or 0
    # Of both formats: those whose numbers have more digits come later.
    found = sorted(folder.glob(SHARDS), key=lambda path: (sum(map(str.isdigit, path.name)), path))
    if not found:
        raise RequestError(f"{folder} has no shards of ollama-sc embed")
    return [_Shard(path, None) for path in found], 0
