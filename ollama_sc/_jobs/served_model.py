"""Whether the servers of a job still have the model that it began with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ollama_sc._api.base import BaseClient
from ollama_sc._errors import OllamaError, ProtocolError
from ollama_sc.types import ListResponse

if TYPE_CHECKING:
    from ollama_sc._timeouts import Timeouts

CHECK_SECONDS = 120.0  # between two looks at the same server
_TIMEOUT = 10.0  # for a list of models, which takes a server milliseconds
_SHOWN = 12  # characters of a digest, as Ollama shows them


class ServedModel:
    """A model by its name, and its digest once it is known: the first one that was found.

    A name can get another model while a job runs: by a pull, by a server that comes back with
    another store. Its vectors have the same length, and mean something else.
    """

    def __init__(self, name: str, digest: str | None = None) -> None:
        self.digest = digest
        self._name = name

    async def check(self, client: BaseClient, request: str) -> None:
        """Compare with a server's digest: ``GET /api/tags``.

        A server that does not say it, or does not answer now, passes.

        Raises:
            ProtocolError: it has another model of that name.
        """
        try:
            found = await find_digest(client, self._name, timeout=_TIMEOUT)
        except OllamaError:
            return
        if not found:
            return
        if self.digest is None:
            self.digest = found
        if found != self.digest:
            raise ProtocolError(
                f"the server has another model of this name now: {short(found)}, "
                f"and the job began with {short(self.digest)}",
                request=request,
            )


async def find_digest(
    client: BaseClient, model: str, *, timeout: Timeouts | float | None = None
) -> str | None:
    """The digest that a server lists for a model; ``None`` where it lists none of that name.

    It is empty where a model of that name has none, as with servers that only resemble Ollama.
    """
    wanted = _full_name(model)
    fields = {} if timeout is None else {"timeout": timeout}
    for listed in (await client._get("/api/tags", ListResponse, fields)).models:
        name = listed.model or listed.name
        if name is not None and _full_name(name) == wanted:
            return listed.digest or ""
    return None


def short(digest: str) -> str:
    """The start of a digest, without what would steer a terminal."""
    return ascii(digest.removeprefix("sha256:")[:_SHOWN])[1:-1]


def _full_name(model: str) -> str:
    name = model.removeprefix("registry.ollama.ai/").removeprefix("library/").lower()
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"
