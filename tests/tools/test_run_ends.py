"""What ends a run before its answer, and what is refused before it begins."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import (
    AbortError,
    AsyncClient,
    OllamaError,
    RequestError,
    RequestTimeout,
    Timeouts,
    Tool,
)
from ollama_sc.testing import FakeOllama
from tests.api.support import CLIENT, first_step
from tests.support import Outcome, is_quiet
from tests.tools.support import USER, answer, calls
from tests.tools.test_run import get_time, run

pytestmark = pytest.mark.anyio


# -- time ------------------------------------------------------------------------------------------


async def test_a_timeout_of_a_tool(fake: FakeOllama) -> None:
    """It is an error of the tool: raised, or told."""
    slow = Tool.of(anyio.sleep_forever, name="slow", timeout=0.01)
    with pytest.raises(RequestTimeout, match="slow") as caught:
        await run(fake, [slow], calls(("slow", {})))
    assert (caught.value.limit, caught.value.seconds) == ("tool", 0.01)
    found = await run(fake, [slow], calls(("slow", {})), answer(), on_tool_error="tell")
    assert "0.01 s" in found.messages[-2].content


async def test_the_total_is_the_runs(fake: FakeOllama) -> None:
    """It ends a tool that is running."""
    ended = anyio.Event()
    fake.script("/api/chat", calls(("waits", {})))
    async with AsyncClient(fake.url) as client:

        async def waits() -> None:
            (call,) = client._calls.calls()
            assert call.timeouts.total == 60
            call._scope.deadline = anyio.current_time()
            try:
                await anyio.sleep_forever()
            finally:
                ended.set()

        with pytest.raises(RequestTimeout) as caught:
            await client.run_tools("qwen3", [USER], [waits], timeout=Timeouts(total=60))
    assert (caught.value.limit, caught.value.seconds) == ("total", 60)
    assert ended.is_set()


# -- arguments -------------------------------------------------------------------------------------

BAD: dict[str, dict[str, Any]] = {
    "model": {"model": ""},
    "no messages": {"messages": []},
    "messages": {"messages": "Hi"},
    "a message": {"messages": [5]},
    "tools": {"tools": get_time},
    "a tool": {"tools": [5]},
    "two of one name": {"tools": [get_time, get_time]},
    "a type": {"tools": [lambda x: x]},
    "max_rounds": {"max_rounds": 0},
    "max_rounds None": {"max_rounds": None},
    "max_parallel": {"max_parallel": "4"},
    "max_repeats": {"max_repeats": -1},
    "max_repeats that run nothing": {"max_repeats": 1},
    "on_tool_error": {"on_tool_error": "ignore"},
    "approve": {"approve": True},
    "stream": {"stream": None},
    "format": {"format": 3},
    "format type": {"format": complex},
    "options": {"options": 5},
    "attempts": {"attempts": 2},
    "attempts of a stream": {"attempts": 2, "format": int, "stream": True},
    "timeout": {"timeout": "5"},
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_before_anything_happens(name: str) -> None:
    """In the first step, without an event loop."""
    fields: dict[str, Any] = {"model": "m", "messages": [USER], "tools": [get_time]} | BAD[name]
    error = first_step(CLIENT.run_tools(**fields))
    assert isinstance(error, RequestError), repr(error)
    if name != "timeout":
        assert "run_tools" in str(error) or "/api/chat" in str(error)


def test_an_unknown_argument() -> None:
    """It is a TypeError that says what was meant."""
    error = first_step(CLIENT.run_tools("m", [USER], [], max_round=3))  # type: ignore[call-overload]
    assert isinstance(error, TypeError)
    assert "max_rounds" in str(error)


async def test_a_run_of_a_client_that_is_not_open(anyio_backend: Any) -> None:
    """Nothing runs."""
    with pytest.raises(OllamaError, match="async with"):
        await AsyncClient("127.0.0.1:9").run_tools("m", [USER], [get_time])


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["abort", "cancel", "group", "close", "shutdown"])
async def test_ten_tools_end_with_the_run(fake: FakeOllama, how: str) -> None:
    """Whatever ends a run ends every tool, before its caller hears of it; it counts as one."""
    running: set[int] = set()
    ready = anyio.Event()

    async def waits(n: int) -> None:
        running.add(n)
        if len(running) == 10:
            ready.set()
        try:
            await anyio.sleep_forever()
        finally:
            running.discard(n)

    fake.script("/api/chat", calls(*[("waits", {"n": n}) for n in range(10)]))
    left: list[set[int]] = []
    async with anyio.create_task_group() as tasks:
        async with AsyncClient(fake.url) as client, client.group() as group:
            scope = anyio.CancelScope()

            async def call() -> None:
                with scope:
                    try:
                        await group.run_tools("qwen3", [USER], [waits], max_parallel=10)
                    finally:
                        left.append(set(running))

            outcome = Outcome(tasks, call)
            with anyio.fail_after(10):
                await ready.wait()
                if how == "abort":
                    assert client.abort("here") == 1
                elif how == "cancel":
                    scope.cancel()
                elif how == "group":
                    await group.__aexit__(None, None, None)
                elif how == "shutdown":
                    assert await client.shutdown(0) == 1
                if how != "close":
                    await outcome.event.wait()
                    assert is_quiet(client)
        await outcome.event.wait()
    assert left == [set()]
    assert isinstance(outcome.error, AbortError) or how == "cancel"
