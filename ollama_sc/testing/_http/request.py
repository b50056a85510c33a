"""One request as the fake server received it, and the record of its response."""

from typing import Any

import anyio

from ollama_sc.testing._go import gojson
from ollama_sc.testing._state.blobs import Upload

from .shared import SharedEvent


class RecordedRequest:
    """A request that the fake received.

    Times are seconds on the clock of the fake's event loop, and None until the event has happened.
    That is `anyio.current_time()` inside of `async with FakeOllama()`, and `time.monotonic()` where
    the fake runs in a thread of its own.

    Attributes:
        method: The HTTP method, upper case.
        path: The path without the query.
        query: The part after the `?`, or "".
        headers: The headers by lower-case name; repeated ones joined by ", ".
        body: The whole body, without chunked encoding; for an upload of a blob, its first MiB.
        body_size: How many bytes of the body have been received so far.
        connection: The number of its connection, counted from 1 in order of acceptance.
        received_at: When its last byte was received.
        headers_sent_at: When the last byte of the response's headers was passed to the system.
        finished_at: When the last byte of a complete response was passed to the system. Stays
            None if a fault ended the response, and if the client disconnected before.
        closed_at: When the server detected that the connection was closed, or closed it itself.
        disconnected: True if the client closed (or half-closed) the connection before the whole
            response was sent.
        parts_sent: How many lines of a stream have been sent.

    """

    def __init__(
        self,
        *,
        method: str,
        target: str,
        headers: dict[str, str],
        connection: int,
        http_version: str = "1.1",
    ) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.connection = connection
        self.http_version = http_version
        self.body = b""
        self.body_size: int = 0
        self.upload: Upload | None = None
        self.keep_alive = True
        self.received_at: float | None = None
        self.headers_sent_at: float | None = None
        self.finished_at: float | None = None
        self.closed_at: float | None = None
        self.disconnected = False
        self.parts_sent = 0
        self._parts = bytearray()
        self._headers_sent = SharedEvent()
        self._finished = SharedEvent()
        self._closed = SharedEvent()

    def __repr__(self) -> str:
        state = (
            "disconnected"
            if self.disconnected
            else "answered"
            if self.finished_at is not None
            else "closed"
            if self.closed_at is not None
            else "open"
        )
        return (
            f"<RecordedRequest {self.method} {self.path} on connection {self.connection} {state}>"
        )

    @property
    def json(self) -> Any:
        """The first JSON value of the body. Raises ValueError if there is none."""
        return gojson.decode_first(self.body)

    async def wait_headers_sent(self) -> None:
        """Wait until the headers of the response have been sent; forever if they never are."""
        await self._headers_sent.wait()

    async def wait_finished(self) -> None:
        """Wait until the whole response has been sent; forever if it never is."""
        await self._finished.wait()

    async def wait_closed(self) -> None:
        """Wait until the connection of the request has been closed, by either side."""
        await self._closed.wait()


class Recording(RecordedRequest):
    """A recorded request with the methods by which the server updates it."""

    body_limit: int | None = None

    def feed(self, data: bytes) -> None:
        """Add received bytes of the body."""
        self.body_size += len(data)
        if self.upload is not None:
            self.upload.feed(data)
        room = None if self.body_limit is None else max(0, self.body_limit - len(self._parts))
        self._parts += data[:room]

    def complete(self) -> None:
        """The body is complete."""
        self.body = bytes(self._parts)
        self._parts = bytearray()
        self.received_at = anyio.current_time()

    @property
    def content_length(self) -> int | None:
        """The `Content-Length`; None for a chunked body."""
        if "transfer-encoding" in self.headers:
            return None
        return int(self.headers.get("content-length", "0"))

    def mark_headers_sent(self) -> None:
        """The last byte of the headers has been passed to the system."""
        if self.headers_sent_at is None:
            self.headers_sent_at = anyio.current_time()
            self._headers_sent.set()

    def mark_finished(self) -> None:
        """The last byte of a complete response has been passed to the system."""
        self.finished_at = anyio.current_time()
        self._finished.set()

    def mark_closed(self, *, by_client: bool) -> None:
        """The connection has been closed; only the first call has an effect."""
        if self.closed_at is None:
            self.closed_at = anyio.current_time()
            self.disconnected = by_client and self.finished_at is None
            self._closed.set()
