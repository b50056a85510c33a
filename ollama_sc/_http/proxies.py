"""The proxy that requests go through: what a user gives, or the environment names.

What is not for a host must not break its client: a proxy is read when a request is for it.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from contextlib import suppress
from typing import Any
from urllib.request import getproxies

import httpx

from ollama_sc._errors import RequestError
from ollama_sc._platform import in_browser

from .host import Host, parse_host
from .options import HttpxOptions

# Nothing may queue in httpx: this library's own limit stands in front.
NO_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None)
_OF_TLS = ("verify", "cert", "trust_env")
_OF_TRANSPORTS = (*_OF_TLS, "http1", "http2")
EXAMPLE = "http://host:3128, with http://user:password@ before the host where it needs one"
# A scheme, a name, a port: nothing that could be a password.
_HARMLESS = r"(?a:(?:[A-Za-z][A-Za-z0-9+.-]*://)?[\w.-]*(?::\d*)?/?)"


def read_proxy(given: object, name: str) -> httpx.Proxy:
    """A proxy as httpx has it; `name` is what a user calls it by.

    Raises:
        RequestError: it cannot be one. Where a password could be in it, nothing of it is shown, and
            the error has no cause: httpx's own shows it.
    """
    if isinstance(given, httpx.Proxy):
        return given
    if not isinstance(given, str | httpx.URL):
        raise RequestError(f"{name} must be text or a httpx.Proxy, not {type(given).__name__}")
    proxy = None
    with suppress(httpx.InvalidURL, ValueError):
        proxy = httpx.Proxy(given)
    if proxy is None or not _is_host(proxy.url):
        text = str(given)
        shown = f", not {text[:80]!r}" if re.fullmatch(_HARMLESS, text) else ""
        raise RequestError(f"{name} must be such as {EXAMPLE}; or socks5://host:1080{shown}")
    return proxy


def _is_host(url: httpx.URL) -> bool:
    """Whether it can be connected to: what lies below raises anything for what cannot."""
    try:
        parse_host(f"http://{url.netloc.decode('ascii')}")
    except RequestError:
        return False
    return bool(url.host)


class LazyTransport(httpx.AsyncBaseTransport):
    """httpx's own transport, made when it is first needed.

    Where it is made, it reads the files that TLS needs, which must not break what needs no TLS.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._made: httpx.AsyncHTTPTransport | None = None
        self._unreadable: OSError | None = None

    @property
    def _pool(self) -> object:
        """Where `via_httpx` looks for the connections."""
        return getattr(self._made, "_pool", None)

    def prepare(self, *, tls: bool) -> httpx.AsyncHTTPTransport:
        """The transport, which has settings for TLS also where nothing needs them.

        Raises:
            OSError: what the settings for TLS name cannot be read, and they are needed.
        """
        if self._made is None:
            settings = dict(self._settings)
            given = {name: settings.pop(name) for name in _OF_TLS if name in settings}
            try:
                context = httpx.create_ssl_context(**given)
            except OSError as error:
                if tls:
                    raise
                self._unreadable = error
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it trusts nobody
            self._made = self._make(context, settings)
        if tls and self._unreadable is not None:
            raise self._unreadable.with_traceback(None)
        return self._made

    def _make(self, context: ssl.SSLContext, settings: dict[str, Any]) -> httpx.AsyncHTTPTransport:
        return httpx.AsyncHTTPTransport(verify=context, **settings)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request of httpx's; what makes this a transport of httpx."""
        try:
            transport = self.prepare(tls=request.url.scheme == "https")
        except (RequestError, OSError) as error:
            raise httpx.ConnectError(str(error)) from error
        return await transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close its connections."""
        if self._made is not None:
            await self._made.aclose()


class ProxyTransport(LazyTransport):
    """The one through a proxy.

    Attributes:
        name: of the environment's variable that has it, or what a user calls it by.
    """

    def __init__(self, given: object, name: str, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        self.name = name
        self._given = given

    def prepare(self, *, tls: bool) -> httpx.AsyncHTTPTransport:
        """The transport.

        Raises:
            RequestError: there can be no such proxy.
            OSError: what the settings for TLS name cannot be read, and they are needed.
        """
        to_proxy = self._made is None and read_proxy(self._given, self.name).url.scheme == "https"
        return super().prepare(tls=tls or to_proxy)

    def _make(self, context: ssl.SSLContext, settings: dict[str, Any]) -> httpx.AsyncHTTPTransport:
        proxy = read_proxy(self._given, self.name)
        try:
            return httpx.AsyncHTTPTransport(proxy=proxy, verify=context, **settings)
        except ImportError as error:
            raise RequestError(f"{self.name}: {error}") from error


class Proxies:
    """The proxies of a client: the one that it is given, or else what the environment says.

    Attributes:
        mounts: for httpx: a transport for each pattern, or None for what goes directly.
        unreadable: what stands in NO_PROXY and can be no host.

    Raises:
        RequestError: the one that is given cannot be one.
    """

    def __init__(self, host: Host, options: HttpxOptions, given: object) -> None:
        self.mounts: dict[str, httpx.AsyncBaseTransport | None] = {}
        self.unreadable: list[str] = []
        settings: dict[str, Any] = {
            name: value for name, value in options.items() if name in _OF_TRANSPORTS
        }
        settings["limits"] = NO_LIMITS
        if given is not None:
            name = "the proxy"
            self.mounts["all://"] = ProxyTransport(read_proxy(given, name), name, settings)
        elif host.is_loopback or options.get("transport") is not None or in_browser():
            pass  # a proxy that the environment names is not for this machine, nor for a browser
        elif options.get("trust_env", True):
            self._read_environment(host, settings)

    def _read_environment(self, host: Host, settings: dict[str, Any]) -> None:
        found = getproxies()  # the system's where there are no variables
        for scheme in ("http", "https", "all"):
            address = found.get(scheme)
            if address:
                address = address if "://" in address else f"http://{address}"
                transport = ProxyTransport(address, _variable(scheme), settings)
                self.mounts[f"{scheme}://"] = transport
        excepted = re.split(r"[,\s]+", found.get("no", ""))
        if "*" in excepted:
            self.mounts.clear()
        for entry in filter(None, excepted if self.mounts else ()):
            pattern = _pattern(entry, host)
            try:
                httpx.URL(pattern)
            except httpx.InvalidURL:
                self.unreadable.append(entry)
            else:
                self.mounts[pattern] = None

    def check(self) -> None:
        """Raise where a host that a proxy is for could be one that NO_PROXY means."""
        if self.unreadable:
            shown = (
                self.unreadable[0] if re.fullmatch(_HARMLESS, self.unreadable[0]) else "an entry"
            )
            raise RequestError(
                f"{_variable('no')}: {shown[:80]} can be no host: write names, addresses or "
                ".domains with commas between them"
            )


def _variable(scheme: str) -> str:
    """The variable that Python has a proxy from; names in lower case win."""
    name = f"{scheme}_proxy"
    spelled = [one for one in os.environ if one.lower() == name and os.environ[one]]
    if not spelled:
        return "the system's proxy"
    return name if name in spelled else spelled[0]


def _pattern(entry: str, host: Host) -> str:
    """What NO_PROXY means for a host, as httpx writes it: a name stands for what is below it, too.

    Of a network, httpx knows nothing: it is the host itself where that is in it.
    """
    if "://" in entry:
        return entry
    text = re.sub(r"[\[\]]|%[^/]*", "", entry)
    with suppress(ValueError):
        found = ipaddress.ip_interface(text)
        address = found.ip
        with suppress(ValueError):
            own = ipaddress.ip_address(host.name)
            address = own if own in found.network else address
        return f"all://[{address}]" if address.version == 6 else f"all://{address}"
    if entry.lower() == "localhost":
        return f"all://{entry}"
    return f"all://*{entry.removeprefix('*')}"


def way_to(transport: object) -> str:
    """The proxy that a transport goes through, for errors, or nothing."""
    url = getattr(getattr(transport, "_pool", None), "_proxy_url", None)
    if url is None:
        return ""
    where = f"{url.scheme.decode()}://{url.host.decode()}" + (f":{url.port}" if url.port else "")
    name = transport.name if isinstance(transport, ProxyTransport) else ""
    return f" through the proxy {where}" + (f" ({name})" if name.lower().endswith("_proxy") else "")
