"""Files on their way to the server: hashed and read in threads, a piece at a time.

This module may know only the errors; what is sent with these pieces is not its subject.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

import anyio
import anyio.to_thread

from ._errors import RequestError

# Small enough that a cancelled read is over in no time, large enough that changing threads for
# each costs little.
PIECE_BYTES = 1024 * 1024

Source = str | os.PathLike[str] | bytes | bytearray | memoryview
Progress = Callable[[int, int], None]
_DIGEST = r"sha256:[0-9a-f]{64}"


class PieceError(Exception):
    """Carries what went wrong with a piece past HTTP, which would take it for its own."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


def check_digest(digest: object) -> str:
    """A digest as the API spells it."""
    if not isinstance(digest, str) or not re.fullmatch(_DIGEST, digest):
        raise RequestError(
            f"a digest is 'sha256:' and 64 hexadecimal digits in lower case, not {digest!r:.80}"
        )
    return digest


def check_source(source: object, progress: object) -> None:
    """What can be uploaded: a path or bytes; and what can be told of it."""
    if not isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) or source == "":
        raise RequestError(f"a file must be a path or bytes, not {source!r:.80}")
    if progress is not None and not callable(progress):
        raise RequestError(f"progress must be a function, not {type(progress).__name__}")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading; called in a thread.

    Only a regular one: a pipe or a device may never deliver, and no thread can be cancelled.
    """
    shown = f"{os.fspath(path)!r:.200}"
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"{shown} cannot be read: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RequestError(f"{shown} is no regular file")
    return os.fdopen(descriptor, "rb")


def open_source(source: Source) -> BinaryIO:
    """Open what is to be uploaded; called in a thread."""
    if isinstance(source, str | os.PathLike):
        return open_regular(source)
    return io.BytesIO(source)


async def digest_of(file: BinaryIO) -> tuple[str, int]:
    """The digest and the size of a file."""
    whole = hashlib.sha256()
    size = 0
    while piece := await anyio.to_thread.run_sync(_hash_piece, file, whole):
        size += piece
    return f"sha256:{whole.hexdigest()}", size


def _hash_piece(file: BinaryIO, whole: hashlib._Hash) -> int:
    piece = _read(file)
    whole.update(piece)
    return len(piece)


def _read(file: BinaryIO) -> bytes:
    try:
        return file.read(PIECE_BYTES)
    except OSError as error:
        raise RequestError(f"the file cannot be read: {error.strerror}") from error


class Pieces(AsyncIterator[bytes]):
    """Reads a file from its start; tells of each piece that was sent."""

    def __init__(self, file: BinaryIO, size: int, progress: Progress | None) -> None:
        self._file = file
        self._size = size
        self._progress = progress
        self._sent = 0
        file.seek(0)

    async def __anext__(self) -> bytes:
        try:
            if self._progress is not None:
                self._progress(self._sent, self._size)
            piece = await anyio.to_thread.run_sync(_read, self._file)
            self._sent += len(piece)
            if self._sent > self._size or (not piece and self._sent < self._size):
                raise RequestError("the file changed while it was sent")
        except Exception as error:
            raise PieceError(error) from error
        if not piece:
            raise StopAsyncIteration
        return piece
