"""The output folder: one job at a time, and files that are there as a whole or not at all."""

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ollama_sc.cli._errors import Refused
from ollama_sc.cli._manifest import NAME, Manifest, decode

FAILURES = "failures.jsonl"
_ASIDE = ".tmp-"
_LOCK = ".lock"
_TRIES = 10  # to lock a folder that others make and remove


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"part-{number:05}.parquet"


@contextmanager
def opened(path: Path) -> Generator["Folder"]:
    """Make the folder where it is missing, and hold it against other jobs.

    The lock is the kernel's: it ends with the process, however that ends. Where no job has begun
    behind it, what was made here goes again.

    Raises:
        Refused: it cannot be made or written to, another job is at work in it, or it holds what is
            no job of ours.
    """
    made: list[Path] = []
    try:
        with _locked(path, made):
            try:
                yield Folder(path)
            finally:
                if not (path / NAME).exists():
                    with suppress(OSError):
                        (path / _LOCK).unlink()
    finally:
        for folder in made:
            with suppress(OSError):  # where it is not empty
                folder.rmdir()


def _locked(path: Path, made: list[Path]) -> BinaryIO:
    """The lock, held until it is closed; adds to `made` the folders that were missing.

    Another job may remove it, and the folder, between any two steps of this one. It does so only
    while it holds the lock: one that is still in its place when it is held stays there.
    """
    why: OSError | None = None
    for _ in range(_TRIES):
        try:
            made += [each for each in (path, *path.parents) if not each.exists()]
            path.mkdir(parents=True, exist_ok=True)
            lock = (path / _LOCK).open("wb")
        except FileNotFoundError as error:
            why = error
            continue
        except OSError as error:
            raise Refused(f"cannot write to {path}: {error.strerror}") from error
        with ExitStack() as stack:
            stack.enter_context(lock)
            _lock(path, lock)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock.fileno()), (path / _LOCK).stat()):
                    stack.pop_all()
                    return lock
    reason = "it comes and goes" if why is None else why.strerror
    raise Refused(f"cannot write to {path}: {reason}") from why


def _lock(path: Path, lock: BinaryIO) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused(f"another ollama-sc is at work in {path}") from None
    except OSError as error:
        raise Refused(f"cannot lock {path}: {error.strerror}") from error


class Folder:
    """A folder that is held."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Manifest | None:
        """Read the manifest; None where a job can begin here.

        Raises:
            Refused: it is none, or there are shards without one.
        """
        try:
            data = (self.path / NAME).read_bytes()
        except FileNotFoundError:
            for found in (*self.path.glob("part-*.parquet"), *self.path.glob(FAILURES)):
                raise Refused(
                    f"{found} is there without a {NAME}: use another folder, or empty this one"
                ) from None
            return None
        except OSError as error:
            raise Refused(f"cannot read {self.path / NAME}: {error.strerror}") from error
        return decode(data, str(self.path / NAME))

    def clear(self, manifest: Manifest) -> None:
        """Take away what a job that was killed left beside what its manifest counts.

        Raises:
            Refused: something that it counts is missing.
        """
        for left in self.path.glob(f"{_ASIDE}*"):
            left.unlink()
        progress = manifest.progress
        rows = manifest.settings.shard_rows
        shards = -(-progress.rows // rows) if progress.done else progress.rows // rows
        for number in range(shards):
            self._check(shard_name(number))
        if progress.failures_bytes:
            self._check(FAILURES, progress.failures_bytes)
        with suppress(FileNotFoundError):
            os.truncate(self.path / FAILURES, progress.failures_bytes)
            if not progress.failures_bytes:
                (self.path / FAILURES).unlink()

    def _check(self, name: str, size: int = 1) -> None:
        path = self.path / name
        try:
            found = path.stat().st_size
        except FileNotFoundError:
            found = -1
        if found < size:
            what = "missing" if found < 0 else "cut"
            raise Refused(
                f"{path} is {what}, and {NAME} counts it: bring it back, or use another folder"
            )

    def write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        """Write a file aside, and put it in its place when all of it is on the disk."""
        aside = self.path / f"{_ASIDE}{name}"
        try:
            with aside.open("wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(self.path / name)
        except BaseException:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise
        self._sync()

    def append(self, name: str, start: int, data: bytes) -> None:
        """Write at a place of a file, behind which nothing counts."""
        path = self.path / name
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(start)
            file.seek(start)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        self._sync()

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest."""
        data = manifest.encode()
        self.write(NAME, lambda file: file.write(data))

    def remove(self, name: str) -> None:
        """Remove a file, where it is there."""
        (self.path / name).unlink(missing_ok=True)

    def _sync(self) -> None:
        """Have the names of the folder's files on the disk too."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
