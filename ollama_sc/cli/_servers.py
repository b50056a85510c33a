"""The servers of a job: which of them answer, and whether they have the same model."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from ollama_sc import AsyncClient, ConnectError, RequestTimeout
from ollama_sc._host import parse_host
from ollama_sc.cli._errors import Refused, Stopped


@dataclass(frozen=True, slots=True)
class Servers:
    """What a job sends to.

    Attributes:
        clients: open, one for each server that answers.
        digest: of the model, the same on all.
    """

    clients: Sequence[AsyncClient]
    digest: str


@asynccontextmanager
async def connected(
    hosts: Sequence[str], model: str, say: Callable[[str], None]
) -> AsyncGenerator[Servers]:
    """Open a client for each server. Those that do not answer are left out.

    Raises:
        Refused: a server does not have the model, or another one of that name.
        Stopped: no server answers.
    """
    async with AsyncExitStack() as stack:
        digests: dict[str, str] = {}  # by URL
        clients: list[AsyncClient] = []
        problems: list[str] = []
        for host in dict.fromkeys(hosts or ("",)):
            client = await stack.enter_async_context(AsyncClient(host or None))
            url = parse_host(host).url if host else ""
            try:
                digests[url] = await _digest_of(client, url, model)
            except (ConnectError, RequestTimeout) as error:
                problems.append(str(error))
            else:
                clients.append(client)
        if not clients:
            raise Stopped("\n".join(problems))
        for problem in problems:
            say(f"Left out: {problem}")
        if len(set(digests.values())) > 1:
            shown = ", ".join(f"{digest[:12]} at {url}" for url, digest in digests.items())
            raise Refused(f"the servers have different models {model}: {shown}")
        yield Servers(clients, next(iter(digests.values())))


async def _digest_of(client: AsyncClient, url: str, model: str) -> str:
    wanted = model.removeprefix("registry.ollama.ai/").removeprefix("library/").lower()
    if ":" not in wanted.rpartition("/")[2]:
        wanted += ":latest"
    for listed in (await client.list()).models:
        name = listed.model or listed.name
        if name is not None and name.lower() == wanted and listed.digest:
            return listed.digest
    where = f" at {url}" if url else ""
    raise Refused(f"there is no model {model}{where}: ollama pull {model}")
