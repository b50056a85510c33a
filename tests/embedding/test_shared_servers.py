"""What an embedder knows of its servers from one call to the next, and servers that fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import patch

import anyio
import numpy as np
import pytest
from tests.embedding.support import (
    MODEL,
    QUICK,
    Gate,
    Served,
    expected,
    in_flight,
    servers,
    serving,
    texts,
    wait_until,
)

from ollama_sc import AsyncClient, ConnectError
from ollama_sc.embedding import Embedder
from ollama_sc._jobs.plan import make_plan
from ollama_sc._jobs.servers import Servers
from ollama_sc.embedding.worker.shared_servers import SharedServers
from ollama_sc.testing import FakeOllama, Reply


def test_a_server_that_is_not_there_is_an_error(
    make: Callable[..., Embedder], quick_retries: None
) -> None:
    """With and without trying again."""
    with serving() as server:
        pass
    for attempts in (1, 8):
        embed = make(server.url, attempts=attempts)
        with pytest.raises(ConnectError):
            embed(["a"])
        with pytest.raises(ConnectError):
            embed([])


def test_a_server_that_comes_back_is_waited_for(
    make: Callable[..., Embedder], quick_retries: None
) -> None:
    """Once it has answered, a call in its absence tries as long as any."""
    with serving() as first:
        embed = make(first.url, attempts=1000)
        before = embed(texts(3))
        port = first.fake.port
    asked = 0
    warm_up = servers(embed)[0].warm_up

    async def count() -> int:
        nonlocal asked
        asked += 1
        return await warm_up()

    servers(embed)[0].warm_up = count  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(embed, texts(3))]
        wait_until(lambda: not servers(embed)[0].available)
        outcomes.append(pool.submit(embed, texts(3)))  # it has never seen the server
        wait_until(lambda: asked > 20)
        with serving(port=port) as second:
            for outcome in outcomes:
                assert np.array_equal(outcome.result(), before)
            assert second.warm_ups() == 1


@pytest.mark.anyio
async def test_the_loss_of_a_server_reaches_all_jobs_that_use_it(fake: FakeOllama) -> None:
    """Also those that found it ready before another one did."""
    async with AsyncClient(fake.url) as client:
        known = make_plan(MODEL, {}, 1).make_servers([client])
        (only,) = known.all
        known.mark_available(only)
        gone = only.unavailable
        known.mark_available(only)
        known.mark_unavailable(only, ConnectError("gone"), only_if_others=False)
        assert gone.is_set()
        assert not only.available


def test_others_take_over_what_a_server_leaves(
    make: Callable[..., Embedder], quick_retries: None
) -> None:
    """In the call in which it goes away, and in those that follow."""
    with serving() as stays:
        with serving() as goes:
            goes.fake.script(QUICK, Reply.default())
            goes.fake.always(QUICK, Reply.default(stall_at=0))
            embed = make([goes.url, stays.url], batch_size=4)
            outcome: list[Any] = []
            caller = threading.Thread(target=lambda: outcome.append(embed(texts(100))))
            caller.start()
            goes.wait_for_requests(2)  # it holds a batch
        caller.join()
        whole = expected(stays, texts(100))
        assert np.array_equal(outcome[0], whole)
        assert np.array_equal(embed(texts(100)), whole)
        assert in_flight(embed) == [0, 0]


def test_a_server_that_takes_longer_to_be_ready_than_a_batch_takes_gets_ready(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """Its warm-up outlives the calls that other servers answer: it is one, and not cut off."""
    gate = Gate()
    with serving(embed_error=gate) as slow:
        embed = make([server.url, slow.url], batch_size=1)
        for _ in range(20):
            embed(texts(8))
        gate.open.set()

        def is_used() -> bool:
            embed(texts(8))
            return len(slow.fake.requests) > 1

        wait_until(is_used)
        assert slow.warm_ups() == 1
        assert slow.fake.connections == slow.fake.open_connections  # nobody broke off


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_who_comes_while_a_warm_up_is_given_up_gets_another(backend: str) -> None:
    """It is not told that nobody waited."""

    class Slow:
        available = False
        dimensions = 0

        def __init__(self) -> None:
            self.asked = 0
            self.ending = anyio.Event()

        async def warm_up(self) -> None:
            self.asked += 1
            if self.asked == 1:
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self.ending.wait()
            self.dimensions = 8

    async def main() -> None:
        server: Any = Slow()
        found: list[int] = []

        async def wait() -> None:
            found.append(await servers.warm_up(server))

        async with anyio.create_task_group() as tasks:
            servers = SharedServers([], tasks)
            with anyio.move_on_after(0.01):
                await wait()
            tasks.start_soon(servers.cancel_warm_ups)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            server.ending.set()
        assert found == [8]
        assert not servers._warm_ups

    with patch.object(Servers, "mark_available"):
        anyio.run(main, backend=backend)
