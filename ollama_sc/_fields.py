"""What calls accept beside their positional arguments, each field spelled once.

A wrapper of yours can take them as ``**fields: Unpack[ChatFields]``. This module may know only the
types.

There is no ``from __future__ import annotations`` here: `TypedDict` compiles each annotation that
is text, which took a tenth of the time that this library takes to import.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from .types import ChatResponse, Image, Message, Options, Tool

if TYPE_CHECKING:
    from ._timeouts import Timeouts
    from .embedding._progress import Progress

ThinkLevel = Literal["low", "medium", "high", "max"]
MessageLike = Message | ChatResponse[Any] | Mapping[str, Any]
JSONSchema = Mapping[str, Any]


class CallFields(TypedDict, total=False):
    """What every call accepts.

    Attributes:
        timeout: a number of seconds or `Timeouts`; ``None`` is the client's.
    """

    timeout: "Timeouts | float | None"


class BodyFields(CallFields, total=False):
    """What every call with a body accepts.

    Attributes:
        extra: fields for the body that this library does not know; they win.
    """

    extra: Mapping[str, Any] | None


class ModelFields(BodyFields, total=False):
    """What every call of a model accepts.

    Attributes:
        options: parameters of the model: `Options`, or a mapping of names to values such as
            ``{"temperature": 0, "num_ctx": 8192}``; unknown names pass.
        keep_alive: how long the model stays loaded: seconds, a duration such as ``"1h30m"``, or a
            `timedelta`. Zero unloads it after the answer, a negative number keeps it.
        truncate: whether the server cuts a prompt that is too long (it does by default).
    """

    options: Mapping[str, Any] | Options | None
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
        tools: functions that the model may want called, each as a `Tool` or the API's JSON object.
    """

    tools: Sequence[Mapping[str, Any] | Tool] | None


class GenerateFields(GenerationFields, total=False):
    """What `generate` accepts beside the model, the prompt and the suffix.

    Attributes:
        system: the system message, in place of the model's own.
        template: the prompt template, in place of the model's own.
        context: what an earlier reply's `context` was (deprecated by the server).
        raw: whether the prompt goes to the model as it is.
        images: for models that see, each as bytes, as base64 text, or as the `Path` of a file.
        width, height, steps: of servers 0.14.3 to 0.32.5, for models that make images.
    """

    system: str | None
    template: str | None
    context: Sequence[int] | None
    raw: bool | None
    images: "Sequence[Image] | None"
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


class EmbedManyFields(EmbedFields, total=False):
    """What `embed_many` and `embed_array` accept beside the model and the texts.

    The server cuts a text that is too long, in silence, unless ``truncate=False`` makes that an
    error of the text. `timeout` is each request's.

    Attributes:
        batch_size: how many texts go into one request.
        batch_chars: how many characters a batch has at most, unless it is one single text; ``None``
            is no limit.
        max_in_flight: how many requests run at the same time. ``"auto"`` finds the smallest number
            with which the server is busy. For several servers also a list, one for each.
        ordered: whether batches come in the order of the texts, or as they are done.
        on_error: what a text that cannot be embedded does: ``"raise"`` ends the job with
            `EmbedError`; ``"skip"`` makes its row NaN and lists it in `Batch.failures`.
        attempts: how often a request is tried in all, where the server cannot be reached, is busy
            or takes too long. 1 is no retry.
        retry_timeout: the seconds after which it is not tried again; ``None`` is no limit.
        on_progress: a function that is called with `Progress` after each batch, in the event
            loop's thread. What it raises ends the job.
    """

    batch_size: int
    batch_chars: int | None
    max_in_flight: int | Literal["auto"] | Sequence[int | Literal["auto"]]
    ordered: bool
    on_error: Literal["raise", "skip"]
    attempts: int
    retry_timeout: float | None
    on_progress: "Callable[[Progress], object] | None"


EMBED_MANY_DEFAULTS: Mapping[str, Any] = {
    "batch_size": 64,
    "batch_chars": 200_000,
    "max_in_flight": 4,
    "ordered": True,
    "on_error": "raise",
    "attempts": 8,
    "retry_timeout": 300.0,
    "on_progress": None,
}


class EmbeddingsFields(BodyFields, total=False):
    """What `embeddings` accepts beside the model and the prompt; see `ModelFields`."""

    options: Mapping[str, Any] | Options | None
    keep_alive: float | str | timedelta | None


class LoadFields(EmbeddingsFields, total=False):
    """What `load` accepts beside the model; see `ModelFields`."""


class ShowFields(BodyFields, total=False):
    """What `show` accepts beside the model.

    Attributes:
        verbose: whether long lists, such as the tokenizer's, come with `model_info`.
        system: shown in the modelfile in place of the model's own.
        options: shown in the modelfile over the model's own.
    """

    verbose: bool | None
    system: str | None
    options: Mapping[str, Any] | Options | None


class TransferFields(BodyFields, total=False):
    """What `pull` and `push` accept beside the model.

    Attributes:
        insecure: whether a registry without TLS will do.
    """

    insecure: bool | None


class CreateFields(BodyFields, total=False):
    """What `create` accepts beside the model.

    Attributes:
        from_: the model to start from; pulled where the server lacks it.
        files, adapters, draft_files: file names to digests of blobs; see `create_blob`.
        quantize, draft_quantize: such as ``"q4_K_M"``.
        template, system, license, parameters, messages: in place of those of `from_`; licenses and
            parameters are added to them.
        renderer, parser, requires: as in a Modelfile.
        remote_host: the server that runs it, for a model that stands for another.
        info: what `show` says of such a model.
    """

    from_: str | None
    files: Mapping[str, str] | None
    adapters: Mapping[str, str] | None
    draft_files: Mapping[str, str] | None
    quantize: str | None
    draft_quantize: str | None
    template: str | None
    system: str | None
    license: str | Sequence[str] | None
    parameters: Mapping[str, Any] | Options | None
    messages: Sequence[MessageLike] | None
    renderer: str | None
    parser: str | None
    requires: str | None
    remote_host: str | None
    info: Mapping[str, Any] | None
