"""What a job reads: which files in which format, and the fingerprint that tells them again."""

import glob
import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio.to_thread
import msgspec

from ollama_sc.cli._errors import Refused

Format = Literal["jsonl", "lines", "parquet"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
STANDARD_INPUT = "-"
_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "lines",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_PIECE = 8 << 20  # bytes that are hashed at once


class FilePrint(msgspec.Struct, frozen=True):
    """What says that a file is the same: not its name, which may change."""

    name: str
    bytes: int
    sha256: str


class Fingerprint(msgspec.Struct, frozen=True):
    """What says that an input is the same.

    Attributes:
        kind: files are hashed before the job begins; of a pipe the rows are, as they are read.
        files: in the order in which they are read.
    """

    kind: Literal["files", "pipe"]
    files: tuple[FilePrint, ...] = ()

    def same(self, other: "Fingerprint") -> bool:
        """Whether both are of the same content."""
        return self.kind == other.kind and self._contents() == other._contents()

    def _contents(self) -> list[tuple[int, str]]:
        return [(file.bytes, file.sha256) for file in self.files]

    def __str__(self) -> str:
        if self.kind == "pipe":
            return "a pipe"
        if len(self.files) == 1:
            file = self.files[0]
            return f"{file.name} ({file.bytes:,} bytes, sha256 {file.sha256[:12]})"
        return f"{len(self.files)} files, {sum(file.bytes for file in self.files):,} bytes"


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or standard input.

    Attributes:
        path: None is standard input.
        identity: what says that the file was not changed since it was hashed.
    """

    path: Path | None
    identity: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return "standard input" if self.path is None else shown(self.path)


def shown(path: Path | str) -> str:
    """A name as text that can be printed and written: a byte that is not UTF-8 is escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass(frozen=True, slots=True)
class Input:
    """All that a job reads.

    Attributes:
        total: the number of rows, where it is known; that of JSONL counts blank lines too.
    """

    format: Format
    sources: tuple[Source, ...]
    fingerprint: Fingerprint
    total: int | None

    @property
    def is_pipe(self) -> bool:
        """Whether it can be read only once, from its beginning."""
        return self.fingerprint.kind == "pipe"


def find(names: Sequence[str], wanted: Format | None) -> tuple[list[Path | None], Format]:
    """The files that are named, in order, and their format. None is standard input.

    Raises:
        Refused: there is no such file, or their format is not clear.
    """
    paths = [path for name in names for path in _expand(name)]
    if None in paths and len(paths) > 1:
        raise Refused("standard input (-) cannot be read together with other inputs")
    if None in paths and sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise Refused("standard input is closed")
    for path in paths:
        if path is not None and stat.S_ISDIR(status_of(path).st_mode):
            name = shown(path)
            raise Refused(f"{name} is a folder: name its files, such as '{name}/*.jsonl'")
    formats: set[Format] = {wanted} if wanted else {_format_of(path) for path in paths}
    if len(formats) > 1:
        found = " and ".join(sorted(formats))
        raise Refused(f"the inputs are {found}: embed them apart, or say --input-format")
    return paths, formats.pop()


def status_of(path: Path) -> os.stat_result:
    """What the system says of a file.

    Raises:
        Refused: it says nothing.
    """
    try:
        return path.stat()
    except FileNotFoundError:
        raise Refused(f"there is no file {shown(path)}") from None
    except OSError as error:
        raise Refused(f"cannot read {shown(path)}: {error.strerror}") from error


def _expand(name: str) -> Iterator[Path | None]:
    if name == STANDARD_INPUT:
        yield None
    elif glob.has_magic(name) and not os.path.lexists(name):
        found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - absolute ones too
        if not found:
            raise Refused(f"no file is like {shown(name)}")
        yield from map(Path, found)
    else:
        yield Path(name)


def _format_of(path: Path | None) -> Format:
    if path is None:
        return "jsonl"
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        raise Refused(f"{shown(path)}: say its format, --input-format jsonl, lines or parquet")
    return found


async def examine(paths: Sequence[Path | None], format: Format) -> Input:
    """Read all files once for their fingerprint; a pipe is not touched.

    Raises:
        Refused: a file cannot be read, or is a pipe where that cannot be.
    """
    if any(path is None or not path.is_file() for path in paths):
        if format == "parquet":
            raise Refused("Parquet cannot be read from a pipe, for its index is at the end")
        if len(paths) > 1:
            raise Refused("a pipe cannot be read together with other inputs")
        return Input(format, (Source(paths[0]),), Fingerprint("pipe"), None)
    sources: list[Source] = []
    prints: list[FilePrint] = []
    lines = 0
    for path in paths:
        assert path is not None
        found = await _examine_file(path)
        sources.append(found.source)
        prints.append(found.print)
        lines += found.lines
    total = None if format == "parquet" else lines
    return Input(format, tuple(sources), Fingerprint("files", tuple(prints)), total)


@dataclass(frozen=True, slots=True)
class _Examined:
    source: Source
    print: FilePrint
    lines: int


async def _examine_file(path: Path) -> _Examined:
    digest = hashlib.sha256()
    size = lines = 0
    last = b""

    def take() -> bool:
        nonlocal size, lines, last
        piece = file.read(_PIECE)
        digest.update(piece)
        size += len(piece)
        lines += piece.count(b"\n")
        last = piece[-1:] or last
        return bool(piece)

    try:
        with path.open("rb") as file:
            identity = identity_of(file.fileno())
            while await anyio.to_thread.run_sync(take):
                pass
    except OSError as error:
        raise Refused(f"cannot read {shown(path)}: {error.strerror}") from error
    if (
        digest.digest() != hashlib.sha256(BYTE_ORDER_MARK).digest()
    ):  # a file of it alone has no line
        lines += last not in (b"", b"\n")
    return _Examined(
        Source(path, identity), FilePrint(shown(path.name), size, digest.hexdigest()), lines
    )


def identity_of(descriptor: int) -> tuple[int, ...]:
    """What changes when a file is written to or replaced."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def is_regular(descriptor: int) -> bool:
    """Whether reading never waits for anybody."""
    mode = os.fstat(descriptor).st_mode
    return not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor))
