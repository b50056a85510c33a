"""A shutdown lets requests finish for a while, and then ends them."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient, ClientClosedError, RequestError
from ollama_sc.testing import FakeOllama, Reply
from tests.support import MESSAGES, Outcome, exhaust, is_quiet

pytestmark = pytest.mark.anyio


async def test_shutdown_lets_requests_finish(fake: FakeOllama) -> None:
    """Within the grace, requests in flight end by themselves; new ones are refused."""
    fake.always("/api/chat", Reply.default().replace(delay=0.1))
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        ended = Outcome(tasks, client.chat, "llama3.2", MESSAGES)
        await fake.wait_for_requests(1)
        async with anyio.create_task_group() as inner:
            done = Outcome(inner, client.shutdown, 5)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(ClientClosedError, match="shut down"):
                await client.version()
            with pytest.raises(ClientClosedError):
                async with client.group():
                    pass
        assert done.value == 0
        assert ended.error is None
        assert ended.value.done
        assert client.statistics() == (0, 0, 0, 0, 0, 0)
    await fake.wait_all_closed()


async def test_shutdown_lets_operations_finish(fake: FakeOllama) -> None:
    """What lies between the requests of an operation is in flight too; grace is for it as well."""
    fake.always("/api/generate", Reply.default().replace(delay=0.1))
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        loading = Outcome(tasks, client.load, "nomic-embed-text")
        uploading = Outcome(tasks, client.create_blob, b"x" * 5_000_000)
        await fake.wait_for_requests(1)
        assert await client.shutdown(5) == 0
        assert loading.error is None
        assert uploading.error is None
        paths = [request.path for request in fake.requests]
        assert "/api/embed" in paths


@pytest.mark.parametrize("grace", [0, 0.05])
async def test_shutdown_aborts_the_rest(anyio_backend: Any, grace: float) -> None:
    """After the grace, what still runs is aborted, and shutdown says how many that were."""
    async with FakeOllama(token_rate=20, tokens=1000) as server:
        async with AsyncClient(server.url) as client, client.group() as group:
            one = await client.chat("llama3.2", MESSAGES, stream=True)
            two = await group.chat("llama3.2", MESSAGES, stream=True)
            with anyio.fail_after(5):
                assert await client.shutdown(grace) == 2
            assert client.statistics() == (0, 0, 0, 0, 0, 0)
            for stream in (one, two):
                with pytest.raises(AbortError, match="shutting down"):
                    await exhaust(stream)
            with anyio.fail_after(5):
                await server.wait_all_closed()
            assert await client.shutdown(grace) == 0


async def test_a_shutdown_that_is_cancelled_aborts_at_once(anyio_backend: Any) -> None:
    """Cancelling the wait does not leave requests running."""
    async with FakeOllama(token_rate=20, tokens=1000) as server:
        async with AsyncClient(server.url) as client:
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            with anyio.move_on_after(0.05) as scope:
                await client.shutdown(60)
            assert scope.cancelled_caught
            assert is_quiet(client)
            with pytest.raises(AbortError):
                await exhaust(stream)


@pytest.mark.parametrize("grace", [-1, float("nan"), "5", None, True])
async def test_a_grace_that_is_no_time(fake: FakeOllama, grace: Any) -> None:
    """A grace that cannot be is a RequestError, and the client stays open."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="grace"):
            await client.shutdown(grace)
        assert (await client.version()).version
