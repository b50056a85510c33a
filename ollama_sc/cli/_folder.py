"""The output folder: locked by one job at a time, with files that are replaced atomically."""

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from ollama_sc.cli._errors import Refused
from ollama_sc.cli._files import open_file, sync, sync_folder
from ollama_sc.cli._manifest import Manifest, decode_manifest
from ollama_sc.cli._shown import shown_path
from ollama_sc.cli._table import ShardReadError, count_rows
from ollama_sc.embedding.folder import LATEST, LAYOUTS, SHARDS

_TEMPORARY_PREFIX = ".tmp-"
_LOCK_NAME = ".lock"
_LOCK_ATTEMPTS = 10  # where other jobs create and remove the folder meanwhile


@contextmanager
def open_folder(path: Path) -> Generator["Folder"]:
    """Create the folder where it is missing, and lock it against other jobs.

    The lock is the kernel's: it is released when the process ends, however it ends. Where no row is
    done at the end, nothing is left there, and the folders that were created here are removed.

    Raises:
        Refused: it cannot be created, written to or locked, or another job has locked it.
    """
    created: list[Path] = []
    try:
        with _acquire_lock(path, created):
            folder = Folder(path)
            try:
                yield folder
            finally:
                with suppress(OSError, Refused):
                    folder.load()
                if not any(os.path.lexists(path / one.manifest) for one in LAYOUTS.values()):
                    with suppress(OSError):
                        (path / _LOCK_NAME).unlink()
    finally:
        for each in created:
            with suppress(OSError):  # where it is not empty
                each.rmdir()


def _acquire_lock(path: Path, created: list[Path]) -> IO[bytes]:
    """Acquire the lock, which closing the file releases; add missing folders to `created`.

    Another job may remove the lock file and the folder between any two steps here, but only while
    it holds the lock itself. So once the lock is held, and the locked file is still the one at its
    path, it stays there.

    Each attempt has four outcomes. The folder disappears: another attempt. It cannot be created, or
    another job holds the lock: that raises. The locked file is no longer at its path: another
    attempt. It is: the lock is acquired.
    """
    last_error: OSError | None = None
    for _ in range(_LOCK_ATTEMPTS):
        try:
            created += [parent for parent in (path, *path.parents) if not parent.exists()]
            path.mkdir(parents=True, exist_ok=True)
            # Not truncated, and nothing is written to it: it may be a link to somebody's file.
            lock = open_file(path / _LOCK_NAME, os.O_RDWR | os.O_CREAT)
        except FileNotFoundError as error:
            last_error = error
            continue
        except OSError as error:
            raise Refused(f"cannot write to {shown_path(path)}: {error.strerror}") from error
        with ExitStack() as stack:
            stack.enter_context(lock)
            _flock(path, lock)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), (path / _LOCK_NAME).lstat()):
                    stack.pop_all()
                    return lock
    reason = "it comes and goes" if last_error is None else last_error.strerror
    raise Refused(f"cannot write to {shown_path(path)}: {reason}") from last_error


def _flock(path: Path, lock: IO[bytes]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(f"another ollama-sc is at work in {shown_path(path)}") from None
    except OSError as error:
        raise Refused(f"cannot lock {shown_path(path)}: {error.strerror}") from error


class Folder:
    """A folder that is locked.

    Attributes:
        path: where it is.
        layout: the names of its files; the latest unless `load` finds an older manifest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.layout = LAYOUTS[LATEST]

    def load(self) -> Manifest | None:
        """Read the manifest; None where there is none, and a new job can start.

        One that counts no row is from a job that was killed before its first row was done. It binds
        nothing, and is removed with what that job left.

        Raises:
            Refused: it cannot be read, or there are shards without a manifest.
            OSError: what such a job left cannot be removed.
        """
        for layout in reversed(LAYOUTS.values()):
            path = self.path / layout.manifest
            try:
                with open_file(path, os.O_RDONLY) as file:
                    data = file.read()
            except FileNotFoundError:
                continue
            except OSError as error:
                raise Refused(f"cannot read {shown_path(path)}: {error.strerror}") from error
            manifest = decode_manifest(data, shown_path(path))
            self.layout = LAYOUTS[manifest.format]
            if manifest.progress.rows or manifest.progress.done:
                return manifest
            self._remove_uncounted()
            self.remove(layout.manifest)
        self._check_unused()
        self.layout = LAYOUTS[LATEST]
        return None

    def _check_unused(self) -> None:
        """Check that there is nothing that a new job would overwrite."""
        names = [layout.failures for layout in LAYOUTS.values()]
        for found in (*self.path.glob(SHARDS), *map(self.path.joinpath, names)):
            if os.path.lexists(found):
                raise Refused(
                    f"{shown_path(found)} is there without a {LAYOUTS[LATEST].manifest}: use "
                    "another folder, or empty this one"
                )

    def _remove_uncounted(self) -> None:
        """Remove the files of a job of which no row is done."""
        for leftover in self.path.glob(f"{_TEMPORARY_PREFIX}*"):
            leftover.unlink()
        for name in (self.layout.shard(0), self.layout.partial, self.layout.failures):
            self.remove(name)

    def roll_back(self, manifest: Manifest) -> None:
        """Remove what a killed job has written that its manifest does not count yet.

        Raises:
            Refused: a file that the manifest counts is missing or too short.
        """
        for leftover in self.path.glob(f"{_TEMPORARY_PREFIX}*"):
            leftover.unlink()
        progress = manifest.progress
        full, rest = divmod(progress.rows, manifest.settings.shard_rows)
        for number in range(full):
            self._check_shard(number, manifest.settings.shard_rows)
        if rest and progress.done:
            self._check_shard(full, rest)
        self._roll_back_failures(progress.failures_bytes)

    def _check_shard(self, number: int, rows: int) -> None:
        path = self.path / self.layout.shard(number)
        try:
            found = count_rows(path)
        except ShardReadError as error:
            if not os.path.lexists(path):
                raise self._lost(path, "missing") from error
            raise self._lost(path, f"damaged ({error})") from error
        if found < rows:
            raise self._lost(path, f"cut ({found:,} rows of {rows:,})")

    def _roll_back_failures(self, size: int) -> None:
        path = self.path / self.layout.failures
        try:
            with open_file(path, os.O_RDWR) as file:
                if os.fstat(file.fileno()).st_size < size:
                    raise self._lost(path, "cut")
                file.truncate(size)
        except FileNotFoundError as error:
            if size:
                raise self._lost(path, "missing") from error
        else:
            if not size:
                path.unlink()

    def _lost(self, path: Path, how: str) -> Refused:
        return Refused(
            f"{shown_path(path)} is {how}, and {self.layout.manifest} counts it: bring it back, or "
            "use another folder"
        )

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Write a file atomically: to a temporary file, which is synced and then renamed."""
        temporary = self.path / f"{_TEMPORARY_PREFIX}{name}"
        temporary.unlink(missing_ok=True)
        try:
            with open_file(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
                write(file)  # type: ignore[arg-type] # the same as far as it is used
                sync(file)
            temporary.replace(self.path / name)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(self.path)

    def append(self, name: str, start: int, data: bytes) -> None:
        """Write to a file from `start` on, in place of what is there, and sync it."""
        with open_file(self.path / name, os.O_RDWR | os.O_CREAT) as file:
            file.truncate(start)
            file.seek(start)
            file.write(data)
            sync(file)
        sync_folder(self.path)

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest, atomically."""
        data = manifest.encode()
        self.write(self.layout.manifest, lambda file: file.write(data))

    def remove(self, name: str) -> None:
        """Remove a file, if it exists."""
        (self.path / name).unlink(missing_ok=True)
