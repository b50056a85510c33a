"""Who takes part, and how each of them does the work.

All are given their best: one encoder, and, where they decode by msgspec, the same Structs as ours and
one call for all whole lines that they are given at once. What builds on httpx keeps to a hundred
connections, as it does by default, where requests are short: more of them make it slower. Where there
are more streams than that it may open one for each.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


class Session(Protocol):
    """A client that is open."""

    async def stream(self, model: str) -> int:
        """Read one chat stream; how many parts it had."""

    async def embed(self, model: str, texts: list[str]) -> int:
        """One request; how many vectors it brought."""


class Ours:
    def __init__(self, client: Any) -> None:
        self.client = client

    async def stream(self, model: str) -> int:
        count = 0
        async with await self.client.chat(model, MESSAGES, stream=True) as stream:
            async for part in stream:
                part.message.content
                count += 1
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
async def ours(url: str, streams: int) -> AsyncIterator[Session]:
    from ollama_sc import AsyncClient

    async with AsyncClient(url) as client:
        yield Ours(client)


class Python:
    def __init__(self, client: Any) -> None:
        self.client = client

    async def stream(self, model: str) -> int:
        count = 0
        async for part in await self.client.chat(model, MESSAGES, stream=True):
            part.message.content
            count += 1
        return count

    async def embed(self, model: str, texts: list[str]) -> int:
        return len((await self.client.embed(model, texts)).embeddings)


def httpx_limits(streams: int) -> Any:
    import httpx

    connections = max(100, streams)
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections)


@asynccontextmanager
async def ollama_python(url: str, streams: int) -> AsyncIterator[Session]:
    import ollama

    client = ollama.AsyncClient(url, limits=httpx_limits(streams))
    yield Python(client)
    await client._client.aclose()


class Decoding:
    """What the peers share that decode by msgspec."""

    def __init__(self) -> None:
        import msgspec

        from ollama_sc.types import ChatResponse, EmbedResponse

        self.encode = msgspec.json.Encoder().encode
        self.decode_parts = msgspec.json.Decoder(ChatResponse).decode_lines
        self.decode_embedding = msgspec.json.Decoder(EmbedResponse).decode

    def chat(self, model: str) -> bytes:
        return self.encode({"model": model, "messages": MESSAGES, "stream": True})

    async def count(self, blocks: AsyncIterator[bytes]) -> int:
        """Decode a stream a network read at a time."""
        count = 0
        rest = b""
        async for block in blocks:
            if rest:
                block = rest + block
            end = block.rfind(b"\n") + 1
            rest = block[end:]
            for part in self.decode_parts(block[:end] if rest else block):
                part.message.content
                count += 1
        return count


class Httpx(Decoding):
    def __init__(self, client: Any) -> None:
        super().__init__()
        self.client = client

    async def stream(self, model: str) -> int:
        async with self.client.stream("POST", "/api/chat", content=self.chat(model)) as response:
            response.raise_for_status()
            return await self.count(response.aiter_raw())

    async def embed(self, model: str, texts: list[str]) -> int:
        body = self.encode({"model": model, "input": texts})
        response = await self.client.post("/api/embed", content=body)
        response.raise_for_status()
        return len(self.decode_embedding(response.content).embeddings)


@asynccontextmanager
async def httpx_msgspec(url: str, streams: int) -> AsyncIterator[Session]:
    import httpx

    async with httpx.AsyncClient(
        base_url=url,
        headers={"Content-Type": "application/json", "Accept-Encoding": "identity"},
        limits=httpx_limits(streams),
        timeout=None,
        trust_env=False,
    ) as client:
        yield Httpx(client)


class Aiohttp(Decoding):
    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session

    async def stream(self, model: str) -> int:
        async with self.session.post("/api/chat", data=self.chat(model)) as response:
            response.raise_for_status()
            return await self.count(response.content.iter_any())

    async def embed(self, model: str, texts: list[str]) -> int:
        body = self.encode({"model": model, "input": texts})
        async with self.session.post("/api/embed", data=body) as response:
            response.raise_for_status()
            return len(self.decode_embedding(await response.read()).embeddings)


@asynccontextmanager
async def aiohttp_msgspec(url: str, streams: int) -> AsyncIterator[Session]:
    import aiohttp

    async with aiohttp.ClientSession(
        url,
        headers={"Content-Type": "application/json"},
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
    ) as session:
        yield Aiohttp(session)


@asynccontextmanager
async def floor(url: str, streams: int) -> AsyncIterator[Session]:
    from .floor import Floor

    session = Floor(url)
    yield session
    session.close()


@dataclass(frozen=True)
class Contender:
    """A client library on an event loop.

    Attributes:
        open: gives a session to a server, for so many streams at a time; ``None`` is the program for
            Node.
        needs: the packages that have to be there.
    """

    name: str
    loop: str
    open: Callable[[str, int], AbstractAsyncContextManager[Session]] | None
    needs: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.name}, {self.loop}"

    def missing(self) -> list[str]:
        wanted = (*self.needs, *([self.loop] if self.loop in {"trio", "uvloop"} else []))
        return [name for name in wanted if find_spec(name) is None]


PYTHON = "ollama-python"
AIOHTTP = "aiohttp + msgspec"
OURS = "ollama-sc"
FLOOR = "floor"

CONTENDERS = [
    Contender(name, loop, open, needs)
    for name, open, needs, loops in (
        (PYTHON, ollama_python, ("ollama",), ("asyncio", "trio")),
        ("ollama-js", None, (), ("node",)),
        ("httpx + msgspec", httpx_msgspec, ("httpx",), ("asyncio", "trio")),
        (AIOHTTP, aiohttp_msgspec, ("aiohttp",), ("asyncio", "uvloop")),
        (OURS, ours, (), ("asyncio", "uvloop", "trio")),
        (FLOOR, floor, (), ("asyncio", "trio")),
    )
    for loop in loops
]


def contender(label: str) -> Contender:
    return next(each for each in CONTENDERS if each.label == label)
