"""`Recorder`: stands between a program and a real server, and keeps what that answers."""

import re
import ssl
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import SplitResult, unquote, urlsplit

import anyio
import anyio.abc

from ollama_sc.testing._cassette import CassetteWriter
from ollama_sc.testing._http.listener import Listener
from ollama_sc.testing._http.llhttp import httptools
from ollama_sc.testing._http.request import RecordedRequest, Recording
from ollama_sc.testing._replies import Message, Reply, json_message

_REPLY = Reply()
_PORTS = {"http": 80, "https": 443}
# Those of one connection, and what the recorder decides itself.
_NOT_FORWARDED = {
    "connection", "keep-alive", "proxy-connection", "transfer-encoding", "content-length",
    "expect", "host", "te", "upgrade", "accept-encoding",
}  # fmt: skip
_NO_BODY = {204, 304}


class Upstream(NamedTuple):
    """The server that is recorded."""

    scheme: str
    host: str
    port: int
    prefix: str
    authorization: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """What people write for a host: a name, with or without a port, a scheme, a prefix.

        Raises:
            ValueError: It is no address of http or https.

        """
        found = _address(text)
        if found is None:
            # Without the text, and without what urlsplit says of it: a password can be in both.
            raise ValueError(
                "the upstream must be an address of http or https, such as http://box-1:11434"
            )
        url, host, port = found
        user = ""
        if url.username is not None:
            import base64  # noqa: PLC0415 - rarely needed

            plain = f"{unquote(url.username)}:{unquote(url.password or '')}"
            user = "Basic " + base64.b64encode(plain.encode()).decode()
        return cls(url.scheme, host, port, url.path.rstrip("/"), user)

    @property
    def name(self) -> str:
        """Its address, without a password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.prefix}"

    async def connect(self) -> anyio.abc.ByteStream:
        """Open a connection. Raises OSError."""
        if self.scheme == "http":
            return await anyio.connect_tcp(self.host, self.port)
        return await anyio.connect_tcp(
            self.host, self.port, tls=True, tls_standard_compatible=False
        )

    def encoded(self, request: RecordedRequest) -> bytes:
        """A request as it goes there."""
        target = request.path + (f"?{request.query}" if request.query else "")
        default = self.port == _PORTS[self.scheme]
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [
            f"{request.method} {self.prefix}{target} HTTP/1.1",
            f"Host: {host}" if default else f"Host: {host}:{self.port}",
            "Accept-Encoding: identity",  # so that people can read it, and secrets be seen
        ]
        lines += [
            f"{name}: {value}"
            for name, value in request.headers.items()
            if name not in _NOT_FORWARDED
        ]
        if self.authorization and "authorization" not in request.headers:
            lines.append(f"Authorization: {self.authorization}")
        if request.body or request.method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
            lines.append(f"Content-Length: {len(request.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + request.body


def _address(text: str) -> tuple[SplitResult, str, int] | None:
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        port = url.port or 0
    except ValueError:
        return None
    if url.scheme not in _PORTS or not url.hostname:
        return None
    return url, url.hostname, port or (_PORTS[url.scheme] if "://" in text else 11434)


class Recorder:
    """A server that hands every request on, and the response back as its bytes come.

    Inside of `async with` it listens at `url`. Requests are held in memory while they are
    forwarded.

    Args:
        upstream: The address of a real server.
        writer: Where the responses go; keys and tokens are masked.
        host: The address to listen at.
        port: 0 selects a free one.

    """

    reuse = True

    def __init__(
        self, upstream: Upstream, writer: CassetteWriter, host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.upstream = upstream
        self.writer = writer
        self.crashes: list[Exception] = []
        self._connections = 0
        self._host = host
        self._listener = Listener(self, host, port, None)

    @property
    def url(self) -> str:
        """The address that programs take for the server's."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._listener.port}"

    async def __aenter__(self) -> Self:
        await self._listener.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        suppressed = await self._listener.__aexit__(exc_type, exc, traceback)
        if exc is None and self.crashes:
            raise self.crashes[0]
        return suppressed

    # -- for the connections -------------------------------------------------------------------

    def connected(self) -> int:
        """Count a connection."""
        self._connections += 1
        return self._connections

    def disconnected(self) -> None:
        """A connection was closed."""

    def started(self, request: Recording) -> tuple[Reply, bool] | None:
        """Every request is read whole before it is forwarded."""
        del request
        return None

    def received(self, request: RecordedRequest) -> Reply:
        """The reply is the upstream's."""
        del request
        return _REPLY

    def completed(self, request: RecordedRequest) -> None:
        """Nobody waits for that."""

    def ended(self, request: RecordedRequest) -> None:
        """Nobody waits for that."""

    def crashed(self, error: Exception) -> None:
        """Keep a failure of the recorder itself."""
        self.crashes.append(error)

    @asynccontextmanager
    async def slot(self, request: RecordedRequest) -> AsyncGenerator[bool]:
        """The upstream has limits of its own."""
        del request
        yield True

    async def message(self, request: RecordedRequest, reply: Reply, *, busy: bool) -> Message:
        """Forward a request; the response, up to its headers."""
        del reply, busy
        number = self.writer.start()
        try:
            stream = await self.upstream.connect()
        except (OSError, ssl.SSLError) as error:
            text = f"cannot connect to {self.upstream.name} ({error})"
            print(text, file=sys.stderr)  # noqa: T201 - whoever records should know
            return json_message({"error": text}, 502)
        response = _Forwarded(self, number, request, stream)
        try:
            await response.send(self.upstream.encoded(request))
            await response.read_head()
        except BaseException:
            await response.aclose()
            raise
        return Message(
            200, None, (), raw=True, stream=True, source=response, keep_alive=response.reusable
        )


class _Forwarded:
    """A response that passes: the source of a message, and what is recorded in the end."""

    def __init__(
        self,
        recorder: Recorder,
        number: int,
        request: RecordedRequest,
        stream: anyio.abc.ByteStream,
    ) -> None:
        self.reusable = False
        self._recorder = recorder
        self._number = number
        self._request = request
        self._stream = stream
        self._raw = bytearray()
        self._taken = 0
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[bytes, bytes] = {}
        self._has_head = False
        self._complete = False
        self._until_close = False
        self._refused = False

    async def send(self, data: bytes) -> None:
        """Send the request; a server that answers before its end is heard all the same."""
        try:
            await self._stream.send(data)
        except anyio.BrokenResourceError:
            return

    async def read_head(self) -> None:
        """Read until the headers are here. Raises anyio.EndOfStream."""
        try:
            while not self._has_head:
                await self._read()
        except anyio.EndOfStream:
            self._refused = True
            raise

    async def next(self) -> bytes | None:
        """What came since the last call; None at the end. Raises anyio.EndOfStream."""
        while self._taken == len(self._raw):
            if self._complete:
                return None
            try:
                await self._read()
            except anyio.EndOfStream:
                if not self._until_close:
                    raise
                self._complete = True
        data = bytes(self._raw[self._taken :])
        self._taken = len(self._raw)
        return data

    async def aclose(self) -> None:
        """Keep what came, also of a response that broke off, and close the connection."""
        raw, self._raw = bytes(self._raw), bytearray()
        self._taken = 0
        if raw or self._refused:
            path, name = self._recorder.writer.add(self._number, self._request, raw)
            print(f"{self._request.method} {path} -> {name}", file=sys.stderr)  # noqa: T201
        await anyio.aclose_forcefully(self._stream)

    async def _read(self) -> None:
        try:
            data = await self._stream.receive()
        except (anyio.BrokenResourceError, ssl.SSLError) as error:
            raise anyio.EndOfStream from error
        self._raw += data
        if self._until_close:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._has_head = self._until_close = True  # whatever it is, it passes as it comes

    # -- httptools -----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._headers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value.lower()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200 or self._complete:
            return
        chunked = b"chunked" in self._headers.get(b"transfer-encoding", b"")
        bodiless = self._request.method == "HEAD" or status in _NO_BODY
        self._until_close = not (chunked or bodiless or b"content-length" in self._headers)
        self._complete = bodiless
        self._has_head = True
        closes = b"close" in self._headers.get(b"connection", b"")
        modern = re.match(rb"1\.[1-9]", self._parser.get_http_version().encode())
        self.reusable = bool(modern) and not closes and not self._until_close

    def on_message_complete(self) -> None:
        if self._has_head and not self._until_close:
            self._complete = True
