"""What calls accept beside their positional arguments, each field spelled once.

A wrapper of yours can take them as ``**fields: Unpack[ChatFields]``. This module may know only the
types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .types import ChatResponse, Image, Message

if TYPE_CHECKING:
    from ._timeouts import Timeouts

ThinkLevel = Literal["low", "medium", "high", "max"]
MessageLike = Message | ChatResponse[Any] | Mapping[str, Any]
JSONSchema = Mapping[str, Any]


class CallFields(TypedDict, total=False):
    """What every call accepts.

    Attributes:
        timeout: a number of seconds or `Timeouts`; ``None`` is the client's.
    """

    timeout: Timeouts | float | None


class BodyFields(CallFields, total=False):
    """What every call with a body accepts.

    Attributes:
        extra: fields for the body that this library does not know; they win.
    """

    extra: Mapping[str, Any] | None


class ModelFields(BodyFields, total=False):
    """What every call of a model accepts.

    Attributes:
        options: parameters of the model, such as ``{"temperature": 0, "num_ctx": 8192}``.
        keep_alive: how long the model stays loaded: seconds, a duration such as ``"1h30m"``, or a
            `timedelta`. Zero unloads it after the answer, a negative number keeps it.
        truncate: whether the server cuts a prompt that is too long (it does by default).
    """

    options: Mapping[str, Any] | None
    keep_alive: float | str | timedelta | None
    truncate: bool | None


class GenerationFields(ModelFields, total=False):
    """What `chat` and `generate` accept.

    Attributes:
        think: whether the model thinks first, or how much. Models that can do by default.
        format: ``"json"``, or a JSON schema that the text must follow.
        logprobs: whether to send the logarithms of the tokens' probabilities.
        top_logprobs: how many of the likeliest tokens come with each (0 to 20).
        shift: whether old tokens make room when the context is full (they do by default).
        debug_render_only: whether only the rendered prompt comes back, in `debug_info`.
    """

    think: bool | ThinkLevel | None
    format: Literal["", "json"] | JSONSchema | None
    logprobs: bool | None
    top_logprobs: int | None
    shift: bool | None
    debug_render_only: bool | None


class ChatFields(GenerationFields, total=False):
    """What `chat` accepts beside the model and the messages.

    Attributes:
        tools: functions that the model may want called, each as the API's JSON object.
    """

    tools: Sequence[Mapping[str, Any]] | None


class GenerateFields(GenerationFields, total=False):
    """What `generate` accepts beside the model, the prompt and the suffix.

    Attributes:
        system: the system message, in place of the model's own.
        template: the prompt template, in place of the model's own.
        context: what an earlier reply's `context` was (deprecated by the server).
        raw: whether the prompt goes to the model as it is.
        images: for models that see, each as bytes or base64 text.
        width, height, steps: of servers 0.14.3 to 0.32.5, for models that make images.
    """

    system: str | None
    template: str | None
    context: Sequence[int] | None
    raw: bool | None
    images: Iterable[Image] | None
    width: int | None
    height: int | None
    steps: int | None


class EmbedFields(ModelFields, total=False):
    """What `embed` accepts beside the model and the input.

    Attributes:
        dimensions: how many dimensions to keep; the vector is made unit length again. The server
            ignores a number above the model's own.
    """

    dimensions: int | None
