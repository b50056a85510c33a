"""Requests by a browser's `fetch`: what stands below httpx where Python runs in a page or a worker.

A browser has the connections. It tells neither when one is there nor when a request is on its way,
and of whatever goes wrong before a reply, no more than that it did: so this asks again, in ways
that tell one case from the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx

from ollama_sc._errors import RequestError

from .connection import UnreadableError
from .messages import RequestEvents
from .options import HttpxOptions
from .transport import EVENTS, REPLY, Connections, NoEvents, Origin, ReplyStream, is_token

# What tells why a request has failed may take so long: a server that is there answers at once.
_PROBE_SECONDS = 3.0
# What the browser sets itself, and drops in silence where a page does. A User-Agent could be set in
# some, and would have every request ask for permission first.
_OF_THE_BROWSER = {
    "accept-charset", "accept-encoding", "access-control-request-headers",
    "access-control-request-method", "access-control-request-private-network", "connection",
    "content-length", "cookie", "cookie2", "date", "dnt", "expect", "host", "keep-alive", "origin",
    "referer", "set-cookie", "te", "trailer", "transfer-encoding", "upgrade", "user-agent", "via",
}  # fmt: skip
_PREFIXES = ("proxy-", "sec-")
# The browser has inflated the body: what the server says of its bytes is no longer true.
_OF_THE_WIRE = {"content-encoding", "content-length", "transfer-encoding"}
_BODILESS = {"GET", "HEAD"}
# Settings that a page has no say in, with the values that ask for nothing.
_REFUSED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "proxy": ((None,), "the browser's own proxy is used"),
    "cert": ((None,), "the browser has the certificates"),
    "verify": ((True,), "the browser verifies https servers"),
    "http1": ((True,), "the browser chooses the version of HTTP"),
    "http2": ((False,), "the browser chooses the version of HTTP"),
    "cookies": ((None, {}, []), "the browser keeps the cookies, and shows them to no page"),
    "follow_redirects": ((False, None), "a browser does not show where a redirect leads"),
}


def check_settings(options: HttpxOptions) -> None:
    """Refuse what cannot be had in a browser, where it would be dropped in silence.

    Raises:
        RequestError: one of the options is not a page's to set.
    """
    own = options.get("transport") is not None
    for name, (neutral, why) in _REFUSED.items():
        value: object = options.get(name, neutral[0])
        if not any(value is none or value == none for none in neutral) and (
            name == "proxy" or not own
        ):
            raise RequestError(f"{name} cannot be set in a browser: {why}")


def check_header(name: str) -> None:
    """Refuse a header that a browser would drop in silence; `User-Agent` it may.

    Raises:
        RequestError: it is the browser's.
    """
    if name.lower() != "user-agent" and not _is_sendable(name):
        raise RequestError(f"headers: {name!r} cannot be set in a browser: it does that itself")


def _is_sendable(name: str) -> bool:
    lower = name.lower()
    return lower not in _OF_THE_BROWSER and not lower.startswith(_PREFIXES)


class FetchReply:
    """A request in flight, and its reply: `transport.Reply`'s twin.

    Its `AbortController` is used unless the body was read to its end: that closes the connection.

    Attributes:
        status: the HTTP status; zero until the head is here.
        headers: of the reply, as far as the browser shows them to the page.
        is_read: whether there is nothing more to receive.
        is_closed: whether nobody wants more of it.
        controller: what ends it.
    """

    def __init__(self, js: Any, failure: type[Exception], in_flight: set[FetchReply]) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.is_read = False
        self.controller: Any = js.AbortController.new()
        self._failure = failure
        self._in_flight = in_flight
        self._reader: Any = None
        self.is_closed = False
        in_flight.add(self)

    def begin(self, response: Any) -> None:
        """Take the head of the reply."""
        self.status = response.status
        self.headers = [
            (str(name).encode("latin-1"), str(value).encode("latin-1"))
            for name, value in response.headers.entries()
            if str(name).lower() not in _OF_THE_WIRE
        ]
        body = response.body
        if body:  # null is falsy, whatever a version of Pyodide makes of it
            self._reader = body.getReader()
        else:
            self._end()

    async def receive(self) -> bytes:
        """The next block of the body; empty at the end.

        Raises:
            httpx.ReadError: the body breaks off.
        """
        while not self.is_read:
            if self.is_closed:
                raise httpx.ReadError("the reply was closed before its end")
            try:
                part = await self._reader.read()
            except self._failure as error:
                self.close()
                raise httpx.ReadError(_said(error)) from error
            except BaseException:
                self.close()  # what the browser had for this read is lost
                raise
            if part.done:
                self._end()
                break
            block: bytes = part.value.to_bytes()
            if block:
                return block
        return b""

    def _end(self) -> None:
        self.is_read = True
        self._in_flight.discard(self)

    def close(self, *, reuse: bool = True) -> None:
        """Close the connection, unless the reply was read to its end: then it is the browser's."""
        del reuse  # nobody can tell a browser
        if not self.is_closed:
            self.is_closed = True
            self._in_flight.discard(self)
            if not self.is_read:
                self.controller.abort()


class FetchTransport(httpx.AsyncBaseTransport):
    """A transport of httpx that has the browser send each request.

    It has no limit for connecting, because a browser does not tell when a connection is there, and
    a server sends its headers with the first token: any limit would end the loading of a model.

    Attributes:
        base: the server's address with a slash behind it, which is asked why a request has failed.
    """

    def __init__(self) -> None:
        self.base = ""
        self._js: Any = import_module("js")
        self._ffi: Any = import_module("pyodide.ffi")
        self._in_flight: set[FetchReply] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and return when the head of its reply is here.

        Cancelling it closes the connection.

        Raises:
            httpx.LocalProtocolError: a browser does not send such a request.
            httpx.TransportError: there is no reply, or none that the page may read.
        """
        Origin.of(request.url)
        events: RequestEvents = request.extensions.get(EVENTS) or NoEvents()
        body = await self._body(request, events)
        headers = _headers(request.headers.raw, has_body=body is not None)
        reply = FetchReply(self._js, self._ffi.JsException, self._in_flight)
        try:
            asked = self._request(str(request.url), request.method, reply.controller, {
                "headers": headers,
                "cache": "no-store",
                "redirect": "manual",
                **({} if body is None else {"body": body}),
            })  # fmt: skip
            events.on_sent()  # for all that is known
            try:
                response = await self._js.fetch(asked)
            except self._ffi.JsException as error:
                closed = reply.is_closed
                reply.close()
                if closed:
                    raise httpx.ReadError("the client was closed") from error
                raise await self._reason(request.url, headers, error) from error
            if response.type == "opaqueredirect":
                raise httpx.TooManyRedirects(
                    "the server redirects, and a browser does not show where to: use that address "
                    "as the host"
                )
            reply.begin(response)
        except BaseException:
            reply.close()
            raise
        return httpx.Response(
            reply.status,
            headers=reply.headers,
            stream=ReplyStream(reply),
            extensions={REPLY: reply},
        )

    def connections(self) -> Connections:
        """How many requests have a connection, or wait for one; the browser's idle ones are its."""
        return Connections(len(self._in_flight), 0)

    async def aclose(self) -> None:
        """End every request in flight."""
        for reply in tuple(self._in_flight):
            reply.close()

    def __repr__(self) -> str:
        return f"<FetchTransport: {len(self._in_flight)} in flight>"

    # -- what is sent --------------------------------------------------------------------------

    async def _body(self, request: httpx.Request, events: RequestEvents) -> Any:
        """A body as a browser has it, all of it; None where there is none.

        Browsers send no body while it is read, but over HTTP/2.
        """
        stream = request.stream
        if isinstance(stream, httpx.ByteStream):
            data = b"".join(stream)
            body = self._ffi.to_js(data) if data else None
        else:
            events.on_sending()
            assert isinstance(stream, AsyncIterator | httpx.AsyncByteStream)
            body = await self._gathered(aiter(stream), request.headers.get("content-length"))
        if body is not None and request.method in _BODILESS:
            raise httpx.LocalProtocolError(f"a browser sends no body with {request.method}")
        return body

    async def _gathered(self, blocks: AsyncIterator[bytes], length: str | None) -> Any:
        """An upload in one array outside of Python's memory."""
        if length is None:
            return self._ffi.to_js(b"".join([block async for block in blocks]))
        size, start = int(length), 0
        try:
            array = self._js.Uint8Array.new(size)
        except self._ffi.JsException as error:
            raise httpx.LocalProtocolError(_said(error)) from error
        async for block in blocks:
            stop = start + len(block)
            if stop > size:
                break
            array.subarray(start, stop).assign(block)
            start = stop
        else:
            if start == size:
                return array
        raise httpx.LocalProtocolError(f"the body has not the {size} bytes that were promised")

    def _request(self, url: str, method: str, controller: Any, fields: Mapping[str, Any]) -> Any:
        """A request of JavaScript's.

        Raises:
            httpx.LocalProtocolError: there can be no such request.
        """
        if not is_token(method.encode()):
            raise httpx.LocalProtocolError(f"{method!r} cannot be a method")
        settings = {"method": method, "signal": controller.signal, **fields}
        try:
            made = self._ffi.to_js(settings, dict_converter=self._js.Object.fromEntries)
            return self._js.Request.new(url, made)
        except self._ffi.JsException as error:
            raise httpx.LocalProtocolError(_said(error)) from error

    # -- why there is no reply -----------------------------------------------------------------

    async def _reason(
        self, where: httpx.URL, headers: list[list[str]], error: Exception
    ) -> httpx.HTTPError:
        """Why a request has failed.

        There are four cases. Nothing answers, not even what the page may not read. Something does,
        and this page may not read it. It may, but not with these headers. All of that works: then
        it was the connection.
        """
        origin = str(getattr(self._js, "origin", None) or "null")
        base = self.base if self.base and str(where).startswith(self.base) else ""
        url = base or str(where.copy_with(raw_path=b"/", fragment=None))
        anything = False
        with anyio.move_on_after(_PROBE_SECONDS):
            anything = await self._answers(url, mode="no-cors")
        if not anything:
            return httpx.ConnectError(_silence(origin, where))
        with anyio.move_on_after(_PROBE_SECONDS):
            if not await self._answers(url):
                return UnreadableError(_refusal(origin))
            if not await self._answers(url, headers=headers):
                names = ", ".join(sorted({name for name, _ in headers} - {"accept"}))
                return UnreadableError(
                    "a server answers there, and does not let pages of other origins send one of "
                    f"these headers: {names}"
                )
        return httpx.ReadError(
            f"{_said(error)}: it was closed before an answer, or the answer was none that this "
            "page may read"
        )

    async def _answers(
        self, url: str, *, mode: str = "cors", headers: Iterable[list[str]] = ()
    ) -> bool:
        """Whether a browser gets anything from there."""
        controller = self._js.AbortController.new()
        try:
            asked = self._request(
                url,
                "HEAD",
                controller,
                {
                    "mode": mode,
                    "headers": [*headers],
                    "cache": "no-store",
                    # The only one that there is without CORS; where it leads is not shown.
                    "redirect": "follow" if mode == "no-cors" else "manual",
                    "credentials": "omit",
                },
            )
            await self._js.fetch(asked)
        except (self._ffi.JsException, httpx.LocalProtocolError):
            return False
        finally:
            controller.abort()
        return True


def _headers(raw: Iterable[tuple[bytes, bytes]], *, has_body: bool) -> list[list[str]]:
    """The headers that a page sends. Without a body it is one that needs no permission first."""
    pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in raw)
    return [
        [name.lower(), value]
        for name, value in pairs
        if _is_sendable(name) and (has_body or name.lower() != "content-type")
    ]


def _refusal(origin: str) -> str:
    """What to say where a server does not know this page's origin."""
    whose, value = f"pages of {origin}", origin
    if origin == "null":
        whose, value = "pages without an origin, such as files and sandboxed frames,", "'*'"
    return (
        f"a server answers there, and does not let {whose} read what it says: start it with "
        f"OLLAMA_ORIGINS={value}"
    )


def _silence(origin: str, url: httpx.URL) -> str:
    """What to say where nothing answers."""
    host = url.host.strip("[]")
    is_local = host in ("localhost", "::1") or host.startswith("127.")
    if urlsplit(origin).scheme == "https" and url.scheme == "http" and not is_local:
        return "a page over https may ask servers over https, and http on its own machine alone"
    return "nothing answers there, or not to a page"


def _said(error: Exception) -> str:
    """What a browser says, which is little."""
    text = str(getattr(error, "message", "") or error)
    return text.partition("\n")[0][:200]
