"""What goes to the server and what comes back, as the API spells it.

Messages and replies are msgspec Structs that can also be read like dictionaries. This module may
know nothing of the others.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from msgspec import field
from typing_extensions import TypeVar

from ._wire_object import WireObject

T = TypeVar("T", default=None)

if TYPE_CHECKING:
    # Bytes and files become base64 on their way to the server; what comes back is base64 text.
    Image = str | bytes | Path
else:
    Image = str


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
        images: each as base64 text; in what you send also as bytes, or as the `Path` of a file.
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


class ToolFunction(WireObject):
    """What a model is told of a function that it may want called.

    Attributes:
        parameters: a JSON schema of type ``"object"``.
    """

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(WireObject, omit_defaults=False):
    """A tool that a model may want called."""

    function: ToolFunction
    type: str = "function"
    items: Any = None


class Options(WireObject, kw_only=True):
    """Parameters of a model; ``None`` is the model's own default.

    The first seven belong to the loaded model: a change of one loads it anew.
    """

    num_ctx: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    use_mmap: bool | None = None
    num_thread: int | None = None
    draft_num_predict: int | None = None
    num_keep: int | None = None
    seed: int | None = None
    num_predict: int | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repeat_last_n: int | None = None
    temperature: float | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: list[str] | None = None


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


class EmbeddingsResponse(WireObject):
    """A reply of ``POST /api/embeddings``, the older form.

    Attributes:
        embedding: the vector, not made unit length.
    """

    embedding: list[float]


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


class RunningModel(WireObject, kw_only=True):
    """A model that is loaded.

    Attributes:
        size: in bytes; `size_vram` of them in the memory of GPUs.
        expires_at: when it is unloaded; in the far future for one that stays.
        context_length: in tokens.
    """

    name: str | None = None
    model: str | None = None
    size: int | None = None
    digest: str | None = None
    details: ModelDetails | None = None
    expires_at: datetime | None = None
    size_vram: int | None = None
    context_length: int | None = None


class ProcessResponse(WireObject, kw_only=True):
    """A reply of ``GET /api/ps``: the loaded models, the one that stays longest first."""

    models: list[RunningModel] = field(default_factory=list[RunningModel])


class Tensor(WireObject):
    """A tensor of a model."""

    name: str
    type: str
    shape: list[int]


class ShowResponse(WireObject, kw_only=True):
    """A reply of ``POST /api/show``.

    Attributes:
        modelfile: a Modelfile that makes this model.
        parameters: its parameters as text, a line each.
        model_info: the model file's metadata, by GGUF key.
        projector_info: the same for the part that reads images.
        requires: the oldest server version that can run it.
    """

    license: str | None = None
    modelfile: str | None = None
    parameters: str | None = None
    template: str | None = None
    system: str | None = None
    renderer: str | None = None
    parser: str | None = None
    details: ModelDetails | None = None
    messages: list[Message] | None = None
    remote_model: str | None = None
    remote_host: str | None = None
    model_info: dict[str, Any] | None = None
    projector_info: dict[str, Any] | None = None
    tensors: list[Tensor] | None = None
    capabilities: list[str] | None = None
    modified_at: datetime | None = None
    requires: str | None = None


class ProgressResponse(WireObject, kw_only=True):
    """A part of a reply of ``pull``, ``push`` or ``create``, or the last one.

    A layer need not reach its `total`, and need not be mentioned at all.

    Attributes:
        status: such as ``"pulling 3d0b790534fe"``; ``"success"`` at the end.
        digest: the layer that this is about.
        total, completed: in bytes.
    """

    status: str
    digest: str | None = None
    total: int | None = None
    completed: int | None = None

    @property
    def complete(self) -> bool:
        """Whether this is the end, a good one."""
        return self.status == "success"


class StatusResponse(WireObject):
    """What `copy` and `delete` return: ``"success"``. Anything else is an exception."""

    status: str


# -- the server itself ---------------------------------------------------------------------------


class CloudStatus(WireObject, kw_only=True):
    """Whether the server may use ollama.com, and what decides that.

    Attributes:
        source: ``"none"``, ``"env"``, ``"config"`` or ``"both"``.
    """

    disabled: bool = False
    source: str | None = None


class ServerStatus(WireObject, kw_only=True):
    """A reply of ``GET /api/status``."""

    cloud: CloudStatus | None = None


class UserResponse(WireObject, kw_only=True):
    """A reply of ``POST /api/me``: who is signed in on the server."""

    id: str | None = None
    email: str | None = None
    name: str | None = None
    bio: str | None = None
    avatarurl: str | None = None
    firstname: str | None = None
    lastname: str | None = None
    plan: str | None = None


class Recommendation(WireObject, kw_only=True):
    """A model that the server recommends."""

    model: str
    description: str | None = None
    context_length: int | None = None
    max_output_tokens: int | None = None
    vram_bytes: int | None = None
    required_plan: str | None = None


class RecommendationsResponse(WireObject, kw_only=True):
    """A reply of ``GET /api/experimental/model-recommendations``."""

    recommendations: list[Recommendation] = field(default_factory=list[Recommendation])


class WebSearchResult(WireObject, kw_only=True):
    """A page that was found."""

    title: str | None = None
    url: str | None = None
    content: str | None = None


class WebSearchResponse(WireObject, kw_only=True):
    """What a web search found."""

    results: list[WebSearchResult] = field(default_factory=list[WebSearchResult])


class WebFetchResponse(WireObject, kw_only=True):
    """A page of the web.

    Attributes:
        links: the addresses on it.
    """

    title: str | None = None
    content: str | None = None
    links: list[str] | None = None


class VersionResponse(WireObject):
    """A reply of ``GET /api/version``."""

    version: str
