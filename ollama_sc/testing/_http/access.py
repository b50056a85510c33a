"""Access control: the checks of `Origin` (CORS) and `Host`."""

import ipaddress
import socket
from collections.abc import Mapping

from ollama_sc.testing._replies import Message

from .request import RecordedRequest

_LOCAL_NAMES = (".localhost", ".local", ".internal")
_LOCAL_ORIGINS = ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104 - compared, not bound
_APP_SCHEMES = ("app", "file", "tauri", "vscode-webview", "vscode-file")
_METHODS = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_HEADERS = "Authorization,Content-Type,User-Agent,Accept,X-Requested-With"


def refusal(
    request: RecordedRequest, origins: tuple[str, ...], *, loopback: bool
) -> Message | None:
    """The response to a request from a foreign origin or host, or to a preflight; else None."""
    answered = cors_answer(request, origins)
    if answered is None and loopback and not _host_allowed(request.headers.get("host", "")):
        return Message(403, None, (b"",))
    return answered


def cors_answer(request: RecordedRequest, origins: tuple[str, ...]) -> Message | None:
    """The response to a request that no endpoint sees: from a foreign origin, or a preflight."""
    origin = _foreign_origin(request)
    if origin and not _origin_allowed(origin, origins):
        return Message(403, None, (b"",))
    if origin and request.method == "OPTIONS":
        return Message(204, None, (b"",), _preflight(origin))
    return None


def granted(request: RecordedRequest) -> Mapping[str, str]:
    """The CORS headers of a response to a foreign origin."""
    origin = _foreign_origin(request)
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"} if origin else {}


def _foreign_origin(request: RecordedRequest) -> str:
    """The origin of the page that a request is from; empty where that is the server itself."""
    origin = request.headers.get("origin", "")
    return origin if origin.partition("://")[2] != request.headers.get("host", "") else ""


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
    """Whether a server bound to a loopback address accepts this `Host`."""
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
