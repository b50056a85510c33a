"""Bytes into lines into typed objects. No I/O.

`decode_reply` reads one JSON reply, `LineDecoder` a stream of them, one object a line. Both accept
what the API's clients must accept: unknown fields, `null` for a field that could be absent, an
``{"error": ...}`` object anywhere. What the decoder of a type refuses gets a second try, field by
field (`lenient`).
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Callable
from functools import cache, lru_cache
from types import GenericAlias, NoneType
from typing import Any, Generic, TypeVar, cast, get_origin

import msgspec

from ollama_sc._errors import OllamaError, ProtocolError
from ollama_sc._wire_object import WireObject
from ollama_sc.types import ChatResponse

from .errors import NOT_JSON, error_in, error_object
from .open_types import NO_KEYS, Keys, decoding_type, learn, plain_chat

T = TypeVar("T")

EXCERPT_BYTES = 200
_LONG = 32 * 1024
_FEW_QUOTES = 32
# A fragment takes some fifty bytes more than it has: so many small ones become one.
_MANY_FRAGMENTS = 256
# The API has fewer; those of a user who makes them at run time must not stay for ever.
_MANY_TYPES = 256
_MANY_STREAMS = 64
_MOST_LESSONS = 8
# Several lines that have more bytes are decoded one by one: together they would be copied twice.
_TOGETHER = 1024 * 1024
# Objects whose keys are not the API's: a null in there is a value.
_FREE_FORM = {"arguments", "model_info", "projector_info", "_debug_info"}


def decode_reply(type_: type[T], body: bytes, status: int, request: str) -> T:
    """One whole JSON reply, also behind the mark that some write before UTF-8.

    Raises:
        ResponseError: it is an error object, whatever the status.
        ProtocolError: it is no JSON, or not of that type.
    """
    return _decode_line(type_, body.removeprefix(BOM_UTF8), status, request)


def _decode_line(type_: type[T], body: bytes, status: int, request: str) -> T:
    raise_error_object(body, status, request)
    if type_ is NoneType and not body.lstrip().startswith(b"<"):
        return cast("T", None)  # the status says it all, whatever a server adds; but a page is none
    if not body.strip():
        raise protocol_error("the reply is empty", body, request)
    return _decode(type_, body, request)


def may_contain_error(data: bytes) -> bool:
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


def raise_error_object(body: bytes, status: int, request: str) -> None:
    """Raise `ResponseError` where a reply is an error object, whatever the status."""
    if may_contain_error(body):
        found = error_in(body)
        if found is not None and found["error"] is not None:
            raise error_object(found, status, request=request)


class _Done(msgspec.Struct):
    done: Any = None


def says_done(body: bytes) -> bool:
    """Whether a reply says that it is done, or that it is not."""
    try:
        return msgspec.json.decode(body, type=_Done).done is not None
    except NOT_JSON:
        return True


@lru_cache(_MANY_TYPES)
def _decoder(type_: object) -> msgspec.json.Decoder[Any]:
    """The one decoder of a type: building one costs a hundred times what using it does."""
    return msgspec.json.Decoder(decoding_type(type_))


class _Decoders:
    """Those for the lines of a block.

    Attributes:
        one: for a single line: what it has.
        many: for several, made into a JSON array (`_array`).
    """

    def __init__(self, type_: Any) -> None:
        self.one: Callable[[bytes], list[Any]] = msgspec.json.Decoder(type_).decode_lines
        list_type = GenericAlias(list, (type_,))
        self.many: Callable[[bytes], list[Any]] = msgspec.json.Decoder[Any](list_type).decode


@lru_cache(_MANY_STREAMS)
def _decoders(type_: object, keys: Keys = NO_KEYS) -> _Decoders:
    return _Decoders(decoding_type(type_, keys))


@cache
def _plain_chat() -> _Decoders:
    return _Decoders(plain_chat())


def _array(block: bytes) -> bytes:
    """Lines as the items of an array: blank ones, and two objects on one, are no JSON then.

    What stands on two lines is fewer items than there are newlines. Only a text that a bare newline
    breaks, beside two objects with a comma between them on one line of the same read, stays unseen.
    """
    return b"".join((b"[", block.removesuffix(b"\n").replace(b"\n", b","), b"]"))


def check_type(type_: object) -> None:
    """Raise TypeError for a type that nothing can be read into."""
    if type_ is not None:
        _decoder(type_)


def _decode(type_: type[T], data: bytes, request: str) -> T:
    try:
        return cast("T", _decoder(cast("object", type_)).decode(data))
    except NOT_JSON as error:
        try:
            return _decode_leniently(type_, data)
        except msgspec.ValidationError as why:
            raise protocol_error(f"not a reply of the API ({why})", data, request) from error
        except NOT_JSON as why:
            # What the type's decoder said first can be about a type.
            what = why if isinstance(error, msgspec.ValidationError) else error
            raise protocol_error(f"not JSON ({what})", data, request) from error


def _decode_leniently(type_: type[T], data: bytes) -> T:
    from .lenient import parse, read  # noqa: PLC0415 - servers mostly say what the API says

    found = parse(data)
    cls: Any = get_origin(type_) or type_
    if isinstance(cls, type) and issubclass(cls, WireObject):
        return cast("T", read(cls, found))
    return msgspec.convert(_without_nulls(found), type_)


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


def protocol_error(what: str, data: bytes, request: str) -> ProtocolError:
    """An error that shows how the offending bytes begin."""
    excerpt = bytes(data[:EXCERPT_BYTES])
    shown = excerpt.decode("utf-8", "backslashreplace")
    return ProtocolError(f"{what}: {shown!r}", excerpt=excerpt, request=request)


class LineDecoder(Generic[T]):
    r"""A stream's bytes into its parts.

    Lines end at ``\n`` and nothing else; blank ones are skipped; the last one needs no ``\n``.

    Attributes:
        complete: whether the terminal object has come. What follows it is ignored.
        trailing_data: whether anything did follow it.
        error: what is wrong with the line after the parts that were returned last.
    """

    __slots__ = (
        "_decode",
        "_fragments",
        "_is_terminal",
        "_joined",
        "_keys",
        "_lessons",
        "_max_line_bytes",
        "_request",
        "_short",
        "_size",
        "_status",
        "_type",
        "complete",
        "error",
        "trailing_data",
    )

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
        self.trailing_data = False
        self.error: OllamaError | None = None
        self._type = type_
        self._decode = _plain_chat() if type_ is ChatResponse else _decoders(cast("object", type_))
        self._is_terminal = is_terminal
        self._max_line_bytes = max_line_bytes
        self._short = min(max_line_bytes, _LONG)
        self._status = status
        self._request = request
        self._keys: Keys | None = None  # until something rare has come
        self._lessons = 0
        # The line that has no end yet, in the fragments that it came in: joining it at each
        # would cost the square of its length.
        self._fragments: list[bytes] = []
        self._joined = 0  # of these, each made of many
        self._size = 0

    def feed(self, data: bytes) -> list[T]:
        """The parts that these bytes complete; see `error` after each call."""
        # A model sends its tokens one by one: a line that comes alone is read in the fewest steps.
        if (
            data.find(b"\n") + 1 == len(data) <= self._short
            and not self._fragments
            and not self.complete
            and data.rfind(b'"error"') < 0
        ):
            try:
                parts = self._decode.one(data)
            except NOT_JSON:
                parts = []
            if len(parts) == 1:
                self.complete = self._is_terminal(parts[0])
                return parts
        if self.complete:
            self.trailing_data = self.trailing_data or bool(data.strip())
            return []
        end = data.rfind(b"\n") + 1
        parts = []
        if end:
            block = data if end == len(data) else data[:end]
            if self._fragments:
                self._fragments.append(block)
                block = b"".join(self._fragments)
                self._fragments.clear()
                self._size = self._joined = 0
            parts = self._parts(block)
        if end != len(data) and self.error is None:
            rest = data[end:] if end else data
            if self.complete:
                self.trailing_data = self.trailing_data or bool(rest.strip())
            else:
                self._keep(rest)
        return parts

    def finish(self, *, cut: bool) -> list[T]:
        """The part that the end of the stream completes.

        `cut` says that the connection broke: then half a line is just that, and no error of its
        own. So is half a JSON object anywhere.
        """
        block = b"".join(self._fragments)
        self._fragments.clear()
        if self.complete or not block.strip():
            return []
        parts = self._parts(block)
        if isinstance(self.error, ProtocolError) and (cut or is_truncated(block)):
            self.error = None
        return parts

    def _keep(self, fragment: bytes) -> None:
        self._size += len(fragment)
        self._fragments.append(fragment)
        if len(self._fragments) - self._joined > _MANY_FRAGMENTS:
            self._fragments[self._joined :] = [b"".join(self._fragments[self._joined :])]
            self._joined += 1
        if self._size > self._max_line_bytes:
            self.error = self._too_long(self._fragments[0])
            self._fragments.clear()

    def _too_long(self, line: bytes) -> ProtocolError:
        what = f"a line is longer than {self._max_line_bytes} bytes"
        return protocol_error(what, line, self._request)

    def _parts(self, block: bytes) -> list[T]:
        count = block.count(b"\n") + (not block.endswith(b"\n"))
        together = count == 1 or len(block) <= _TOGETHER
        if together and not may_contain_error(block) and len(block) <= self._max_line_bytes:
            try:
                parts = self._decode.one(block) if count == 1 else self._decode.many(_array(block))
            except NOT_JSON:
                parts = []  # one bad line fails them all: find it
            # An object could stand on two lines, or two on one: count them.
            if len(parts) == count:
                if True not in map(self._is_terminal, parts):
                    return parts
                number = [*map(self._is_terminal, parts)].index(True) + 1
                self.complete = True
                self.trailing_data = number < len(parts)
                return parts[:number]
        parts = self._parts_one_by_one(block)
        may_learn = together and self.error is None and not self.complete
        if may_learn and self._lessons < _MOST_LESSONS:
            self._learn(block)
        return parts

    def _learn(self, block: bytes) -> None:
        """Have the next blocks decoded with the rare fields and unknown keys that this one has.

        From here on no part is a plain one, as none of this block is.
        """
        from .lenient import parse  # noqa: PLC0415 - see above

        self._lessons += 1
        keys = self._keys or NO_KEYS
        for line in block.split(b"\n"):
            if line.strip():
                try:
                    keys = learn(keys, parse(line))
                except NOT_JSON:  # nested to the very limit
                    break
        if keys != self._keys:
            self._keys = keys
            self._decode = _decoders(cast("object", self._type), keys)

    def _parts_one_by_one(self, block: bytes) -> list[T]:
        parts: list[T] = []
        lines = [line for line in block.split(b"\n") if line.strip()]
        for number, line in enumerate(lines, 1):
            if len(line) > self._max_line_bytes:
                self.error = self._too_long(line)
                break
            try:
                part = _decode_line(self._type, line, self._status, self._request)
            except OllamaError as error:
                self.error = error
                break
            parts.append(part)
            if self._is_terminal(part):
                self.complete = True
                self.trailing_data = number < len(lines)
                break
        return parts


def is_truncated(data: bytes) -> bool:
    """Whether more bytes could have made JSON of it; also where a character is cut in two."""
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text = str(error)
        at_its_end = text.endswith(f"(byte {len(data)})") and "trailing" not in text
        return at_its_end or "truncated" in text or _ends_in_a_character(data)
    except RecursionError:
        return False
    return False


def _ends_in_a_character(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False
