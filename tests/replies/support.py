"""Lines of a stream and replies in one piece, decoded as a call's task does it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, NamedTuple

from ollama_sc import ChatResponse, OllamaError
from ollama_sc._replies.ndjson import LineDecoder, decode_reply

LABEL = "POST /api/chat, model 'x'"
LIMIT = 1_000_000


class Decoded(NamedTuple):
    """What a stream comes to: its parts, whether it is whole, and what is wrong with it."""

    parts: list[Any]
    complete: bool
    error: OllamaError | None

    @property
    def sight(self) -> tuple[Any, ...]:
        """What a consumer can tell apart."""
        return self.parts, self.complete, type(self.error), str(self.error)


def decoder(type_: type = ChatResponse, limit: int = LIMIT) -> LineDecoder[Any]:
    return LineDecoder(type_, attrgetter("done"), max_line_bytes=limit, status=200, request=LABEL)


def decode(
    blocks: Iterable[bytes], *, type_: type = ChatResponse, limit: int = LIMIT, cut: bool = False
) -> Decoded:
    """Feed blocks as a stream's task does: until the terminal object, an error, or the end."""
    lines = decoder(type_, limit)
    parts: list[Any] = []
    for block in [*blocks, None]:
        parts += lines.finish(cut=cut) if block is None else lines.feed(block)
        if lines.error is not None or lines.complete:
            break
    return Decoded(parts, lines.complete, lines.error)


def text(*pieces: str) -> list[str]:
    return list(pieces)


def contents(outcome: Decoded) -> list[str]:
    return [part.message.content for part in outcome.parts]


def part(content: str = "", *, done: bool = False, **message: object) -> bytes:
    body = {"role": "assistant", "content": content, **message}
    return json.dumps({"model": "x", "message": body, "done": done}, ensure_ascii=False).encode()


A, B, C = part("a"), part("b"), part("c")
DONE = part(done=True)
ERROR = b'{"error":"boom"}'


# Its arguments have a key "error", so it is no error, but has to be looked at.
HARMLESS = part("h", tool_calls=[{"function": {"name": "f", "arguments": {"error": "none"}}}])


def reply(type_: Any, body: bytes, status: int = 200) -> Any:
    return decode_reply(type_, body, status=status, request=LABEL)
