"""A server's error replies into exceptions. No I/O.

An error is ``{"error": "..."}`` from the server itself; but the text can be an object (compatible
APIs), JSON in a string (the model runner's own), plain text, a proxy's page, or nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

import msgspec

from ._errors import (
    AuthorizationError,
    ModelNotFoundError,
    RateLimitError,
    ResponseError,
    ServerBusyError,
)

_CLASSES: dict[int, type[ResponseError]] = {
    401: AuthorizationError,
    403: AuthorizationError,
    404: ModelNotFoundError,
    429: RateLimitError,
    503: ServerBusyError,
}
_TEXT_LIMIT = 500
# What decoding raises for bytes that are no JSON, or nested deeper than anybody would.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def error_reply(
    status: int, headers: Mapping[str, str], body: bytes, *, request: str
) -> ResponseError:
    """The exception for a reply whose status says that it failed."""
    try:
        found: Any = msgspec.json.decode(body)
    except NOT_JSON:
        found = None
    if isinstance(found, dict) and "error" in found:
        return error_object(cast("dict[str, Any]", found), status, request=request, headers=headers)
    phrase = _phrase(status)
    text = _page_text(body)
    if status == HTTPStatus.FORBIDDEN and not text:
        text = "an Ollama server refuses a Host or Origin that it does not expect"
    error = f"{phrase}: {text}" if text else phrase
    # A 404 without an error object means an address that the server does not have, not a model.
    cls = ResponseError if status == HTTPStatus.NOT_FOUND else _CLASSES.get(status, ResponseError)
    return _build(cls, error, status, headers, request)


def error_object(
    found: Mapping[str, Any],
    status: int,
    *,
    request: str,
    headers: Mapping[str, str] | None = None,
) -> ResponseError:
    """The exception for a JSON object with an ``error``, wherever it stands."""
    upstream = found.get("StatusCode")
    if type(upstream) is int and 400 <= upstream <= 599:  # a remote model's error, relayed
        status = upstream
    cls = _class_of(status, found)
    signin_url = found.get("signin_url")
    return _build(cls, _text(found["error"]), status, headers or {}, request, signin_url)


def _class_of(status: int, found: Mapping[str, Any]) -> type[ResponseError]:
    if isinstance(found.get("signin_url"), str):  # also in the middle of a stream
        return AuthorizationError
    return _CLASSES.get(status, ResponseError)


def _build(
    cls: type[ResponseError],
    text: str,
    status: int,
    headers: Mapping[str, str],
    request: str,
    signin_url: object = None,
) -> ResponseError:
    if not text:
        text = _phrase(status) if status >= 400 else "an error without a text"
    error = cls(error=text, status_code=status, request=request)
    shown = _printable(text)
    message = shown if shown.startswith("HTTP ") else f"{shown} (HTTP {status})"
    if isinstance(error, RateLimitError):
        error.retry_after = _retry_after(headers.get("retry-after"))
        if error.retry_after is not None:
            message += f"; ask again in {error.retry_after:g} s"
    elif isinstance(error, AuthorizationError) and isinstance(signin_url, str):
        error.signin_url = signin_url
        message += f"; sign in at {_printable(signin_url)}"
    elif isinstance(error, ModelNotFoundError) and "pull" not in text:
        message += "; pull it first"
    error.args = (message,)
    return error


def _printable(text: str) -> str:
    """A server's text, without what would steer a terminal."""
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in text
    )


def _text(error: object) -> str:
    """The readable part of an error, through the wrappings that servers put around it."""
    if isinstance(error, str):
        if error.startswith("{"):
            try:
                inner: Any = msgspec.json.decode(error)
            except NOT_JSON:
                return error
            if isinstance(inner, dict) and "error" in inner:
                return _text(cast("dict[str, Any]", inner)["error"])
        return error
    if isinstance(error, dict):
        message = cast("dict[str, Any]", error).get("message")
        if isinstance(message, str) and message:
            return message
    return "" if error is None else msgspec.json.encode(error).decode()


def _page_text(body: bytes) -> str:
    """What a body that is no JSON object says, on one line: a page's title, or its text."""
    text = body[:20_000].decode("utf-8", "replace")
    if "<" in text:
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        text = title[1] if title else re.sub(r"<[^>]*>", " ", text)
        import html  # noqa: PLC0415 - its table of entities is large, and pages are rare

        text = html.unescape(text)
    text = " ".join(text.split())
    return text if len(text) <= _TEXT_LIMIT else text[:_TEXT_LIMIT] + "…"


def _phrase(status: int) -> str:
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header, which is a number of them or a date."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value[:12])
    try:
        when = parsedate_to_datetime(value)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None
