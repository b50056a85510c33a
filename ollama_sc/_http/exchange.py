"""One request and its reply, through httpx.

Failures come out as this library's errors, each with httpx's own as its cause.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType, coroutine
from typing import Any, Self, TypeVar, cast

import anyio
import anyio.to_thread
import httpx

from ollama_sc._blobs import PieceError
from ollama_sc._calls import CLEANUP_SECONDS, Call
from ollama_sc._errors import ConnectError, OllamaError, ProtocolError, RequestError, ResponseError
from ollama_sc._ndjson import not_the_api
from ollama_sc._server_errors import error_reply

from .messages import Request, Upload
from .pool import close_idle, close_polluted, keep_reading

T = TypeVar("T")

_PIECE_BYTES = 64 * 1024
# An error page can be endless, and its sender slow.
_ERROR_BODY_BYTES = 64 * 1024
_ERROR_BODY_SECONDS = 5.0
# How long a reply that is complete may take to end as an HTTP message, so that its connection can
# be used again.
_DRAIN_SECONDS = 0.05
_DRAIN_BYTES = 64 * 1024
# More blocks than httpx can have buffered of a body that nobody reads any more.
_BUFFERED_BLOCKS = 100_000
_SEE_OTHER = 303


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
        self.stream: Any = None
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
                self.handshaking = self.stream = info.get("return_value")
            elif name == "start_tls":
                self.handshaking = None
                self.stream = info.get("return_value")
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
        elif name == "send_request_body":
            keep_reading(self.stream)
        elif name == "receive_response_headers":
            call.phase = "receiving"
            call.start_limit("first_chunk")


class Exchange:
    """One request and its reply."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        base: str,
        call: Call[Any],
        request: Request,
        accept: str,
        redirects: int,
    ) -> None:
        self._client = client
        self._url = base + request.path
        self._redirects = redirects
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
                body = await anyio.to_thread.run_sync(self._request.body, abandon_on_cancel=True)
                self._request = self._request._replace(body=body)
            response = self._response = await self._send()
            while response.has_redirect_location and self._redirects:
                self._redirects -= 1
                self._url = self._redirected(response)
                await self._error_body()
                await self._close()
                response = self._response = await self._send()
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
            if isinstance(self._request.body, Upload):
                # It gets a connection of its own, so that it is never sent twice.
                await close_idle(self._client)
            try:
                return await self._client.send(self._build(), stream=True)
            except PieceError as failed:
                raise failed.error from failed.error.__cause__
            except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
                # An idle connection that turns out to be dead before the answer began is the one
                # case in which a request is sent again.
                broken = isinstance(
                    error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
                )
                if attempt == 2 or not broken or progress.connected or not progress.sent:
                    raise self._translated(error) from error
                # Where one is dead, others are: the second try gets a new one.
                await close_idle(self._client)
        raise AssertionError

    def _redirected(self, response: httpx.Response) -> str:
        """Where the server wants the request sent, with its method and its body.

        To another server nothing is sent unasked: neither the user's headers nor the prompt.
        """
        here = response.request.url
        there = here.join(response.headers["location"])
        status = response.status_code
        if _origin(here) != _origin(there) or (status == _SEE_OTHER and here != there):
            where = str(there.copy_with(userinfo=b"", query=None, fragment=None))
            raise ResponseError(
                f"the server redirects to {where[:200]}: if that is right, use it as the host "
                f"(HTTP {status})",
                error=f"redirect to {where[:200]}",
                status_code=status,
                request=self._request.label,
            )
        return str(there)

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
            self._url,
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
        self._decompress = None
        self._progress.call = None
        if self._progress.handshaking is not None:
            with anyio.move_on_after(CLEANUP_SECONDS, shield=True), suppress(Exception):
                await self._progress.handshaking.aclose()
        if response is None:
            return
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True), suppress(httpx.HTTPError, OSError):
            await response.aclose()
            await close_polluted(response)
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


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or {"http": 80, "https": 443}.get(url.scheme)


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
