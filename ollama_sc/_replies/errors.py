"""A server's error replies into exceptions. No I/O.

An error is ``{"error": "..."}`` from the server itself; but the text can be an object (compatible
APIs), JSON in a string (the model runner's own), plain text, a proxy's page, or nothing at all.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

import msgspec

from ollama_sc._errors import (
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
# How many characters a message shows, how many of them `ResponseError.error` keeps, and up to how
# many bytes the JSON of an error is looked into: it can be as long as a reply may be.
_TEXT_LIMIT = 500
_KEPT_LIMIT = 4000
_JSON_LIMIT = 64 * 1024
_ODD_LIMIT = 1024 * 1024
# A character of JSON takes at most so many bytes: an escaped surrogate pair.
_ESCAPED_BYTES = 12
# What decoding raises for bytes that are no JSON, or nested deeper than anybody would.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# What a 404 is about: a proxy, or a server without that endpoint, names a place or nothing.
_PLACE = (
    r"(?i)\b(?:paths?|routes?|ur[il]|endpoints?|pages?|method|handler)\b"
    r"|\bcannot (?:get|post|put|delete)\b"
    r"|^\W*(?:404\W*)?(?:(?:the )?(?:requested )?(?:file|resource) )?(?:was )?not found\W*$"
    r"|^\W*(?:404\W*)?(?:the |no such )?(?:requested )?(?:resource|service|function|operation|app"
    r"lication|api)(?: (?:was not|could not be|cannot be|not) found| does(?: not|n't) exist)?\W*$"
)
_WORDS_OF_PLACES = (
    r"(?i)path|route|url|uri|endpoint|page|method|handler|file|resource|requested|the|was|not"
    r"|found|404"
)
_MODEL = r"(?i)(?<![/\w.-])models?(?![/\w])"
_NO_MODEL = r"GET \S*/api/"
_ACCOUNT = r"\S+ \S*/api/(?:me|signout)$"
_OWN_MODEL = ", model "  # in a request's label, before the model's name as Python writes it
# Requests that use a model, so that pulling it helps.
_USES_MODEL = r"^POST \S*/(?:chat|generate|embed|embeddings|show|completions)\b"


class _ErrorObject(msgspec.Struct):
    """An object with an error, whose values are not decoded until their sizes are known."""

    error: msgspec.Raw
    StatusCode: msgspec.Raw = msgspec.Raw(b"null")
    signin_url: msgspec.Raw = msgspec.Raw(b"null")


_error_decoder = msgspec.json.Decoder(_ErrorObject)


def error_reply(
    status: int, headers: Mapping[str, str], body: bytes, *, request: str
) -> ResponseError:
    """The exception for a reply whose status says that it failed."""
    found = error_in(body)
    if found is not None:
        return error_object(found, status, request=request, headers=headers)
    phrase = _phrase(status)
    text = _page_text(body)
    if status == HTTPStatus.FORBIDDEN and not text:
        text = "an Ollama server refuses a Host or Origin that it does not expect"
    error = f"{phrase}: {text}" if text else phrase
    # Behind a 404 without an error object stands an address that the server does not have.
    cls = ResponseError if status == HTTPStatus.NOT_FOUND else _CLASSES.get(status, ResponseError)
    return _build(cls, error, status, headers, request)


def error_in(body: bytes) -> dict[str, Any] | None:
    """What an error object says: its ``error`` and what else is known of it, shortened.

    ``None`` where a body is anything else.
    """
    body = body.removeprefix(BOM_UTF8)
    try:
        found = _error_decoder.decode(body)
    except msgspec.ValidationError:
        return None
    except NOT_JSON:
        if body.find(b'"error"') < 0:
            return None
        body = _with_whole_characters(body)
        try:
            found = _error_decoder.decode(body)
        except NOT_JSON:
            return _odd_error_in(body)
    try:
        return {
            "error": _shortened(found.error),
            "StatusCode": _shortened(found.StatusCode),
            "signin_url": _shortened(found.signin_url),
        }
    except NOT_JSON:
        return _odd_error_in(body)


def _with_whole_characters(body: bytes) -> bytes:
    from .lenient import with_whole_characters  # noqa: PLC0415 - that is rare

    return with_whole_characters(body)


def _odd_error_in(body: bytes) -> dict[str, Any] | None:
    """The same for numbers that are too large for any, and where something follows the object."""
    if len(body) > _ODD_LIMIT:
        return None
    try:
        text = _with_whole_characters(body).decode("utf-8", "replace").lstrip()
        found, _ = _odd_decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) and "error" in found else None


def _number(digits: str) -> float | str:
    """A number; of one that is too large for any, its text."""
    try:
        value = float(digits)
    except ValueError:
        return digits
    if abs(value) == float("inf"):
        return digits[:_TEXT_LIMIT]
    return int(digits) if digits.lstrip("-").isdecimal() else value


_odd_decoder = json.JSONDecoder(parse_int=_number, parse_float=_number)


def _shortened(raw: msgspec.Raw) -> Any:
    """A JSON value; of one that is longer than anybody reads, the text at its start."""
    data = memoryview(raw)
    if len(data) <= _JSON_LIMIT:
        return msgspec.json.decode(raw)
    start = bytes(data[: _KEPT_LIMIT * _ESCAPED_BYTES])
    if start.startswith(b'"'):
        for end in range(len(start), len(start) - _ESCAPED_BYTES, -1):  # not inside of a character
            try:
                return msgspec.json.decode(start[:end] + b'"', type=str)
            except NOT_JSON:
                pass
    return start.decode("utf-8", "replace")


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
    text = _text(found["error"])
    signin_url = found.get("signin_url")
    if not isinstance(signin_url, str) or len(signin_url) > _KEPT_LIMIT:
        signin_url = None
    if signin_url is not None:  # also in the middle of a stream
        cls: type[ResponseError] = AuthorizationError
    else:
        cls = _class_of(status, text, found["error"], request)
    return _build(cls, text, status, headers or {}, request, signin_url)


def _class_of(status: int, text: str, error: object, request: str) -> type[ResponseError]:
    """The class for what an error is about, which its status alone does not say."""
    if status == HTTPStatus.NOT_FOUND and not _is_about_model(text, error, request):
        return ResponseError
    if (
        status == HTTPStatus.SERVICE_UNAVAILABLE
        and "account" in text
        and re.match(_ACCOUNT, request)
    ):
        return ResponseError  # ollama.com cannot be reached: no queue is full
    return _CLASSES.get(status, ResponseError)


def _is_about_model(text: str, error: object, request: str) -> bool:
    """Whether a 404 means that there is no such model, and not that there is no such path."""
    asked, _, own = request.partition(_OWN_MODEL)
    if not own and re.match(_NO_MODEL, asked):
        return False
    if isinstance(error, dict):
        details = cast("dict[str, Any]", error)
        if details.get("param") == "model" or details.get("code") == "model_not_found":
            return True
    text = text[:_KEPT_LIMIT]
    if len(own) > 2:  # it can have any words in it
        name = re.escape(own[1:-1])
        text = re.sub(rf"([`'\"]){name}\1", "'X'", text)
        shown = "" if re.fullmatch(_WORDS_OF_PLACES, own[1:-1]) else "X"
        text = re.sub(rf"(?<![\w/.-]){name}(?![\w/])", shown, text)
        text = re.sub(rf"(?<!\w){name}(?!\w)", "", text)
    path = asked.partition(" ")[2]
    if (path and path in text) or re.search(_PLACE, text):
        return False
    return bool(own) or re.search(_MODEL, text) is not None


def _build(
    cls: type[ResponseError],
    text: str,
    status: int,
    headers: Mapping[str, str],
    request: str,
    signin_url: str | None = None,
) -> ResponseError:
    if not text:
        text = _phrase(status) if status >= 400 else "an error without a text"
    error = cls(error=_cut(text, _KEPT_LIMIT), status_code=status, request=request)
    shown = printable(text)
    message = shown if shown.startswith("HTTP ") else f"{shown} (HTTP {status})"
    error.retry_after = _retry_after(headers.get("retry-after"))
    if error.retry_after is not None:
        message += f"; ask again in {error.retry_after:g} s"
    if isinstance(error, AuthorizationError) and signin_url is not None:
        error.signin_url = signin_url
        message += f"; sign in at {printable(signin_url)}"
    elif (
        isinstance(error, ModelNotFoundError)
        and "pull" not in text
        and re.match(_USES_MODEL, request.partition(_OWN_MODEL)[0])
    ):
        message += "; pull it first"
    error.args = (message,)
    return error


def printable(text: str) -> str:
    """The start of a server's text, without what would steer a terminal."""
    cut = _cut(text, _TEXT_LIMIT)
    shown = "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1]
        for character in cut
    )
    return _cut(shown, _TEXT_LIMIT) if len(shown) > len(cut) else shown


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + "…"


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
    """What a body that is no JSON object says, on one line: a page's title, or its text.

    Each search goes forward alone: a hostile page must not cost the square of its length.
    """
    text = body[:20_000].decode("utf-8", "replace")
    if "<" in text:
        title = _title(text)
        text = re.sub(r"<[^<>]*>", " ", text) if title is None else title
        import html  # noqa: PLC0415 - its table of entities is large, and pages are rare

        # Shortened first, because a number of thousands of digits makes it raise.
        text = html.unescape(" ".join(text.split())[: 2 * _TEXT_LIMIT])
    return _cut(" ".join(text.split()), _TEXT_LIMIT)


def _title(page: str) -> str | None:
    opened = re.search(r"(?i)<title[\s>]", page)
    if opened is None:
        return None
    start = page.find(">", opened.end() - 1) + 1
    closed = re.compile(r"(?i)</title").search(page, start) if start else None
    return page[start : closed.start()] if closed else None


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
