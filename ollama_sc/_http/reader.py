"""The bytes of one HTTP/1.1 reply into its head and its body, by llhttp. No I/O.

llhttp tells neither that a reply has no body because of what was asked, nor that the connection's
end is the end of the body: both are decided here.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    import httptools

# How many bytes may come in a row that are no body: of the head, interim replies (1xx) included,
# or of a chunk's size, or of trailers. llhttp itself has no bound.
MAX_HEAD_BYTES = 64 * 1024

# A block of a body takes some sixty bytes more than it has: so many small ones become one.
_MANY_BLOCKS = 256

_NO_BODY = {204, 304}


@cache
def llhttp() -> Any:
    """The parser's module: imported when the first client is made, and not before."""
    import httptools  # noqa: PLC0415

    return httptools


def _refusals() -> tuple[type[Exception], ...]:
    """What it raises; for an ``except`` clause."""
    return llhttp().HttpParserError, llhttp().HttpParserUpgrade


class ReplyReader:
    """Reads one reply.

    Attributes:
        version, status, reason: the head's first line.
        fields: the headers by name in lower case; several are joined by commas. Spaces and tabs
            around a value are still there.
        begun: whether a byte of it has come.
        head_complete: whether the head is here. Interim replies (1xx) are read and forgotten.
        complete: whether the whole reply is here.
        trailing_data: whether anything came behind it, which rules out reusing the connection.
        failure: what is wrong with the bytes after those that `take` gives.
    """

    __slots__ = (
        "_blocks",
        "_headers",
        "_is_head",
        "_joined",
        "_keep_alive",
        "_non_body_bytes",
        "_own_blocks",
        "_parser",
        "_until_close",
        "begun",
        "complete",
        "failure",
        "fields",
        "head_complete",
        "on_body",
        "reason",
        "status",
        "trailing_data",
        "version",
    )

    def __init__(self, *, is_head: bool) -> None:
        self.version = ""
        self.status = 0
        self.reason = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self.fields: dict[bytes, bytes] = {}
        self.head_complete = False
        self.complete = False
        self.trailing_data = False
        self.failure: httpx.RemoteProtocolError | None = None
        self._keep_alive = False
        self._until_close = False
        self._is_head = is_head  # it answers HEAD
        self.begun = False
        self._non_body_bytes = 0  # since the last byte of the body
        self._blocks: list[bytes] = []
        self._own_blocks = 0  # of these, once it is complete
        self._joined = 0  # of these, each made of many
        self.on_body = self._blocks.append  # a chunk of the body costs no frame of Python
        self._parser: httptools.HttpResponseParser | None = llhttp().HttpResponseParser(self)

    # -- what llhttp calls ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Notice a reply behind the reply."""
        if self.complete:
            self.trailing_data = True

    def on_status(self, reason: bytes) -> None:
        """Take the reason phrase, which can come in parts."""
        if not self.head_complete:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what comes behind the body in trailers is ignored."""
        if not self.head_complete:
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Decide how the body ends."""
        if self.head_complete:  # of a reply behind the reply
            return
        parser = self._parser
        assert parser is not None
        self.status = status = parser.get_status_code()
        if status < 200:
            self._headers.clear()
            self.reason = b""
            return
        self.head_complete = True
        self.version = parser.get_http_version()
        if self.version not in ("1.0", "1.1"):
            self._fail(f"it is of HTTP {self.version}, which was not asked for")
        self.fields = fields = {name.lower(): value for name, value in self._headers}
        if len(fields) != len(self._headers):
            fields.update(_joined(self._headers))
        if self._is_head:
            # llhttp goes on to read a body that will not come, and is of no use any more.
            self.complete = True
            self._keep_alive = (
                self.version == "1.1" and b"close" not in fields.get(b"connection", b"").lower()
            )
            return
        self._keep_alive = parser.should_keep_alive()
        coding = fields.get(b"transfer-encoding")
        if coding is not None:
            # llhttp takes nothing else for it: not in several lines, nor with a tab behind it.
            if coding.strip(b" ").lower() != b"chunked":
                self._fail(f"a transfer encoding that nobody asked for: {coding[:40]!r}")
        elif b"content-length" not in fields:
            self._until_close = status not in _NO_BODY

    def on_message_complete(self) -> None:
        """Note the end; llhttp reads on if there is more."""
        if self.head_complete and not self.complete:
            self.complete = True
            self._own_blocks = len(self._blocks)

    # -- what the connection calls -------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Read on; see the attributes."""
        assert self._parser is not None
        if not self.begun:
            self.begun = True
            if data.lstrip(b"\r\n")[:1] not in (b"H", b""):
                self._fail(f"it does not begin as HTTP does: {data[:40]!r}")  # RTSP would pass
                return
        before = len(self._blocks)
        try:
            self._parser.feed_data(data)
        except _refusals() as error:
            self._refused(error)
        self._note(data, before)

    def read(self, data: bytes) -> bytes:
        """Read on in the body, and take what has come of it: `feed` and `take` for each token."""
        blocks = self._blocks
        before = len(blocks)
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]  # until it is closed
        except _refusals() as error:
            self._refused(error)
        if len(blocks) == 1 and not before and not self.complete:
            self._non_body_bytes = 0
            return blocks.pop()
        self._note(data, before)
        return self.take()

    def _refused(self, error: Exception) -> None:
        """Note what llhttp says of the bytes."""
        if isinstance(error, llhttp().HttpParserUpgrade):
            self._fail("it switches to another protocol, unasked")
        elif self.complete:
            self.trailing_data = True
        else:
            self._fail(str(error), error)

    def _note(self, data: bytes, before: int) -> None:
        """Note what the bytes have brought; `before` them there were so many blocks."""
        blocks = self._blocks
        if len(blocks) > before:
            self._non_body_bytes = 0
            if len(blocks) - self._joined > _MANY_BLOCKS and not self.complete:
                blocks[self._joined :] = [b"".join(blocks[self._joined :])]
                self._joined += 1
        elif not self.complete:
            self._non_body_bytes += len(data)
            if self._non_body_bytes > MAX_HEAD_BYTES:
                what = "trailers or chunk sizes" if self.head_complete else "headers"
                self._fail(f"its {what} are longer than {MAX_HEAD_BYTES} bytes")
        if self._is_head and self.complete:
            end = data.find(b"\r\n\r\n") + 4  # 3, where only its last bytes are in here
            self.trailing_data = end != len(data) if end > 3 else len(data) > 3

    @property
    def waiting(self) -> int:
        """How many bytes of the body have come and were not taken."""
        return sum(map(len, self._blocks))

    @property
    def is_read(self) -> bool:
        """Whether all of the reply was taken, and nothing is wrong with it."""
        return self.complete and not self._blocks and self.failure is None

    def end(self) -> None:
        """Note that the connection has ended: the reply's end, or a cut."""
        if self._until_close and self.failure is None:
            self.complete = True
            self._own_blocks = len(self._blocks)
        elif not self.complete:
            self._fail(
                "the server closed the connection in the middle of its reply"
                if self.begun
                else "the server closed the connection without a reply"
            )

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers as they came."""
        return [(name, value.strip(b" \t")) for name, value in self._headers]

    def forget_headers(self) -> None:
        """Let go of them; only the body is wanted now."""
        self._headers.clear()
        self.fields.clear()

    def take(self) -> bytes:
        """The body that has come since the last time."""
        blocks = self._blocks
        if self.complete and len(blocks) > self._own_blocks:
            self.trailing_data = True
            del blocks[self._own_blocks :]
        if not blocks:
            return b""
        block = blocks[0] if len(blocks) == 1 else b"".join(blocks)
        blocks.clear()
        self._own_blocks = self._joined = 0
        return block

    def close(self) -> bool:
        """Stop reading; whether the connection can carry another reply."""
        self._parser = None  # it refers back to here
        self.take()
        return (
            self.complete and self._keep_alive and not self.trailing_data and self.failure is None
        )

    def _fail(self, why: str, cause: Exception | None = None) -> None:
        if self.failure is None:
            self.failure = httpx.RemoteProtocolError(why)
            self.failure.__cause__ = cause


def _joined(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    joined: dict[bytes, bytes] = {}
    for name, value in headers:
        key = name.lower()
        joined[key] = joined[key] + b", " + value if key in joined else value
    return joined
