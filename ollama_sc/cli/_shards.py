"""Rows with their vectors into Parquet shards, each as a whole and once.

A shard is written aside and put in its place, then the failures of its rows are appended to their
list, then the manifest counts it. A job that is killed anywhere in between does the shard again.
Before the first of all, a manifest that counts nothing says whose it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import BinaryIO

import anyio.to_thread
import msgspec
import numpy as np
import pyarrow as pa

from ollama_sc.cli._errors import Refused, Stopped
from ollama_sc.cli._folder import FAILURES, Folder, shard_name
from ollama_sc.cli._manifest import Manifest, Progress
from ollama_sc.cli._rows import Key, Row
from ollama_sc.cli._table import CannotRead, KeyedVectors, Vectors, read, write

ROW = "row"  # the key column where the job has no other
KEPT = ".next.parquet"  # what a job that was stopped keeps of the next shard


_NONE: Vectors = np.empty((0, 0), np.float32)


class CannotWrite(Stopped):
    """The disk is full, or worse. What the manifest counts is as it was."""


class Shards:
    """The output of a job.

    Args:
        folder: where it goes.
        manifest: what is there.
        key_type: gives the type of the key column; is asked once there are rows.
    """

    def __init__(
        self,
        folder: Folder,
        manifest: Manifest,
        key_type: Callable[[], pa.DataType],
    ) -> None:
        self.manifest = manifest
        self._folder = folder
        self._key_type = key_type
        self._size = manifest.settings.shard_rows
        self._keys: list[Key] = []
        self._vectors: Vectors | None = None  # of a whole shard, of which the first are filled
        self._good: list[bool] = []
        self._failures: list[bytes] = []
        self._mark: str | None = manifest.progress.mark
        self._on_disk = 0  # rows of the shard at work that the manifest counts

    @property
    def progress(self) -> Progress:
        """What the manifest says."""
        return self.manifest.progress

    @property
    def rows(self) -> int:
        """How many rows there are, with those that are not on the disk yet."""
        return self.progress.rows - self._on_disk + len(self._keys)

    @property
    def failures(self) -> int:
        """How many of them have no vector."""
        return self.progress.failures + len(self._failures)

    def expect(self, length: int) -> None:
        """Make room for vectors of this length. Comes before all rows.

        Raises:
            Stopped: those before were not as long.
        """
        known = self.progress.vector_length if self._vectors is None else self._vectors.shape[1]
        if known not in (None, length):
            raise Stopped(f"the server's vectors have {length} numbers, and had {known} before")
        if self._vectors is None:
            self._vectors = np.zeros((self._size, length), np.float32)

    async def restore(self) -> None:
        """Take up what is left of the shard that was at work.

        Raises:
            Refused: it is not there any more.
        """
        number, rest = divmod(self.progress.rows, self._size)
        if rest:
            name = shard_name(number) if self.progress.done else KEPT
            await anyio.to_thread.run_sync(self._restore, name, rest)

    async def add(
        self,
        rows: Sequence[Row],
        vectors: Vectors = _NONE,
        failures: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Add rows; writes each shard that they fill.

        Args:
            rows: the next ones.
            vectors: one for each row that has a text.
            failures: which of these are none, and why.

        Raises:
            CannotWrite: a shard cannot be written. Nothing is lost but that shard.
        """
        numbers = iter(range(len(vectors)))
        reasons = [
            failures.get(next(numbers)) if row.problem is None else row.problem for row in rows
        ]
        good = np.delete(vectors, list(failures), axis=0) if failures else vectors
        start = 0
        while start < len(rows):
            end = start + self._size - len(self._keys)
            count = sum(reason is None for reason in reasons[start:end])
            self._take(rows[start:end], reasons[start:end], good[:count])
            good = good[count:]
            start = end
            if len(self._keys) == self._size:
                await self._commit(done=False)

    async def finish(self) -> None:
        """Write the last shard; the job is done."""
        if not self.progress.done or len(self._keys) > self._on_disk:
            await self._commit(done=True)

    async def keep(self) -> None:
        """Keep what there is of the next shard, so that the job can go on behind it."""
        if len(self._keys) == self._size:
            await self._commit(done=False)
        elif len(self._keys) > self._on_disk:
            await self._commit(done=False, name=KEPT)

    # -- rows in memory ----------------------------------------------------------------------

    def _take(self, rows: Sequence[Row], reasons: Sequence[str | None], vectors: Vectors) -> None:
        start = len(self._keys)
        good = [reason is None for reason in reasons]
        self._keys += [row.key for row in rows]
        self._good += good
        self._mark = rows[-1].mark
        for row, reason in zip(rows, reasons, strict=True):
            if reason is not None:
                self._failures.append(_failure(row, reason))
        assert self._vectors is not None, "the length of vectors is known"
        into = self._vectors[start : start + len(rows)]
        if all(good):
            into[:] = vectors
        elif any(good):
            into[good] = vectors

    # -- files -------------------------------------------------------------------------------

    async def _commit(self, *, done: bool, name: str | None = None) -> None:
        """Write what is in memory, as the next shard if no other name is given."""
        try:
            await anyio.to_thread.run_sync(partial(self._commit_files, done=done, name=name))
        except OSError as error:
            raise CannotWrite(
                f"cannot write to {self._folder.path}: {error.strerror or error}"
            ) from error

    def _commit_files(self, *, done: bool, name: str | None) -> None:
        progress = self.progress
        if self._keys:
            if not progress.rows:  # a shard never stands without its job
                self._folder.save(self.manifest)
            shard = shard_name(progress.rows // self._size)
            self._folder.write(name or shard, self._write_table)
        failures = b"".join(self._failures)
        if failures:
            self._folder.append(FAILURES, progress.failures_bytes, failures)
        counted = Progress(
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
        manifest = msgspec.structs.replace(self.manifest, progress=counted)
        self._folder.save(manifest)
        self.manifest = manifest
        self._failures.clear()
        if name is None:
            self._keys.clear()
            self._good.clear()
            self._folder.remove(KEPT)
        self._on_disk = len(self._keys)

    def _write_table(self, file: BinaryIO) -> None:
        assert self._vectors is not None
        rows = KeyedVectors(self._keys, self._vectors[: len(self._keys)], self._good)
        write(file, self.manifest.settings.key or ROW, self._key_type(), rows)

    def _restore(self, name: str, count: int) -> None:
        path = self._folder.path / name
        try:
            found = read(path, count)  # what is behind was not counted
        except CannotRead as error:
            raise Refused(f"cannot read {path}, which the manifest counts: {error}") from error
        if len(found.keys) < count:
            raise Refused(f"{path} is cut: the manifest counts {count} rows in it")
        self._keys = [*found.keys]
        self._good = [*found.good]
        self.expect(found.vectors.shape[1])
        assert self._vectors is not None
        self._vectors[:count] = found.vectors
        self._on_disk = count


def _failure(row: Row, reason: str) -> bytes:
    entry = {"row": row.number, "key": row.key, "where": row.where, "reason": reason}
    return msgspec.json.encode(entry) + b"\n"
