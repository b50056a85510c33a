"""The same calls for programs and threads without an event loop.

A `Client` is an `AsyncClient` in a background thread: the names, the arguments and the errors are
the same, without ``await``. The functions `chat`, `generate` and so on, which are in ``ollama_sc``
as well, ask one default client.

`_calls` has what can be asked, and is generated from the asynchronous calls; `_bridge` is how a
call gets into the event loop and back, in a thread of `ollama_sc._worker`; `_stream`,
`_tool_stream` and `_batches` take what comes in parts, `_texts` reads the texts of jobs,
`_conversation` is a list of messages that grows, and `_default` has the functions.
"""

from ._batches import Batches
from ._calls import Client, Group
from ._conversation import Conversation
from ._default import (
    abort,
    chat,
    copy,
    create,
    delete,
    embed,
    embeddings,
    generate,
    list,
    ps,
    pull,
    push,
    show,
    web_fetch,
    web_search,
)
from ._stream import Stream
from ._tool_stream import ToolStream

__all__ = [
    "Batches",
    "Client",
    "Conversation",
    "Group",
    "Stream",
    "ToolStream",
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
]
