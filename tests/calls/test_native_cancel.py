"""asyncio's own cancellation: whenever it comes, it leaves nothing behind."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient, Timeouts
from ollama_sc._calls.call import Call
from ollama_sc.testing import FakeOllama, Reply
from tests.calls.support import asyncio_only, chat
from tests.support import MESSAGES, exhaust, is_quiet

pytestmark = pytest.mark.anyio


# -- of callers ------------------------------------------------------------------------------------


@asyncio_only
async def test_a_native_cancel_of_a_caller_leaves_nothing(slow: FakeOllama) -> None:
    """asyncio's own Task.cancel, timeout and wait_for end the call as anyio's scopes do."""
    async with AsyncClient(slow.url) as client:
        for number, streamed in enumerate((False, True), 1):
            task = asyncio.create_task(chat(client, streamed))
            await slow.wait_for_requests(number)
            task.cancel("mine")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert is_quiet(client)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.chat("llama3.2", MESSAGES)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.chat("llama3.2", MESSAGES), 0.05)
        assert is_quiet(client)
        await slow.wait_all_closed()
        assert (await client.version()).version


@asyncio_only
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_second_native_cancel_does_not_outrun_the_end(
    slow: FakeOllama, streamed: bool
) -> None:
    """A caller that is cancelled twice still leaves after its request has ended."""
    async with AsyncClient(slow.url) as client:
        for ticks in range(12):

            async def work() -> None:
                if streamed:
                    async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                        await exhaust(stream)
                else:
                    await client.chat("llama3.2", MESSAGES)

            task = asyncio.create_task(work())
            for _ in range(ticks * 3):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert is_quiet(client)


# -- of a request's task ---------------------------------------------------------------------------


@asyncio_only
async def test_a_native_cancel_of_a_requests_task_ends_that_request_alone(
    slow: FakeOllama,
) -> None:
    """Whoever cancels our task with asyncio's means neither ends the client nor its siblings."""
    async with AsyncClient(slow.url) as client:
        sibling = await client.generate("llama3.2", "Hi", stream=True)
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        for task in asyncio.all_tasks():
            if "ollama_sc POST /api/chat" in task.get_name():
                task.cancel()
        with pytest.raises(AbortError):
            await exhaust(stream)
        assert await anext(sibling)
        await sibling.aclose()
        assert (await client.version()).version


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@asyncio_only
async def test_a_native_cancel_before_the_first_step_still_gives_an_outcome(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that asyncio never runs leaves no caller waiting and no registry entry."""
    calls: list[Call[Any]] = []
    monkeypatch.setattr("ollama_sc._client.CLEANUP_SECONDS", 0.1)
    async with AsyncClient(fake.url) as client:
        call = Call[str](client._calls.runtime, "a call", Timeouts())
        calls.append(call)

        async def work() -> str:
            return "done"

        client._calls.start(call, work)
        for task in asyncio.all_tasks():
            if task.get_name() == "ollama_sc a call":
                task.cancel()
    assert calls[0].ended.is_set()
    with pytest.raises(AbortError):
        await calls[0].outcome()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_asyncio_cancels_before_its_first_step(
    fake: FakeOllama, stream: bool
) -> None:
    """Its caller hears of it at once, and neither the client nor its body is disturbed."""

    def cancel_it() -> None:
        (task,) = (task for task in asyncio.all_tasks() if "POST /api/chat" in task.get_name())
        assert task.cancel()

    async with AsyncClient(fake.url, max_in_flight=1) as client:
        # It runs after the call below has started its task, and before that takes its first step.
        asyncio.get_running_loop().call_soon(cancel_it)
        with anyio.fail_after(5), pytest.raises(AbortError, match="cancelled"):
            await client.chat("llama3.2", MESSAGES, stream=stream)
        assert is_quiet(client)
        assert (await client.version()).version
    assert [request.path for request in fake.requests] == ["/api/version"]


# -- on the way out --------------------------------------------------------------------------------


async def idle_connections(client: AsyncClient, fake: FakeOllama, count: int) -> None:
    """Leave so many connections idle in a client."""
    fake.always("/api/version", Reply.json({"version": "1"}).replace(delay=0.005))
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(client.version)
    fake.always("/api/version", None)
    assert client.statistics().idle == count


@asyncio_only
@pytest.mark.parametrize("body", ["ends", "raises"])
@pytest.mark.parametrize("how", ["leave", "shutdown"])
async def test_a_native_cancel_while_the_client_closes_leaves_no_connection(
    fake: FakeOllama, how: str, body: str
) -> None:
    """Whenever asyncio cancels the one who leaves or shuts down, every connection is closed."""
    for ticks in range(14):

        async def work() -> None:
            async with AsyncClient(fake.url) as client:
                await idle_connections(client, fake, 5)
                me = asyncio.current_task()
                assert me is not None
                loop = asyncio.get_running_loop()

                def tick(left: int) -> None:
                    if left:
                        loop.call_soon(tick, left - 1)
                    else:
                        me.cancel()

                loop.call_soon(tick, ticks)
                if how == "shutdown":
                    await client.shutdown(1)
                if body == "raises":
                    raise ValueError("mine")

        task = asyncio.create_task(work())
        await asyncio.wait([task])
        error = None if task.cancelled() else task.exception()
        if body == "raises" and how == "leave":
            assert isinstance(error, ValueError)
        with anyio.fail_after(5):
            await fake.wait_all_closed()


@asyncio_only
async def test_a_native_cancel_in_a_groups_exit_leaves_no_group(slow: FakeOllama) -> None:
    """A group is gone from its client however its exit went, and its body's exception stays."""
    streams: list[Any] = []
    async with AsyncClient(slow.url) as client:
        for ticks in range(6):
            for fails in (False, True):
                in_exit = asyncio.Event()

                async def work() -> None:
                    async with client.group() as group:
                        streams.append(await group.chat("llama3.2", MESSAGES, stream=True))
                        in_exit.set()
                        if fails:
                            raise ValueError("mine")

                task = asyncio.create_task(work())
                await in_exit.wait()
                for _ in range(ticks):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if fails:
                    assert isinstance(task.exception(), ValueError)
                assert not client._calls._groups
                assert is_quiet(client)


@asyncio_only
async def test_a_native_cancel_in_a_streams_exit_keeps_the_exception(slow: FakeOllama) -> None:
    """What the body of a stream raised is what leaves."""
    async with AsyncClient(slow.url) as client:
        for ticks in range(5):
            in_exit = asyncio.Event()

            async def work() -> None:
                async with await client.chat("llama3.2", MESSAGES, stream=True):
                    in_exit.set()
                    raise ValueError("mine")

            task = asyncio.create_task(work())
            await in_exit.wait()
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert isinstance(task.exception(), ValueError)
            assert is_quiet(client)
