"""Tools that are not asynchronous: their threads are waited for, however long they take."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.from_thread
import pytest

from ollama_sc import AbortError, AsyncClient, Tool
from ollama_sc._tools import threads
from ollama_sc.testing import FakeOllama
from tests.support import Outcome, is_quiet, until
from tests.tools.support import USER, answer, calls

pytestmark = pytest.mark.anyio


class Blocking:
    """A tool that runs until it is let go; a test that fails lets it go as well."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.go = threading.Event()
        self.ended = threading.Event()

    def __call__(self, n: int = 0) -> str:
        """Block."""
        self.began.set()
        self.go.wait(20)
        self.ended.set()
        return "done"

    async def wait_begun(self) -> None:
        await anyio.to_thread.run_sync(self.began.wait, 10)


@pytest.fixture
def block() -> Iterator[Blocking]:
    found = Blocking()
    yield found
    found.go.set()


@pytest.fixture(autouse=True)
def soon_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The five seconds after which there is a warning."""
    monkeypatch.setattr(threads, "LATE_SECONDS", 0.01)


def warned(block: Blocking) -> Any:
    """Wait for the warning; then let the thread go."""
    return pytest.warns(ResourceWarning, match="the tool 'Blocking' was cancelled")


async def let_go(block: Blocking, warnings: Any) -> None:
    """Once there was a warning."""
    await until(lambda: warnings)
    assert not block.ended.is_set()
    block.go.set()


@pytest.mark.parametrize("how", ["abort", "cancel", "close", "shutdown", "group", "total"])
async def test_a_thread_is_waited_for(
    fake: FakeOllama, block: Blocking, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a cancelled caller and a closing client too, for longer than other calls are."""
    monkeypatch.setattr("ollama_sc._calls.call.CLEANUP_SECONDS", 0.01)
    monkeypatch.setattr("ollama_sc._calls.group.CLEANUP_SECONDS", 0.01)
    monkeypatch.setattr("ollama_sc._client.CLEANUP_SECONDS", 0.01)
    fake.script("/api/chat", calls(("Blocking", {})))
    after: list[bool] = []
    with warned(block) as late:
        async with anyio.create_task_group() as tasks:
            async with AsyncClient(fake.url) as client, client.group() as group:
                scope = anyio.CancelScope()

                async def call() -> None:
                    with scope:
                        try:
                            await group.run_tools(
                                "qwen3",
                                [USER],
                                [block],
                                timeout=_total(1 if how == "total" else None),
                            )
                        finally:
                            after.append(block.ended.is_set())

                outcome = Outcome(tasks, call)
                await block.wait_begun()
                tasks.start_soon(let_go, block, late)
                if how == "abort":
                    assert client.abort() == 1
                elif how == "cancel":
                    scope.cancel()
                elif how == "shutdown":
                    await client.shutdown(0)
                    assert block.ended.is_set()
                elif how == "group":
                    await group.__aexit__(None, None, None)
                    assert block.ended.is_set()
                elif how == "total":
                    for call_ in client._calls.calls():
                        call_._scope.deadline = anyio.current_time()
                if how != "close":
                    await outcome.event.wait()
                    assert is_quiet(client)
            assert block.ended.is_set()
    assert after == [True]


def _total(seconds: float | None) -> Any:
    from ollama_sc import Timeouts  # noqa: PLC0415

    return Timeouts(total=None if seconds is None else 60)


async def test_approve_is_waited_for(fake: FakeOllama, block: Blocking) -> None:
    """As a tool is; the tool does not run."""
    fake.script("/api/chat", calls(("f", {})))
    ran: list[int] = []
    tool = Tool.of(lambda: ran.append(1), name="f")
    with pytest.warns(ResourceWarning, match="approve") as late:
        async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:

            def approve(_: Any) -> bool:
                block()
                return True

            outcome = Outcome(
                tasks, lambda: client.run_tools("qwen3", [USER], [tool], approve=approve)
            )
            await block.wait_begun()
            client.abort()
            tasks.start_soon(let_go, block, late)
            await outcome.event.wait()
            assert block.ended.is_set()
    assert isinstance(outcome.error, AbortError)
    assert not ran


async def test_an_abandoned_thread_is_left_alone(fake: FakeOllama, block: Blocking) -> None:
    """The caller goes on at once, with no warning, and nobody hears of the rest."""
    fake.script("/api/chat", calls(("Blocking", {})))
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        tool = Tool.of(block, abandon=True)
        outcome = Outcome(tasks, client.run_tools, "qwen3", [USER], [tool])
        await block.wait_begun()
        client.abort("enough")
        await outcome.event.wait()
        assert isinstance(outcome.error, AbortError)
        assert not block.ended.is_set()
        assert is_quiet(client)
        block.go.set()


async def test_a_thread_can_ask(fake: FakeOllama) -> None:
    """`check_cancelled` raises in the thread once the run has ended: it ends at once."""
    began, ended = threading.Event(), threading.Event()

    def asks() -> None:
        began.set()
        try:
            while not ended.wait(0.001):
                anyio.from_thread.check_cancelled()
        finally:
            ended.set()

    fake.script("/api/chat", calls(("asks", {})))
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        outcome = Outcome(tasks, client.run_tools, "qwen3", [USER], [asks])
        await anyio.to_thread.run_sync(began.wait, 10)
        client.abort()
        with anyio.fail_after(10):
            await outcome.event.wait()
        assert ended.is_set()


async def test_a_failure_waits_for_the_others(fake: FakeOllama, block: Blocking) -> None:
    """The first exception is raised when the threads of its siblings have ended."""

    async def fails() -> None:
        await block.wait_begun()
        raise LookupError("mine")

    fake.script("/api/chat", calls(("Blocking", {}), ("fails", {})))
    with warned(block) as late:
        async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
            outcome = Outcome(tasks, client.run_tools, "qwen3", [USER], [block, fails])
            await block.wait_begun()
            await let_go(block, late)
            await outcome.event.wait()
    assert isinstance(outcome.error, LookupError)


async def test_a_timeout_waits_for_the_thread(fake: FakeOllama, block: Blocking) -> None:
    """The model is told of the timeout, and not of what the thread returned."""
    tool = Tool.of(block, timeout=0.01, name="f")
    fake.script("/api/chat", calls(("f", {})), answer())
    with pytest.warns(ResourceWarning, match="'f'") as late:
        async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:

            async def call() -> Any:
                return await client.run_tools("qwen3", [USER], [tool], on_tool_error="tell")

            outcome = Outcome(tasks, call)
            await block.wait_begun()
            await let_go(block, late)
            await outcome.event.wait()
    assert outcome.value.calls[0].outcome == "failed"
    assert "0.01 s" in outcome.value.calls[0].message.content


async def test_a_warning_that_is_an_error(fake: FakeOllama, block: Blocking) -> None:
    """It is the cause of what the caller hears, and the thread was waited for."""
    fake.script("/api/chat", calls(("Blocking", {})))
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        outcome = Outcome(tasks, client.run_tools, "qwen3", [USER], [block])
        await block.wait_begun()
        client.abort()
        await anyio.sleep(0.05)
        block.go.set()
        await outcome.event.wait()
        assert block.ended.is_set()
    assert isinstance(outcome.error, AbortError)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_waits_too(fake: FakeOllama, block: Blocking) -> None:
    """asyncio's own goes through every shield: the thread has ended all the same."""
    import asyncio  # noqa: PLC0415

    async def call() -> None:
        async with AsyncClient(fake.url) as client:
            await client.run_tools("qwen3", [USER], [block])

    fake.script("/api/chat", calls(("Blocking", {})))
    with warned(block) as late:
        task = asyncio.ensure_future(call())
        await block.wait_begun()
        for _ in range(3):
            task.cancel()
            await anyio.sleep(0.001)
        for other in asyncio.all_tasks():  # each task of the run as well
            if "run_tools" in other.get_name() or "Caller" in repr(other.get_coro()):
                other.cancel()
        await until(lambda: late)
        assert not task.done()
        block.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert block.ended.is_set()


async def test_without_threads(fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a browser such tools run in place."""
    monkeypatch.setattr(threads, "in_browser", lambda: True)
    seen: list[int] = []
    tool = Tool.of(lambda: seen.append(threading.get_ident()), name="f")
    fake.script("/api/chat", calls(("f", {})), answer())
    async with AsyncClient(fake.url) as client:
        await client.run_tools("qwen3", [USER], [tool], approve=lambda _: True)
    assert seen == [threading.get_ident()]


async def test_many_threads_do_not_wait_for_others(fake: FakeOllama) -> None:
    """Each run has threads of its own: those that wait for other runs take none from them."""
    limiter = anyio.to_thread.current_default_thread_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    try:
        async with AsyncClient(fake.url) as client:

            async def inner() -> str:
                return (await client.run_tools("qwen3", [USER], [leaf])).text

            def leaf() -> str:
                return "leaf"

            def outer() -> str:
                return anyio.from_thread.run(inner)

            fake.script(
                "/api/chat", calls(("outer", {})), calls(("leaf", {})), answer("in"), answer("out")
            )
            with anyio.fail_after(10):
                found = await client.run_tools("qwen3", [USER], [outer])
            assert (found.calls[0].result, found.text) == ("in", "out")
    finally:
        limiter.total_tokens = before
