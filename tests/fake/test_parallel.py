"""Requests at once: `parallel` and `max_queue`."""

from __future__ import annotations

import anyio
import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests.fake.support import CHAT, GENERATE, ask, client, connect, head_and_body, post

pytestmark = pytest.mark.anyio


async def test_parallel_requests_wait_in_order():
    """With parallel=1 the second waits until the first is done; other paths do not wait."""
    async with (
        FakeOllama(parallel=1) as fake,
        client(fake) as http,
        anyio.create_task_group() as group,
    ):
        fake.script("/api/chat", Reply.silence())
        group.start_soon(ask, fake, "/api/chat", CHAT)
        await fake.wait_for_requests(1)
        group.start_soon(ask, fake, "/api/generate", GENERATE)
        await fake.wait_for_requests(2)
        group.start_soon(ask, fake, "/api/embed", {"model": "all-minilm", "input": "x"})
        await fake.wait_for_requests(3)
        assert (await http.get("/api/version")).status_code == 200
        assert [r.headers_sent_at for r in fake.requests[:3]] == [None] * 3
        assert fake.in_flight == 3
        assert fake.peak_in_flight == 4
        group.cancel_scope.cancel()
    await fake.wait_all_closed()
    assert fake.in_flight == 0


async def test_a_place_is_handed_on_when_its_client_leaves():
    """The first in the queue goes on when the one in service disconnects."""
    async with FakeOllama(parallel=1) as fake:
        fake.script("/api/chat", Reply.silence())
        async with await connect(fake, post("/api/chat", CHAT)) as stream:
            await fake.wait_for_requests(1)
            async with await connect(fake, post("/api/chat", CHAT)) as other:
                await fake.wait_for_requests(2)
                await stream.aclose()
                head, _ = await head_and_body(other)
    assert b"200 OK" in head


async def test_a_full_queue_draws_503():
    """Beyond parallel and max_queue the server is busy, at once."""
    async with FakeOllama(parallel=1, max_queue=1) as fake, anyio.create_task_group() as group:
        fake.script("/api/chat", Reply.silence())
        group.start_soon(ask, fake, "/api/chat", CHAT)
        await fake.wait_for_requests(1)
        group.start_soon(ask, fake, "/api/chat", CHAT)
        await fake.wait_for_requests(2)
        await anyio.wait_all_tasks_blocked()
        refused = await ask(fake, "/api/chat", CHAT)
        assert refused.status_code == 503
        assert refused.json()["error"].count("  ") == 1
        group.cancel_scope.cancel()
