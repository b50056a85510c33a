"""HTTP, through httpx: the one module that knows it.

`Http.exchange` sends one request and gives its reply as blocks of bytes. Failures come out as this
library's errors, each with httpx's own as its cause.
"""

from __future__ import annotations

import platform
import re
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType, coroutine
from typing import Any, NamedTuple, Self, TypedDict, TypeVar, cast

import anyio
import httpx

from ._calls import CLEANUP_SECONDS, Call
from ._errors import ConnectError, OllamaError, ProtocolError, RequestError
from ._host import Host
from ._ndjson import not_the_api
from ._server_errors import error_reply
from ._version import __version__

T = TypeVar("T")

_PIECE_BYTES = 64 * 1024
# An error page can be endless, and its sender slow.
_ERROR_BODY_BYTES = 64 * 1024
_ERROR_BODY_SECONDS = 5.0
# How long a reply that is complete may take to end as an HTTP message, so that its connection can
# be used again.
_DRAIN_SECONDS = 0.05
_DRAIN_BYTES = 64 * 1024
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# More blocks than httpx can have buffered of a body that nobody reads any more.
_BUFFERED_BLOCKS = 100_000


class HttpxOptions(TypedDict, total=False):
    """What `AsyncClient` passes on to httpx as it is; see httpx's documentation."""

    auth: Any
    cert: Any
    cookies: Any
    default_encoding: Any
    event_hooks: Mapping[str, list[Callable[..., Any]]]
    follow_redirects: bool
    http1: bool
    http2: bool
    max_redirects: int
    mounts: Mapping[str, httpx.AsyncBaseTransport | None]
    params: Any
    proxy: Any
    transport: httpx.AsyncBaseTransport
    trust_env: bool
    verify: ssl.SSLContext | str | bool


class Upload(NamedTuple):
    """A body that is read while it is sent.

    Attributes:
        size: in bytes, all of it.
        pieces: begins to read, from the start each time.
    """

    size: int
    pieces: Callable[[], AsyncIterator[bytes]]


class Request(NamedTuple):
    """What is asked of the server.

    Attributes:
        label: how errors name it: endpoint and model.
        body: the bytes, or a function that reads files for them, which runs in a thread.
    """

    method: str
    path: str
    label: str
    body: bytes | Upload | Callable[[], bytes] | None = None


class Connections(NamedTuple):
    """How many connections are open, and how many of these are idle."""

    open: int
    idle: int


class Http:
    """The connections of one client."""

    def __init__(
        self,
        host: Host,
        *,
        api_key: str | None,
        headers: Mapping[str, str] | None,
        options: HttpxOptions,
    ) -> None:
        unknown = options.keys() - HttpxOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
        merged = httpx.Headers(
            {
                "User-Agent": f"ollama-sc/{__version__} Python/{platform.python_version()}",
                "Content-Type": "application/json",
                # What compresses a stream holds it back; the server itself never does.
                "Accept-Encoding": "identity",
            }
        )
        for name, value in (headers or {}).items():
            if not _HEADER_NAME.fullmatch(_ascii(name, "name of one")):
                raise RequestError(f"headers: {name!r} cannot be a name")
            merged[name] = _ascii(value, f"value of {name!r}")
        if api_key is not None and "authorization" not in merged:
            merged["Authorization"] = f"Bearer {_ascii(api_key, 'API key')}"
        settings: dict[str, Any] = {"follow_redirects": True, **options}
        if host.userinfo is not None:
            settings.setdefault("auth", host.userinfo)
        if host.is_loopback and "proxy" not in options:
            # A proxy that the environment names is not for this machine.
            way = f"all://{host.netloc}"
            settings["mounts"] = {way: None, **(options.get("mounts") or {})}
        self._base = host.url
        try:
            httpx.URL(host.url)
            self._client = httpx.AsyncClient(
                headers=merged,
                timeout=None,  # noqa: S113 - each call's own limits are in charge
                # Nothing may queue in there: this library's own limit stands in front.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                **settings,
            )
        except (httpx.InvalidURL, ValueError, OSError) as error:
            text = re.sub(r"//[^/]*@", "//…@", str(error))  # a proxy's password
            raise RequestError(f"httpx refuses the client's settings: {text}") from error

    async def open(self) -> None:
        """Enter httpx's client."""
        await self._client.__aenter__()

    async def close(self) -> None:
        """Close every connection; under a shield, and not for long."""
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            await self._client.aclose()

    def connections(self) -> Connections:
        """How many connections there are now."""
        # httpx has no public way to its pool; a user's own transport may have none at all.
        transports = [self._client._transport, *self._client._mounts.values()]
        pools = [getattr(transport, "_pool", None) for transport in transports]
        found = [connection for pool in pools for connection in getattr(pool, "connections", ())]
        alive = [connection for connection in found if not connection.is_closed()]
        return Connections(len(alive), sum(bool(connection.is_idle()) for connection in alive))

    def exchange(self, call: Call[Any], request: Request, accept: str) -> Exchange:
        """Send a request: ``async with http.exchange(...) as reply``.

        Entering returns when the headers of a successful reply are here.

        Raises:
            ResponseError: the server answered with an error.
            ConnectError, RequestTimeout, ProtocolError, RequestError: there is no answer.
        """
        return Exchange(self._client, self._base, call, request, accept)


class _Body(httpx.AsyncByteStream):
    """A request's body, any number of times, in pieces that each have the idle limit.

    httpx's own is a generator, which a cancelled upload would leave to the event loop to finish.
    """

    def __init__(self, body: bytes | Upload) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.pieces() if isinstance(self._body, Upload) else _Pieces(self._body)


class _Pieces(AsyncIterator[bytes]):
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._start = 0

    async def __anext__(self) -> bytes:
        start = self._start
        if start >= len(self._body):
            raise StopAsyncIteration
        self._start = start + _PIECE_BYTES
        return self._body[start : self._start]


class _Progress:
    """How far httpx has come with a request, by what it tells while it works.

    httpx keeps this until the garbage collector finds it, which is why the call is let go of.
    """

    def __init__(self, call: Call[Any]) -> None:
        self.call: Call[Any] | None = call
        self.connected = False  # by this request: its connection was not there before
        self.sent = False
        self.handshaking: Any = None  # a stream that httpx does not close when it is cancelled

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Be what httpx calls a trace function."""
        prefix, _, state = event.rpartition(".")
        name = prefix.rpartition(".")[2]
        call = self.call
        if call is None:
            return
        if state == "complete":
            if name == "connect_tcp":
                self.handshaking = info.get("return_value")
            elif name == "start_tls":
                self.handshaking = None
        elif state != "started":
            return
        elif name in ("connect_tcp", "connect_unix_socket"):
            self.connected = True
            call.start_limit("connect")
        elif name == "send_request_headers":
            self.handshaking = None
            self.sent = True
            call.phase = "sending"
            call.start_limit(None)
        elif name == "receive_response_headers":
            call.phase = "receiving"
            call.start_limit("first_chunk")


class Exchange:
    """One request and its reply."""

    def __init__(
        self, client: httpx.AsyncClient, base: str, call: Call[Any], request: Request, accept: str
    ) -> None:
        self._client = client
        self._base = base
        self._call = call
        self._request = request
        self._accept = accept
        self._response: httpx.Response | None = None
        self._body: AsyncIterator[bytes] | None = None
        self._decompress: Callable[[bytes], bytes] | None = None
        self._progress = _Progress(call)

    async def __aenter__(self) -> Self:
        try:
            if callable(self._request.body):
                self._call.start_limit(None)
                body = await anyio.to_thread.run_sync(self._request.body)
                self._request = self._request._replace(body=body)
            response = await self._send()
            self._response = response
            self._call.phase = "receiving"
            if not response.is_success:
                body = await self._error_body()
                raise error_reply(
                    response.status_code, response.headers, body, request=self._request.label
                )
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status_code if self._response else 0

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            ProtocolError: it is longer than `limit` bytes.
            ConnectError: the connection broke before its end.
        """
        blocks: list[bytes] = []
        size = 0
        while block := await self.receive():
            blocks.append(block)
            size += len(block)
            if size > limit:
                what = f"the reply is longer than {limit} bytes"
                raise not_the_api(what, blocks[0], self._request.label)
        return b"".join(blocks)

    async def receive(self, before_waiting: Callable[[], None] | None = None) -> bytes:
        """The next block of the body; empty at its end.

        httpx gives each chunk of a reply by itself, however many came in one network read.
        `before_waiting` is called when the next one is not there yet: once for each network read.
        It must not raise.

        Raises:
            ConnectError, RequestTimeout, ProtocolError: the body breaks off.
        """
        assert self._response is not None
        if self._body is None:
            if self._response.is_stream_consumed:  # a hook or a transport has read it all
                self._body = self._response.aiter_bytes()
            else:
                self._body = self._response.aiter_raw()
                self._decompress = self._decompressor(self._response)
        self._call.start_limit("idle")
        try:
            while True:
                block = await _noting(anext(self._body), before_waiting)
                if self._decompress is not None:
                    block = self._decompress(block)
                if block:  # what a decompressor gives at first can be empty
                    return block
        except StopAsyncIteration:
            return b""
        except (httpx.HTTPError, httpx.StreamError, OSError, zlib.error) as error:
            raise self._translated(error) from error

    def _decompressor(self, response: httpx.Response) -> Callable[[bytes], bytes] | None:
        """What makes the body plain, where a proxy compressed it unasked.

        httpx can do that, but not fail at it without leaving a generator to the event loop.
        """
        coding = response.headers.get("content-encoding", "identity").strip().lower()
        if coding == "identity":
            return None
        if coding not in ("gzip", "x-gzip", "deflate"):
            text = f"the reply is compressed in a way that was not asked for: {coding[:40]!r}"
            raise ProtocolError(text, request=self._request.label)
        return zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress  # 32: gzip or zlib

    async def drain(self) -> None:
        """Read to the end of the HTTP message, if that is near, so that the connection lives on."""
        size = 0
        with anyio.move_on_after(_DRAIN_SECONDS), suppress(OllamaError):
            while size < _DRAIN_BYTES and (block := await self.receive()):
                if block.strip():
                    return  # something follows the reply: this connection is not to be trusted
                size += len(block)

    async def _send(self) -> httpx.Response:
        for attempt in (1, 2):
            self._progress = progress = _Progress(self._call)
            self._call.phase = "connecting"
            # A transport that tells nothing of its phases has all of them under this limit.
            self._call.start_limit("first_chunk")
            try:
                return await self._client.send(self._build(), stream=True)
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                # An idle connection that turns out to be dead before the answer began is the one
                # case in which a request is sent again.
                broken = isinstance(
                    error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
                )
                if attempt == 2 or not broken or progress.connected or not progress.sent:
                    raise self._translated(error) from error
        raise AssertionError

    def _build(self) -> httpx.Request:
        limits = self._call.timeouts
        body = self._request.body
        headers = {"Accept": self._accept}
        if isinstance(body, Upload):
            headers |= {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(body.size),
            }
        message = self._client.build_request(
            self._request.method,
            self._base + self._request.path,
            content=body if isinstance(body, bytes) else None,
            headers=headers,
            extensions={
                # The limits are this library's own. Of these, the first is for transports that tell
                # nothing of their phases, the second for each piece of a body.
                "timeout": {
                    "connect": limits.connect,
                    "write": limits.idle,
                    "read": None,
                    "pool": None,
                },
                "trace": self._progress.trace,
            },
        )
        if isinstance(body, bytes | Upload):
            message.stream = _Body(body)
        return message

    async def _error_body(self) -> bytes:
        body = b""
        with anyio.move_on_after(_ERROR_BODY_SECONDS), suppress(OllamaError):
            while len(body) < _ERROR_BODY_BYTES and (block := await self.receive()):
                body += block
        return body

    async def _close(self) -> None:
        """Give the connection back, or close it where its reply was not read to the end."""
        response, self._response = self._response, None
        body, self._body = self._body, None
        self._progress.call = None
        if self._progress.handshaking is not None:
            with anyio.move_on_after(CLEANUP_SECONDS, shield=True), suppress(Exception):
                await self._progress.handshaking.aclose()
        if response is None:
            return
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True), suppress(httpx.HTTPError, OSError):
            await response.aclose()
        # httpx's body is a generator in a generator in a generator. Left half-way, the event loop
        # would finish them in tasks of its own, with warnings; an exception out of the innermost
        # ends them all, here. After closing, because reading on could save the connection.
        if body is not None:
            with anyio.CancelScope() as scope, suppress(Exception):
                scope.cancel()
                for _ in range(_BUFFERED_BLOCKS):
                    await anext(body)

    def _translated(self, error: Exception) -> OllamaError:
        label = self._request.label
        text = _reason(error)
        if isinstance(error, httpx.ConnectTimeout):
            return self._call.timed_out("connect")
        if isinstance(error, httpx.TimeoutException):
            return self._call.timed_out("idle")
        if isinstance(error, httpx.ConnectError):
            return ConnectError(
                f"cannot connect to {self._base} ({text}): is Ollama running there?", request=label
            )
        if isinstance(error, httpx.RemoteProtocolError) and not _is_disconnect(text):
            return ProtocolError(f"not a reply of HTTP ({text})", request=label)
        if isinstance(error, (zlib.error, httpx.TooManyRedirects, httpx.StreamError)):
            return ProtocolError(f"not a reply of the API ({text})", request=label)
        if isinstance(
            error, (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)
        ):
            return RequestError(f"cannot be sent ({text})", request=label)
        return ConnectError(f"the connection to {self._base} broke ({text})", request=label)


@coroutine
def _noting(
    awaitable: Awaitable[T], before_waiting: Callable[[], None] | None
) -> Generator[Any, Any, T]:
    """Await, and call `before_waiting` where that really has to wait, just before it does."""
    steps = awaitable.__await__()
    try:
        trap = next(steps)
    except StopIteration as result:
        return cast("T", result.value)
    if before_waiting is not None:
        before_waiting()
    while True:
        try:
            answer = yield trap
        except BaseException as error:  # noqa: BLE001 - it is passed on
            step = partial(steps.throw, error)
        else:
            step = partial(steps.send, answer)
        try:
            trap = step()
        except StopIteration as result:
            return cast("T", result.value)


def _is_disconnect(text: str) -> bool:
    """Whether httpx means a connection that was closed, not bytes that make no sense."""
    return "disconnected" in text or "closed connection" in text


def _reason(error: BaseException) -> str:
    """What an error says, or else what caused it: httpx's own text can be empty."""
    found: BaseException | None = error
    while found is not None:
        if str(found):
            return str(found)
        found = found.__cause__ or found.__context__
    return type(error).__name__


def _ascii(value: object, what: str) -> str:
    """Check what goes into a header, before any I/O and without showing it."""
    if not isinstance(value, str):
        raise RequestError(f"headers: the {what} must be text, not {type(value).__name__}")
    if not value.isascii() or any(
        ord(character) < 0x20 or character == "\x7f" for character in value
    ):
        raise RequestError(f"headers: the {what} must be printable ASCII")
    return value
