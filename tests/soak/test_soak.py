"""Cancels, aborts and faults at random for a while; afterwards the client is as good as new.

`make soak` runs this for a minute on each event loop, `make test` for two seconds. `SOAK_SECONDS`
and `SOAK_SEED` say it exactly.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient, OllamaError, Timeouts
from ollama_sc.testing import FakeOllama, Reply
from tests.support import LONG, MESSAGES, is_quiet, new_seed
from tests.wire import client_context, open_files, quick, server_context, until

pytestmark = [pytest.mark.anyio, quick]

SECONDS = float(os.environ.get("SOAK_SECONDS", "60" if LONG else "2"))
SEED = new_seed()
WORKERS = 30
PLACES = 10
AFTERWARDS = 1000
TEXTS = [f"text {number}" for number in range(20)]
LIMITS = Timeouts(connect=2, first_chunk=0.2, idle=0.2, total=1)


class Side:
    """A server, a client of it, and what right answers are."""

    def __init__(self, server: FakeOllama, client: AsyncClient) -> None:
        self.server = server
        self.client = client
        self.vectors: dict[str, Any] = {}


class Soak:
    """What the workers do, and what they saw."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.outcomes: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()

    def reply(self) -> Reply:
        """What the endpoint answers, with something wrong, or nothing."""
        chance = self.chance
        reply = Reply.default()
        if chance.random() < 0.4:
            reply = reply.replace(delay=chance.random() * 0.02)
        if chance.random() < 0.4:
            return reply
        at = chance.randrange(600)
        return chance.choice(
            [
                reply.replace(cut_at=at),
                reply.replace(reset_at=at),
                reply.replace(stall_at=at),
                reply.replace(drip=0),
                reply.replace(drip=0.0005),
                reply.replace(split_at=sorted(chance.sample(range(600), 5))),
                reply.replace(keep_alive=False),
                reply.replace(chunked=False),
                reply.replace(trailing=b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
                reply.replace(early=True),
                Reply.silence(),
                Reply.busy(),
                Reply.html(502),
                Reply.raw(b""),
                Reply.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{"),
                Reply.endless_line(),
            ]
        )

    async def worker(self, sides: list[Side], end: float) -> None:
        """Ask and be disturbed, again and again."""
        chance = self.chance
        while anyio.current_time() < end:
            side = chance.choice(sides)
            limit = 10.0 if chance.random() < 0.5 else chance.random() ** 2 * 0.05
            outcome = "whole"
            with anyio.move_on_after(limit) as scope:
                try:
                    async with side.client.group() as group, anyio.create_task_group() as tasks:
                        if chance.random() < 0.3:
                            tasks.start_soon(self.abort, side.client, group)
                        try:
                            await self.ask(side, group)
                        except OllamaError as error:
                            outcome = "aborted" if isinstance(error, AbortError) else "failed"
                            self.errors[type(error).__name__] += 1
                        tasks.cancel_scope.cancel()
                finally:
                    if scope.cancel_called:
                        outcome = "cancelled"
                    self.outcomes[outcome] += 1

    async def abort(self, client: AsyncClient, group: Any) -> None:
        await anyio.sleep(self.chance.random() ** 2 * 0.03)
        (client if self.chance.random() < 0.02 else group).abort("chance")

    async def ask(self, side: Side, group: Any) -> None:
        """One request of any kind, its reply prepared."""
        chance, server = self.chance, side.server
        kind = chance.choice(["version", "embed", "chat", "stream", "stream", "blob"])
        if kind == "version":
            server.script("/api/version", self.reply())
            await group.version()
        elif kind == "embed":
            server.script("/api/embed", self.reply())
            text = chance.choice(TEXTS)
            reply = await group.embed("nomic-embed-text", text)
            assert reply.embeddings[0] == side.vectors[text]
        elif kind == "chat":
            server.script("/api/chat", self.reply())
            await group.chat("llama3.2", [*MESSAGES, {"role": "user", "content": "x" * 200_000}])
        elif kind == "stream":
            server.script("/api/chat", self.reply())
            async with await group.chat("llama3.2", MESSAGES, stream=True) as stream:
                way = chance.randrange(4)
                async for _ in stream:
                    if way == 0 and chance.random() < 0.1:
                        break
                    if way == 1 and chance.random() < 0.1:
                        stream.abort()
        else:
            await group.create_blob(chance.randbytes(chance.choice([0, 10, 300_000])))


@pytest.mark.timeout(SECONDS * 2 + 120)
async def test_soak(anyio_backend: Any) -> None:
    """No place is lost, no socket stays open, no answer is another's, and all goes on."""
    print("seed", SEED, "seconds", SECONDS)
    soak = Soak(SEED)
    before = open_files()
    async with AsyncExitStack() as stack:
        sides = [
            await side(stack),
            await side(stack, server_context(), verify=client_context()),
        ]
        wanted = {"whole", "aborted", "cancelled", "failed"}
        for _ in range(10):  # on a busy machine few calls come through in so short a time
            with anyio.fail_after(SECONDS + 30):
                async with anyio.create_task_group() as tasks:
                    for _ in range(WORKERS):
                        tasks.start_soon(soak.worker, sides, anyio.current_time() + SECONDS)
            if wanted <= soak.outcomes.keys():
                break
        print(dict(soak.outcomes), dict(soak.errors))
        assert wanted <= soak.outcomes.keys()
        for one in sides:
            await is_as_new(one)
    await until(lambda: open_files() <= before)


async def side(stack: AsyncExitStack, tls: Any = None, **options: Any) -> Side:
    server = await stack.enter_async_context(
        FakeOllama(ssl_context=tls, token_rate=500, tokens=20, dimensions=8)
    )
    client = await stack.enter_async_context(
        AsyncClient(server.url, max_in_flight=PLACES, timeout=LIMITS, **options)
    )
    found = Side(server, client)
    for text in TEXTS:
        reply = await client.embed("nomic-embed-text", text, timeout=20)  # nothing goes wrong yet
        found.vectors[text] = reply.embeddings[0]
    return found


async def is_as_new(side: Side) -> None:
    """Nothing is left of what happened, and a thousand requests in a row and at once succeed."""
    client, server = side.client, side.server
    assert is_quiet(client)
    assert client._shared.limiter.available == PLACES
    statistics = client.statistics()
    assert statistics.open == statistics.idle <= PLACES
    with anyio.fail_after(10):
        await server._serving.wait_until(lambda: server.open_connections <= statistics.open)
    server._serving.scripts.clear()
    asked = iter(range(AFTERWARDS // 2))

    async def worker() -> None:
        for number in asked:
            text = TEXTS[number % len(TEXTS)]
            reply = await client.embed("nomic-embed-text", text, timeout=20)
            assert reply.embeddings[0] == side.vectors[text]

    async with anyio.create_task_group() as tasks:
        for _ in range(PLACES):
            tasks.start_soon(worker)
    statistics = client.statistics()
    assert statistics.open == statistics.idle <= PLACES
