"""What makes a compressed body plain again. No I/O."""

from __future__ import annotations

import zlib

# A block of a body can become a thousand times as long.
_MOST_BYTES = 64 * 1024
_ZLIB_BYTES = 2


class Inflater:
    """Undoes gzip and zlib, a bounded block at a time.

    What HTTP calls deflate is zlib; some servers send it without zlib's two bytes at its start.

    Args:
        coding: what the reply says that it is.

    Attributes:
        whole: whether what was fed ends where it says that it ends, or there was nothing.
    """

    def __init__(self, coding: str) -> None:
        self.whole = True
        self._may_be_bare = coding == "deflate"
        self._start = b""  # what was taken while that is not known
        self._fed = b""
        self._inflate = self._begin()

    @staticmethod
    def _begin() -> zlib._Decompress:
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip or zlib

    def feed(self, block: bytes) -> None:
        """Take what came; all that was fed before must have been taken."""
        self._fed = block

    def take(self) -> bytes:
        """The next block; empty where more has to be fed first.

        Raises:
            zlib.error: it is not compressed so.
        """
        block = b""
        while self._fed and not block:
            if self._inflate.eof:  # one compressed file behind the other
                self._inflate = self._begin()
            if self._may_be_bare:
                self._look_for_zlib()
            block = self._inflate.decompress(self._fed, _MOST_BYTES)
            self._fed = self._inflate.unconsumed_tail or self._inflate.unused_data
            self.whole = self._inflate.eof
        return block

    def _look_for_zlib(self) -> None:
        self._fed, self._start = self._start + self._fed, b""
        if len(self._fed) < _ZLIB_BYTES:
            self._fed, self._start = b"", self._fed
            return
        self._may_be_bare = False
        try:
            self._begin().decompress(self._fed[:_ZLIB_BYTES])
        except zlib.error:
            self._inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
