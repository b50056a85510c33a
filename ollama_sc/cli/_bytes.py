"""Files and pipes as rows of bytes, read and unpacked a block at a time."""

import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

import anyio
import anyio.to_thread

from ollama_sc.cli._compression import HEAD_BYTES, BadStreamError, Unpacker, compression_of
from ollama_sc.cli._content import (
    BYTE_ORDER_MARK,
    TOLD_BYTES,
    LineScanner,
    check_encoding,
    is_array,
)
from ollama_sc.cli._errors import Refused, Stopped
from ollama_sc.cli._inputs import InputFile, identity_of, is_regular
from ollama_sc.cli._json_scan import ArrayScanner, ScanError

_BLOCK_BYTES = 128 << 10
_MAX_LINE_BYTES = 64 << 20  # so that a line cannot fill the memory


class ByteLines:
    r"""The lines of a file or pipe, without their `\n`, which the last line may lack.

    Those of an array of JSON are its elements. A file that is compressed is unpacked.

    Args:
        file: that is read.
        arrays: whether it can be an array of JSON.

    Attributes:
        file: that is read.
        count: how many lines were returned.
    """

    def __init__(self, file: InputFile, *, arrays: bool = False) -> None:
        self.file = file
        self.count = 0
        self._arrays = arrays
        self._descriptor: int | None = None
        self._head: bytes | None = b""  # of the file, while it is not known what it is
        self._unpacker: Unpacker | None = None
        self._content = b""  # its start, while that does not tell what the lines are
        self._scanner: LineScanner | ArrayScanner | None = None

    async def next_lines(self) -> Sequence[bytes]:
        """Read the next lines, at least one; an empty list at the end.

        Raises:
            Stopped: the file cannot be read.
            Refused: a line is too long, it is no UTF-8, or the file is not the one that was hashed.
        """
        while True:
            try:
                block = await self._next_block()
                if not block:
                    self._check_unchanged()
                lines = self._scan(block)
            except OSError as error:
                raise Stopped(f"cannot read {self.file.name}: {error.strerror}") from error
            except (BadStreamError, ScanError) as error:
                raise Stopped(f"cannot read {self.file.name}: {error}") from error
            if lines or not block:
                self.count += len(lines)
                return lines

    async def aclose(self) -> None:
        """Close the file; standard input stays open."""
        if self._descriptor is not None and self.file.path is not None:
            os.close(self._descriptor)
        self._descriptor = None

    async def _next_block(self) -> bytes:
        """The next bytes of the content; empty at its end."""
        while self._head is not None:
            block = await self._read()
            head = self._head + block
            if len(head) < HEAD_BYTES and block:
                self._head = head
                continue
            self._head = None
            if (name := compression_of(head)) is None:
                return head
            self._unpacker = Unpacker(name)
            self._unpacker.feed(head)
        if self._unpacker is None:
            return await self._read()
        while not (piece := self._unpacker.next_piece()):
            block = await self._read()
            if not block:
                self._unpacker.finish()
                break
            self._unpacker.feed(block)
        return piece

    async def _read(self) -> bytes:
        if self._descriptor is None:
            self._descriptor = await self._open()
            self._can_block = not is_regular(self._descriptor)
        if self._can_block:
            # Not in a thread: nothing can cancel one that is blocked on a pipe.
            await anyio.wait_readable(self._descriptor)
            return os.read(self._descriptor, _BLOCK_BYTES)
        return await anyio.to_thread.run_sync(os.read, self._descriptor, _BLOCK_BYTES)

    async def _open(self) -> int:
        path = self.file.path
        if path is None:
            return sys.stdin.fileno()
        if path.is_fifo():
            return await _open_pipe(path)
        return await anyio.to_thread.run_sync(os.open, path, os.O_RDONLY)

    def _scan(self, block: bytes) -> list[bytes]:
        """The lines that a block completes; an empty block is the end."""
        if self._scanner is not None and self._scanner.pending > _MAX_LINE_BYTES:
            line = self.count + 1
            raise Refused(f"{self.file.name}:{line}: longer than {_MAX_LINE_BYTES >> 20} MiB")
        if self._scanner is None:
            self._content += block
            if block and not self._is_told():
                return []
            check_encoding(self._content, self.file.name)
            array = self._arrays and is_array(self._content)
            self._scanner = ArrayScanner() if array else LineScanner()
            content, self._content = self._content.removeprefix(BYTE_ORDER_MARK), b""
        else:
            content = block
        lines = self._scanner.feed(content) if content else []
        return lines if block else lines + self._scanner.finish()

    def _is_told(self) -> bool:
        """Whether the start of the content tells what its lines are."""
        content = self._content
        if len(content) < TOLD_BYTES:
            return False
        return not self._arrays or is_array(content) is not None or len(content) > _BLOCK_BYTES

    def _check_unchanged(self) -> None:
        assert self._descriptor is not None
        identity = self.file.identity
        if identity is not None and identity != identity_of(self._descriptor):
            raise Refused(f"{self.file.name} was changed while it was read")


async def _open_pipe(path: Path) -> int:
    """Open a named pipe, which blocks until another process opens it to write.

    It blocks in a daemon thread, which nothing can cancel: a worker thread of asyncio's would block
    the exit of the process. After a cancellation, a descriptor that is opened later is closed.
    """
    future = Future[int]()
    wakeup_reader, wakeup_writer = os.pipe()

    def wait() -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
        else:
            if future.set_running_or_notify_cancel():
                future.set_result(descriptor)
            else:
                os.close(descriptor)
        finally:
            os.close(wakeup_writer)  # makes the other end readable

    Thread(target=wait, daemon=True).start()
    try:
        await anyio.wait_readable(wakeup_reader)
    except BaseException:
        if not future.cancel() and future.exception() is None:
            os.close(future.result())
        raise
    finally:
        os.close(wakeup_reader)
    return future.result()
