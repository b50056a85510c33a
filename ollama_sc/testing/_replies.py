"""What is sent and how it breaks: `Reply`; knows neither sockets nor endpoints."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from ollama_sc.testing import _gojson

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
BUSY = "server busy, please try again.  maximum pending requests exceeded"

# ---------------------------------------------------------------------------------------------
# What a reply contains


@dataclass(frozen=True, slots=True)
class Body:
    """One body, sent at once."""

    data: bytes
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Lines:
    """A stream; each part is flushed on its own."""

    parts: tuple[bytes, ...]
    content_type: str


@dataclass(frozen=True, slots=True)
class Raw:
    """The literal bytes of the whole response."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Generated:
    """What the model says; the endpoint makes a stream or a single object of it.

    Fields that are None are filled with what the endpoint would have said by itself.
    """

    tokens: tuple[str, ...] | None = None
    thinking: tuple[str, ...] | None = None
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    calls_at_end: bool = False
    done_reason: str | None = None


Content = Body | Lines | Raw | Generated | Literal["silence", "endless", "default"]

# ---------------------------------------------------------------------------------------------
# The reply


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    r"""A reply and the ways in which it breaks.

    Made by the class methods; `but()` adds faults. Offsets count bytes of the complete raw
    response, status line and headers included. Faults combine; of several ends the first counts.

    Attributes:
        status: The HTTP status.
        headers: Further headers; a `Content-Type` replaces the reply's own.
        delay: Seconds of silence before the headers.
        rate: Lines a second of a stream. None: the server's `token_rate`.
        cut_at: Close cleanly (FIN) after this many bytes.
        reset_at: Send RST after this many bytes.
        stall_at: After this many bytes silence, until the client leaves.
        cut_after: Close cleanly after this many lines of a stream (0: after the headers).
        reset_after: Send RST after this many lines.
        stall_after: After this many lines silence, until the client leaves.
        drip: Seconds between single bytes. 0: one byte a send, without waiting.
        split_at: Offsets at which the response is divided; each piece is a send of its own and
            nothing else divides it. `()` sends as much as possible at once.
        flush: False sends several lines of a stream at once.
        keep_alive: False sends `Connection: close` and closes. None: as the request asks, but
            after `Reply.raw` the connection is closed.
        chunked: True or False forces chunked encoding on or off; a stream that is not chunked
            ends with the connection.
        trailing: Bytes after the end of the HTTP message.
        early: Answer as soon as the request's headers have come, read nothing more of its body,
            and close the connection after the reply. As nothing is read, a client that leaves is
            only noticed by sending to it.

    """

    content: Content = "default"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay: float = 0.0
    rate: float | None = None
    cut_at: int | None = None
    reset_at: int | None = None
    stall_at: int | None = None
    cut_after: int | None = None
    reset_after: int | None = None
    stall_after: int | None = None
    drip: float | None = None
    split_at: Sequence[int] | None = None
    flush: bool = True
    keep_alive: bool | None = None
    chunked: bool | None = None
    trailing: bytes = b""
    early: bool = False

    def but(self, **faults: Any) -> "Reply":
        """The same reply with other fields, such as `but(cut_at=100)`."""
        return replace(self, **faults)

    @classmethod
    def default(cls, **faults: Any) -> "Reply":
        """What the endpoint would answer by itself, with faults."""
        return cls(**faults)

    @classmethod
    def json(
        cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> "Reply":
        """One JSON value."""
        body = Body(_gojson.encode(value), JSON)
        return cls(content=body, status=status, headers=headers or {})

    @classmethod
    def error(
        cls,
        status: int,
        text: object,
        headers: Mapping[str, str] | None = None,
        **extra: object,
    ) -> "Reply":
        """An error object; `extra` are more of its fields, such as `signin_url`."""
        return cls.json({"error": text, **extra}, status, headers)

    @classmethod
    def busy(cls) -> "Reply":
        """The 503 of a server whose queue is full."""
        return cls.error(503, BUSY)

    @classmethod
    def stream(
        cls,
        objects: Iterable[object],
        status: int = 200,
        *,
        newline_at_end: bool = True,
        content_type: str = NDJSON,
        headers: Mapping[str, str] | None = None,
    ) -> "Reply":
        r"""One line for each object; a bytes object is the literal line, `\n` is added."""
        lines = [item if isinstance(item, bytes) else _gojson.encode(item) for item in objects]
        parts = [line + b"\n" for line in lines]
        if parts and not newline_at_end:
            parts[-1] = lines[-1]
        content = Lines(tuple(parts), content_type)
        return cls(content=content, status=status, headers=headers or {})

    @classmethod
    def text(
        cls, text: str, status: int = 200, content_type: str = "text/plain; charset=utf-8"
    ) -> "Reply":
        """A body that is no JSON."""
        return cls(content=Body(text.encode(), content_type), status=status)

    @classmethod
    def html(cls, status: int = 502) -> "Reply":
        """The page of a proxy before the server."""
        page = (
            f"<html>\r\n<head><title>{status}</title></head>\r\n"
            f"<body><h1>{status} from a proxy</h1></body>\r\n</html>\r\n"
        )
        return cls.text(page, status, "text/html")

    @classmethod
    def empty(cls, status: int = 200) -> "Reply":
        """No body and no content type, such as the 403 for a foreign `Host`."""
        return cls(content=Body(b"", None), status=status)

    @classmethod
    def raw(cls, data: bytes) -> "Reply":
        """Literal bytes of the whole response, nothing added; then the connection is closed."""
        return cls(content=Raw(data))

    @classmethod
    def silence(cls) -> "Reply":
        """No byte, ever."""
        return cls(content="silence")

    @classmethod
    def endless_line(cls) -> "Reply":
        """A stream whose first line never ends, as fast as the client reads."""
        return cls(content="endless")

    @classmethod
    def chat_text(
        cls,
        tokens: str | Iterable[str] | None = None,
        *,
        thinking: str | Iterable[str] | None = None,
        tool_calls: Iterable[Mapping[str, Any]] = (),
        calls_at_end: bool = False,
        done_reason: str | None = None,
    ) -> "Reply":
        """What the model says to a chat or generate request.

        The endpoint makes it a stream or a single object, as the request asks. The request is
        checked as always, so that a wrong one draws its error.

        Args:
            tokens: The answer, token by token; a string is divided at its spaces. None: the
                synthetic text, or nothing where there are tool calls.
            thinking: The same for the thinking. None: as the model does by itself.
            tool_calls: `{"name": ..., "arguments": {...}}` each, `id` if wanted; or the whole
                object of the wire, with `function`.
            calls_at_end: The calls come in the final object, not in one of their own before it.
            done_reason: None: `stop`, or `length` where `num_predict` cut the text.

        """
        content = Generated(
            tokens=_divide(tokens),
            thinking=_divide(thinking),
            tool_calls=tuple(tool_calls),
            calls_at_end=calls_at_end,
            done_reason=done_reason,
        )
        return cls(content=content)


def _divide(text: str | Iterable[str] | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    if not isinstance(text, str):
        return tuple(text)
    words = text.split(" ")
    return tuple(part for part in (words[0], *(" " + word for word in words[1:])) if part)


# ---------------------------------------------------------------------------------------------
# What an endpoint hands to the server


class Source(Protocol):
    """Parts of a stream that become known with time."""

    async def next(self) -> bytes | None:
        """The next part; None at the end."""
        ...

    async def aclose(self) -> None:
        """Nobody wants more of it; does not wait."""
        ...


@dataclass(slots=True)
class Message:
    """A response before framing.

    Attributes:
        parts: The body. For a stream each part is one line, flushed on its own.
        stream: Whether parts are paced and chunked.
        chunked: None: chunked for streams and for bodies above 2 KiB.
        rate: Parts a second.
        delay: Seconds before the headers.
        raw: The parts are the whole response, headers included.
        source: What follows the parts of a stream; who has the message closes it.

    """

    status: int
    content_type: str | None
    parts: Iterable[bytes]
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    stream: bool = False
    chunked: bool | None = None
    rate: float | None = None
    delay: float = 0.0
    raw: bool = False
    source: Source | None = None


def json_message(value: object, status: int = 200) -> Message:
    """A message of one JSON value."""
    return Message(status, JSON, (_gojson.encode(value),))


def api_error_message(
    status: int, body: Mapping[str, object], headers: Mapping[str, str], content_type: str
) -> Message:
    """A message with an error object."""
    return Message(status, content_type, (_gojson.encode(body),), headers)


def _endless() -> Iterator[bytes]:
    yield b'{"model":"fake","created_at":"2026-08-01T10:20:30Z","response":"'
    while True:
        yield b"a" * 16384


def message_of(reply: Reply) -> Message:
    """The message of a reply whose content does not depend on the request."""
    content = reply.content
    if isinstance(content, Body):
        return Message(reply.status, content.content_type, (content.data,), reply.headers)
    if isinstance(content, Lines):
        return Message(
            reply.status, content.content_type, content.parts, reply.headers, stream=True
        )
    if isinstance(content, Raw):
        return Message(reply.status, None, (content.data,), raw=True)
    if content == "endless":
        return Message(reply.status, NDJSON, _endless(), reply.headers, stream=True)
    raise ValueError(f"the reply needs an endpoint: {reply!r}")
