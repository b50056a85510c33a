"""What the tests of jobs share: texts, sources that are watched, servers that come and go."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel

from ollama_sc import AsyncClient
from ollama_sc.testing import FakeOllama

MODEL = "nomic-embed-text"
QUICK = "/v1/embeddings"
NATIVE = "/api/embed"
PROBE = ["warm up"]  # what a server is asked for before a job's own texts


def texts(count: int) -> list[str]:
    """So many texts, each another one."""
    return [f"text {number}" for number in range(count)]


async def later(items: list[str]) -> AsyncIterator[str]:
    """The same texts, from an async source."""
    for item in items:
        await anyio.lowlevel.checkpoint()
        yield item


def inputs(fake: FakeOllama) -> list[list[str]]:
    """The texts of each request so far."""
    return [request.json["input"] for request in fake.requests if request.body]


def quick_body(*rows: bytes) -> bytes:
    """The body of a reply to the quicker way, with these bytes as vectors."""
    data = [
        {"object": "embedding", "embedding": base64.b64encode(row).decode(), "index": index}
        for index, row in enumerate(rows)
    ]
    return json.dumps({"object": "list", "data": data, "model": MODEL, "usage": {}}).encode()


class Watched:
    """An async source that counts what is read, and knows whether its generator was closed."""

    def __init__(self, count: int, stall_at: int | None = None) -> None:
        self.count = count
        self.read = 0
        self.entered = self.closed = False
        self.stalled = anyio.Event()
        self.stall_at = stall_at

    async def __aiter__(self) -> AsyncIterator[str]:
        self.entered = True
        try:
            for number in range(self.count):
                if number == self.stall_at:
                    self.stalled.set()
                    await anyio.sleep_forever()
                await anyio.lowlevel.checkpoint()
                self.read += 1
                yield f"text {number}"
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.closed = True


async def until_still(fake: FakeOllama) -> None:
    """Wait until nothing has changed for a while."""
    before = -1
    while before != len(fake.requests) or fake.in_flight:
        before = len(fake.requests)
        await anyio.sleep(0.05)
        await anyio.wait_all_tasks_blocked()


class Two:
    """Two servers that can go away and come back, each in a task of its own, and their clients."""

    def __init__(self, **options: Any) -> None:
        self.options: dict[str, Any] = {"dimensions": 16, "embed_seconds": 0.01, **options}
        self._life = AsyncExitStack()
        self._stops: list[anyio.Event] = [anyio.Event(), anyio.Event()]
        self._stopped: list[anyio.Event] = [anyio.Event(), anyio.Event()]
        self.fakes: list[FakeOllama] = []
        self.clients: list[AsyncClient] = []

    async def __aenter__(self) -> Two:
        self._tasks = await self._life.enter_async_context(anyio.create_task_group())
        for number in range(2):
            fake: FakeOllama = await self._tasks.start(self._serve, number, 0)
            self.fakes.append(fake)
            client = AsyncClient(fake.url, headers={"X-Which": str(number)})
            self.clients.append(await self._life.enter_async_context(client))
        return self

    async def __aexit__(self, *failure: Any) -> bool | None:
        for stop in self._stops:
            stop.set()
        return await self._life.__aexit__(*failure)

    async def _serve(self, number: int, port: int, *, task_status: Any) -> None:
        async with FakeOllama(port=port, **self.options) as fake:
            task_status.started(fake)
            await self._stops[number].wait()
        self._stopped[number].set()

    async def kill(self, number: int) -> None:
        self._stops[number].set()
        await self._stopped[number].wait()

    async def revive(self, number: int) -> FakeOllama:
        self._stops[number], self._stopped[number] = anyio.Event(), anyio.Event()
        fake: FakeOllama = await self._tasks.start(self._serve, number, self.fakes[number].port)
        return fake
