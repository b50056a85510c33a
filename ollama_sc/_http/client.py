"""The connections of one client: what users configure on httpx, and what they must not."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from typing import Any

import anyio
import httpx

from ollama_sc._calls import CLEANUP_SECONDS, Call
from ollama_sc._errors import RequestError
from ollama_sc._host import Host
from ollama_sc._timeouts import Timeouts
from ollama_sc._version import __version__

from . import foreign
from .connection import Limits, Outgoing
from .exchange import Exchange
from .foreign import HttpxReply
from .messages import Progress, Request, Upload
from .options import HttpxOptions
from .transport import Connections, Origin, Reply, Transport, header_lines, is_token

_FRAMING = {"content-length", "transfer-encoding", "content-encoding", "connection", "expect"}
_REDIRECTS = 5
_TARGETS = 256  # paths whose bytes are kept
_NOWHERE = httpx.AsyncBaseTransport()
_NO_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)


class _Client(httpx.AsyncClient):
    """httpx's client, with our transport where httpx would take its own for http and https."""

    def _init_transport(self, **settings: Any) -> httpx.AsyncBaseTransport:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        if settings["transport"] is not None or settings["http2"] or not settings["http1"]:
            return super()._init_transport(**settings)
        return Transport(**{name: settings[name] for name in ("verify", "cert", "trust_env")})


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
        self.base = host.url
        # Unless the user decides, redirects stay within the server: see `Exchange`.
        self.redirects = _REDIRECTS if "follow_redirects" not in options else 0
        settings: dict[str, Any] = {**options, "headers": _headers(headers, api_key)}
        if host.userinfo is not None:
            settings.setdefault("auth", host.userinfo)
        try:
            base = httpx.URL(host.url)
            mounts = options.get("mounts") or {}
            if host.is_loopback and "proxy" not in options and not _reach(mounts, base):
                # A proxy that the environment names is not for this machine.
                settings["mounts"] = {f"all://{host.netloc}": None, **mounts}
            self._client = client = _Client(
                timeout=None,
                # Nothing may queue in there: this library's own limit stands in front.
                limits=_NO_LIMITS,
                **settings,
            )
            transport = client._transport_for_url(base)
            self._origin = Origin.of(base)
            if isinstance(transport, Transport) and (
                base.scheme == "https" or options.keys() & {"verify", "cert"}
            ):
                transport.prepare_tls()
        except Exception as error:
            text = re.sub(r"//[^/]*@", "//…@", str(error))  # a proxy's password
            if "auth" in text:
                text = "the argument auth"  # httpx shows it
            raise RequestError(f"httpx refuses the client's settings: {text}") from error
        # The short way to the server, unless the settings need what `httpx.AsyncClient.send` does.
        self._short: Transport | None = None
        asks_for_more = client.auth or client.follow_redirects or client.params or client.cookies
        if isinstance(transport, Transport) and not asks_for_more and not _hooks(client):
            self._short = transport
        self._targets: dict[str, bytes] = {}
        self._header_lines: dict[tuple[str, str, type], bytes] = {}

    async def open(self) -> None:
        """Enter httpx's client."""
        await self._client.__aenter__()

    async def close(self) -> None:
        """Close every connection; under a shield, and not for long."""
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
            await self._client.aclose()

    def connections(self) -> Connections:
        """How many connections there are now."""
        return foreign.connections(self._client)

    def exchange(self, call: Call[Any], request: Request, accept: str) -> Exchange:
        """Send a request: ``async with http.exchange(...) as reply``.

        Entering returns when the headers of a successful reply are here.

        Raises:
            ResponseError: the server answered with an error.
            ConnectError, RequestTimeout, ProtocolError, RequestError: there is no answer.
        """
        return Exchange(self, call, request, accept)

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
        progress: Progress,
    ) -> Reply | HttpxReply:
        """Send a request, and return when the head of its reply is here.

        `url` is where else on this server it goes.

        Raises:
            httpx.HTTPError, httpx.InvalidURL: there is no answer.
        """
        limits = Limits(write=timeouts.idle)  # the call sees to the others
        if self._short is None:
            message = self._message(request, url, accept)
            message.extensions = {
                # Of these, the first is for transports that tell nothing of their phases.
                "timeout": limits._replace(connect=timeouts.connect)._asdict() | {"pool": None}
            }
            body = request.body if isinstance(request.body, bytes | Upload) else None
            return await foreign.send(self._client, message, body, progress)
        outgoing = self._outgoing(request, url, accept)
        reply = await self._short.ask(self._origin, outgoing, limits, progress)
        if b"set-cookie" in reply.reader.fields:
            # From now on they are sent back, which httpx knows how to do.
            asked = httpx.Request(request.method, url or self.url(request))
            answer = httpx.Response(reply.status, headers=reply.reader.headers, request=asked)
            self._client.cookies.extract_cookies(answer)
            self._short = None if self._client.cookies else self._short
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

    def _outgoing(self, request: Request, url: str | None, accept: str) -> Outgoing:
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
        bodiless = method == "HEAD"
        if isinstance(body, Upload):
            return Outgoing(head, body.pieces(), size=body.size, bodiless=bodiless)
        return Outgoing(head, body if isinstance(body, bytes) else b"", bodiless=bodiless)


def _reach(mounts: Mapping[str, httpx.AsyncBaseTransport | None], url: httpx.URL) -> bool:
    """Whether one of a user's mounts is for a URL."""
    if not mounts:
        return False
    client = httpx.AsyncClient(mounts=mounts, transport=_NOWHERE, trust_env=False)
    return client._transport_for_url(url) is not _NOWHERE


def _hooks(client: httpx.AsyncClient) -> bool:
    return any(client.event_hooks.values())


def _headers(given: Mapping[str, str] | None, api_key: str | None) -> httpx.Headers:
    """What goes with every request."""
    headers = httpx.Headers(
        {
            "User-Agent": f"ollama-sc/{__version__} Python/{platform.python_version()}",
            "Content-Type": "application/json",
            # What compresses a stream holds it back; the server itself never does.
            "Accept-Encoding": "identity",
        }
    )
    if not isinstance(given, Mapping | None):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RequestError(f"headers must be a mapping, not {type(given).__name__}")
    for name, value in (given or {}).items():
        if not is_token(_ascii(name, "name of one").encode()):
            raise RequestError(f"headers: {name!r} cannot be a name")
        if name.lower() in _FRAMING:
            raise RequestError(f"headers: {name!r} is not for you to set: it frames the body")
        headers[name] = _ascii(value, f"value of {name!r}")
    if api_key is not None and "authorization" not in headers:
        headers["Authorization"] = f"Bearer {_ascii(api_key, 'API key')}"
    return headers


def _ascii(value: object, what: str) -> str:
    """Check what goes into a header, before any I/O and without showing it."""
    if not isinstance(value, str):
        raise RequestError(f"headers: the {what} must be text, not {type(value).__name__}")
    if not value.isascii() or any(
        ord(character) < 0x20 or character == "\x7f" for character in value
    ):
        raise RequestError(f"headers: the {what} must be printable ASCII")
    return value
