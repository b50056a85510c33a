"""Who may ask: the checks of `Origin` and of `Host`."""

import ipaddress
import socket
from collections.abc import Mapping

from ollama_sc.testing._replies import Message
from ollama_sc.testing._request import RecordedRequest

_LOCAL_NAMES = (".localhost", ".local", ".internal")
_LOCAL_ORIGINS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - compared, not bound
_APP_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_HEADERS = "Authorization,Content-Type,User-Agent,Accept,X-Requested-With"


def refusal(
    request: RecordedRequest, origins: tuple[str, ...], *, loopback: bool
) -> Message | None:
    """The answer to a request that comes from elsewhere, or that asks whether it may come."""
    origin = request.headers.get("origin", "")
    host = request.headers.get("host", "")
    foreign = bool(origin) and origin.partition("://")[2] != host
    if foreign and not _origin_allowed(origin, origins):
        return Message(403, None, (b"",))
    if foreign and request.method == "OPTIONS":
        return Message(204, None, (b"",), _preflight(origin))
    if loopback and not _host_allowed(host):
        return Message(403, None, (b"",))
    return None


def granted(request: RecordedRequest) -> Mapping[str, str]:
    """The headers of an answer to a page from elsewhere."""
    origin = request.headers.get("origin", "")
    if not origin or origin.partition("://")[2] == request.headers.get("host", ""):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def _preflight(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Headers": _HEADERS,
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Max-Age": "43200",
        "Vary": "Origin",
    }


def _origin_allowed(origin: str, origins: tuple[str, ...]) -> bool:
    if origin in origins or "*" in origins:
        return True
    scheme, _, rest = origin.partition("://")
    if scheme in _APP_SCHEMES:
        return True
    return scheme in ("http", "https") and rest.partition(":")[0] in _LOCAL_ORIGINS


def _host_allowed(header: str) -> bool:
    """Whether a server that listens on loopback only answers to this `Host`."""
    if header.startswith("["):
        host = header[1:].partition("]")[0]
    else:
        host = header.rpartition(":")[0] if header.count(":") == 1 else header
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        host = host.lower()
        names = ("", "localhost", socket.gethostname().lower())
        return host in names or host.endswith(_LOCAL_NAMES)
    return address.is_loopback or address.is_private or address.is_unspecified
