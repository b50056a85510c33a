"""A structured-concurrency client for the Ollama REST API, on trio and asyncio.

Every request is a task in a task group that the client owns: `abort` ends all of them, and leaving
``async with AsyncClient()`` leaves nothing behind. For programs without an event loop there is the
same as a blocking `Client`, and as functions: `chat`, `generate` and so on.
"""

import typing as _typing
from collections.abc import Iterable as _Iterable

from ._api.fields import (
    ChatFields,
    CreateFields,
    EmbeddingsFields,
    EmbedFields,
    GenerateFields,
    LoadFields,
    MessageLike,
    NamedTool,
    ShowFields,
    ToolLike,
    TransferFields,
    TypedChatFields,
    TypedGenerateFields,
)
from ._api.stream import Stream
from ._calls.group import Statistics
from ._client import AsyncClient, Group
from ._errors import (
    AbortError,
    AuthorizationError,
    ClientClosedError,
    ConnectError,
    EmbedError,
    IncompleteStreamError,
    ModelNotFoundError,
    OllamaError,
    OutputError,
    ProtocolError,
    RateLimitError,
    RequestError,
    RequestTimeout,
    ResponseError,
    ServerBusyError,
    ToolError,
)
from ._jobs.fields import EmbedManyFields
from ._timeouts import Timeouts
from ._tools.fields import RunFields, TypedRunFields
from ._version import __version__
from .types import (
    ChatResponse,
    CloudStatus,
    EmbeddingsResponse,
    EmbedResponse,
    Function,
    GenerateResponse,
    ListedModel,
    ListResponse,
    Logprob,
    Message,
    ModelDetails,
    Options,
    ProcessResponse,
    ProgressResponse,
    Recommendation,
    RecommendationsResponse,
    RunningModel,
    ServerStatus,
    ShowResponse,
    StatusResponse,
    Tensor,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolFunction,
    UserResponse,
    VersionResponse,
    WebFetchResponse,
    WebSearchResponse,
    WebSearchResult,
)

if _typing.TYPE_CHECKING:
    from ._tools.conversation import Conversation, keep_last
    from ._tools.results import (
        RoundEnded,
        ToolCallRecord,
        ToolEnded,
        ToolEvent,
        ToolRun,
        ToolStarted,
    )
    from ._tools.stream import ToolStream
    from .blocking import (
        Client,
        abort,
        chat,
        copy,
        create,
        delete,
        embed,
        embeddings,
        generate,
        ps,
        pull,
        push,
        show,
        web_fetch,
        web_search,
    )
    from .blocking import (
        list as list,  # public, but not for `import *`, which would hide Python's own
    )

__all__ = [
    "AbortError",
    "AsyncClient",
    "AuthorizationError",
    "ChatFields",
    "ChatResponse",
    "Client",
    "ClientClosedError",
    "CloudStatus",
    "ConnectError",
    "Conversation",
    "CreateFields",
    "EmbedError",
    "EmbedFields",
    "EmbedManyFields",
    "EmbedResponse",
    "EmbeddingsFields",
    "EmbeddingsResponse",
    "Function",
    "GenerateFields",
    "GenerateResponse",
    "Group",
    "IncompleteStreamError",
    "ListResponse",
    "ListedModel",
    "LoadFields",
    "Logprob",
    "Message",
    "MessageLike",
    "ModelDetails",
    "ModelNotFoundError",
    "NamedTool",
    "OllamaError",
    "Options",
    "OutputError",
    "ProcessResponse",
    "ProgressResponse",
    "ProtocolError",
    "RateLimitError",
    "Recommendation",
    "RecommendationsResponse",
    "RequestError",
    "RequestTimeout",
    "ResponseError",
    "RoundEnded",
    "RunFields",
    "RunningModel",
    "ServerBusyError",
    "ServerStatus",
    "ShowFields",
    "ShowResponse",
    "Statistics",
    "StatusResponse",
    "Stream",
    "Tensor",
    "Timeouts",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolCallRecord",
    "ToolEnded",
    "ToolError",
    "ToolEvent",
    "ToolFunction",
    "ToolLike",
    "ToolRun",
    "ToolStarted",
    "ToolStream",
    "TransferFields",
    "TypedChatFields",
    "TypedGenerateFields",
    "TypedRunFields",
    "UserResponse",
    "VersionResponse",
    "WebFetchResponse",
    "WebSearchResponse",
    "WebSearchResult",
    "__version__",
    "abort",
    "chat",
    "copy",
    "create",
    "delete",
    "embed",
    "embeddings",
    "generate",
    "keep_last",
    "ps",
    "pull",
    "push",
    "show",
    "web_fetch",
    "web_search",
]

# What is imported when it is first used, and from where: most programs use none of it.
_LATER = {
    **dict.fromkeys(("Conversation", "keep_last"), "_tools.conversation"),
    **dict.fromkeys(
        ("RoundEnded", "ToolCallRecord", "ToolEnded", "ToolEvent", "ToolRun", "ToolStarted"),
        "_tools.results",
    ),
    "ToolStream": "_tools.stream",
    **dict.fromkeys(
        (
            "Client",
            "abort",
            "chat",
            "copy",
            "create",
            "delete",
            "embed",
            "embeddings",
            "generate",
            "list",
            "ps",
            "pull",
            "push",
            "show",
            "web_fetch",
            "web_search",
        ),
        "blocking",
    ),
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - see above

    found: object = getattr(import_module(f".{_LATER[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> _Iterable[str]:
    return sorted({*globals(), *_LATER})
