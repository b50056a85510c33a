"""One request and its reply: redirects, error replies, compressed bodies.

Failures come out as this library's errors, each with httpx's own as its cause.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
import httpx
import msgspec

from ollama_sc._errors import (
    ConnectError,
    OllamaError,
    ProtocolError,
    RequestError,
    RequestTimeout,
    ResponseError,
)
from ollama_sc._replies.errors import error_in, error_reply, printable
from ollama_sc._replies.ndjson import protocol_error

from .connection import UnreadableError, reason
from .credentials import masked
from .messages import Request, UploadError
from .transport import Origin, Reply

if TYPE_CHECKING:
    from ollama_sc._calls.call import Call

    from .inflate import Inflater
    from .sender import Sender
    from .socket_trio import TrioSocket
    from .via_httpx import HttpxReply

# An error page can be endless, and its sender slow.
_ERROR_BODY_BYTES = 64 * 1024
_ERROR_BODY_SECONDS = 5.0
# A block takes some fifty bytes more than it has: so many small ones become one.
_MANY_BLOCKS = 256
# How long a reply that is complete may take to end as an HTTP message, so that its connection can
# be used again.
_DRAIN_SECONDS = 0.05
_DRAIN_BYTES = 64 * 1024
_REDIRECTS = {301, 302, 303, 307, 308}
_SEE_OTHER = 303


class Exchange:
    """One request and its reply.

    Attributes:
        spoiled: whether its connection is not to be trusted any more: something followed the reply
            inside its HTTP message, or the reply made its caller fail. That one could be a reply
            too many, and whatever follows on the connection another request's.
    """

    __slots__ = (
        "_accept",
        "_call",
        "_inflater",
        "_limited",
        "_redirects",
        "_reply",
        "_request",
        "_sender",
        "spoiled",
    )

    def __init__(self, sender: Sender, call: Call[Any], request: Request, accept: str) -> None:
        self.spoiled = False
        self._sender = sender
        self._call = call
        self._request = request
        self._accept = accept
        self._redirects = sender.redirects
        if sender.way:
            call.way = sender.way
        self._reply: Reply | HttpxReply | None = None
        self._inflater: Inflater | None = None
        limits = call.timeouts
        self._limited = limits.first_chunk is not None or limits.idle is not None

    async def __aenter__(self) -> Self:
        call, request = self._call, self._request
        failure: ResponseError | None = None
        try:
            if callable(request.body):
                from ollama_sc._loop.threads import run_in_thread  # noqa: PLC0415 - of files

                call.restart_timeout(None)
                body = await run_in_thread(request.body, abandon_on_cancel=True)
                request = self._request = msgspec.structs.replace(request, body=body)
            url = None
            while True:
                call.phase = "connecting"
                # A transport that tells nothing of its phases has all of them under this limit.
                call.restart_timeout("first_chunk")
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
                failure = await self._error_reply(reply)
            elif (coding := reply.header("content-encoding")) is not None:
                self._inflater = self._inflater_for(coding)
            if failure is None:
                self._forget(reply)
        except BaseException:
            self.spoiled = True
            await self._close()
            raise
        if failure is not None:
            await self._close()
            try:
                raise failure
            finally:
                del failure  # its traceback holds this frame
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self.spoiled = True
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
        size = joined = 0  # the first blocks of these are made of many
        while block := await self.receive(limit):
            blocks.append(block)
            if len(blocks) - joined > _MANY_BLOCKS:
                blocks[joined:] = [b"".join(blocks[joined:])]
                joined += 1
            size += len(block)
            if size > limit:
                what = f"the reply is longer than {limit} bytes"
                raise protocol_error(what, blocks[0], self._request.label)
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
            self._call.restart_timeout("idle")
        try:
            if many is not None and self._in_one_go and isinstance(reply, Reply):
                return await reply.receive_all(many) or await reply.receive()
            if self._inflater is None:
                return await reply.receive()
            await anyio.lowlevel.checkpoint()  # one block can become a thousand
            while not (inflated := self._inflater.take()):
                block = await reply.receive()
                if not block:
                    break
                self._inflater.feed(block)
        except (httpx.HTTPError, httpx.StreamError, OSError, zlib.error) as error:
            raise self._map_exception(error) from error
        if not inflated and not self._inflater.whole:
            raise ProtocolError("the compressed reply is cut short", request=self._request.label)
        return inflated

    async def pump(self, take: Callable[[bytes], bool]) -> None:
        """Call `take` with each block of the body as it arrives, until it returns False.

        At the body's end it gets no bytes. It is called in whatever runs when data arrives, which
        can be the event loop itself. A cancelled pump has handed over all that was received.

        Raises:
            ConnectError, RequestTimeout, ProtocolError: the body breaks off.
        """
        reply = self._reply
        if self._inflater is not None or not isinstance(reply, Reply):
            while take(block := await self.receive()) and block:
                pass
            return
        idle = self._call.timeouts.idle
        self._call.restart_timeout(None)
        try:
            if idle is None:
                await reply.pump(take)
            else:
                await self._pump_within(idle, reply, take)
        except RequestTimeout:  # an OSError, too
            raise
        except (httpx.HTTPError, OSError) as error:
            raise self._map_exception(error) from error

    @property
    def source(self) -> TrioSocket | None:
        """What another task can read from while this one pumps."""
        reply = self._reply
        return reply.source if isinstance(reply, Reply) and self._inflater is None else None

    async def _pump_within(self, idle: float, reply: Reply, take: Callable[[bytes], bool]) -> None:
        """The same, with a bound for each silence: a look at the clock for each read, no timer."""
        clock = self._call.runtime.clock
        heard = clock()

        def note(block: bytes) -> bool:
            nonlocal heard
            heard = clock()
            return take(block)

        while clock() < heard + idle:
            with anyio.CancelScope(deadline=heard + idle):
                await reply.pump(note)
                return
        raise self._call.timed_out("idle")

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
            return await self._sender.send(
                self._request, url, self._accept, self._call.timeouts, self._call
            )
        except UploadError as failed:
            raise failed.error from failed.error.__cause__
        except httpx.HTTPStatusError:  # a hook's own: no transport raises it
            raise
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._map_exception(error) from error

    def _forget(self, reply: Reply | HttpxReply) -> None:
        """Let go of what nobody needs any more when a reply is received, which can take long."""
        self._request = msgspec.structs.replace(self._request, body=None)
        if isinstance(reply, Reply):
            reply.reader.forget_headers()

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
        here = httpx.URL(url or self._sender.url(self._request))
        try:
            there = here.join(location)
            same = Origin.of(here) == Origin.of(there)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            shown = masked(location, location)[:100]
            what = f"the server redirects to what is no address: {shown!r}"
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
        self.spoiled = error_in(body) is None  # not the API's own way to say it
        failure = error_reply(reply.status, headers, body, request=self._request.label)
        if self.spoiled and self._sender.way:  # it can be the proxy that says so
            failure.args = (f"{failure.args[0]};{self._sender.way}",)
        return failure

    async def _error_body(self) -> bytes:
        body = bytearray()
        with anyio.move_on_after(_ERROR_BODY_SECONDS), suppress(OllamaError):
            while len(body) < _ERROR_BODY_BYTES and (block := await self.receive()):
                body += block
        return bytes(body)

    def _inflater_for(self, coding: str) -> Inflater | None:
        """What makes the body plain, where a proxy compressed it unasked."""
        coding = coding.strip().lower()
        if coding in ("", "identity"):
            return None
        if coding not in ("gzip", "x-gzip", "deflate"):
            text = f"the reply is compressed in a way that was not asked for: {coding[:40]!r}"
            raise ProtocolError(text, request=self._request.label)
        from .inflate import Inflater  # noqa: PLC0415 - few proxies do

        return Inflater(coding)

    def _map_exception(self, error: Exception) -> OllamaError:
        label = self._request.label
        text = printable(masked(reason(error)))
        way = self._sender.way
        base = self._base_of(error) + way
        if isinstance(error, httpx.ConnectTimeout):
            return self._call.timed_out("connect")
        if isinstance(error, httpx.TimeoutException):
            return self._call.timed_out("idle")
        if isinstance(error, UnreadableError):
            return ConnectError(f"no answer from {base} can be read: {text}", request=label)
        if isinstance(error, httpx.ConnectError):
            return ConnectError(
                f"cannot connect to {base} ({text}): is "
                f"{'that the right proxy' if way else 'Ollama running there'}?",
                request=label,
            )
        if isinstance(error, httpx.RemoteProtocolError) and not _is_disconnect(text):
            text += f";{way}" if way else ""
            return ProtocolError(f"not a reply of HTTP ({text})", request=label)
        if isinstance(error, (zlib.error, httpx.TooManyRedirects, httpx.StreamError)):
            return ProtocolError(f"not a reply of the API ({text})", request=label)
        if isinstance(
            error, (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.LocalProtocolError)
        ):
            return RequestError(f"cannot be sent ({text})", request=label)
        return ConnectError(f"the connection to {base} broke ({text})", request=label)

    def _base_of(self, error: Exception) -> str:
        """Whom an error is about: another server where httpx has followed a redirect there."""
        base = self._sender.base
        asked: httpx.Request | None = getattr(error, "_request", None)
        if asked is None:
            return base
        here, there = httpx.URL(base), asked.url
        if (here.scheme, here.host, here.port) == (there.scheme, there.host, there.port):
            return base
        return f"{there.scheme}://{there.netloc.decode('ascii', 'replace')}"


def _is_disconnect(text: str) -> bool:
    """Whether httpx means a connection that was closed, not bytes that make no sense."""
    return "disconnected" in text or "closed connection" in text or "closed the connection" in text
