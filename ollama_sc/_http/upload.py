"""A file as the body of a request: read in threads, a block at a time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

from ollama_sc._errors import RequestError
from ollama_sc._loop.threads import run_in_thread

from .messages import UploadError

# Small enough that a cancelled read is over in no time, large enough that changing threads for
# each costs little.
BLOCK_BYTES = 1024 * 1024
ProgressCallback = Callable[[int, int], None]


def read_block(file: BinaryIO) -> bytes:
    try:
        return file.read(BLOCK_BYTES)
    except OSError as error:
        raise RequestError(f"the file cannot be read: {error.strerror}") from error


class FileBlocks(AsyncIterator[bytes]):
    """Reads a file from its start, and reports each block that was sent."""

    def __init__(self, file: BinaryIO, size: int, progress: ProgressCallback | None) -> None:
        self._file = file
        self._size = size
        self._progress = progress
        self._sent = 0
        file.seek(0)

    async def __anext__(self) -> bytes:
        try:
            if self._progress is not None:
                self._progress(self._sent, self._size)
            block = await run_in_thread(read_block, self._file)
            self._sent += len(block)
            if self._sent > self._size or (not block and self._sent < self._size):
                raise RequestError("the file changed while it was sent")
        except Exception as error:
            raise UploadError(error) from error
        if not block:
            raise StopAsyncIteration
        return block
