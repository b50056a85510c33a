"""Files that requests send: opened and hashed in threads, a block at a time."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from typing import BinaryIO

from ollama_sc._errors import RequestError
from ollama_sc._http.upload import read_block
from ollama_sc._loop.threads import run_in_thread

UploadSource = str | os.PathLike[str] | bytes | bytearray | memoryview
_DIGEST = r"sha256:[0-9a-f]{64}"


def check_digest(digest: object) -> str:
    """A digest as the API spells it."""
    if not isinstance(digest, str) or not re.fullmatch(_DIGEST, digest):
        raise RequestError(
            f"a digest is 'sha256:' and 64 hexadecimal digits in lower case, not {digest!r:.80}"
        )
    return digest


def check_source(source: object, progress: object) -> None:
    """What can be uploaded: a path or bytes; and what is called as it is sent."""
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


def open_source(source: UploadSource) -> BinaryIO:
    """Open what is to be uploaded; called in a thread."""
    if isinstance(source, str | os.PathLike):
        return open_regular(source)
    return io.BytesIO(source)


async def digest_of(file: BinaryIO) -> tuple[str, int]:
    """The digest and the size of a file."""
    whole = hashlib.sha256()
    size = 0
    while block := await run_in_thread(_hash_block, file, whole):
        size += block
    return f"sha256:{whole.hexdigest()}", size


def _hash_block(file: BinaryIO, whole: hashlib._Hash) -> int:
    block = read_block(file)
    whole.update(block)
    return len(block)
