"""What models answer: texts and vectors."""

from datetime import datetime
from typing import Any, Generic, cast

from msgspec import field
from typing_extensions import TypeVar

from ollama_sc._wire_object import WireObject, always, parsed_of

from ._messages import Logprob, Message, ToolCall

T = TypeVar("T", default=None)


def _seconds(nanoseconds: int | None) -> float | None:
    try:
        return None if nanoseconds is None else nanoseconds / 1e9
    except OverflowError:  # a number of hundreds of digits
        return None


def _rate(count: int | None, nanoseconds: int | None) -> float | None:
    try:
        return count * 1e9 / nanoseconds if count is not None and nanoseconds else None
    except OverflowError:
        return None


class _Timed(WireObject, kw_only=True):
    model: str = always(str)
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None

    @property
    def total_seconds(self) -> float | None:
        """`total_duration`, the server's time for the whole request, in seconds."""
        return _seconds(self.total_duration)

    @property
    def load_seconds(self) -> float | None:
        """`load_duration`, the time for loading the model, in seconds."""
        return _seconds(self.load_duration)


class _Generation(_Timed, kw_only=True):
    remote_model: str | None = None
    remote_host: str | None = None
    created_at: str = always(str)
    done: bool = always(bool)
    done_reason: str | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[Logprob] | None = None
    debug_info: dict[str, Any] | None = field(default=None, name="_debug_info")

    @property
    def complete(self) -> bool:
        """Whether this is the whole reply, or the last part of one.

        It is where the server says `done`, and where it shows a prompt (`debug_render_only`).
        """
        return self.done or self.debug_info is not None

    @property
    def created(self) -> datetime | None:
        """`created_at`, to the microsecond; ``None`` where it is no time."""
        try:
            return datetime.fromisoformat(self.created_at)
        except ValueError:
            return None

    @property
    def prompt_eval_seconds(self) -> float | None:
        """`prompt_eval_duration`, the time for reading the prompt, in seconds."""
        return _seconds(self.prompt_eval_duration)

    @property
    def eval_seconds(self) -> float | None:
        """`eval_duration`, the time for writing the reply, in seconds."""
        return _seconds(self.eval_duration)

    @property
    def tokens_per_second(self) -> float | None:
        """How fast the reply was written; on the last part alone."""
        return _rate(self.eval_count, self.eval_duration)

    @property
    def prompt_tokens_per_second(self) -> float | None:
        """How fast the prompt was read; on the last part alone."""
        return _rate(self.prompt_eval_count, self.prompt_eval_duration)


class ChatResponse(_Generation, Generic[T], kw_only=True):
    """A reply of ``POST /api/chat``, or one part of a streamed one.

    It can be appended to ``messages`` as it is. Durations are integers in nanoseconds as the server
    sends them; the ``..._seconds`` properties are floats. Metrics come with the last part alone.

    Strict fields: `message` with its `content`, and `done`. The last part may lack its message.

    Attributes:
        message: the reply, or the piece of it that this part brings.
        done: whether the reply ends here; `complete` says the same.
        done_reason: ``"stop"``, ``"length"``, ``"load"`` or ``"unload"``.
        logprobs: where they were asked for.
        remote_model, remote_host: where another host ran the model.
    """

    __strict__ = ("message", "done")

    message: Message

    @property
    def text(self) -> str:
        """The message's content."""
        return self.message.content

    @property
    def parsed(self) -> T:
        """The text as a value of the type that was the call's ``format``; else ``None``.

        It is no field of the API: neither a key, nor in `to_dict`, nor compared.
        """
        return cast("T", parsed_of(self))


class GenerateResponse(_Generation, Generic[T], kw_only=True):
    """A reply of ``POST /api/generate``, or one part of a streamed one.

    Durations are integers in nanoseconds as the server sends them; the ``..._seconds`` properties
    are floats. Metrics come with the last part alone.

    Strict fields: `response` and `done`. The last part may lack its response, and so may one that
    brings something else.

    Attributes:
        response: the text, or the piece of it that this part brings.
        thinking: what a thinking model thought before it.
        context: the conversation as tokens, for the next request (deprecated by the server).
        image, completed, total: of servers 0.14.3 to 0.32.5, for models that make images.
    """

    __strict__ = ("response", "done")

    response: str
    thinking: str | None = None
    context: list[int] | None = None
    tool_calls: list[ToolCall] | None = None
    image: str | None = None
    completed: int | None = None
    total: int | None = None

    @property
    def text(self) -> str:
        """The response's text."""
        return self.response

    @property
    def parsed(self) -> T:
        """The text as a value of the type that was the call's ``format``; else ``None``.

        It is no field of the API: neither a key, nor in `to_dict`, nor compared.
        """
        return cast("T", parsed_of(self))


class EmbedResponse(_Timed, kw_only=True):
    """A reply of ``POST /api/embed``.

    Strict field: `embeddings`.

    Attributes:
        embeddings: one vector for each input, in order, of unit length.
        prompt_eval_count: the number of tokens of all inputs, after truncation.
    """

    __strict__ = ("embeddings",)

    embeddings: list[list[float]]


class EmbeddingsResponse(WireObject):
    """A reply of ``POST /api/embeddings``, the older form.

    Strict field: `embedding`.

    Attributes:
        embedding: the vector, not made unit length.
    """

    __strict__ = ("embedding",)

    embedding: list[float]
