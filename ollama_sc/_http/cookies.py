"""Which cookies of a server are kept: what can be sent back, and no more than servers take."""

from __future__ import annotations

from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from typing import Any

_MANY = 50  # RFC 6265 wants at least so many
_BYTES = 8000  # a line of a request's head that is longer is refused by common servers


class BoundedPolicy(DefaultCookiePolicy):
    """Bounds what a jar holds, so that no reply spoils a later request.

    A cookie that a header cannot carry, or that is too long by itself, is refused; for one that
    has no room, the oldest of the server's others go. Those that the user gave stay.
    """

    def __init__(self, jar: CookieJar) -> None:
        super().__init__()
        self._jar = jar
        self._given = {_key(cookie) for cookie in jar}

    def set_ok(self, cookie: Cookie, request: Any) -> bool:
        """Whether to keep a cookie; makes room for it."""
        fits = _is_sendable(cookie) and _size(cookie) <= _BYTES
        if not fits or not super().set_ok(cookie, request):
            return False
        key = _key(cookie)
        others = [other for other in self._jar if _key(other) not in {key, *self._given}]
        count, size = len(others) + 1, _size(cookie) + sum(map(_size, others))
        for other in others:
            if count <= _MANY and size <= _BYTES:
                break
            self._jar.clear(*_key(other))
            count, size = count - 1, size - _size(other)
        return True


def bound(jar: CookieJar) -> None:
    """Bound what a jar takes from now on."""
    jar.set_policy(BoundedPolicy(jar))


def _key(cookie: Cookie) -> tuple[str, str, str]:
    return cookie.domain, cookie.path, cookie.name


def _size(cookie: Cookie) -> int:
    return len(cookie.name) + len(cookie.value or "") + len("=; ")


def _is_sendable(cookie: Cookie) -> bool:
    text = f"{cookie.name}{cookie.value or ''}"
    return text.isascii() and text.isprintable()
