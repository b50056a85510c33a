"""An operation's requests are those of its own client, wherever its context is seen."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from ollama_sc import AbortError, AsyncClient, ClientClosedError
from ollama_sc._calls.call import current_operation
from ollama_sc._timeouts import Timeouts
from ollama_sc.testing import FakeOllama, Reply
from tests.support import MESSAGES, Outcome, is_quiet, until

pytestmark = pytest.mark.anyio


async def operate(client: AsyncClient, work: Any) -> Any:
    """Run something as an operation of a client."""
    return await client._calls.operation("test", Timeouts(), work)


async def test_another_clients_request_is_no_part_of_it(slow: FakeOllama) -> None:
    """In an operation of one client, a request of another one is counted by its own abort."""
    async with (
        AsyncClient(slow.url) as one,
        AsyncClient(slow.url) as two,
        anyio.create_task_group() as tasks,
    ):
        outcome = Outcome(tasks, operate, one, partial(two.chat, "llama3.2", MESSAGES))
        await slow.wait_for_requests(1)
        assert two.abort("here") == 1
        await outcome.event.wait()
        assert isinstance(outcome.error, AbortError)
        assert one.abort() == 0
        assert is_quiet(one) and is_quiet(two)


async def test_its_own_clients_request_is_a_part_of_it(slow: FakeOllama) -> None:
    """A request of the same client, or of a group of it, is ended with it and not counted."""
    async with AsyncClient(slow.url) as client, anyio.create_task_group() as tasks:
        for caller in (client, client.group()):

            async def work(caller: Any = caller) -> None:
                if caller is client:
                    await client.chat("llama3.2", MESSAGES)
                async with caller:
                    await caller.chat("llama3.2", MESSAGES)

            count = len(slow.requests)
            outcome = Outcome(tasks, operate, client, work)
            await slow.wait_for_requests(count + 1)
            assert client.abort("here") == 1
            await outcome.event.wait()
            assert isinstance(outcome.error, AbortError)


async def test_an_operation_around_anothers(slow: FakeOllama) -> None:
    """A request is a part of its own client's, though one of another client is between them."""
    async with (
        AsyncClient(slow.url) as one,
        AsyncClient(slow.url) as two,
        anyio.create_task_group() as tasks,
    ):
        request = partial(one.chat, "llama3.2", MESSAGES)
        outcome = Outcome(tasks, operate, one, partial(operate, two, request))
        await slow.wait_for_requests(1)
        assert one.abort("here") == 1
        await outcome.event.wait()
        assert isinstance(outcome.error, AbortError)
        assert is_quiet(one) and is_quiet(two)


async def test_what_an_operation_has_left_behind_is_no_part_of_it(slow: FakeOllama) -> None:
    """A task that it started outside of itself sees its context after its end."""
    async with AsyncClient(slow.url) as client, anyio.create_task_group() as tasks:
        go = anyio.Event()

        async def later() -> None:
            await go.wait()
            assert current_operation.get() is not None
            with pytest.raises(AbortError):
                await client.chat("llama3.2", MESSAGES)

        async def work() -> None:
            tasks.start_soon(later)

        await operate(client, work)
        go.set()
        await slow.wait_for_requests(1)
        assert client.abort() == 1


async def test_a_closing_client_takes_nothing_of_anothers_operation(fake: FakeOllama) -> None:
    """While it drains it takes requests of its own operations alone."""
    fake.script("/api/chat", Reply.silence())
    async with AsyncClient(fake.url) as one, AsyncClient(fake.url) as two:

        async def work() -> None:
            async with anyio.create_task_group() as tasks:
                Outcome(tasks, two.chat, "llama3.2", MESSAGES)
                await fake.wait_for_requests(1)
                tasks.start_soon(two.shutdown, 60)
                await until(lambda: two._calls._draining)
                with pytest.raises(ClientClosedError):
                    await two.version()
                two.abort()

        await operate(one, work)


async def test_a_threads_loop_does_not_see_it(slow: FakeOllama) -> None:
    """A portal copies the context of who calls it: a client in there counts its own requests."""

    async def in_the_thread(url: str) -> int:
        async with AsyncClient(url) as client, anyio.create_task_group() as tasks:
            outcome = Outcome(tasks, client.chat, "llama3.2", MESSAGES)
            await until(lambda: client.statistics().receiving == 1)
            count = client.abort()
            await outcome.event.wait()
            return count

    def thread() -> int:
        with anyio.from_thread.start_blocking_portal() as portal:
            return portal.call(in_the_thread, slow.url)

    async with AsyncClient(slow.url) as client:
        assert await operate(client, partial(anyio.to_thread.run_sync, thread)) == 1


async def test_shutting_down_in_an_operation_does_not_wait_for_it(fake: FakeOllama) -> None:
    """An operation that ends its own client hears of it, and nobody waits for ever."""
    async with AsyncClient(fake.url) as client:
        with anyio.fail_after(5), pytest.raises(AbortError):
            await operate(client, partial(client.shutdown, 0))
        assert is_quiet(client)
