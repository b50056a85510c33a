"""Answers of a web application on Starlette or FastAPI: a generation lives as long as its browser.

`stream_response` makes a response of a streaming call, `until_disconnect` waits for a plain one;
`error_response` says which status an error has. Needs Starlette, which this library does not
install: ``pip install 'ollama-sc[starlette]'``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, TypeVar

import anyio
import msgspec
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from ._api.stream import Stream
from ._errors import (
    AbortError,
    ClientClosedError,
    ConnectError,
    OllamaError,
    RateLimitError,
    RequestError,
    RequestTimeout,
    ResponseError,
    ServerBusyError,
)

__all__ = ["error_response", "stream_response", "until_disconnect"]

T = TypeVar("T")
Format = Literal["text", "sse", "ndjson"]

_MEDIA_TYPES: dict[str, str] = {
    "text": "text/plain; charset=utf-8",
    "sse": "text/event-stream; charset=utf-8",
    "ndjson": "application/x-ndjson",
}
# Neither browsers nor proxies may wait for more before they hand a part on.
_HEADERS = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",
    "x-content-type-options": "nosniff",
}
# The status that nginx logs for it; nobody is there to read it.
_CLIENT_CLOSED_REQUEST = 499
# The first that fits. What else the server or the network did is a bad gateway.
_STATUSES: tuple[tuple[type[OllamaError], int], ...] = (
    (RequestError, 400),
    (RateLimitError, 429),
    (ServerBusyError, 503),
    (AbortError, 503),
    (ClientClosedError, 503),
    (RequestTimeout, 504),
    (OllamaError, 502),
)
_encode = msgspec.json.Encoder().encode


def stream_response(
    call: Awaitable[Stream[Any]],
    format: Format = "text",
    *,
    headers: Mapping[str, str] | None = None,
    background: BackgroundTask | None = None,
) -> Response:
    """A response that streams what a model writes, and ends the generation with its browser.

    ::

        async def answer(request: Request) -> Response:
            return stream_response(request.state.ollama.generate("llama3.2", "Hi", stream=True))

    It takes the call itself, without ``await``: the request is sent when the response is, and a
    browser that leaves while the model loads ends it, too. A response that is never sent closes
    its call.

    An error before the first part becomes a status: see `error_response`. After that a status is
    no longer possible. As ``"sse"`` the error is an event ``error``, as ``"ndjson"`` a line with
    ``error``, both with ``{"error": "..."}``. As ``"text"`` there is no place for one: it is
    raised, and the server breaks the response off, so that nobody takes it for a whole one.

    Args:
        call: such as ``client.chat(..., stream=True)``, not awaited.
        format: ``"text"`` is the text alone; ``"sse"`` an event for each part, whose data is the
            part as JSON; ``"ndjson"`` a line of JSON for each, as Ollama itself sends them.
        headers: of the response, beside its own or in their place.
        background: what Starlette runs afterwards.

    Raises:
        RequestError: there is no such format.
        TypeError: the call was awaited already.
    """
    if not isinstance(format, str) or format not in _MEDIA_TYPES:  # pyright: ignore[reportUnnecessaryIsInstance]
        _close(call)
        raise RequestError(f"format must be one of {', '.join(_MEDIA_TYPES)}, not {format!r}")
    if not isinstance(call, Awaitable):  # pyright: ignore[reportUnnecessaryIsInstance]
        why = "leave out the `await`" if isinstance(call, Stream) else f"not {call!r}"
        raise TypeError(
            f"stream_response takes a call such as client.chat(..., stream=True): {why}"
        )
    return _StreamResponse(call, format, headers, background)


async def until_disconnect(request: Request, call: Awaitable[T]) -> T:
    """Wait for a reply, or until the browser has left; that ends the call.

    ::

        reply = await until_disconnect(request, request.state.ollama.chat("llama3.2", messages))

    It reads the request's body meanwhile, where nobody has; that stays readable.

    Args:
        request: of the browser.
        call: such as ``client.chat(...)``, not awaited.

    Raises:
        HTTPException: the browser has left (status 499, which nobody sees).
        Exception: what the call raises.
    """

    async def receive() -> Message:
        # Not before the call: whoever stands in front may have taken the body, and no other comes.
        with suppress(RuntimeError):  # it was read as a stream
            await request.body()
        return await request.receive()

    try:
        return await _until_disconnect(receive, call)
    except ClientDisconnect:
        raise HTTPException(_CLIENT_CLOSED_REQUEST, "the client has left") from None
    finally:
        _close(call)


async def error_response(request: Request, error: Exception) -> Response:
    """The response to an error: a handler for ``app.add_exception_handler(OllamaError, ...)``.

    400 for arguments that are wrong; 429 and 503 where the server says so, with its
    ``Retry-After``; 503 where the client is shut down or the request was aborted; 504 for a
    timeout; 502 for all else that the server or the network did. The body is
    ``{"error": "..."}``, in which addresses of servers are left out.
    """
    del request
    return _error_response(error)


def _error_response(error: Exception) -> Response:
    status = next((code for kind, code in _STATUSES if isinstance(error, kind)), 500)
    headers = {"cache-control": "no-store"}
    if isinstance(error, RateLimitError | ServerBusyError) and error.retry_after is not None:
        headers["retry-after"] = str(max(0, round(error.retry_after)))
    return JSONResponse({"error": _told(error)}, status, headers)


def _told(error: Exception) -> str:
    """What a browser may know of an error."""
    if isinstance(error, ResponseError):
        if 300 <= error.status_code < 400:  # the text is ours, with an address
            return "the model's server redirects to another one"
        return error.error
    if isinstance(error, ConnectError):
        return "the model's server cannot be reached"
    if isinstance(error, RequestTimeout):
        return "the model's server did not answer in time"
    if isinstance(error, OllamaError) and error.args:
        return str(error.args[0])
    return type(error).__name__


# -- a stream as a response --------------------------------------------------------------------


class _StreamResponse(Response):
    def __init__(
        self,
        call: Awaitable[Stream[Any]],
        format: Format,
        headers: Mapping[str, str] | None,
        background: BackgroundTask | None,
    ) -> None:
        self._call: Awaitable[Stream[Any]] | None = call
        self._encode = _ENCODERS[format]
        self._format = format
        self._started = False
        self.status_code = 200
        self.media_type = _MEDIA_TYPES[format]
        self.background = background
        given = {name.lower(): value for name, value in (headers or {}).items()}
        self.init_headers(_HEADERS | given)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call, self._call = self._call, None
        if call is None:
            raise RuntimeError("this response was sent already")
        try:
            if scope.get("method") == "HEAD":  # whose body nobody would get
                await self._start(send)
                await send({"type": "http.response.body", "body": b""})
            else:
                with suppress(ClientDisconnect):
                    await _until_disconnect(receive, self._answer(call, scope, receive, send))
        finally:
            _close(call)
        if self.background is not None:
            await self.background()

    async def _answer(
        self, call: Awaitable[Stream[Any]], scope: Scope, receive: Receive, send: Send
    ) -> None:
        send = partial(_send, send)
        try:
            await self._stream(await call, send)
        except OllamaError as error:
            if not self._started:
                await _error_response(error)(scope, receive, send)
                return
            if self._format == "text":
                raise
            last = _encode({"error": _told(error)})
            last = b"event: error\ndata: %b\n\n" % last if self._format == "sse" else last + b"\n"
        else:
            last = b""
        await send({"type": "http.response.body", "body": last})

    async def _stream(self, stream: Stream[Any], send: Send) -> None:
        if not isinstance(stream, Stream):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("stream_response takes a call with stream=True")
        text = stream._call.spec.text
        async with stream:
            async for parts in stream.batches():
                if not self._started:
                    await self._start(send)
                if body := self._encode(parts, text):
                    await send({"type": "http.response.body", "body": body, "more_body": True})

    async def _start(self, send: Send) -> None:
        self._started = True
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

    def __del__(self) -> None:
        _close(self.__dict__.pop("_call", None))


async def _send(send: Send, message: Any) -> None:
    try:
        await send(message)
    except OSError as error:  # how newer servers say so
        raise ClientDisconnect from error


def _as_text(parts: Sequence[Any], text: Callable[[Any], str]) -> bytes:
    return "".join(map(text, parts)).encode("utf-8", "replace")


def _as_events(parts: Sequence[Any], text: Callable[[Any], str]) -> bytes:
    del text
    return b"".join([b"data: %b\n\n" % _json(part) for part in parts])


def _as_lines(parts: Sequence[Any], text: Callable[[Any], str]) -> bytes:
    del text
    return b"".join([_json(part) + b"\n" for part in parts])


def _json(part: Any) -> bytes:
    """A part as the server sent it, under the server's own keys."""
    return _encode(part.to_dict())


_ENCODERS = {"text": _as_text, "sse": _as_events, "ndjson": _as_lines}


# -- the browser -------------------------------------------------------------------------------


async def _until_disconnect(receive: Receive, call: Awaitable[T]) -> T:
    """Wait for a call, which a disconnect cancels.

    Raises:
        ClientDisconnect: the browser has left.
        Exception: what the call raises, in no group.
    """
    left = False
    failure: Exception | None = None
    results: list[T] = []

    async def listen() -> None:
        nonlocal left, failure
        try:
            while (await receive())["type"] != "http.disconnect":
                pass
            left = True
        except ClientDisconnect:
            left = True
        except Exception as error:  # noqa: BLE001 - raised below
            failure = error
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        try:
            results.append(await call)
        except Exception as error:  # noqa: BLE001 - raised below, where no group wraps it
            failure = error
        tasks.cancel_scope.cancel()
    if results:
        return results[0]
    try:
        if left or failure is None:
            raise ClientDisconnect
        raise failure
    finally:
        del failure


def _close(call: object) -> None:
    """Close a coroutine that may never have run, so that Python does not warn of it."""
    close = getattr(call, "close", None)
    if close is not None:
        close()
