"""The clients of a job: for the servers that answer, and that have the same model."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ollama_sc import AsyncClient, OllamaError, ProtocolError
from ollama_sc._http.host import parse_host
from ollama_sc._jobs.retries import is_transient
from ollama_sc._jobs.served_model import ServedModel, find_digest, short
from ollama_sc.cli._errors import Refused, Stopped
from ollama_sc.cli._shown import shown


class ModelReplaced(Stopped):
    """A server has another model of the job's name now."""


@dataclass(frozen=True, slots=True)
class OpenClients:
    """The clients that a job uses, and the model that they found.

    Attributes:
        clients: open, one for each server that answers.
        model: its name.
        digest: of the model, the same on all servers.
    """

    clients: Sequence[AsyncClient]
    model: str
    digest: str

    async def check_model(self) -> None:
        """Ask all servers whether they still have the model; one that does not answer passes.

        Raises:
            ModelReplaced: one has another model of that name.
        """
        expected = ServedModel(self.model, self.digest)
        for client in self.clients:
            try:
                await expected.check(client, "")
            except ProtocolError as error:
                where = f" ({client!r})" if len(self.clients) > 1 else ""
                raise ModelReplaced(f"{error.args[0]}{where}") from error


@asynccontextmanager
async def open_clients(
    hosts: Sequence[str], model: str, say: Callable[[str], None], **client_options: Any
) -> AsyncGenerator[OpenClients]:
    """Open a client for each server. Those that do not answer now are left out; `say` reports it.

    Args:
        hosts: of the servers; none is ``OLLAMA_HOST``.
        model: its name.
        say: prints a line.
        **client_options: of each client.

    Raises:
        Refused: a server does not have the model, or another one of that name.
        Stopped: no server answers.
    """
    async with AsyncExitStack() as stack:
        digests: dict[str, str] = {}  # by URL
        clients: list[AsyncClient] = []
        problems: list[str] = []
        for host in dict.fromkeys(hosts or ("",)):
            client = await stack.enter_async_context(AsyncClient(host or None, **client_options))
            url = parse_host(host).url if host else ""
            try:
                digest = await find_digest(client, model)
            except OllamaError as error:
                text = str(error)
                if url and url not in text:
                    error.add_note(url)
                    text = f"{text} ({url})"
                if not is_transient(error):
                    raise
                problems.append(text)
            else:
                if not digest:
                    where = f" at {url}" if url else ""
                    name = shown(model)
                    raise Refused(
                        f"there is no model {name}{where}: ollama pull {name}"
                        if digest is None
                        else f"the model {name}{where} has no digest, which tells it from others"
                    )
                digests[url] = digest
                clients.append(client)
        if not clients:
            raise Stopped("\n".join(problems))
        for problem in problems:
            say(f"Left out: {problem}")
        if len(set(digests.values())) > 1:
            listed = ", ".join(f"{short(digest)} at {url}" for url, digest in digests.items())
            raise Refused(f"the servers have different models {shown(model)}: {listed}")
        yield OpenClients(clients, model, next(iter(digests.values())))
