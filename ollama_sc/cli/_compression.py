"""Compressed bytes, told by their content, unpacked a piece at a time. No I/O.

A piece has at most `PIECE_BYTES`, however much a block of the input unpacks to. Several compressed
streams in a row are one, as `cat` makes them.
"""

import bz2
import lzma
import re
import sys
import zlib
from collections.abc import Callable
from typing import Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 256 << 10
# Longer than what any of the formats begins with.
HEAD_BYTES = 10


class BadStreamError(Exception):
    """Compressed bytes are damaged, or end too early."""


class _Stream(Protocol):
    """One compressed stream, as the standard library unpacks it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """A stream of gzip with the methods of the others."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self._full = False  # there may be more of what was put in

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not (self._full or self._stream.unconsumed_tail or self._stream.eof)

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        found = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self._full = len(found) == max_length
        return found


_ERRORS = (zlib.error, lzma.LZMAError, zstd.ZstdError, OSError, EOFError)
_FORMATS: dict[str, tuple[re.Pattern[bytes], Callable[[], _Stream]]] = {
    "gzip": (re.compile(rb"\x1f\x8b\x08"), _Gzip),
    # The second is a frame to be passed over, which some programs begin with.
    "zstd": (
        re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
        zstd.ZstdDecompressor,
    ),
    "bzip2": (re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"), bz2.BZ2Decompressor),
    "xz": (re.compile(rb"\xfd7zXZ\x00"), lzma.LZMADecompressor),
}
SUFFIXES = {".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz"}  # of names, before them the format's


def compression_of(head: bytes) -> str | None:
    """How bytes are compressed that begin like this; None where they are not."""
    for name, (magic, _) in _FORMATS.items():
        if magic.match(head):
            return name
    return None


class Unpacker:
    """Unpacks a format: bytes are put in by `feed`, and taken out by `next_piece`.

    Args:
        name: of the format, from `compression_of`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._make = _FORMATS[name][1]
        self._stream = self._make()
        self._input = b""
        self._started = False  # the stream has got some of its bytes
        self._is_first = True

    def feed(self, data: bytes) -> None:
        """Put bytes in."""
        self._input += data

    def next_piece(self) -> bytes:
        """Take the next piece out; empty where more has to be put in first.

        Raises:
            BadStreamError: it is no such stream.
        """
        try:
            while True:
                if self._stream.eof:
                    self._next_stream()
                    continue
                if not (self._is_first or self._started):
                    # Zeros fill the space behind a stream, on tapes.
                    self._input = self._input.lstrip(b"\0")
                if self._stream.needs_input and not self._input:
                    return b""
                data, self._input = self._input, b""
                self._started = self._started or bool(data)
                if piece := self._stream.decompress(data, PIECE_BYTES):
                    return piece
        except _ERRORS as error:
            raise BadStreamError(f"its {self.name} data is damaged ({error})") from error

    def _next_stream(self) -> None:
        self._input = self._stream.unused_data + self._input
        self._stream = self._make()
        self._started = self._is_first = False

    def finish(self) -> None:
        """Check that the end of the bytes is the end of a stream.

        Raises:
            BadStreamError: it is not.
        """
        if self._started and not self._stream.eof:
            raise BadStreamError(f"its {self.name} data ends too early")
