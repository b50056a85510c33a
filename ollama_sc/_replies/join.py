"""The parts of a streamed reply joined into one.

A `Shape` is all that a stream has to know of the objects it carries. Only text fragments and the
last part are kept, not the parts themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from ollama_sc._wire_object import WireObject, extras, public_type, with_extras
from ollama_sc.types import (
    ChatResponse,
    GenerateResponse,
    Logprob,
    Message,
    ProgressResponse,
    ToolCall,
)

from .open_types import plain_chat

T = TypeVar("T")
R = TypeVar("R")

# A value that the last part leaves blank is one of the first or last parts': looking at each for it
# would make every part dearer. What no plain part of a chat has is looked for in the others.
_MANY = 4
_BLANK: tuple[Any, ...] = (None, "")

_REPEATS = (
    ", though nothing broke: maybe the server noticed that the text repeats itself, and gave up. "
    "At temperature 0 it will again: try a higher temperature or repeat_penalty"
)


class Joiner(Protocol[T]):
    """Gathers parts as they arrive."""

    def add(self, parts: list[T]) -> None:
        """Take note of parts that arrived."""
        ...

    def result(self) -> T:
        """What has been noted so far, as one reply."""
        ...

    @property
    def last(self) -> T | None:
        """The last part, if there is any."""
        ...


class StreamSpec(Struct, Generic[T], frozen=True):
    """What a stream carries: its type, what ends it, the text in a part, how parts are joined.

    What `is_terminal` finds ends a stream; what `is_whole` finds alone is a reply if the message
    ends there. `says_done` is whether a reply in one piece that does not say `done` is one.
    """

    type: type[T]
    is_terminal: Callable[[T], bool]
    text: Callable[[T], str]
    joiner: Callable[[], Joiner[T]]
    is_whole: Callable[[T], bool] = attrgetter("complete")
    says_done: bool = True

    def why_incomplete(self, partial: T) -> str:
        """What it may mean that a server ended its reply in good order, and did not say `done`."""
        said = self.text(partial) or getattr(getattr(partial, "message", partial), "thinking", "")
        return _REPEATS if self.says_done and said else ""


class _Ends(Generic[R]):
    """Keeps the parts at a stream's two ends: what an earlier one says and a later leaves blank."""

    __slots__ = ("_ends",)

    def __init__(self) -> None:
        self._ends: list[R] = []

    @property
    def last(self) -> R | None:
        """The last part, if there is any."""
        return self._ends[-1] if self._ends else None

    def _fill(self, whole: WireObject, path: str = "") -> dict[str, Any]:
        """The values of what is blank in the last part's object at this path, by attribute."""
        found: dict[str, Any] = {}
        for name in public_type(type(whole)).__struct_fields__:
            if getattr(whole, name) in _BLANK:
                values: list[Any] = [*map(_getter(path + name), self._ends)]
                given = [value for value in values if value not in _BLANK]
                if given:
                    found[name] = given[-1]
        return found


@lru_cache
def _getter(path: str) -> attrgetter[Any]:
    return attrgetter(path)


class _Rare:
    """What few chats have."""

    def __init__(self) -> None:
        self.extra: dict[str, Any] = {}
        self.remote: dict[str, str | None] = {}
        self.tool: dict[str, str | None] = {}
        self.images: list[Any] = []
        self.logprobs: list[Logprob] = []

    def add(self, parts: list[ChatResponse[Any]]) -> None:
        for part in parts:
            message = part.message
            if message.images:
                self.images += message.images
            if part.logprobs:
                self.logprobs += part.logprobs
            if type(message).__extra__:
                self.extra |= extras(message)
            if part.remote_model:
                self.remote["remote_model"] = part.remote_model
            if part.remote_host:
                self.remote["remote_host"] = part.remote_host
            if message.tool_name:
                self.tool["tool_name"] = message.tool_name
            if message.tool_call_id:
                self.tool["tool_call_id"] = message.tool_call_id


class ChatJoiner(_Ends[ChatResponse[Any]]):
    """Joins the parts of a chat."""

    __slots__ = ("_content", "_rare", "_thinking", "_tool_calls")

    def __init__(self) -> None:
        super().__init__()
        self._rare: _Rare | None = None
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._tool_calls: list[ToolCall] = []

    def add(self, parts: list[ChatResponse[Any]]) -> None:
        """Take note of parts that arrived."""
        for part in parts:
            message = part.message
            if content := message.content:
                self._content.append(content)
            if message.thinking:
                self._thinking.append(message.thinking)
            if message.tool_calls:
                self._tool_calls += message.tool_calls
        self._ends += parts
        del self._ends[_MANY:-_MANY]
        # A stream's plain parts come before all others, if there are any: see `LineDecoder`.
        if parts and type(parts[-1]) is not plain_chat():
            if self._rare is None:
                self._rare = _Rare()
            self._rare.add(parts)

    def result(self) -> ChatResponse[Any]:
        """One reply with the whole text, and of all else what was said last."""
        last = self.last or ChatResponse[Any](message=Message("assistant"))
        rare = self._rare or _Rare()
        values: dict[str, Any] = {
            name: getattr(last.message, name) for name in Message.__struct_fields__
        }
        values |= self._fill(last.message, "message.")
        values |= rare.tool
        values |= {
            "content": "".join(self._content),
            "thinking": "".join(self._thinking) or None,
            "tool_calls": list(self._tool_calls) or None,
            "images": list(rare.images) or None,
        }
        filled = self._fill(last)
        return replace(
            last,
            **filled
            | rare.remote
            | {
                "message": with_extras(Message, values, rare.extra),
                "logprobs": list(rare.logprobs) or None,
            },
        )


class GenerateJoiner(_Ends[GenerateResponse[Any]]):
    """Joins the parts of a generated text."""

    def __init__(self) -> None:
        super().__init__()
        self._response: list[str] = []
        self._thinking: list[str] = []
        self._tool_calls: list[ToolCall] = []
        self._logprobs: list[Logprob] = []

    def add(self, parts: list[GenerateResponse[Any]]) -> None:
        """Take note of parts that arrived."""
        for part in parts:
            if part.response:
                self._response.append(part.response)
            if part.thinking:
                self._thinking.append(part.thinking)
            if part.tool_calls:
                self._tool_calls += part.tool_calls
            if part.logprobs:
                self._logprobs += part.logprobs
        self._ends += parts
        del self._ends[_MANY:-_MANY]

    def result(self) -> GenerateResponse[Any]:
        """One reply with the whole text, and of all else what was said last."""
        last = self.last or GenerateResponse[Any](response="")
        filled = self._fill(last)
        return replace(
            last,
            **filled
            | {
                "response": "".join(self._response),
                "thinking": "".join(self._thinking) or None,
                "tool_calls": list(self._tool_calls) or None,
                "logprobs": list(self._logprobs) or None,
            },
        )


class ProgressJoiner:
    """Joins the parts of a transfer: the last part of each layer, added up."""

    def __init__(self) -> None:
        self._layers: dict[str, ProgressResponse] = {}
        self.last = ProgressResponse(status="")

    def add(self, parts: list[ProgressResponse]) -> None:
        """Take note of parts that arrived."""
        for part in parts:
            if part.digest is not None:
                self._layers[part.digest] = part
        if parts:
            self.last = parts[-1]

    def result(self) -> ProgressResponse:
        """The last status, with the bytes of all layers that were mentioned."""
        layers = self._layers.values()
        return ProgressResponse(
            status=self.last.status,
            total=sum(layer.total or 0 for layer in layers) or None,
            completed=sum(layer.completed or 0 for layer in layers) or None,
        )


CHAT = StreamSpec[ChatResponse[Any]](
    ChatResponse, attrgetter("done"), attrgetter("message.content"), ChatJoiner
)
GENERATE = StreamSpec[GenerateResponse[Any]](
    GenerateResponse, attrgetter("done"), attrgetter("response"), GenerateJoiner
)
PROGRESS = StreamSpec[ProgressResponse](
    ProgressResponse,
    attrgetter("complete"),
    attrgetter("status"),
    ProgressJoiner,
    says_done=False,
)
