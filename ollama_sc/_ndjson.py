"""Bytes into lines into typed objects. No I/O.

`decode_reply` reads one JSON reply, `LineDecoder` a stream of them, one object a line. Both accept
what the API's clients must accept: unknown fields, `null` for a field that could be absent, an
``{"error": ...}`` object anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from types import NoneType
from typing import Any, Generic, TypeVar, cast

import msgspec

from ._errors import OllamaError, ProtocolError
from ._server_errors import NOT_JSON, error_object

T = TypeVar("T")

EXCERPT_BYTES = 200
_LONG = 4096
_FEW_QUOTES = 32
# The API has fewer; those of a user who makes them at run time must not stay for ever.
_MANY_TYPES = 256
# Objects whose keys are not the API's: a null in there is a value.
_FREE_FORM = {"arguments", "model_info", "projector_info", "_debug_info"}


def decode_reply(type_: type[T], body: bytes, *, status: int, request: str) -> T:
    """One whole JSON reply.

    Raises:
        ResponseError: it is an error object, whatever the status.
        ProtocolError: it is no JSON, or not of that type.
    """
    if not body.strip():
        if type_ is NoneType:
            return cast("T", None)
        raise not_the_api("the reply is empty", body, request)
    if mentions_error(body):
        _raise_error_object(body, status, request)
    return _decode(type_, body, request)


def mentions_error(data: bytes) -> bool:
    """Whether there could be an error object in it.

    In vectors, which are long and have few quotes, it is faster to look at each of these.
    """
    start = 0
    if len(data) > _LONG:
        for _ in range(_FEW_QUOTES):
            start = data.find(b'"', start)
            if start < 0:
                return False
            if data.startswith(b'"error"', start):
                return True
            start += 1
    return data.rfind(b'"error"', start) >= 0  # twice as fast as `in`


def _raise_error_object(data: bytes, status: int, request: str) -> None:
    try:
        found: Any = msgspec.json.decode(data)
    except NOT_JSON:
        return
    if isinstance(found, dict) and cast("dict[str, Any]", found).get("error") is not None:
        raise error_object(cast("dict[str, Any]", found), status, request=request)


@lru_cache(_MANY_TYPES)
def _decoder(type_: object) -> msgspec.json.Decoder[Any]:
    """The one decoder of a type: building one costs a hundred times what using it does."""
    return msgspec.json.Decoder(type_)


def check_type(type_: object) -> None:
    """Raise TypeError for a type that nothing can be read into."""
    if type_ is not None:
        _decoder(type_)


def _decode(type_: type[T], data: bytes, request: str) -> T:
    try:
        return cast("T", _decoder(cast("object", type_)).decode(data))
    except msgspec.ValidationError as error:
        try:
            return msgspec.convert(_without_nulls(msgspec.json.decode(data)), type_)
        except NOT_JSON:
            raise not_the_api(f"not a reply of the API ({error})", data, request) from error
    except NOT_JSON as error:
        raise not_the_api(f"not JSON ({error})", data, request) from error


def _without_nulls(value: Any) -> Any:
    """A null where the API has a value means the same as nothing at all."""
    if isinstance(value, dict):
        pairs = cast("dict[str, Any]", value).items()
        return {
            key: item if key in _FREE_FORM else _without_nulls(item)
            for key, item in pairs
            if item is not None
        }
    if isinstance(value, list):
        return [_without_nulls(item) for item in cast("list[Any]", value)]
    return value


def not_the_api(what: str, data: bytes, request: str) -> ProtocolError:
    """An error that shows how the offending bytes begin."""
    excerpt = bytes(data[:EXCERPT_BYTES])
    shown = excerpt.decode("utf-8", "backslashreplace")
    return ProtocolError(f"{what}: {shown!r}", excerpt=excerpt, request=request)


class LineDecoder(Generic[T]):
    r"""A stream's bytes into its parts.

    Lines end at ``\n`` and nothing else; blank ones are skipped; the last one needs no ``\n``.

    Attributes:
        complete: whether the terminal object has come. What follows it is ignored.
        surplus: whether anything did follow it.
        error: what is wrong with the line after the parts that were returned last.
    """

    def __init__(
        self,
        type_: type[T],
        is_terminal: Callable[[T], bool],
        *,
        max_line_bytes: int,
        status: int,
        request: str,
    ) -> None:
        self.complete = False
        self.surplus = False
        self.error: OllamaError | None = None
        self._type = type_
        self._decode_lines: Callable[[bytes], list[T]] = _decoder(
            cast("object", type_)
        ).decode_lines
        self._is_terminal = is_terminal
        self._max_line_bytes = max_line_bytes
        self._status = status
        self._request = request
        # The line that has no end yet, in the pieces that it came in: joining it at each piece
        # would cost the square of its length.
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[T]:
        """The parts that these bytes complete; see `error` after each call."""
        if self.complete:
            self.surplus = self.surplus or bool(data.strip())
            return []
        end = data.rfind(b"\n") + 1
        parts: list[T] = []
        if end:
            block = data if end == len(data) else data[:end]
            if self._pieces:
                self._pieces.append(block)
                block = b"".join(self._pieces)
                self._pieces.clear()
                self._size = 0
            parts = self._parts(block)
        if end != len(data) and self.error is None:
            rest = data[end:] if end else data
            if self.complete:
                self.surplus = self.surplus or bool(rest.strip())
            else:
                self._keep(rest)
        return parts

    def finish(self, *, cut: bool) -> list[T]:
        """The part that the end of the stream completes.

        `cut` says that the connection broke: then half a line is just that, and no error of its
        own. So is half a JSON object anywhere.
        """
        block = b"".join(self._pieces)
        self._pieces.clear()
        if self.complete or not block.strip():
            return []
        parts = self._parts(block)
        if isinstance(self.error, ProtocolError) and (cut or _is_truncated(block)):
            self.error = None
        return parts

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        self._pieces.append(piece)
        if self._size > self._max_line_bytes:
            self.error = self._too_long(self._pieces[0])
            self._pieces.clear()

    def _too_long(self, line: bytes) -> ProtocolError:
        what = f"a line is longer than {self._max_line_bytes} bytes"
        return not_the_api(what, line, self._request)

    def _parts(self, block: bytes) -> list[T]:
        if not mentions_error(block) and len(block) <= self._max_line_bytes:
            try:
                parts = self._decode_lines(block)
            except NOT_JSON:
                parts = []  # one bad line fails them all: find it
            # It takes an object for an object, wherever lines end: count them.
            if len(parts) == block.count(b"\n") + (not block.endswith(b"\n")):
                ends = [*map(self._is_terminal, parts)]
                if True not in ends:
                    return parts
                number = ends.index(True) + 1
                self.complete = True
                self.surplus = number < len(parts)
                return parts[:number]
        return self._parts_one_by_one(block)

    def _parts_one_by_one(self, block: bytes) -> list[T]:
        parts: list[T] = []
        lines = [line for line in block.split(b"\n") if line.strip()]
        for number, line in enumerate(lines, 1):
            if len(line) > self._max_line_bytes:
                self.error = self._too_long(line)
                break
            try:
                part = decode_reply(self._type, line, status=self._status, request=self._request)
            except OllamaError as error:
                self.error = error
                break
            parts.append(part)
            if self._is_terminal(part):
                self.complete = True
                self.surplus = number < len(lines)
                break
        return parts


def _is_truncated(data: bytes) -> bool:
    """Whether more bytes could have made JSON of it."""
    try:
        msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        text = str(error)
        at_its_end = text.endswith(f"(byte {len(data)})") and "trailing" not in text
        return at_its_end or "truncated" in text
    except UnicodeDecodeError:
        return True
    except RecursionError:
        return False
    return False
