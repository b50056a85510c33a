"""Rows with their vectors into Parquet shards, each written atomically and exactly once.

A commit has three steps: the shard is written to a temporary file and renamed, the failures of its
rows are appended to their list, and the manifest counts both. If the job is killed between two of
them, the next run writes the shard again. Before the first shard, a manifest that counts no rows is
written: it binds the folder to the job.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import BinaryIO

import anyio.to_thread
import msgspec
import numpy as np
import pyarrow as pa

from ollama_sc.cli._errors import Refused, Stopped
from ollama_sc.cli._folder import Folder
from ollama_sc.cli._manifest import Manifest, SavedProgress
from ollama_sc.cli._rows import Key, Row
from ollama_sc.cli._shown import shown_path
from ollama_sc.cli._table import KeyedVectors, ShardReadError, Vectors, read_shard, write_shard
from ollama_sc.embedding.folder import LAYOUTS

_NO_VECTORS: Vectors = np.empty((0, 0), np.float32)


class ShardWriteError(Stopped):
    """A file cannot be written, such as on a full disk. What the manifest counts is unchanged."""


class Shards:
    """The output of a job: collects rows, and commits each shard that is full.

    Args:
        folder: to write to.
        manifest: what earlier runs have done.
        key_type: returns the type of the key column; called once there are rows.
        check: called before rows are committed, and raises where that would be wrong.

    Attributes:
        manifest: as it is on the disk.
    """

    def __init__(
        self,
        folder: Folder,
        manifest: Manifest,
        key_type: Callable[[], pa.DataType],
        check: Callable[[], Awaitable[None]],
    ) -> None:
        self.manifest = manifest
        self._folder = folder
        self._layout = LAYOUTS[manifest.format]
        self._key_type = key_type
        self._check = check
        self._shard_rows = manifest.settings.shard_rows
        self._keys: list[Key] = []
        self._vectors: Vectors | None = None  # of a full shard; the first `len(_keys)` are filled
        self._valid: list[bool] = []
        self._failures: list[bytes] = []
        self._mark: str | None = manifest.progress.mark
        self._saved_rows = 0  # rows of the current shard that the manifest counts

    @property
    def progress(self) -> SavedProgress:
        """What is done, as the manifest says."""
        return self.manifest.progress

    @property
    def rows(self) -> int:
        """How many rows are done, with those that are not on the disk yet."""
        return self.progress.rows - self._saved_rows + len(self._keys)

    @property
    def failures(self) -> int:
        """How many of these have no vector."""
        return self.progress.failures + len(self._failures)

    def allocate(self, dimensions: int) -> None:
        """Allocate the vectors of a shard; to be called before rows are added.

        Raises:
            Stopped: earlier vectors have other dimensions, or there is no memory for a shard.
        """
        previous = self.progress.vector_length if self._vectors is None else self._vectors.shape[1]
        if previous not in (None, dimensions):
            raise Stopped(
                f"the server's vectors have {dimensions} numbers, and had {previous} before"
            )
        if self._vectors is None:
            try:
                self._vectors = np.zeros((self._shard_rows, dimensions), np.float32)
            except (MemoryError, ValueError) as error:  # the latter beyond all addresses
                raise Stopped(
                    f"no memory for a shard of {self._shard_rows} rows of {dimensions} numbers: "
                    "see --shard-rows"
                ) from error

    async def restore(self) -> None:
        """Read back the rows of the shard that an earlier run has not filled.

        Raises:
            Refused: its file is missing or invalid.
        """
        number, partial_rows = divmod(self.progress.rows, self._shard_rows)
        if partial_rows:
            name = self._layout.shard(number) if self.progress.done else self._layout.partial
            await anyio.to_thread.run_sync(self._restore, name, partial_rows)

    async def add(
        self,
        rows: Sequence[Row],
        vectors: Vectors = _NO_VECTORS,
        failures: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Add rows, and commit each shard that they fill.

        Args:
            rows: the next rows.
            vectors: n by d, one for each row that has a text.
            failures: the reasons of the texts that failed, by their index in `vectors`.

        Raises:
            ShardWriteError: a shard cannot be written. Its rows alone are lost.
        """
        numbers = iter(range(len(vectors)))
        reasons = [
            failures.get(next(numbers)) if row.problem is None else row.problem for row in rows
        ]
        valid = np.delete(vectors, list(failures), axis=0) if failures else vectors
        start = 0
        while start < len(rows):
            end = start + self._shard_rows - len(self._keys)
            count = sum(reason is None for reason in reasons[start:end])
            self._append_rows(rows[start:end], reasons[start:end], valid[:count])
            valid = valid[count:]
            start = end
            if len(self._keys) == self._shard_rows:
                await self._commit(done=False)

    async def finish(self) -> None:
        """Commit the last shard: the job is done."""
        if not self.progress.done or len(self._keys) > self._saved_rows:
            await self._commit(done=True)

    async def save_partial(self) -> None:
        """Commit the rows of a shard that is not full, so that the next run resumes behind them."""
        if len(self._keys) == self._shard_rows:
            await self._commit(done=False)
        elif len(self._keys) > self._saved_rows:
            await self._commit(done=False, name=self._layout.partial)

    # -- rows in memory ----------------------------------------------------------------------

    def _append_rows(
        self, rows: Sequence[Row], reasons: Sequence[str | None], vectors: Vectors
    ) -> None:
        start = len(self._keys)
        valid = [reason is None for reason in reasons]
        self._keys += [row.key for row in rows]
        self._valid += valid
        self._mark = rows[-1].mark
        for row, reason in zip(rows, reasons, strict=True):
            if reason is not None:
                self._failures.append(_failure_line(row, reason))
        assert self._vectors is not None, "the length of vectors is known"
        target = self._vectors[start : start + len(rows)]
        if all(valid):
            target[:] = vectors
        elif any(valid):
            target[valid] = vectors

    # -- files -------------------------------------------------------------------------------

    async def _commit(self, *, done: bool, name: str | None = None) -> None:
        """Commit the rows in memory: as the next shard, or as a file of another name."""
        if len(self._keys) > self._saved_rows:
            await self._check()
        try:
            await anyio.to_thread.run_sync(partial(self._commit_files, done=done, name=name))
        except OSError as error:
            raise ShardWriteError(
                f"cannot write to {shown_path(self._folder.path)}: {error.strerror or error}"
            ) from error

    def _commit_files(self, *, done: bool, name: str | None) -> None:
        progress = self.progress
        if self._keys:
            if not progress.rows:  # no shard without a manifest
                self._folder.save(self.manifest)
            shard = self._layout.shard(progress.rows // self._shard_rows)
            self._folder.write(name or shard, self._write_table)
        failures = b"".join(self._failures)
        if failures:
            self._folder.append(self._layout.failures, progress.failures_bytes, failures)
        saved = SavedProgress(
            rows=self.rows,
            failures=self.failures,
            failures_bytes=progress.failures_bytes + len(failures),
            vector_length=progress.vector_length
            if self._vectors is None
            else int(self._vectors.shape[1]),
            key_type=str(self._key_type()) if self._keys else progress.key_type,
            mark=self._mark,
            done=done,
        )
        manifest = msgspec.structs.replace(self.manifest, progress=saved)
        self._folder.save(manifest)
        self.manifest = manifest
        self._failures.clear()
        if name is None:
            self._keys.clear()
            self._valid.clear()
            self._folder.remove(self._layout.partial)
        self._saved_rows = len(self._keys)

    def _write_table(self, file: BinaryIO) -> None:
        assert self._vectors is not None
        rows = KeyedVectors(self._keys, self._vectors[: len(self._keys)], self._valid)
        key = self.manifest.settings.key
        write_shard(file, key, self._key_type(), rows, format=self.manifest.format)

    def _restore(self, name: str, count: int) -> None:
        path = self._folder.path / name
        try:
            found = read_shard(path, count)  # there may be more rows, which no manifest counts
        except ShardReadError as error:
            raise Refused(
                f"cannot read {shown_path(path)}, which the manifest counts: {error}"
            ) from error
        if len(found.keys) < count:
            raise Refused(f"{shown_path(path)} is cut: the manifest counts {count} rows in it")
        self._keys = [*found.keys]
        self._valid = [*found.valid]
        if (dimensions := self.progress.vector_length) is not None:
            self.allocate(dimensions)
            assert self._vectors is not None
            if any(found.valid):
                self._vectors[:count] = found.vectors
        self._saved_rows = count


def _failure_line(row: Row, reason: str) -> bytes:
    entry = {"row": row.number, "key": row.key, "where": row.where, "reason": reason}
    return msgspec.json.encode(entry) + b"\n"
