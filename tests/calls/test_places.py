"""Places in flight, and the numbers that a client gives of its requests."""

from __future__ import annotations

from contextvars import ContextVar
from functools import partial
from typing import Any

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient, Timeouts
from ollama_sc._calls.call import Call
from ollama_sc._loop.task_group import NativeTaskGroup
from ollama_sc.testing import FakeOllama, Reply
from tests.calls.support import name_of, running_tasks
from tests.support import MESSAGES, Outcome, is_quiet, until

pytestmark = pytest.mark.anyio


# -- places in flight ------------------------------------------------------------------------------


async def test_no_more_requests_than_places(anyio_backend: Any) -> None:
    """With max_in_flight the server never has more at a time; all are served, in order."""
    async with FakeOllama() as server:
        server.always("/api/embed", Reply.default().replace(delay=0.005))
        async with AsyncClient(server.url, max_in_flight=4) as client:
            async with anyio.create_task_group() as tasks:
                for number in range(40):
                    tasks.start_soon(client.embed, "nomic-embed-text", str(number))
                    await anyio.lowlevel.checkpoint()
            assert server.peak_in_flight == 4
            assert len(server.requests) == 40
            order = [int(request.json["input"]) for request in server.requests]
            assert sorted(order) == list(range(40))
            assert max(abs(place - number) for place, number in enumerate(order)) <= 4
            assert client._shared.limiter.available == 4


async def test_a_live_stream_has_a_place(anyio_backend: Any) -> None:
    """A stream keeps its place until it has ended."""
    async with FakeOllama(token_rate=20) as server:
        async with AsyncClient(server.url, max_in_flight=1) as client:
            async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                with anyio.move_on_after(0.05) as scope:
                    await client.version()
                assert scope.cancelled_caught
                await anext(stream)
            assert (await client.version()).version


async def test_without_a_limit_nothing_queues(fake: FakeOllama) -> None:
    """By default a hundred requests are all at the server at once."""
    fake.always("/api/chat", Reply.silence())
    async with AsyncClient(fake.url) as client:
        async with anyio.create_task_group() as tasks:
            ended = [Outcome(tasks, client.chat, "llama3.2", MESSAGES) for _ in range(100)]
            await fake.wait_for_requests(100)
            await until(lambda: client.statistics().receiving == 100)
            assert client.statistics() == (0, 0, 0, 100, 100, 0)
            assert client.abort() == 100
        assert all(isinstance(one.error, AbortError) for one in ended)


async def test_who_waits_for_a_place_has_no_task(slow: FakeOllama) -> None:
    """It ends at once, and leaves nothing: neither where it is aborted nor where it is cancelled."""
    async with AsyncClient(slow.url, max_in_flight=1) as client:
        async with (
            await client.chat("llama3.2", MESSAGES, stream=True),
            anyio.create_task_group() as tasks,
        ):
            before = running_tasks()
            outcomes = [Outcome(tasks, client.version) for _ in range(3)]
            await until(lambda: client.statistics().waiting == 3)
            added = {name_of(task) for task in running_tasks() - before}
            assert not [name for name in added if name.startswith("ollama_sc ")]
            waiting = [call for call in client._calls.active if call.phase == "waiting"]
            assert waiting[0].abort("enough")
            assert client.statistics().waiting == 2
            with anyio.move_on_after(0) as scope:
                await client.version()
            assert scope.cancelled_caught
            assert client.abort("enough") == 3
            assert is_quiet(client) or len(client._calls.active) == 1  # the stream's task
            assert not client._shared.limiter._waiting
        assert all(isinstance(one.error, AbortError) for one in outcomes)
        assert client._shared.limiter.available == 1


async def test_first_come_first_served(slow: FakeOllama) -> None:
    """With a total timeout, whose clock runs meanwhile, or without one; who has gone is passed over."""
    async with AsyncClient(slow.url, max_in_flight=1) as client:
        async with anyio.create_task_group() as tasks:
            async with await client.chat("llama3.2", MESSAGES, stream=True):
                for number in range(8):
                    timeout = Timeouts(total=60) if number % 2 else None
                    embed = partial(client.embed, "nomic-embed-text", str(number), timeout=timeout)
                    Outcome(tasks, embed)
                    await until(lambda number=number: client.statistics().waiting == number + 1)
                with anyio.move_on_after(0.01):
                    await client.embed("m", "gone")
        texts = [request.json["input"] for request in slow.requests if "embed" in request.path]
        assert texts == [str(number) for number in range(8)]
        assert client._shared.limiter.available == 1


async def test_who_has_waited_runs_in_its_callers_context(slow: FakeOllama) -> None:
    """A hook of httpx sees the context variables of whoever asks, not of the request before it."""
    variable: ContextVar[str] = ContextVar("variable", default="nobody's")
    seen: list[str] = []

    async def hook(request: Any) -> None:
        seen.append(variable.get())

    async def ask(name: str) -> None:
        variable.set(name)
        await client.version()

    hooks = {"request": [hook]}
    async with AsyncClient(slow.url, max_in_flight=1, event_hooks=hooks) as client:
        async with anyio.create_task_group() as tasks:
            variable.set("the first one's")
            async with await client.chat("llama3.2", MESSAGES, stream=True):
                tasks.start_soon(ask, "one")
                await until(lambda: client.statistics().waiting == 1)
                tasks.start_soon(ask, "two")
                await until(lambda: client.statistics().waiting == 2)
    assert seen == ["the first one's", "one", "two"]


async def test_what_is_ended_before_its_first_step_does_nothing(fake: FakeOllama) -> None:
    """Nothing is sent for it."""
    begun = False

    async def work() -> None:
        nonlocal begun
        begun = True

    async with AsyncClient(fake.url, max_in_flight=1) as client:
        call: Call[None] = Call(client._calls.runtime, "a call", Timeouts())
        client._calls.start(call, work)
        assert call.abort("here")
        with pytest.raises(AbortError, match="here"):
            await call.outcome()
        assert client._shared.limiter.available == 1
    assert not begun


async def test_tasks_that_cannot_start_any_more(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the client's tasks end, all that wait for a place end with them, however many."""
    count = 3000

    def no_more(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the task group has ended")

    async def wait() -> None:
        await anyio.sleep_forever()

    async with AsyncClient(fake.url, max_in_flight=1) as client:
        runtime = client._calls.runtime
        calls: list[Call[None]] = [Call(runtime, "a call", Timeouts()) for _ in range(count)]
        for call in calls:
            client._calls.start(call, wait)
        with monkeypatch.context() as patched:
            patched.setattr(NativeTaskGroup, "start", no_more)
            calls[0].abort("here")
            with anyio.fail_after(30):
                for call in calls:
                    with pytest.raises(AbortError):
                        await call.outcome()
        assert client._shared.limiter.available == 1
        assert (await client.version()).version


# -- statistics ------------------------------------------------------------------------------------


async def test_statistics_name_each_phase(anyio_backend: Any) -> None:
    """Waiting, receiving, open and idle as they are, and nothing in flight in the end."""
    async with FakeOllama(token_rate=20) as server:
        async with AsyncClient(server.url, max_in_flight=1) as client:
            async with await client.chat("llama3.2", MESSAGES, stream=True):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.version)
                    await until(lambda: client.statistics().waiting == 1)
                    found = client.statistics()
                    assert (found.waiting, found.receiving, found.open) == (1, 1, 1)
                    assert found.in_flight == 1
                    tasks.cancel_scope.cancel()
            assert client.statistics().in_flight == 0


async def test_a_transport_of_ones_own_has_no_connections_to_count(anyio_backend: Any) -> None:
    """With a user's transport, requests are counted and connections are zero."""
    import httpx  # noqa: PLC0415

    async def answer(request: httpx.Request) -> httpx.Response:
        assert client.statistics().in_flight == 1
        return httpx.Response(200, json={"version": "7"})

    async with AsyncClient(transport=httpx.MockTransport(answer)) as client:
        assert (await client.version()).version == "7"
        assert client.statistics() == (0, 0, 0, 0, 0, 0)
