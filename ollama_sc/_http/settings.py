"""What users configure on httpx, checked before any I/O, and what they must not."""

from __future__ import annotations

import os
import platform
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from inspect import isawaitable
from typing import Any, cast

import httpx

from ollama_sc._errors import RequestError
from ollama_sc._platform import in_browser
from ollama_sc._version import __version__

from .credentials import masked
from .host import Host
from .options import HeadersLike, HttpxOptions
from .proxies import NO_LIMITS, LazyTransport, Proxies, ProxyTransport
from .transport import Transport, is_token

_FRAMING = {"content-length", "transfer-encoding", "content-encoding", "connection", "expect"}

_LIMITS = ("max_in_flight", "max_line_bytes", "max_body_bytes")
_ARGUMENTS = ("host", "api_key", "headers", "timeout", *_LIMITS)
_INSTEAD = {
    "limits": "max_in_flight= is the limit, and idle connections are closed after a while",
    "base_url": "the address is host=, or the first argument",
    "timeouts": "timeout= takes seconds or Timeouts(...)",
    "max_connections": "max_in_flight= is the limit",
    "max_retries": "no call is made again but by jobs, which do it by themselves",
    "retries": "no call is made again but by jobs, which do it by themselves",
    "token": "a key is api_key=",
    "ssl": "verify= takes a ssl.SSLContext",
    "ssl_context": "verify= takes it",
    "http_client": "transport= takes one of httpx's transports",
    "model": "each call names its own",
}


class _Client(httpx.AsyncClient):
    """httpx's client, with our transport where httpx would take its own for http and https."""

    def _init_transport(self, **settings: Any) -> httpx.AsyncBaseTransport:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        if settings["transport"] is None and in_browser():
            from .fetch import FetchTransport  # noqa: PLC0415 - it is browsers'

            return FetchTransport()
        if settings["transport"] is not None:
            return super()._init_transport(**settings)
        if settings["http2"] or not settings["http1"]:
            del settings["transport"]
            return LazyTransport(settings)
        return Transport(**{name: settings[name] for name in ("verify", "cert", "trust_env")})

    def _get_proxy_map(self, *_: Any) -> dict[str, httpx.Proxy | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {}  # they are among the mounts


def configure(
    host: Host,
    *,
    api_key: str | None,
    headers: HeadersLike | None,
    options: HttpxOptions,
) -> httpx.AsyncClient:
    """The client of httpx that requests to a host go through, or would go through.

    Raises:
        TypeError: an option that httpx does not have.
        RequestError: a value that cannot be right; the text shows no credential.
    """
    unknown = options.keys() - HttpxOptions.__annotations__.keys()
    if unknown:
        raise TypeError(_unknown(min(unknown)))
    if in_browser():
        from .fetch import check_settings  # noqa: PLC0415

        check_settings(options)
    verify: object = options.get("verify", True)
    if not isinstance(verify, ssl.SSLContext | str | bool):
        wrong = f"not {type(verify).__name__}"
        raise RequestError(f"verify must be True, False or a ssl.SSLContext, {wrong}")
    settings: dict[str, Any] = {**options, "headers": _headers(headers, api_key)}
    if host.userinfo is not None:
        settings.setdefault("auth", host.userinfo)
    refused = ""
    mounts = options.get("mounts") or {}
    proxies = Proxies(host, options, settings.pop("proxy", None))
    try:
        base = httpx.URL(host.url)
        settings["mounts"] = {**proxies.mounts, **mounts}
        client = _Client(
            timeout=None,
            limits=NO_LIMITS,
            **settings,
        )
        client.event_hooks = {
            name: [_awaited(hook) for hook in hooks] for name, hooks in client.event_hooks.items()
        }
        for transport in (client._transport, *client._mounts.values()):
            if transport is not None and not hasattr(transport, "handle_async_request"):
                kind = type(cast("object", transport)).__name__
                raise RequestError(
                    f"a transport must be one of httpx's asynchronous ones, not {kind}: a blocking "
                    "client runs an event loop, too"
                )
        iter(client.cookies.jar)
        tls = base.scheme == "https" or bool(options.keys() & {"verify", "cert"})
        _prepare(client._transport_for_url(base), host, proxies, tls=tls)
    except RequestError:
        raise
    except Exception as error:  # noqa: BLE001 - raised again below
        patterns = map(str, mounts) if isinstance(mounts, Mapping) else ()  # pyright: ignore[reportUnnecessaryIsInstance]
        text = masked(str(error), *patterns) + _tls_files(error, options)
        refused = "the argument auth" if "auth" in text else text  # httpx shows it
    else:
        return client
    # Outside of the handler: httpx's own error, which would be its cause, shows what is masked.
    raise RequestError(f"httpx refuses the client's settings: {refused}")


def _awaited(hook: object) -> Callable[[Any], Awaitable[None]]:
    """A hook as httpx's asynchronous client calls it; the user's may be synchronous."""
    if not callable(hook):
        raise RequestError(f"event_hooks: a hook must be a function, not {type(hook).__name__}")

    async def call(message: httpx.Request | httpx.Response) -> None:
        result: object = hook(message)
        if isawaitable(result):
            await result

    return call


def _prepare(
    transport: httpx.AsyncBaseTransport, host: Host, proxies: Proxies, *, tls: bool
) -> None:
    """Let a transport find out now what would be wrong with the first request."""
    if isinstance(transport, LazyTransport):
        transport.prepare(tls=tls)
        if isinstance(transport, ProxyTransport):
            proxies.check()
    elif isinstance(transport, Transport) and tls:
        transport.prepare_tls()
    elif in_browser():
        from .fetch import FetchTransport  # noqa: PLC0415

        if isinstance(transport, FetchTransport):
            transport.base = f"{host.url}/"


def _unknown(name: str) -> str:
    """What to say of a keyword that a client does not have."""
    text = f"a client got an unexpected keyword argument {name!r}"
    if name in _INSTEAD:
        return f"{text}: {_INSTEAD[name]}"
    known = [*_ARGUMENTS, *HttpxOptions.__annotations__]
    from difflib import get_close_matches  # noqa: PLC0415 - for who makes a mistake

    close = get_close_matches(name, known, 1)
    return f"{text}: did you mean {close[0]!r}?" if close else text


def _tls_files(error: Exception, options: HttpxOptions) -> str:
    """What names the files that TLS needs, where one of them is what is wrong."""
    if not isinstance(error, OSError) or not options.get("trust_env", True):
        return ""
    named = [name for name in ("cert",) if options.get(name)]
    if options.get("verify", True) is True:
        variables = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")
        named += [name for name in variables if os.environ.get(name)]
    return f" (named by {' or '.join(named)})" if named else ""


def for_hosted(options: HttpxOptions) -> HttpxOptions:
    """What a client's settings say about the way to ollama.com, that the environment's key takes.

    How to get there is the same; whose credentials are sent is not, nor whom the host's settings
    for TLS trust: they are for the user's own box.
    """
    shared = ("proxy", "mounts", "transport", "trust_env", "http1", "http2")
    kept: dict[str, Any] = {name: value for name, value in options.items() if name in shared}
    if "transport" in kept and not _verifies(kept["transport"]):
        del kept["transport"]
    mounts = kept.get("mounts")
    if isinstance(mounts, Mapping):
        pairs = cast("Mapping[str, httpx.AsyncBaseTransport | None]", mounts).items()
        kept["mounts"] = {pattern: one for pattern, one in pairs if _verifies(one)}
    return cast("HttpxOptions", kept)


def _verifies(transport: object) -> bool:
    """Whether a transport goes to the server that is asked for, as far as httpx's own tell."""
    pool = getattr(transport, "_pool", None)
    context = getattr(pool, "_ssl_context", None)
    if getattr(pool, "_uds", None) is not None:
        return False
    return not isinstance(context, ssl.SSLContext) or (
        context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    )


def direct_transport(client: httpx.AsyncClient, url: httpx.URL) -> Transport | None:
    """The transport to send to by itself, unless the settings need what httpx's `send` does."""
    transport = client._transport_for_url(url)
    needs_httpx = (
        client.auth
        or client.follow_redirects
        or client.params
        or client.cookies
        or any(client.event_hooks.values())
    )
    return transport if isinstance(transport, Transport) and not needs_httpx else None


def _headers(given: HeadersLike | None, api_key: str | None) -> httpx.Headers:
    """What goes with every request; ``None`` as a value is as if the header were not given."""
    headers = httpx.Headers(
        {
            "User-Agent": f"ollama-sc/{__version__} Python/{platform.python_version()}",
            "Content-Type": "application/json",
            # What compresses a stream holds it back; the server itself never does.
            "Accept-Encoding": "identity",
        }
    )
    seen: set[str] = set()
    for given_name, value in _pairs(given):
        name = str.__str__(_ascii(given_name, "name of one"))
        if not is_token(name.encode()):
            raise RequestError(f"headers: {name!r} cannot be a name")
        if name.lower() in _FRAMING:
            raise RequestError(f"headers: {name!r} is not for you to set: it frames the body")
        if value is None:
            continue
        if in_browser():
            from .fetch import check_header  # noqa: PLC0415

            check_header(name)
        checked = _ascii(value, f"value of {name!r}")
        headers[name] = f"{headers[name]}, {checked}" if name.lower() in seen else checked
        seen.add(name.lower())
    if api_key is not None and "authorization" not in headers:
        headers["Authorization"] = f"Bearer {_ascii(api_key, 'API key')}"
    return headers


def _pairs(given: object) -> Iterable[tuple[Any, Any]]:
    """Names and values; more than one value of a name is one with commas, which means the same."""
    if given is None:
        return []
    if isinstance(given, Mapping):
        return list(cast("Mapping[Any, Any]", given).items())
    # A client may be made again, in a forked process: what can be read once is no list.
    if isinstance(given, str | bytes | Iterator) or not isinstance(given, Iterable):
        kind = type(cast("object", given)).__name__
        raise RequestError(f"headers must be a mapping or a list of pairs, not {kind}")
    pairs = list(cast("Iterable[Any]", given))
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(cast("tuple[Any, ...]", pair)) != 2:
            raise RequestError("headers must be a mapping or a list of pairs of name and value")
    return pairs


def _ascii(value: object, what: str) -> str:
    """Check what goes into a header, before any I/O and without showing it."""
    if not isinstance(value, str):
        raise RequestError(f"headers: the {what} must be text, not {type(value).__name__}")
    if not value.isascii() or any(
        ord(character) < 0x20 or character == "\x7f" for character in value
    ):
        raise RequestError(f"headers: the {what} must be printable ASCII")
    return str.__str__(value)  # an enumeration's own `str()` is something else
