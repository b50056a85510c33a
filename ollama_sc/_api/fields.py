"""What calls accept beside their positional arguments, each field spelled once.

A wrapper of yours can take them as ``**fields: Unpack[ChatFields]``. This module may know only the
types.

There is no ``from __future__ import annotations`` here: `TypedDict` compiles each annotation that
is text, which took a tenth of the time that this library takes to import.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Required, TypedDict, TypeVar

from typing_extensions import TypeForm

from ollama_sc.types import ChatResponse, Image, Message, Options, Tool

if TYPE_CHECKING:
    import httpx

    from ollama_sc._timeouts import Timeouts

T = TypeVar("T")
ThinkLevel = Literal["low", "medium", "high", "max"]
MessageLike = Message | ChatResponse[Any] | Mapping[str, Any]
JSONSchema = Mapping[str, Any]


class NamedTool(Protocol):
    """An object that is a tool by itself: with a name, a schema and a call.

    The schema is a mapping, as `inputSchema`, `input_schema`, `parameters` or `schema`. Called is
    its asynchronous ``call(arguments)`` or ``run(arguments)``, or the object itself with the
    arguments by name. One without any of these is described to the model, and cannot be run.
    """

    @property
    def name(self) -> str:
        """What models call it by."""
        ...

    @property
    def description(self) -> str | None:
        """What it is for."""
        ...


ToolLike = Tool | Mapping[str, Any] | Callable[..., Any] | NamedTool


class CallFields(TypedDict, total=False):
    """What every call accepts.

    Attributes:
        timeout: a number of seconds or `Timeouts`, or httpx's own; ``None`` is the client's.
    """

    timeout: "Timeouts | httpx.Timeout | float | None"


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
    """What `chat` and `generate` accept, whatever the format.

    Attributes:
        think: whether the model thinks first, or how much. Models that can do by default.
        logprobs: whether to send the logarithms of the tokens' probabilities.
        top_logprobs: how many of the likeliest tokens come with each (0 to 20).
        shift: whether old tokens make room when the context is full (they do by default).
        debug_render_only: whether only the rendered prompt comes back, in `debug_info`.
    """

    think: bool | ThinkLevel | None
    logprobs: bool | None
    top_logprobs: int | None
    shift: bool | None
    debug_render_only: bool | None


class JSONFormat(TypedDict, total=False):
    """What a reply's text looks like.

    Attributes:
        format: ``"json"``, or a JSON schema that the text must follow.
    """

    format: Literal["", "json"] | JSONSchema | None


class TypedFormat(TypedDict, Generic[T], total=False):
    """Which type a reply's text is a value of.

    Attributes:
        format: a Struct, dataclass, TypedDict, attrs class or pydantic model, or any other type
            that msgspec knows, such as ``list[City]``. The reply's `parsed` is of that type.
        attempts: how often the model may try: where a reply does not fit the type, it is asked
            again with the error. Once, where nothing is said.
    """

    format: Required[TypeForm[T]]
    attempts: int


class AnyFormat(TypedDict, total=False):
    """Either of the two; see `JSONFormat` and `TypedFormat`.

    Attributes:
        format: ``"json"``, a JSON schema that the text must follow, or a type: a Struct, dataclass,
            TypedDict, attrs class or pydantic model, or any other type that msgspec knows, such as
            ``list[City]``. With a type, the reply's `parsed` is of it.
        attempts: how often the model may try: where a reply does not fit the type, it is asked
            again with the error. Once, where nothing is said.
    """

    format: object
    attempts: int


class ToolFields(GenerationFields, total=False):
    """What `chat` accepts beside the model, the messages and the format.

    Attributes:
        tools: what the model may want called: functions, methods and what else can be called,
            `Tool` objects, objects that are tools by themselves, and the API's JSON objects.
    """

    tools: Iterable[ToolLike] | None


class ChatFields(ToolFields, JSONFormat, total=False):
    """What `chat` accepts beside the model and the messages; see `ToolFields`, `JSONFormat`."""


class TypedChatFields(ToolFields, TypedFormat[T], Generic[T], total=False):
    """What `chat` accepts where the reply is a value of a type; see `TypedFormat`."""


class AnyChatFields(ToolFields, AnyFormat, total=False):
    """What `chat` accepts."""


class PromptFields(GenerationFields, total=False):
    """What `generate` accepts beside the model, the prompt, the suffix and the format.

    Attributes:
        system: the system message, in place of the model's own.
        template: the prompt template, in place of the model's own.
        context: what an earlier reply's `context` was (deprecated by the server).
        raw: whether the prompt goes to the model as it is.
        images: for models that see, each as bytes, as base64 text (a ``data:`` URL will do), or as
            the `Path` of a file.
        width, height, steps: of servers 0.14.3 to 0.32.5, for models that make images.
    """

    system: str | None
    template: str | None
    context: Sequence[int] | None
    raw: bool | None
    images: "Iterable[Image] | None"
    width: int | None
    height: int | None
    steps: int | None


class GenerateFields(PromptFields, JSONFormat, total=False):
    """What `generate` accepts beside the model, the prompt and the suffix; see `PromptFields`."""


class TypedGenerateFields(PromptFields, TypedFormat[T], Generic[T], total=False):
    """What `generate` accepts where the reply is a value of a type; see `TypedFormat`."""


class AnyGenerateFields(PromptFields, AnyFormat, total=False):
    """What `generate` accepts."""


class EmbedFields(ModelFields, total=False):
    """What `embed` accepts beside the model and the input.

    Attributes:
        dimensions: how many dimensions to keep; the vector is made unit length again. The server
            ignores a number above the model's own.
    """

    dimensions: int | None


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
    """What `create` accepts beside the model and the one to start from.

    Attributes:
        files, adapters, draft_files: file names to digests of blobs; see `create_blob`.
        quantize, draft_quantize: such as ``"q4_K_M"``.
        template, system, license, parameters, messages: in place of those of `from_`; licenses and
            parameters are added to them.
        renderer, parser, requires: as in a Modelfile.
        remote_host: the server that runs it, for a model that stands for another.
        info: what `show` says of such a model.
    """

    files: Mapping[str, str] | None
    adapters: Mapping[str, str] | None
    draft_files: Mapping[str, str] | None
    quantize: str | None
    draft_quantize: str | None
    template: str | None
    system: str | None
    license: str | Sequence[str] | None
    parameters: Mapping[str, Any] | Options | None
    messages: Iterable[MessageLike] | None
    renderer: str | None
    parser: str | None
    requires: str | None
    remote_host: str | None
    info: Mapping[str, Any] | None
