"""Who takes part, and how each of them does the work.

All are given their best: one encoder, and, where they decode by msgspec, the same Structs as ours and
one call for all whole lines that they are given at once. What builds on httpx keeps to a hundred
connections, as it does by default, where requests are short: more of them make it slower. Where there
are more streams than that it may open one for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from functools import partial
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

from .decoding import MESSAGES, Decoding


First = Callable[[], object]


class Session(Protocol):
    """A client that is open."""

    async def stream(self, model: str, first: First | None = None) -> int:
        """Read one chat stream; how many parts it had. Tells when the first one has come."""

    async def embed(self, model: str, texts: list[str]) -> int:
        """One request; how many vectors it brought."""


class Ours:
    def __init__(self, client: Any) -> None:
        self.client = client

    async def stream(self, model: str, first: First | None = None) -> int:
        count = 0
        async with await self.client.chat(model, MESSAGES, stream=True) as stream:
            async for part in stream:
                part.message.content
                count += 1
                if first is not None:
                    first()
                    first = None
        return count

    async def embed(self, model: str, texts: list[str]) -> int:
        return len((await self.client.embed(model, texts)).embeddings)

    async def embed_many(self, model: str, texts: Any, size: int, in_flight: int) -> int:
        """A whole job; how many vectors it brought."""
        count = 0
        async with self.client.embed_many(
            model, texts, batch_size=size, max_in_flight=in_flight
        ) as batches:
            async for batch in batches:
                count += len(batch.vectors)
        return count


@asynccontextmanager
async def ours(url: str, streams: int, places: int | None = None) -> AsyncIterator[Session]:
    from ollama_sc import AsyncClient

    async with AsyncClient(url, max_in_flight=places) as client:
        yield Ours(client)


@asynccontextmanager
async def ours_observed(
    url: str, streams: int, places: int | None = None
) -> AsyncIterator[Session]:
    """With the SDK of OpenTelemetry, whose spans and metrics are made and go nowhere."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider

    from ollama_sc import telemetry

    telemetry.enable(
        tracer_provider=TracerProvider(), meter_provider=MeterProvider([InMemoryMetricReader()])
    )
    async with ours(url, streams, places) as session:
        yield session


class Python:
    def __init__(self, client: Any) -> None:
        self.client = client

    async def stream(self, model: str, first: First | None = None) -> int:
        count = 0
        async for part in await self.client.chat(model, MESSAGES, stream=True):
            part.message.content
            count += 1
            if first is not None:
                first()
                first = None
        return count

    async def embed(self, model: str, texts: list[str]) -> int:
        return len((await self.client.embed(model, texts)).embeddings)


def httpx_limits(streams: int, places: int | None = None) -> Any:
    import httpx

    connections = places or max(100, streams)
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections)


@asynccontextmanager
async def ollama_python(
    url: str, streams: int, places: int | None = None
) -> AsyncIterator[Session]:
    import ollama

    client = ollama.AsyncClient(url, limits=httpx_limits(streams, places))
    yield Python(client)
    await client._client.aclose()


class Httpx(Decoding):
    def __init__(self, client: Any) -> None:
        super().__init__()
        self.client = client

    async def stream(self, model: str, first: First | None = None) -> int:
        async with self.client.stream("POST", "/api/chat", content=self.chat(model)) as response:
            response.raise_for_status()
            return await self.count(response.aiter_raw(), first)

    async def embed(self, model: str, texts: list[str]) -> int:
        body = self.encode({"model": model, "input": texts})
        response = await self.client.post("/api/embed", content=body)
        response.raise_for_status()
        return len(self.decode_embedding(response.content).embeddings)


@asynccontextmanager
async def httpx_msgspec(
    url: str, streams: int, places: int | None = None
) -> AsyncIterator[Session]:
    import httpx

    async with httpx.AsyncClient(
        base_url=url,
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        limits=httpx_limits(streams, places),
        timeout=None,
        trust_env=False,
    ) as client:
        yield Httpx(client)


class Aiohttp(Decoding):
    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    async def stream(self, model: str, first: First | None = None) -> int:
        async with self.session.post("/api/chat", data=self.chat(model)) as response:
            response.raise_for_status()
            return await self.count(response.content.iter_any(), first)

    async def embed(self, model: str, texts: list[str]) -> int:
        body = self.encode({"model": model, "input": texts})
        async with self.session.post("/api/embed", data=body) as response:
            response.raise_for_status()
            return len(self.decode_embedding(await response.read()).embeddings)


@asynccontextmanager
async def aiohttp_msgspec(
    url: str, streams: int, places: int | None = None
) -> AsyncIterator[Session]:
    import aiohttp

    async with aiohttp.ClientSession(
        url,
        headers={"Content-Type": "application/json"},
        connector=aiohttp.TCPConnector(limit=places or 0),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield Aiohttp(session)


@asynccontextmanager
async def floor(url: str, streams: int, places: int | None = None) -> AsyncIterator[Session]:
    from .floor import Floor

    session = Floor(url)
    yield session
    session.close()


# -- blocking clients, which many threads may share ------------------------------------------------


class BlockingSession:
    """A client that is open, of either library: they are called in the same way."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def stream(self, model: str, first: First | None = None) -> int:
        """Read one chat stream; how many parts it had. Tells when the first one has come."""
        count = 0
        for part in self.client.chat(model, MESSAGES, stream=True):
            part.message.content
            count += 1
            if first is not None:
                first()
                first = None
        return count

    def embed(self, model: str, texts: list[str]) -> int:
        """One request; how many vectors it brought."""
        return len(self.client.embed(model, texts).embeddings)


@contextmanager
def blocking_ours(url: str, streams: int, *, backend: Any = "asyncio") -> Iterator[BlockingSession]:
    from ollama_sc.blocking import Client

    with Client(url, backend=backend) as client:
        yield BlockingSession(client)


@contextmanager
def blocking_python(url: str, streams: int) -> Iterator[BlockingSession]:
    import ollama

    client = ollama.Client(url, limits=httpx_limits(streams))
    yield BlockingSession(client)
    client._client.close()


@dataclass(frozen=True)
class Contender:
    """A client library on an event loop.

    Attributes:
        open: gives a session to a server, for so many streams at a time, with so many places where
            these are bounded; ``None`` is the program for Node, or a blocking client.
        needs: the packages that have to be there.
        blocks: the same for a blocking client, whose session threads share.
    """

    name: str
    loop: str
    open: Callable[[str, int, int | None], AbstractAsyncContextManager[Session]] | None
    needs: tuple[str, ...]
    blocks: Callable[[str, int], AbstractContextManager[BlockingSession]] | None = None

    @property
    def label(self) -> str:
        return f"{self.name}, {self.loop}"

    def does(self, kind: str) -> bool:
        """Whether it takes part in work of that kind: some cannot cancel, some blocks."""
        return kind != "cancel" or self.name not in {FLOOR, JS}

    def missing(self) -> list[str]:
        wanted = (*self.needs, *([self.loop] if self.loop in {"trio", "uvloop"} else []))
        return [name for name in wanted if find_spec(name) is None]


PYTHON = "ollama-python"
JS = "ollama-js"
AIOHTTP = "aiohttp + msgspec"
OURS = "ollama-sc"
FLOOR = "floor"

CONTENDERS = [
    Contender(name, loop, open, needs)
    for name, open, needs, loops in (
        (PYTHON, ollama_python, ("ollama",), ("asyncio", "uvloop", "trio")),
        (JS, None, (), ("node",)),
        ("httpx + msgspec", httpx_msgspec, ("httpx",), ("asyncio", "uvloop", "trio")),
        (AIOHTTP, aiohttp_msgspec, ("aiohttp",), ("asyncio", "uvloop")),
        (OURS, ours, (), ("asyncio", "uvloop", "trio")),
        (FLOOR, floor, (), ("asyncio", "uvloop", "trio")),
    )
    for loop in loops
]

# The same with telemetry on: they are measured beside it, and take no part in comparisons.
OBSERVED = [
    Contender(f"{OURS} + telemetry", loop, ours_observed, ("opentelemetry",))
    for loop in ("asyncio", "trio")
]

THREADS = "threads"
BLOCKING = [
    Contender(PYTHON, THREADS, None, ("ollama",), blocking_python),
    Contender(OURS, THREADS, None, (), blocking_ours),
    Contender(OURS, f"{THREADS} and trio", None, ("trio",), partial(blocking_ours, backend="trio")),
]


def contender(label: str) -> Contender:
    every = (*CONTENDERS, *OBSERVED, *BLOCKING)
    return next(each for each in every if each.label == label)
