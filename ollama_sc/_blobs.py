"""Files on their way to the server: hashed and read in threads, a piece at a time.

This module may know only the errors; what is sent with these pieces is not its subject.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

import anyio

from ._errors import RequestError

# Small enough that a cancelled read is over in no time, large enough that changing threads for
# each costs little.
PIECE_BYTES = 1024 * 1024

Progress = Callable[[int, int], None]
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def check_digest(digest: object) -> str:
    """A digest as the API spells it."""
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise RequestError(
            f"a digest is 'sha256:' and 64 hexadecimal digits in lower case, not {digest!r}"
        )
    return digest


def open_source(source: str | os.PathLike[str] | bytes) -> BinaryIO:
    """Open what is to be uploaded; called in a thread."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return Path(source).open("rb")
    except OSError as error:
        raise RequestError(f"{str(source)!r} cannot be read: {error.strerror}") from error


async def digest_of(file: BinaryIO) -> tuple[str, int]:
    """The digest and the size of a file."""
    whole = hashlib.sha256()
    size = 0
    while piece := await anyio.to_thread.run_sync(_hash_piece, file, whole):
        size += piece
    return f"sha256:{whole.hexdigest()}", size


def _hash_piece(file: BinaryIO, whole: hashlib._Hash) -> int:
    piece = file.read(PIECE_BYTES)
    whole.update(piece)
    return len(piece)


class Pieces(AsyncIterator[bytes]):
    """Reads a file from its start; tells of each piece that was sent."""

    def __init__(self, file: BinaryIO, size: int, progress: Progress | None) -> None:
        self._file = file
        self._size = size
        self._progress = progress
        self._read = 0
        file.seek(0)

    async def __anext__(self) -> bytes:
        if self._progress is not None:
            self._progress(self._read, self._size)
        piece = await anyio.to_thread.run_sync(self._file.read, PIECE_BYTES)
        if not piece:
            raise StopAsyncIteration
        self._read += len(piece)
        return piece
