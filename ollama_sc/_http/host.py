"""`OLLAMA_HOST` and a client's ``host=`` into the URL that requests go to.

The rules are the server's own (`host:port`, bare addresses, a path prefix), made strict where the
server guesses in silence: a bad port or an unknown scheme is an error that says what to write.
This module may know only the errors.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from typing import NamedTuple
from urllib.parse import unquote

from ollama_sc._errors import RequestError

DEFAULT_PORT = 11434
_SCHEMES = {"http": 80, "https": 443}
_LABEL_BYTES = 63
_NAME_BYTES = 254  # with a dot at its end
# What could hold a password, in whatever wrong place.
_SUSPICIOUS = r"@|%40|^[^:]*:[^:/]*://"
# What systems take for an IPv4 address, and what is a dot to IDNA.
_IP4 = r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}\.?"
_DOTS = str.maketrans("\u3002\uff0e\uff61", "...")
# What people copy behind a host: the API, or one of its endpoints.
_ENDPOINT = (
    r"(?P<host>https?://[^/]+(?:/.*?)?)(?P<endpoint>/(?:api|v1)(?:/(?:chat|generate|embed|"
    r"embeddings|tags|version|show|ps|pull|push|models|completions|responses|chat/completions))?)"
)
_HOST_NAME = r"[^\s/?#@\[\]<>\\^`{|}%\x00-\x1f\x7f]+"


class Host(NamedTuple):
    """Where requests go.

    Attributes:
        url: scheme, host, port and path prefix, without a trailing slash.
        name: the host alone, in lower case.
        userinfo: user and password for basic auth, where the host had them.
    """

    url: str
    name: str
    userinfo: tuple[str, str] | None

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine."""
        if f".{self.name.removesuffix('.')}".endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.name).is_loopback
        except ValueError:
            return False

    @property
    def is_ollama_com(self) -> bool:
        """Whether this is the hosted service, over TLS, which an environment's key is for."""
        return f"{self.url}/".startswith("https://ollama.com:443/")


def parse_host(value: str | None) -> Host:
    """Read a host as people write it; empty or ``None`` is the local server.

    Raises:
        RequestError: the value cannot be a host; the text says what to write. It never shows a
            password.
    """
    if value is not None and not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RequestError(f"the host must be text, not {type(value).__name__}")
    text = (value or "").strip().strip("\"'").strip()
    try:
        return _parse(text)
    except _UnusableError as error:
        wrong = str(error)
    # Outside of the handler: the error has no context that shows what was given.
    if re.search(_SUSPICIOUS, text):
        wrong = (
            f"not a host, nor http://user:password@host:{DEFAULT_PORT} (it is not shown here, "
            "for it could hold a password)"
        )
    raise RequestError(wrong)


def refuse_endpoint(host: Host) -> None:
    """Raise where a host has an endpoint of the API behind it: a client adds those itself."""
    found = re.fullmatch(_ENDPOINT, host.url)
    if found:
        raise RequestError(f"the host ends before {found['endpoint']}: write {found['host']}")


class _UnusableError(Exception):
    """What is wrong; it shows what was given."""


def _parse(text: str) -> Host:
    scheme, given, rest = text.partition("://")
    if not given:
        scheme, rest = "", text
    scheme = scheme.lower()
    if given and scheme not in _SCHEMES:
        raise _UnusableError(f"the host's scheme must be http or https, not {scheme[:40]!r}")
    if "?" in rest or "#" in rest:
        raise _UnusableError("a host has no query and no fragment: write http://host:port/prefix")
    authority, _, prefix = rest.partition("/")
    user, at, address = authority.rpartition("@")
    name, port = _split_port(address)
    if not scheme:
        scheme = "https" if name == "ollama.com" and port in (None, 443) else "http"
        port = port or (443 if scheme == "https" else DEFAULT_PORT)
    port = port or _SCHEMES[scheme]
    if "@" in prefix:
        raise _UnusableError("a host has its user before it: write http://user:password@host")
    if name in _SCHEMES and "/" in rest and (not given or address.endswith(":")):
        raise _UnusableError(f"a scheme ends in ://, as in {name}://host:{DEFAULT_PORT}")
    if not given and rest.startswith("//"):
        raise _UnusableError(f"a host stands behind http://, as in http://host:{DEFAULT_PORT}")
    prefix = "/".join(part for part in prefix.split("/") if part)
    if prefix and (not prefix.isprintable() or " " in prefix):
        raise _UnusableError("a host's path prefix has no white space and no control characters")
    url = f"{scheme}://{_in_brackets(name)}:{port}" + (f"/{prefix}" if prefix else "")
    return Host(url, name, _userinfo(user) if at else None)


def _in_brackets(name: str) -> str:
    return f"[{name.replace('%', '%25')}]" if ":" in name else name


def _userinfo(text: str) -> tuple[str, str]:
    name, _, password = text.partition(":")
    return unquote(name), unquote(password)


def _split_port(address: str) -> tuple[str, int | None]:
    """Take apart ``host``, ``host:port``, ``[::1]:port``, ``::1`` and ``:port``."""
    if address.startswith("["):
        inner, closed, after = address[1:].partition("]")
        if not closed or (after and not after.startswith(":")):
            raise _UnusableError(f"not a host: {address[:80]!r}; write [::1]:{DEFAULT_PORT}")
        return _ip6(inner), _port(after[1:])
    if address.count(":") > 1:
        before, _, last = address[:80].rpartition(":")
        if len(last) == 4 and last.isdecimal():
            raise _UnusableError(
                f"{address[:80]!r} could end in a port or not: write [{before}]:{last}, "
                f"or [{address[:80]}]:{DEFAULT_PORT}"
            )
        return _ip6(address), None
    name, _, port = address.partition(":")
    return _name(name), _port(port)


def _ip6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text.replace("%25", "%", 1))
        zone = str(address).partition("%")[2]
        if not (zone.isascii() and zone.isprintable()) or " " in zone:
            raise ValueError
    except ValueError:
        raise _UnusableError(
            f"not an IPv6 address{_if_address(text)}; write it in brackets with its port behind "
            f"them, as in [::1]:{DEFAULT_PORT}"
        ) from None
    if address.ipv4_mapped is not None:
        return _name(str(address.ipv4_mapped))
    return "::1" if address.is_unspecified else str(address)


def _if_address(text: str) -> str:
    """The text, where it is nothing but an attempt at an address: else it could be a password."""
    return f": {text[:80]!r}" if re.fullmatch(r"[0-9A-Fa-f:.]*", text) else ""


def _name(text: str) -> str:
    text = text.lower().translate(_DOTS)
    if re.fullmatch(_IP4, text):
        text = _ip4(text.removesuffix("."))
    if text in ("", "0.0.0.0"):  # noqa: S104 - a client cannot connect to "every address"
        return "127.0.0.1"
    if text == "localhost.":
        return "localhost"
    try:
        valid = bool(re.fullmatch(_HOST_NAME, text)) and _is_short(text)
    except UnicodeError:
        valid = False
    if not valid:
        raise _UnusableError(f"not a host name: {text[:80]!r}; write http://host:{DEFAULT_PORT}")
    return text


def _ip4(text: str) -> str:
    """An address in any spelling that systems accept, such as ``127.1``, as it is in full.

    The server refuses requests whose host is spelled in another way. Four numbers with leading
    zeros are octal for some and decimal for others.
    """
    try:
        if text.count(".") < 3 or "x" in text:
            address = ipaddress.IPv4Address(socket.inet_aton(text))
        else:
            address = ipaddress.IPv4Address(text)
    except (OSError, ValueError):
        raise _UnusableError(
            f"not an address: {text[:80]!r}; write http://127.0.0.1:{DEFAULT_PORT}"
        ) from None
    if int(address) >> 24 == 0 and int(address):
        raise _UnusableError(f"{text[:80]!r} is no host; write :{text[:80]} for a port")
    return str(address)


def _is_short(text: str) -> bool:
    """Whether a name is as short as names must be, its labels too.

    Raises:
        UnicodeError: it is not.
    """
    if not text.isascii():
        return len(text.encode("idna")) <= _NAME_BYTES
    # The codec would say the same, after it has loaded tables for all of Unicode.
    labels = text.removesuffix(".").split(".")
    return len(text) <= _NAME_BYTES and all(0 < len(label) <= _LABEL_BYTES for label in labels)


def _port(text: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= 65535):
        # What stands there could be a password whose @ is missing.
        raise _UnusableError("the port must be a number from 1 to 65535")
    return int(text)
