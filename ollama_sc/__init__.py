"""A structured-concurrency client for the Ollama REST API, on trio and asyncio.

Every request is a task in a task group that the client owns: `abort` ends all of them, and leaving
``async with AsyncClient()`` leaves nothing behind.
"""

from ._calls import Statistics
from ._client import AsyncClient, Group
from ._errors import (
    AbortError,
    AuthorizationError,
    ClientClosedError,
    ConnectError,
    IncompleteStreamError,
    ModelNotFoundError,
    OllamaError,
    ProtocolError,
    RateLimitError,
    RequestError,
    RequestTimeout,
    ResponseError,
    ServerBusyError,
)
from ._fields import ChatFields, EmbedFields, GenerateFields
from ._stream import Stream
from ._timeouts import Timeouts
from ._version import __version__
from .types import (
    ChatResponse,
    EmbedResponse,
    Function,
    GenerateResponse,
    ListedModel,
    ListResponse,
    Logprob,
    Message,
    ModelDetails,
    TokenLogprob,
    ToolCall,
    VersionResponse,
)

__all__ = [
    "AbortError",
    "AsyncClient",
    "AuthorizationError",
    "ChatFields",
    "ChatResponse",
    "ClientClosedError",
    "ConnectError",
    "EmbedFields",
    "EmbedResponse",
    "Function",
    "GenerateFields",
    "GenerateResponse",
    "Group",
    "IncompleteStreamError",
    "ListResponse",
    "ListedModel",
    "Logprob",
    "Message",
    "ModelDetails",
    "ModelNotFoundError",
    "OllamaError",
    "ProtocolError",
    "RateLimitError",
    "RequestError",
    "RequestTimeout",
    "ResponseError",
    "ServerBusyError",
    "Statistics",
    "Stream",
    "Timeouts",
    "TokenLogprob",
    "ToolCall",
    "VersionResponse",
    "__version__",
]
