"""How a request of one client is sent: directly to the transport, or through httpx."""

from __future__ import annotations

from http.cookiejar import CookieJar
from typing import TYPE_CHECKING

import anyio
import httpx

from ollama_sc._loop.shielding import CLEANUP_SECONDS
from ollama_sc._timeouts import Timeouts

from . import cookies
from .connection import EncodedRequest, IoTimeouts
from .host import Host
from .messages import Request, RequestEvents, Upload
from .options import HeadersLike, HttpxOptions
from .proxies import way_to
from .settings import configure, direct_transport
from .transport import REPEATABLE, Connections, Origin, Reply, header_lines

if TYPE_CHECKING:
    from .via_httpx import HttpxReply

_REDIRECTS = 5
_TARGETS = 256  # paths whose bytes are kept
_UNLIMITED = IoTimeouts()


class Sender:
    """The connections of one client."""

    def __init__(
        self,
        host: Host,
        *,
        api_key: str | None,
        headers: HeadersLike | None,
        options: HttpxOptions,
    ) -> None:
        self.base = host.url
        # Unless the user decides, redirects stay within the server: see `Exchange`.
        self.redirects = _REDIRECTS if "follow_redirects" not in options else 0
        self._client = configure(host, api_key=api_key, headers=headers, options=options)
        if not isinstance(options.get("cookies"), CookieJar):  # a user's own has its own policy
            cookies.bound(self._client.cookies.jar)
        url = httpx.URL(host.url)
        self._origin = Origin.of(url)
        #: the proxy on the way, as errors name it
        self.way = way_to(self._client._transport_for_url(url))
        # Where a request goes directly; otherwise it goes through httpx.
        self._direct = direct_transport(self._client, url)
        self._targets: dict[str, bytes] = {}
        self._header_lines: dict[tuple[str, str, type], bytes] = {}

    async def open(self) -> None:
        """Enter httpx's client."""
        await self._client.__aenter__()

    async def aclose(self) -> None:
        """Close every connection; under a shield, and not for long."""
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            await self._client.aclose()

    def connections(self) -> Connections:
        """How many connections there are now."""
        from .via_httpx import connections  # noqa: PLC0415 - most clients have no use for it

        return connections(self._client)

    # -- what an exchange needs ----------------------------------------------------------------

    def url(self, request: Request) -> str:
        """The address of what is asked."""
        return self.base + request.path

    async def send(
        self,
        request: Request,
        url: str | None,
        accept: str,
        timeouts: Timeouts,
        events: RequestEvents,
    ) -> Reply | HttpxReply:
        """Send a request, and return when the head of its reply is here.

        `url` is where else on this server it goes.

        Raises:
            httpx.HTTPError, httpx.InvalidURL: there is no answer.
        """
        # The call sees to the others.
        limits = _UNLIMITED if timeouts.idle is None else IoTimeouts(write=timeouts.idle)
        if self._direct is None:
            message = self._message(request, url, accept)
            message.extensions = {
                # Of these, the first is for transports that tell nothing of their phases.
                "timeout": {
                    "connect": timeouts.connect,
                    "read": None,
                    "write": limits.write,
                    "pool": None,
                },
                REPEATABLE: request.repeatable,
            }
            body = request.body if isinstance(request.body, bytes | Upload) else None
            from .via_httpx import send  # noqa: PLC0415 - see above

            return await send(self._client, message, body, events)
        outgoing = self._encoded(request, url, accept)
        reply = await self._direct.ask(self._origin, outgoing, limits, events)
        if b"set-cookie" in reply.reader.fields:
            # From now on they are sent back, which httpx knows how to do.
            asked = httpx.Request(request.method, url or self.url(request))
            answer = httpx.Response(reply.status, headers=reply.reader.headers, request=asked)
            self._client.cookies.extract_cookies(answer)
            self._direct = None if self._client.cookies else self._direct
        return reply

    def _message(self, request: Request, url: str | None, accept: str) -> httpx.Request:
        """A request as httpx has it."""
        body = request.body
        headers = {"Accept": accept}
        if isinstance(body, Upload):
            headers |= {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(body.size),
            }
        return self._client.build_request(
            request.method,
            url or self.url(request),
            content=body if isinstance(body, bytes) else None,
            headers=headers,
        )

    def _encoded(self, request: Request, url: str | None, accept: str) -> EncodedRequest:
        """The bytes that httpx would have sent, most of them made once."""
        method, body = request.method, request.body
        target = self._targets.get(request.path) if url is None else None
        if target is None:
            target = httpx.URL(url or self.url(request)).raw_path
            if url is None and len(self._targets) < _TARGETS:
                self._targets[request.path] = target
        lines = self._header_lines.get((method, accept, type(body)))
        if lines is None:
            headers = self._message(request, url, accept).headers
            if body is not None:
                del headers["content-length"]
            lines = self._header_lines[method, accept, type(body)] = header_lines(headers.raw)
        length = b""
        if isinstance(body, bytes):
            length = b"Content-Length: %d\r\n" % len(body)
        elif isinstance(body, Upload):
            length = b"Content-Length: %d\r\n" % body.size
        head = b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method.encode(), target, lines, length)
        is_head = method == "HEAD"
        if isinstance(body, Upload):
            return EncodedRequest(head, body.blocks(), size=body.size, is_head=is_head)
        sent = body if isinstance(body, bytes) else b""
        return EncodedRequest(head, sent, is_head=is_head, repeatable=request.repeatable)
