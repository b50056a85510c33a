"""Files and pipes as lines of bytes, read a piece at a time."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

import anyio
import anyio.to_thread

from ollama_sc.cli._errors import Refused, Stopped
from ollama_sc.cli._inputs import BYTE_ORDER_MARK, Source, identity_of, is_regular

_PIECE = 128 << 10
_LONGEST = 64 << 20  # bytes of a line: beyond it there is no memory to be bounded


class Lines:
    r"""The lines of a file or pipe, without their `\n`; a last line needs none."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self._descriptor: int | None = None
        self._started: list[bytes] = []  # the pieces of a line whose end has not come
        self._started_bytes = 0
        self._first = True
        self.count = 0  # lines that were given

    async def next(self) -> Sequence[bytes]:
        """The next lines, never none; nothing at the end.

        Raises:
            Stopped: the file cannot be read.
            Refused: a line is too long, or the file is not the one that was hashed.
        """
        while True:
            try:
                piece = await self._read()
            except OSError as error:
                raise Stopped(f"cannot read {self.source.name}: {error.strerror}") from error
            if not piece:
                self._check_unchanged()
                lines = [b"".join(self._started)] if self._started else []
                self._started = []
            else:
                lines = self._split(piece)
            if self._first and lines:
                self._first = False
                lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
                if not piece and not lines[0]:  # nothing but the mark: no line has begun
                    lines = []
            if lines or not piece:
                self.count += len(lines)
                return lines

    async def aclose(self) -> None:
        """Close the file; standard input stays open."""
        if self._descriptor is not None and self.source.path is not None:
            os.close(self._descriptor)
        self._descriptor = None

    async def _read(self) -> bytes:
        if self._descriptor is None:
            self._descriptor = await self._open()
            self._waits = not is_regular(self._descriptor)
        if self._waits:
            # Not in a thread: nothing could end one that waits for a pipe.
            await anyio.wait_readable(self._descriptor)
            return os.read(self._descriptor, _PIECE)
        return await anyio.to_thread.run_sync(os.read, self._descriptor, _PIECE)

    async def _open(self) -> int:
        path = self.source.path
        if path is None:
            return sys.stdin.fileno()
        if path.is_fifo():
            return await _open_pipe(path)
        return await anyio.to_thread.run_sync(os.open, path, os.O_RDONLY)

    def _split(self, piece: bytes) -> list[bytes]:
        lines = piece.split(b"\n")
        self._started.append(lines[0])
        self._started_bytes += len(lines[0])
        if self._started_bytes > _LONGEST:
            line = self.count + 1
            raise Refused(f"{self.source.name}:{line}: longer than {_LONGEST >> 20} MiB")
        if len(lines) == 1:
            return []
        lines[0] = b"".join(self._started)
        last = lines.pop()
        self._started = [last] if last else []
        self._started_bytes = len(last)
        return lines

    def _check_unchanged(self) -> None:
        assert self._descriptor is not None
        identity = self.source.identity
        if identity is not None and identity != identity_of(self._descriptor):
            raise Refused(f"{self.source.name} was changed while it was read")


async def _open_pipe(path: Path) -> int:
    """Open a named pipe, which waits until somebody writes to it.

    It waits in a thread of its own, for nothing can end that: asyncio's workers would keep the
    process from its exit. When cancelled, a descriptor that comes late is closed.
    """
    opened = Future[int]()
    reading, writing = os.pipe()

    def wait() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            if opened.set_running_or_notify_cancel():
                opened.set_exception(error)
        else:
            if opened.set_running_or_notify_cancel():
                opened.set_result(descriptor)
            else:
                os.close(descriptor)
        finally:
            os.close(writing)  # wakes up the other end

    Thread(target=wait, daemon=True).start()
    try:
        await anyio.wait_readable(reading)
    except BaseException:
        if not opened.cancel() and opened.exception() is None:
            os.close(opened.result())
        raise
    finally:
        os.close(reading)
    return opened.result()
