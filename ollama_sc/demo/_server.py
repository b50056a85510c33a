"""What the demo talks to: the user's server, or the fake one."""

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import cycle, islice

import anyio

from ollama_sc import AsyncClient, OllamaError, RequestError
from ollama_sc._http.credentials import masked
from ollama_sc.demo._options import Options
from ollama_sc.demo._screen import Screen
from ollama_sc.testing import FakeModel, FakeOllama, Reply
from ollama_sc.types import ListedModel

ASK_SECONDS = 2.0  # a server that has not answered by then is none

# What the fake server says in place of a model.
_SENTENCES = (
    "No model is at work: this text comes from the fake server that ollama-sc brings along.",
    "It sends one token after the other over a real socket, as Ollama does.",
    "Every chat on this screen is a task of its own, in the task group of one client.",
    "In a moment one call, client.abort(), ends all of them at the same time.",
    "The server will then see each connection close, and take the time.",
    "Where Ollama is at hand, a model's story stands here instead.",
)
_RATES = (24, 19, 29, 15, 22, 34)  # tokens a second
# How long it takes for a batch: a share of the chats' time, ...
_EMBED_SHARE = 1 / 20
_EMBED_LONGEST = 0.25  # ... at most so many seconds


class Refused(Exception):  # noqa: N818 - it is an answer
    """What the user asked for is not to be had; the text says why."""


@dataclass
class Server:
    """What the demo talks to."""

    url: str | None  # None: what OLLAMA_HOST says, or the default
    chat_model: str
    embed_model: str | None
    fake: FakeOllama | None = None


@asynccontextmanager
async def find_server(screen: Screen, options: Options) -> AsyncGenerator[Server]:
    """Find the user's server, or start the fake one.

    Raises:
        Refused: there is a server, and it lacks what the options name.
    """
    given = options.host or os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
    where = masked(given, given)
    found = await _ask(where, options)
    if isinstance(found, Server):
        screen.show(f"Server: Ollama at {where}, model {found.chat_model}")
        yield found
        return
    chat, embed = options.model or "llama3.2", options.embed_model or "all-minilm"
    async with FakeOllama(
        models=[FakeModel(chat, ("completion",)), FakeModel(embed, ("embedding",))],
        dimensions=384,
        embed_seconds=min(options.seconds * _EMBED_SHARE, _EMBED_LONGEST),
    ) as fake:
        for number, rate in enumerate(_RATES):
            sentences = islice(cycle(_SENTENCES), number, number + 200)
            words = (f"{word} " for sentence in sentences for word in sentence.split())
            fake.script("/api/chat", Reply.chat_text(words).replace(rate=rate))
        screen.show(found)
        screen.show(f"The bundled fake server stands in: {fake.url}")
        yield Server(fake.url, chat, embed, fake)


async def _ask(where: str, options: Options) -> Server | str:
    """Ask the user's server for its models; why it cannot be used, where it cannot."""
    try:
        async with AsyncClient(options.host, timeout=ASK_SECONDS) as client:
            with anyio.move_on_after(ASK_SECONDS):
                return _chosen(where, (await client.list()).models, options)
    except RequestError as error:
        raise Refused(str(error)) from None
    except OllamaError:
        pass
    return f"No Ollama answers at {where}."


def _chosen(where: str, models: list[ListedModel], options: Options) -> Server | str:
    """Choose the models, or say why there is none."""
    names = [model.name for model in models if model.name]
    for wanted in (options.model, options.embed_model):
        if wanted is not None and wanted not in names and f"{wanted}:latest" not in names:
            have = f"it has {', '.join(names)}" if names else "it has none"
            raise Refused(f"the server at {where} has no model {wanted}; {have}")
    # The smallest first. Those that another host runs could cost money.
    local = [model for model in models if model.name and not model.remote_host]
    local.sort(key=lambda model: model.size or 0)
    chat = options.model or next((model.name for model in local if not _embeds(model)), None)
    embed = options.embed_model or next((model.name for model in local if _embeds(model)), None)
    if chat is None:
        return f"The server at {where} has no model for chats."
    return Server(options.host, chat, embed)


def _embeds(model: ListedModel) -> bool:
    """Whether a model turns texts into vectors."""
    if model.capabilities is not None:
        return "embedding" in model.capabilities
    return any(part in str(model.name) for part in ("embed", "minilm", "bge-"))  # older servers
