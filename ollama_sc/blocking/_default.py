"""Functions that ask one default client, which opens with the first of their calls.

They are its methods. Importing them reads nothing of the environment and starts no thread.
"""

from __future__ import annotations

from ollama_sc._client import AsyncClient

from ._bridge import ClientBridge
from ._calls import Client


class DefaultClient(Client):
    """The client of the functions: at ``OLLAMA_HOST``, as it is when the first of them is called.

    It is closed when the program ends.
    """

    def __init__(self) -> None:
        ClientBridge.__init__(self, AsyncClient, "asyncio", None)

    def abort(self, reason: object = None) -> int:
        """End every request of the functions now, of `chat`, `generate` and so on, and no other.

        As `Client.abort`, for the default client that these functions share. Clients of your own
        have an `abort` of their own.

        Returns:
            How many requests that were.
        """
        return super().abort(reason)

    def _start_over(self) -> None:
        """Close it; the next call opens another one, where ``OLLAMA_HOST`` says then."""
        self.close()
        DefaultClient.__init__(self)

    def __reduce__(self) -> str:
        return "_client"  # another process has one of its own


_client = DefaultClient()
abort = _client.abort
chat = _client.chat
copy = _client.copy
create = _client.create
delete = _client.delete
embed = _client.embed
embeddings = _client.embeddings
generate = _client.generate
list = _client.list
ps = _client.ps
pull = _client.pull
push = _client.push
show = _client.show
web_fetch = _client.web_fetch
web_search = _client.web_search
