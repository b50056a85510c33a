"""The connections of one client: what users configure on httpx, and what they must not."""

from __future__ import annotations

import platform
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypedDict

import anyio
import httpx

from ollama_sc._calls import CLEANUP_SECONDS, Call
from ollama_sc._errors import RequestError
from ollama_sc._host import Host
from ollama_sc._version import __version__

from .exchange import Exchange
from .messages import Request
from .pool import connections

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = {"content-length", "transfer-encoding", "content-encoding", "connection", "expect"}
_REDIRECTS = 5


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
        self._base = host.url
        # Unless the user decides, redirects stay within the server: see `Exchange`.
        self._redirects = _REDIRECTS if "follow_redirects" not in options else 0
        settings: dict[str, Any] = {**options, "headers": _headers(headers, api_key)}
        if host.userinfo is not None:
            settings.setdefault("auth", host.userinfo)
        try:
            httpx.URL(host.url)
            if host.is_loopback and "proxy" not in options:
                # A proxy that the environment names is not for this machine.
                settings["mounts"] = {f"all://{host.netloc}": None, **(options.get("mounts") or {})}
                if host.url.startswith("http:") and self._redirects:
                    # No TLS on any way; httpx takes a tenth of a second to prepare for it.
                    settings.setdefault("verify", False)
            self._client = httpx.AsyncClient(
                timeout=None,  # noqa: S113 - each call's own limits are in charge
                # Nothing may queue in there: this library's own limit stands in front.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
                **settings,
            )
        except Exception as error:
            text = re.sub(r"//[^/]*@", "//…@", str(error))  # a proxy's password
            if "auth" in text:
                text = "the argument auth"  # httpx shows it
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
        found = connections(self._client)
        alive = [connection for connection in found if not connection.is_closed()]
        return Connections(len(alive), sum(bool(connection.is_idle()) for connection in alive))

    def exchange(self, call: Call[Any], request: Request, accept: str) -> Exchange:
        """Send a request: ``async with http.exchange(...) as reply``.

        Entering returns when the headers of a successful reply are here.

        Raises:
            ResponseError: the server answered with an error.
            ConnectError, RequestTimeout, ProtocolError, RequestError: there is no answer.
        """
        return Exchange(self._client, self._base, call, request, accept, self._redirects)


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
        if not _HEADER_NAME.fullmatch(_ascii(name, "name of one")):
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
