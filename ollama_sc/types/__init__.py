"""What goes to the server and what comes back, as the API spells it.

Messages and replies are msgspec Structs that can also be read like dictionaries. This package may
know nothing of the others.

What a server sends is an error only where a reply's strict fields, which carry the answer, cannot
be read. Any other field that cannot is as if the server had left it out, and so is a field inside
a field, singly; a `logprob` is ``None`` then, other numbers have that as their default.
"""

from ollama_sc._wire_object import WireObject

from ._messages import (
    UNREAD_ARGUMENTS,
    Function,
    Image,
    Logprob,
    Message,
    Options,
    TokenLogprob,
    Tool,
    ToolCall,
    ToolFunction,
)
from ._models import (
    ListedModel,
    ListResponse,
    ModelDetails,
    ProcessResponse,
    ProgressResponse,
    RunningModel,
    ShowResponse,
    StatusResponse,
    Tensor,
)
from ._replies import (
    ChatResponse,
    EmbeddingsResponse,
    EmbedResponse,
    GenerateResponse,
)
from ._server import (
    CloudStatus,
    Recommendation,
    RecommendationsResponse,
    ServerStatus,
    UserResponse,
    VersionResponse,
    WebFetchResponse,
    WebSearchResponse,
    WebSearchResult,
)

__all__ = [
    "UNREAD_ARGUMENTS",
    "ChatResponse",
    "CloudStatus",
    "EmbedResponse",
    "EmbeddingsResponse",
    "Function",
    "GenerateResponse",
    "Image",
    "ListResponse",
    "ListedModel",
    "Logprob",
    "Message",
    "ModelDetails",
    "Options",
    "ProcessResponse",
    "ProgressResponse",
    "Recommendation",
    "RecommendationsResponse",
    "RunningModel",
    "ServerStatus",
    "ShowResponse",
    "StatusResponse",
    "Tensor",
    "TokenLogprob",
    "Tool",
    "ToolCall",
    "ToolFunction",
    "UserResponse",
    "VersionResponse",
    "WebFetchResponse",
    "WebSearchResponse",
    "WebSearchResult",
    "WireObject",
]


def _own_them() -> None:
    """Have the types called by the name that people import them by, in pickles too."""
    for name in __all__:
        value = globals()[name]
        if isinstance(value, type) and value.__module__.startswith(f"{__name__}."):
            value.__module__ = __name__


_own_them()
