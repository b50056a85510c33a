"""What goes to the server and what comes back, as the API spells it.

Messages and replies are msgspec Structs that can also be read like dictionaries. This module may
know nothing of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, cast

from msgspec import Struct, field, to_builtins
from typing_extensions import TypeVar

T = TypeVar("T", default=None)

if TYPE_CHECKING:
    # Bytes become base64 on their way to the server; what comes back is base64 text.
    Image = str | bytes
else:
    Image = str

_REPR_TEXT = 60
_REPR_ITEMS = 3
_REPR_WIDTH = 240


class WireObject(Struct, omit_defaults=True, gc=False):
    """A JSON object of the API.

    Its fields are attributes, and keys too: ``reply["message"]["content"]``,
    ``message.get("thinking")``, ``"thinking" in message``, ``dict(message)``. A field that the
    server left out is ``None`` as an attribute and absent as a key.

    It has no part in garbage collection (`gc=False`: a stream makes thousands); do not build a
    reference cycle through one.
    """

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, _attributes(type(self))[key], value)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def get(self, key: str, default: Any = None) -> Any:
        """The field's value, or `default` where the server left it out or it does not exist."""
        name = _attributes(type(self)).get(key)
        value = None if name is None else getattr(self, name)
        return default if value is None else value

    def keys(self) -> list[str]:
        """The names of the fields that have a value, as the API spells them."""
        cls = type(self)
        pairs = zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True)
        return [wire for name, wire in pairs if getattr(self, name) is not None]

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, strings and numbers, as in the API's JSON."""
        result: dict[str, Any] = to_builtins(self)
        return result

    def __repr__(self) -> str:
        parts: list[str] = []
        for name in _repr_order(type(self)):
            value = getattr(self, name)
            if value is not None:
                parts.append(f"{name}={_short(value)}")
        text = f"{type(self).__name__}({', '.join(parts)})"
        return text if len(text) <= _REPR_WIDTH else f"{text[: _REPR_WIDTH - 2]}…)"


@cache
def _attributes(cls: type[WireObject]) -> dict[str, str]:
    """Keys to attribute names: the API's spelling and our own."""
    names = cls.__struct_fields__
    return dict(zip(cls.__struct_encode_fields__, names, strict=True)) | {n: n for n in names}


@cache
def _repr_order(cls: type[WireObject]) -> list[str]:
    """What is particular to a class first, times last: people look for a reply's text."""
    own = cls.__dict__.get("__annotations__", ())
    return sorted(
        cls.__struct_fields__,
        key=lambda name: (name not in own, name.endswith(("_duration", "_at"))),
    )


def _short(value: object) -> str:
    if isinstance(value, str) and len(value) > _REPR_TEXT:
        return f"{value[:_REPR_TEXT]!r}… ({len(value)} characters)"
    if isinstance(value, list):
        items = cast("list[Any]", value)
        more = f", … {len(items)} items" if len(items) > _REPR_ITEMS else ""
        return f"[{', '.join(map(_short, items[:_REPR_ITEMS]))}{more}]"
    text = value.isoformat() if isinstance(value, datetime) else repr(value)
    return (
        text
        if isinstance(value, WireObject) or len(text) <= _REPR_TEXT
        else f"{text[:_REPR_TEXT]}…"
    )


# -- messages ------------------------------------------------------------------------------------


class Function(WireObject):
    """The function that a model wants called.

    Attributes:
        name: the tool's name.
        arguments: by parameter name, in the model's order.
        index: the position among the calls of one response.
    """

    name: str
    arguments: dict[str, Any]
    index: int | None = None


class ToolCall(WireObject):
    """A model's wish to have a tool called."""

    function: Function
    id: str | None = None


class Message(WireObject):
    """One message of a conversation.

    Attributes:
        role: ``"system"``, ``"user"``, ``"assistant"`` or ``"tool"``.
        content: the text.
        thinking: what a thinking model thought before it.
        images: each as base64 text, or as bytes in what you send.
        tool_calls: in the order the model gave them.
        tool_name: of a tool's result, which tool that was.
        tool_call_id: of a tool's result, which call that was.
    """

    role: str
    content: str = ""
    thinking: str | None = None
    images: list[Image] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class TokenLogprob(WireObject):
    """A token and the logarithm of its probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None


class Logprob(TokenLogprob):
    """The token that was chosen, with the likeliest ones at its place."""

    top_logprobs: list[TokenLogprob] | None = None


# -- replies of models ---------------------------------------------------------------------------


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def _rate(count: int | None, nanoseconds: int | None) -> float | None:
    return count * 1e9 / nanoseconds if count is not None and nanoseconds else None


class _Timed(WireObject, kw_only=True):
    model: str = ""
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
    created_at: str = ""
    done: bool = False
    done_reason: str | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None
    logprobs: list[Logprob] | None = None
    debug_info: dict[str, Any] | None = field(default=None, name="_debug_info")

    @property
    def complete(self) -> bool:
        """Whether this is the whole reply, or the last part of one (`done`)."""
        return self.done

    @property
    def created(self) -> datetime | None:
        """`created_at`, to the microsecond."""
        return datetime.fromisoformat(self.created_at) if self.created_at else None

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

    Attributes:
        message: the reply, or the piece of it that this part brings.
        done: whether the reply ends here; `complete` says the same.
        done_reason: ``"stop"``, ``"length"``, ``"load"`` or ``"unload"``.
        logprobs: where they were asked for.
        remote_model, remote_host: where another host ran the model.
    """

    message: Message

    @property
    def text(self) -> str:
        """The message's content."""
        return self.message.content


class GenerateResponse(_Generation, Generic[T], kw_only=True):
    """A reply of ``POST /api/generate``, or one part of a streamed one.

    Durations are integers in nanoseconds as the server sends them; the ``..._seconds`` properties
    are floats. Metrics come with the last part alone.

    Attributes:
        response: the text, or the piece of it that this part brings.
        thinking: what a thinking model thought before it.
        context: the conversation as tokens, for the next request (deprecated by the server).
        image, completed, total: of servers 0.14.3 to 0.32.5, for models that make images.
    """

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


class EmbedResponse(_Timed, kw_only=True):
    """A reply of ``POST /api/embed``.

    Attributes:
        embeddings: one vector for each input, in order, of unit length.
        prompt_eval_count: the number of tokens of all inputs, after truncation.
    """

    embeddings: list[list[float]]


# -- what a server has ---------------------------------------------------------------------------


class ModelDetails(WireObject, kw_only=True):
    """What kind of model it is.

    Attributes:
        context_length, embedding_length: of newer servers (0.30 and up), in `list` alone.
    """

    parent_model: str | None = None
    format: str | None = None
    family: str | None = None
    families: list[str] | None = None
    parameter_size: str | None = None
    quantization_level: str | None = None
    context_length: int | None = None
    embedding_length: int | None = None


class ListedModel(WireObject, kw_only=True):
    """A model that the server has.

    Attributes:
        name, model: its full name with the tag; both the same.
        modified_at: with the server's own offset.
        size: in bytes.
        digest: 64 hexadecimal digits.
        capabilities: such as ``"completion"``, ``"tools"``, ``"embedding"``; newer servers alone.
    """

    name: str | None = None
    model: str | None = None
    remote_model: str | None = None
    remote_host: str | None = None
    modified_at: datetime | None = None
    size: int | None = None
    digest: str | None = None
    details: ModelDetails | None = None
    capabilities: list[str] | None = None


class ListResponse(WireObject, kw_only=True):
    """A reply of ``GET /api/tags``: the models, the one changed last first."""

    models: list[ListedModel] = field(default_factory=list[ListedModel])


class VersionResponse(WireObject):
    """A reply of ``GET /api/version``."""

    version: str
