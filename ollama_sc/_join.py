"""The parts of a streamed reply joined into one.

A `Shape` is all that a stream has to know of the objects it carries. Only text fragments and the
last part are kept, not the parts themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from msgspec.structs import replace

from .types import ChatResponse, GenerateResponse, Logprob, Message, ProgressResponse, ToolCall

T = TypeVar("T")


class Joiner(Protocol[T]):
    """Gathers parts as they arrive."""

    def add(self, parts: list[T]) -> None:
        """Take note of parts that arrived."""
        ...

    def result(self) -> T:
        """What has been noted so far, as one reply."""
        ...


class Shape(NamedTuple, Generic[T]):
    """What a stream carries: its type, what ends it, the text in a part, how parts are joined."""

    type: type[T]
    is_terminal: Callable[[T], bool]
    text: Callable[[T], str]
    joiner: Callable[[], Joiner[T]]


class ChatJoiner:
    """Joins the parts of a chat."""

    def __init__(self) -> None:
        self._content: list[str] = []
        self._thinking: list[str] = []
        self._images: list[Any] = []
        self._tool_calls: list[ToolCall] = []
        self._logprobs: list[Logprob] = []
        self._last = ChatResponse[Any](message=Message("assistant"))

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
            if message.images:
                self._images += message.images
            if part.logprobs:
                self._logprobs += part.logprobs
        if parts:
            self._last = parts[-1]

    def result(self) -> ChatResponse[Any]:
        """One reply with the whole text, and the last part's metrics."""
        message = replace(
            self._last.message,
            content="".join(self._content),
            thinking="".join(self._thinking) or None,
            tool_calls=list(self._tool_calls) or None,
            images=list(self._images) or None,
        )
        return replace(self._last, message=message, logprobs=list(self._logprobs) or None)


class GenerateJoiner:
    """Joins the parts of a generated text."""

    def __init__(self) -> None:
        self._response: list[str] = []
        self._thinking: list[str] = []
        self._tool_calls: list[ToolCall] = []
        self._logprobs: list[Logprob] = []
        self._last = GenerateResponse[Any](response="")

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
        if parts:
            self._last = parts[-1]

    def result(self) -> GenerateResponse[Any]:
        """One reply with the whole text, and the last part's metrics."""
        return replace(
            self._last,
            response="".join(self._response),
            thinking="".join(self._thinking) or None,
            tool_calls=list(self._tool_calls) or None,
            logprobs=list(self._logprobs) or None,
        )


class ProgressJoiner:
    """Joins the parts of a transfer: the last part of each layer, added up."""

    def __init__(self) -> None:
        self._layers: dict[str, ProgressResponse] = {}
        self._last = ProgressResponse(status="")

    def add(self, parts: list[ProgressResponse]) -> None:
        """Take note of parts that arrived."""
        for part in parts:
            if part.digest is not None:
                self._layers[part.digest] = part
        if parts:
            self._last = parts[-1]

    def result(self) -> ProgressResponse:
        """The last status, with the bytes of all layers that were mentioned."""
        layers = self._layers.values()
        return ProgressResponse(
            status=self._last.status,
            total=sum(layer.total or 0 for layer in layers) or None,
            completed=sum(layer.completed or 0 for layer in layers) or None,
        )


CHAT = Shape[ChatResponse[Any]](
    ChatResponse, attrgetter("done"), attrgetter("message.content"), ChatJoiner
)
GENERATE = Shape[GenerateResponse[Any]](
    GenerateResponse, attrgetter("done"), attrgetter("response"), GenerateJoiner
)
PROGRESS = Shape[ProgressResponse](
    ProgressResponse, attrgetter("complete"), attrgetter("status"), ProgressJoiner
)
