"""One request and its reply: redirects, error replies, compressed bodies.

Failures come out as this library's errors, each with httpx's own as its cause.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import anyio.to_thread
import httpx
import msgspec
from anyio.lowlevel import checkpoint

from ollama_sc._blobs import PieceError
from ollama_sc._errors import ConnectError, OllamaError, ProtocolError, RequestError, ResponseError
from ollama_sc._ndjson import not_the_api
from ollama_sc._server_errors import error_reply

from .connection import reason
from .foreign import HttpxReply
from .inflate import Inflater
from .messages import Request
from .transport import Origin, Reply

if TYPE_CHECKING:
    from ollama_sc._calls import Call

    from .client import Http

# An error page can be endless, and its sender slow.
_ERROR_BODY_BYTES = 64 * 1024
_ERROR_BODY_SECONDS = 5.0
# How long a reply that is complete may take to end as an HTTP message, so that its connection can
# be used again.
_DRAIN_SECONDS = 0.05
_DRAIN_BYTES = 64 * 1024
_REDIRECTS = {301, 302, 303, 307, 308}
_SEE_OTHER = 303


class Exchange:
    """One request and its reply.

    Attributes:
        spoiled: whether something followed the reply inside its HTTP message: its connection is not
            to be trusted any more.
    """

    def __init__(self, http: Http, call: Call[Any], request: Request, accept: str) -> None:
        self.spoiled = False
        self._http = http
        self._call = call
        self._request = request
        self._accept = accept
        self._redirects = http.redirects
        self._reply: Reply | HttpxReply | None = None
        self._inflater: Inflater | None = None
        limits = call.timeouts
        self._limited = limits.first_chunk is not None or limits.idle is not None

    async def __aenter__(self) -> Self:
        call, request = self._call, self._request
        try:
            if callable(request.body):
                call.start_limit(None)
                body = await anyio.to_thread.run_sync(request.body, abandon_on_cancel=True)
                request = self._request = msgspec.structs.replace(request, body=body)
            url = None
            while True:
                call.phase = "connecting"
                # A transport that tells nothing of its phases has all of them under this limit.
                call.start_limit("first_chunk")
                reply = self._reply = await self._send(url)
                if not (self._redirects and reply.status in _REDIRECTS):
                    break
                self._redirects -= 1
                url = self._redirected(reply, url)
                if url is None:
                    break
                await self._error_body()
                await self._close()
            call.phase = "receiving"
            if not 200 <= reply.status < 300:
                raise await self._error_reply(reply)
            coding = reply.header("content-encoding")
            if coding is not None:
                self._inflater = self._inflater_for(coding)
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
        return self._reply.status if self._reply else 0

    async def read(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            ProtocolError: it is longer than `limit` bytes.
            ConnectError: the connection broke before its end.
        """
        blocks: list[bytes] = []
        size = 0
        while block := await self.receive(limit):
            blocks.append(block)
            size += len(block)
            if size > limit:
                what = f"the reply is longer than {limit} bytes"
                raise not_the_api(what, blocks[0], self._request.label)
            if self._reply is not None and self._reply.is_read and self._inflater is None:
                break
        return b"".join(blocks)

    async def receive(self, many: int | None = None) -> bytes:
        """The next block of the body, which is what a network read brought; empty at its end.

        With `many` it can be so many bytes, or all that is left.

        Raises:
            ConnectError, RequestTimeout, ProtocolError: the body breaks off.
        """
        reply = self._reply
        assert reply is not None
        if self._limited:
            self._call.start_limit("idle")
        try:
            if many is not None and self._in_one_go and isinstance(reply, Reply):
                return await reply.receive_all(many) or await reply.receive()
            if self._inflater is None:
                return await reply.receive()
            await checkpoint()  # one block can become a thousand pieces
            while not (piece := self._inflater.take()):
                block = await reply.receive()
                if not block:
                    break
                self._inflater.feed(block)
        except (httpx.HTTPError, httpx.StreamError, OSError, zlib.error) as error:
            raise self._translated(error) from error
        if not piece and not self._inflater.whole:
            raise ProtocolError("the compressed reply is cut short", request=self._request.label)
        return piece

    @property
    def _in_one_go(self) -> bool:
        """Whether nothing has to be done between two network reads."""
        return self._inflater is None and self._call.timeouts.idle is None

    async def drain(self) -> None:
        """Read to the end of the HTTP message, if that is near, so that the connection lives on."""
        size = 0
        with anyio.move_on_after(_DRAIN_SECONDS), suppress(OllamaError):
            while size < _DRAIN_BYTES and (block := await self.receive()):
                if block.strip():
                    self.spoiled = True
                    return
                size += len(block)

    async def _send(self, url: str | None) -> Reply | HttpxReply:
        try:
            return await self._http.send(
                self._request, url, self._accept, self._call.timeouts, self._call
            )
        except PieceError as failed:
            raise failed.error from failed.error.__cause__
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._translated(error) from error

    async def _close(self) -> None:
        """Give the connection back, or close it where its reply was not read to the end."""
        reply, self._reply = self._reply, None
        self._inflater = None
        if isinstance(reply, Reply):
            reply.close(reuse=not self.spoiled)
        elif reply is not None:
            await reply.close(reuse=not self.spoiled)

    # -- what is no plain success --------------------------------------------------------------

    def _redirected(self, reply: Reply | HttpxReply, url: str | None) -> str | None:
        """Where the server wants the request sent, with its method and its body.

        To another server nothing is sent unasked: neither the user's headers nor the prompt.
        """
        location = reply.header("location")
        if location is None:
            return None
        here = httpx.URL(url or self._http.url(self._request))
        try:
            there = here.join(location)
            same = Origin.of(here) == Origin.of(there)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            what = f"the server redirects to what is no address: {location[:100]!r}"
            raise ProtocolError(what, request=self._request.label) from error
        if not same or (reply.status == _SEE_OTHER and here != there):
            where = str(there.copy_with(userinfo=b"", query=None, fragment=None))
            raise ResponseError(
                f"the server redirects to {where[:200]}: if that is right, use it as the host "
                f"(HTTP {reply.status})",
                error=f"redirect to {where[:200]}",
                status_code=reply.status,
                request=self._request.label,
            )
        return str(there)

    async def _error_reply(self, reply: Reply | HttpxReply) -> ResponseError:
        with suppress(ProtocolError):  # then what it says is shown as it is
            coding = reply.header("content-encoding")
            self._inflater = None if coding is None else self._inflater_for(coding)
        body = await self._error_body()
        retry_after = reply.header("retry-after")
        headers = {} if retry_after is None else {"retry-after": retry_after}
        return error_reply(reply.status, headers, body, request=self._request.label)

    async def _error_body(self) -> bytes:
        body = b""
        with anyio.move_on_after(_ERROR_BODY_SECONDS), suppress(OllamaError):
            while len(body) < _ERROR_BODY_BYTES and (block := await self.receive()):
                body += block
        return body

    def _inflater_for(self, coding: str) -> Inflater | None:
        """What makes the body plain, where a proxy compressed it unasked."""
        coding = coding.strip().lower()
        if coding in ("", "identity"):
            return None
        if coding not in ("gzip", "x-gzip", "deflate"):
            text = f"the reply is compressed in a way that was not asked for: {coding[:40]!r}"
            raise ProtocolError(text, request=self._request.label)
        return Inflater()

    def _translated(self, error: Exception) -> OllamaError:
        label = self._request.label
        text = reason(error)
        base = self._http.base
        if isinstance(error, httpx.ConnectTimeout):
            return self._call.timed_out("connect")
        if isinstance(error, httpx.TimeoutException):
            return self._call.timed_out("idle")
        if isinstance(error, httpx.ConnectError):
            return ConnectError(
                f"cannot connect to {base} ({text}): is Ollama running there?", request=label
            )
        if isinstance(error, httpx.RemoteProtocolError) and not _is_disconnect(text):
            return ProtocolError(f"not a reply of HTTP ({text})", request=label)
        if isinstance(error, (zlib.error, httpx.TooManyRedirects, httpx.StreamError)):
            return ProtocolError(f"not a reply of the API ({text})", request=label)
        if isinstance(
            error, (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)
        ):
            return RequestError(f"cannot be sent ({text})", request=label)
        return ConnectError(f"the connection to {base} broke ({text})", request=label)


def _is_disconnect(text: str) -> bool:
    """Whether httpx means a connection that was closed, not bytes that make no sense."""
    return "disconnected" in text or "closed connection" in text or "closed the connection" in text
