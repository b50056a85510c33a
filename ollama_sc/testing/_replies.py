"""`Reply`, a response and its faults, and `Message`, a response before it is framed."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from ollama_sc.testing._go import gojson

JSON = "application/json; charset=utf-8"
NDJSON = "application/x-ndjson"
BUSY = "server busy, please try again.  maximum pending requests exceeded"

# ---------------------------------------------------------------------------------------------
# What a reply contains


@dataclass(frozen=True, slots=True)
class Body:
    """A body of a known length."""

    data: bytes
    content_type: str | None


@dataclass(frozen=True, slots=True)
class Lines:
    """A stream; each part is flushed separately."""

    parts: tuple[bytes, ...]
    content_type: str


@dataclass(frozen=True, slots=True)
class Raw:
    """The literal bytes of the whole response."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Generated:
    """Scripted model output; the endpoint turns it into a stream or a single object.

    Fields that are None are filled with the output that the model generates by default.
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
    r"""A response and its faults.

    Made by the class methods; `replace()` adds faults. Offsets count bytes of the complete raw
    response, status line and headers included. Faults combine; of several that end the response
    the first one applies.

    Attributes:
        status: The HTTP status.
        headers: Further headers; a `Content-Type` replaces the reply's own.
        delay: Seconds of silence before the headers.
        rate: Lines per second of a stream. None: the server's `token_rate`.
        cut_at: Close cleanly (FIN) after this many bytes.
        reset_at: Send RST after this many bytes.
        stall_at: After this many bytes send nothing more, until the client disconnects.
        cut_after: Close cleanly after this many lines of a stream (0: after the headers).
        reset_after: Send RST after this many lines.
        stall_after: After this many lines send nothing more, until the client disconnects.
        drip: Seconds between single bytes. 0: one byte per send, without a pause.
        split_at: Offsets at which the response is split; each piece is one send, and the response
            is split nowhere else. `()` sends as much as possible at once.
        flush: False sends several lines of a stream at once.
        keep_alive: False sends `Connection: close` and closes. None: as the request says; after
            `Reply.raw` the connection is closed.
        chunked: True or False forces chunked encoding on or off; a stream that is not chunked
            ends with the connection.
        trailing: Bytes after the end of the HTTP message.
        early: Reply as soon as the request's headers have been received, read nothing more of its
            body, and close the connection after the reply. As nothing is read, only a failed send
            reveals that the client has disconnected.

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

    def replace(self, **faults: Any) -> "Reply":
        """A copy with other fields, such as `replace(cut_at=100)`."""
        return dataclasses.replace(self, **faults)

    def but(self, **faults: Any) -> "Reply":
        """The older name of `replace`."""
        return self.replace(**faults)

    @classmethod
    def default(cls, **faults: Any) -> "Reply":
        """The endpoint's own response, with faults."""
        return cls(**faults)

    @classmethod
    def json(
        cls, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> "Reply":
        """One JSON value."""
        body = Body(gojson.encode(value), JSON)
        return cls(content=body, status=status, headers=headers or {})

    @classmethod
    def error(
        cls,
        status: int,
        text: object,
        headers: Mapping[str, str] | None = None,
        **extra: object,
    ) -> "Reply":
        """An error object; `extra` are further fields, such as `signin_url`."""
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
        r"""One line per object; a bytes object is the literal line without its `\n`."""
        lines = [item if isinstance(item, bytes) else gojson.encode(item) for item in objects]
        parts = [line + b"\n" for line in lines]
        if parts and not newline_at_end:
            parts[-1] = lines[-1]
        content = Lines(tuple(parts), content_type)
        return cls(content=content, status=status, headers=headers or {})

    @classmethod
    def text(
        cls, text: str, status: int = 200, content_type: str = "text/plain; charset=utf-8"
    ) -> "Reply":
        """A body that is not JSON."""
        return cls(content=Body(text.encode(), content_type), status=status)

    @classmethod
    def html(cls, status: int = 200) -> "Reply":
        """A page of a proxy in front of the server, such as one to sign in at.

        With a status such as 502 it is an error page.
        """
        page = (
            f"<html>\r\n<head><title>{status}</title></head>\r\n"
            f"<body><h1>{status} from a proxy</h1></body>\r\n</html>\r\n"
        )
        return cls.text(page, status, "text/html")

    @classmethod
    def empty(cls, status: int = 200) -> "Reply":
        """No body and no content type, as in the 403 for a foreign ``Host``."""
        return cls(content=Body(b"", None), status=status)

    @classmethod
    def raw(cls, data: bytes) -> "Reply":
        """The literal bytes of the whole response; then the connection is closed.

        Without CORS headers of its own it cannot be read by a page of another origin.
        """
        return cls(content=Raw(data))

    @classmethod
    def silence(cls) -> "Reply":
        """Not a single byte, until the client disconnects."""
        return cls(content="silence")

    @classmethod
    def endless_line(cls) -> "Reply":
        """A stream whose first line never ends, sent as fast as the client reads."""
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
        """The model's output for a chat or generate request.

        The endpoint sends it as a stream or a single object, as the request asks. The request is
        validated as usual, so an invalid one draws its error.

        Args:
            tokens: The content, token by token; a string is split at its spaces. None: the
                synthetic text, or nothing if there are tool calls. As in the real server, more
                than 31 identical tokens in a row end the reply after the 31st, with status 200
                and without `done`.
            thinking: The same for the thinking. None: the model's default.
            tool_calls: `{"name": ..., "arguments": {...}}` each, `id` is optional; or the whole
                object as the API has it, with `function`.
            calls_at_end: The calls are in the final object, not in a separate one before it.
            done_reason: None: `stop`, or `length` if `num_predict` truncated the text.

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
# What an endpoint returns to the connection


class Source(Protocol):
    """Parts of a stream that are produced while it is sent."""

    async def next(self) -> bytes | None:
        """The next part; None at the end."""
        ...

    async def aclose(self) -> None:
        """Abandon the remaining parts; does not block."""
        ...


@dataclass(slots=True)
class Message:
    """A response before framing.

    Attributes:
        parts: The body. In a stream each part is one line, flushed separately.
        stream: Whether the parts are paced and chunked.
        chunked: None: chunked for streams and for bodies above 2 KiB.
        rate: Parts per second.
        delay: Seconds before the headers.
        raw: The parts are the whole response, headers included.
        source: What follows the parts of a stream; the owner of the message closes it.
        keep_alive: Of a raw message: whether the connection lives on where the reply does not say.

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
    keep_alive: bool = False


def json_message(value: object, status: int = 200) -> Message:
    """A message with one JSON value."""
    return Message(status, JSON, (gojson.encode(value),))


def api_error_message(
    status: int, body: Mapping[str, object], headers: Mapping[str, str], content_type: str
) -> Message:
    """A message with an error object."""
    return Message(status, content_type, (gojson.encode(body),), headers)


def _endless() -> Iterator[bytes]:
    yield b'{"model":"fake","created_at":"2026-08-01T10:20:30Z","response":"'
    while True:
        yield b"a" * 16384


def message_of(reply: Reply) -> Message:
    """The message for a reply whose content does not depend on the request."""
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
