"""The input of a job: its files, their format, and the fingerprint that identifies them."""

import glob
import hashlib
import os
import stat
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import anyio.to_thread
import msgspec

from ollama_sc.cli._compression import HEAD_BYTES, SUFFIXES, compression_of
from ollama_sc.cli._content import BYTE_ORDER_MARK, PARQUET, check_encoding, is_array, unpacked
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._shown import shown, shown_path

Format = Literal["jsonl", "lines", "parquet"]

STANDARD_INPUT = "-"
_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "lines",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_BLOCK_BYTES = 8 << 20  # read and hashed at once
_MAX_SHOWN_FILES = 3  # in a message
_HEAD_BYTES = 64 << 10  # that tell what a file is


class FileFingerprint(msgspec.Struct, frozen=True):
    """Identifies a file by its content. Its name is for messages, and may change."""

    name: str
    bytes: int
    sha256: str


class Fingerprint(msgspec.Struct, frozen=True):
    """Identifies an input by its content.

    Attributes:
        kind: files are hashed before the job starts; the rows of a pipe are, as they are read.
        files: in the order in which they are read.
    """

    kind: Literal["files", "pipe"]
    files: tuple[FileFingerprint, ...] = ()

    def same(self, other: "Fingerprint") -> bool:
        """Whether both have the same content."""
        return self.kind == other.kind and self._contents() == other._contents()

    def _contents(self) -> list[tuple[int, str]]:
        return [(file.bytes, file.sha256) for file in self.files]

    def differences(self, other: "Fingerprint") -> tuple["Fingerprint", "Fingerprint"]:
        """The parts of this one and the other that differ; both as a whole where their kinds do.

        Files are compared by content: those that both have are left out, unless their order alone
        differs.
        """
        mine, others = self._contents(), other._contents()
        if self.kind != other.kind or sorted(mine) == sorted(others):
            return self, other
        return (
            Fingerprint(self.kind, _without(self.files, others)),
            Fingerprint(other.kind, _without(other.files, mine)),
        )

    def __str__(self) -> str:
        if self.kind == "pipe":
            return "a pipe"
        if not self.files:
            return "none more"
        if len(self.files) <= _MAX_SHOWN_FILES:
            return " and ".join(
                f"{shown(file.name)} ({file.bytes:,} bytes, sha256 {shown(file.sha256[:12])})"
                for file in self.files
            )
        return f"{len(self.files)} files, {sum(file.bytes for file in self.files):,} bytes"


def _without(
    files: Sequence[FileFingerprint], contents: Sequence[tuple[int, str]]
) -> tuple[FileFingerprint, ...]:
    """The files whose content is not among these; each of these stands for one file."""
    left = Counter(contents)
    kept: list[FileFingerprint] = []
    for file in files:
        content = file.bytes, file.sha256
        if left[content]:
            left[content] -= 1
        else:
            kept.append(file)
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file or pipe, or standard input.

    Attributes:
        path: None is standard input.
        identity: as `identity_of` had it when the file was hashed; None for a pipe.
    """

    path: Path | None
    identity: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """Its name in messages."""
        return "standard input" if self.path is None else shown_path(self.path)


@dataclass(frozen=True, slots=True)
class Input:
    """All files that a job reads.

    Attributes:
        total: the number of rows, where it is known; that of JSONL counts blank lines too.
    """

    format: Format
    files: tuple[InputFile, ...]
    fingerprint: Fingerprint
    total: int | None

    @property
    def is_pipe(self) -> bool:
        """Whether it can be read only once, from the start."""
        return self.fingerprint.kind == "pipe"


def find(names: Sequence[str], given: Format | None) -> tuple[list[Path | None], Format]:
    """Expand the arguments to files, in order, and find their format. None is standard input.

    Args:
        names: files, globs, or ``-``.
        given: the format, where an option says it.

    Raises:
        Refused: a file is missing or a folder, or the format is unclear.
    """
    paths = [path for name in names for path in _expand(name)]
    if None in paths and len(paths) > 1:
        raise Refused("standard input (-) cannot be read together with other inputs")
    if None in paths and sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise Refused("standard input is closed")
    for path in paths:
        if path is not None and stat.S_ISDIR(stat_file(path).st_mode):
            name = shown_path(path)
            raise Refused(f"{name} is a folder: name its files, such as '{name}/*.jsonl'")
    formats: set[Format] = {given} if given else {_format_of(path) for path in paths}
    if len(formats) > 1:
        found = " and ".join(sorted(formats))
        raise Refused(f"the inputs are {found}: embed them apart, or say --input-format")
    return paths, formats.pop()


def stat_file(path: Path) -> os.stat_result:
    """The status of a file.

    Raises:
        Refused: it does not exist, or cannot be read.
    """
    try:
        return path.stat()
    except FileNotFoundError:
        raise Refused(f"there is no file {shown_path(path)}") from None
    except OSError as error:
        raise Refused(f"cannot read {shown_path(path)}: {error.strerror}") from error


def _expand(name: str) -> Iterator[Path | None]:
    if name == STANDARD_INPUT:
        yield None
    elif glob.has_magic(name) and not os.path.lexists(name):
        found = sorted(glob.glob(name, recursive=True))  # noqa: PTH207 - absolute ones too
        if not found:
            raise Refused(f"no file is like {shown_path(name)}")
        yield from map(Path, found)
    else:
        yield Path(name)


def _format_of(path: Path | None) -> Format:
    """The format by a file's name, or else by how its content begins."""
    if path is None:
        return "jsonl"
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in SUFFIXES:
        suffixes.pop()
    found = _FORMATS.get(suffixes[-1]) if suffixes else None
    return found or _format_by_content(path)


def _format_by_content(path: Path) -> Format:
    content = b""
    if path.is_file():
        try:
            with path.open("rb") as file:
                content = unpacked(file.read(_HEAD_BYTES))
        except OSError as error:
            raise _unreadable(path, error) from error
    start = content.removeprefix(BYTE_ORDER_MARK).lstrip()
    if content.startswith(PARQUET):
        return "parquet"
    if start.startswith((b"{", b"[{")) or (is_array(content) and b"{" in start[:80]):
        return "jsonl"
    raise Refused(f"{shown_path(path)}: say its format, --input-format jsonl, lines or parquet")


def _unreadable(path: Path, error: OSError) -> Refused:
    return Refused(f"cannot read {shown_path(path)}: {error.strerror}")


async def examine(paths: Sequence[Path | None], format: Format) -> Input:
    """Hash all files; a pipe is not read.

    Raises:
        Refused: a file cannot be read, or is a pipe among others or in Parquet.
    """
    if any(path is None or not path.is_file() for path in paths):
        if format == "parquet":
            raise Refused("Parquet cannot be read from a pipe, for its index is at the end")
        if len(paths) > 1:
            raise Refused("a pipe cannot be read together with other inputs")
        return Input(format, (InputFile(paths[0]),), Fingerprint("pipe"), None)
    files: list[InputFile] = []
    fingerprints: list[FileFingerprint] = []
    lines: int | None = 0
    for path in paths:
        assert path is not None
        found = await _examine_file(path, format)
        files.append(found.file)
        fingerprints.append(found.fingerprint)
        lines = None if lines is None or found.lines is None else lines + found.lines
    return Input(format, tuple(files), Fingerprint("files", tuple(fingerprints)), lines)


@dataclass(frozen=True, slots=True)
class _ExaminedFile:
    """What was seen of a file; `lines` is None where its rows are not its lines."""

    file: InputFile
    fingerprint: FileFingerprint
    lines: int | None


async def _examine_file(path: Path, format: Format) -> _ExaminedFile:
    digest = hashlib.sha256()
    size = lines = 0
    head = last = b""

    def hash_block() -> bool:
        nonlocal size, lines, head, last
        block = file.read(_BLOCK_BYTES)
        head += block[: max(0, _HEAD_BYTES - len(head))]
        digest.update(block)
        size += len(block)
        lines += block.count(b"\n")
        last = (last + block)[-len(PARQUET) :]
        return bool(block)

    try:
        with path.open("rb") as file:
            identity = identity_of(file.fileno())
            while await anyio.to_thread.run_sync(hash_block):
                pass
    except OSError as error:
        raise _unreadable(path, error) from error
    _check_head(head, last, format, shown_path(path))
    # A file that is nothing but a byte-order mark has no line.
    if digest.digest() != hashlib.sha256(BYTE_ORDER_MARK).digest():
        lines += last[-1:] not in (b"", b"\n")
    packed = compression_of(head[:HEAD_BYTES]) is not None
    lines_are_rows = format == "lines" or (format == "jsonl" and not is_array(head))
    return _ExaminedFile(
        InputFile(path, identity),
        FileFingerprint(shown_path(path.name), size, digest.hexdigest()),
        lines if lines_are_rows and not packed else None,
    )


def _check_head(head: bytes, tail: bytes, format: Format, name: str) -> None:
    """Check that a file is of its format, as far as its ends tell that.

    Raises:
        Refused: it is Parquet under another name, compressed Parquet, or text in UTF-16.
    """
    if format == "parquet":
        compression = compression_of(head[:HEAD_BYTES])
        if compression is not None:
            raise Refused(f"{name} is compressed by {compression}: Parquet is read unpacked alone")
    elif head.startswith(PARQUET) and tail == PARQUET:
        raise Refused(f"{name} is Parquet: say --input-format parquet")
    else:
        check_encoding(unpacked(head), name)


def identity_of(descriptor: int) -> tuple[int, ...]:
    """Values of a file's status that change when it is written to or replaced."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def is_regular(descriptor: int) -> bool:
    """Whether reads never block: it is no pipe, socket or terminal."""
    mode = os.fstat(descriptor).st_mode
    return not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(descriptor))
