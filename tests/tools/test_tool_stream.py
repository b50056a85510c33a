"""A streamed run: its events, what leaving and cancelling it does, and what is held back."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import anyio
import pytest

from ollama_sc import (
    AbortError,
    AsyncClient,
    ChatResponse,
    ResponseError,
    RoundEnded,
    ToolEnded,
    ToolStarted,
    ToolStream,
)
from ollama_sc._tools import events
from ollama_sc.testing import FakeOllama, Reply
from tests.support import Outcome, is_quiet, until
from tests.tools.support import USER, answer, calls

pytestmark = pytest.mark.anyio


async def double(n: int) -> int:
    """Double a number."""
    await anyio.lowlevel.checkpoint()
    return 2 * n


def kinds(found: list[Any]) -> list[str]:
    """The names of events, with those of one kind in a row as one."""
    names = [type(event).__name__ for event in found]
    return [name for name, before in zip(names, [None, *names], strict=False) if name != before]


async def open_stream(client: AsyncClient, *tools: Any, **fields: Any) -> ToolStream:
    stream: ToolStream = await client.run_tools("qwen3", [USER], tools, stream=True, **fields)
    return stream


async def test_events_come_in_order(fake: FakeOllama) -> None:
    """Parts, the calls' beginnings and ends, the end of the round; then the answer's parts."""
    fake.script(
        "/api/chat", calls(("double", {"n": 1}), ("nope", {}), ("double", {"n": 3})), answer()
    )
    async with AsyncClient(fake.url, max_in_flight=1) as client:
        async with await open_stream(client, double) as stream:
            found = [event async for event in stream]
            assert stream.result().text == "It rains."
        assert is_quiet(client)
    assert kinds(found) in (
        ["ChatResponse", "ToolStarted", "ToolEnded", "RoundEnded", "ChatResponse", "RoundEnded"],
        ["ChatResponse", "ToolStarted", "ToolEnded", "ToolStarted", "ToolEnded", "RoundEnded"]
        + ["ChatResponse", "RoundEnded"],
    )
    started = [event.number for event in found if isinstance(event, ToolStarted)]
    ended = {event.record.number: event.record for event in found if isinstance(event, ToolEnded)}
    rounds = [event for event in found if isinstance(event, RoundEnded)]
    assert started == [0, 2]
    assert {number: ended[number].outcome for number in ended} == {
        0: "returned", 1: "unknown", 2: "returned",
    }  # fmt: skip
    assert [one.round for one in rounds] == [1, 2]
    assert [message.role for message in rounds[0].messages] == ["assistant"] + ["tool"] * 3
    run = stream.result()
    assert run.stopped == "answered"
    assert run.messages == [USER, *rounds[0].messages, *rounds[1].messages]
    assert [record.number for record in run.calls] == [0, 1, 2]
    assert fake.requests[0].json["stream"] is True


async def test_a_result_holds_whole_rounds(fake: FakeOllama) -> None:
    """At each event, its rounds, messages, calls and reply are those of the rounds that ended."""
    fake.script(
        "/api/chat",
        calls(("double", {"n": 1}), ("nope", {})),
        calls(("double", {"n": 2})),
        answer(),
    )
    found: list[Any] = []
    runs: list[Any] = []
    async with AsyncClient(fake.url) as client, await open_stream(client, double) as stream:
        async for event in stream:
            found.append(event)
            runs.append(stream.result())
    ended = [event for event in found if isinstance(event, RoundEnded)]
    for run in runs:
        whole = ended[: run.rounds]
        assert run.messages == [USER, *(one for round in whole for one in round.messages)]
        assert [record.round for record in run.calls] == [1, 1, 2][: (0, 2, 3, 3)[run.rounds]]
        assert not whole or run.response is whole[-1].response
    assert runs[0].rounds == 0
    assert runs[-1].rounds == 3


async def test_the_text_alone(fake: FakeOllama) -> None:
    """The pieces of all replies, none of them empty."""
    fake.script("/api/chat", calls(("double", {"n": 1})), answer("It does rain."))
    async with AsyncClient(fake.url) as client, await open_stream(client, double) as stream:
        found = [text async for text in stream.iter_text()]
    assert "".join(found) == "It does rain."
    assert all(found)


async def test_an_error_of_the_server(fake: FakeOllama) -> None:
    """In the first reply it is raised by the call, in a later one where it is iterated over."""
    async with AsyncClient(fake.url) as client:
        fake.script("/api/chat", Reply.error(400, "boom"))
        with pytest.raises(ResponseError, match="boom"):
            await open_stream(client, double)
        fake.script("/api/chat", calls(("double", {"n": 1})), Reply.error(500, "boom"))
        async with await open_stream(client, double) as stream:
            found: list[Any] = []
            with pytest.raises(ResponseError, match="boom"):
                async for event in stream:
                    found.append(event)
            with pytest.raises(ResponseError):
                await anext(stream)
        assert isinstance(found[-1], RoundEnded)
        run = stream.result()
        assert (run.stopped, run.rounds) == ("unfinished", 1)
        assert [message.role for message in run.messages] == ["user", "assistant", "tool"]
        assert is_quiet(client)


async def test_an_exception_of_a_tool(fake: FakeOllama) -> None:
    """It is raised as it is, after the events before it; the round that failed is not in the result."""
    mine = LookupError("mine")

    async def fails() -> None:
        raise mine

    fake.script("/api/chat", calls(("double", {"n": 1})), calls(("fails", {})))
    async with AsyncClient(fake.url) as client, await open_stream(client, double, fails) as stream:
        found: list[Any] = []
        with pytest.raises(LookupError) as caught:
            async for event in stream:
                found.append(event)
        assert caught.value is mine
        assert isinstance(found[-1], ToolStarted)
        assert [message.role for message in stream.result().messages] == [
            "user", "assistant", "tool",
        ]  # fmt: skip


@pytest.mark.parametrize("where", ["part", "tool", "round"])
async def test_break_ends_the_run(fake: FakeOllama, where: str) -> None:
    """Leaving the block ends the model's request and the tools, and waits for them."""
    running = False

    async def waits() -> None:
        nonlocal running
        running = True
        try:
            await anyio.sleep_forever()
        finally:
            running = False

    replies = [calls(("double", {"n": 1})), calls(("waits", {})), answer()]
    if where == "part":
        replies = [Reply.chat_text(["x"] * 100_000).replace(rate=100)]
    if where == "round":  # the next one has begun when it is left, but no tool of it
        replies[1] = replies[1].replace(delay=10)
    fake.script("/api/chat", *replies)
    async with AsyncClient(fake.url) as client:
        async with await open_stream(client, double, waits) as stream:
            async for event in stream:
                if where == "part" and isinstance(event, ChatResponse):
                    break
                if where == "round" and isinstance(event, RoundEnded):
                    break
                if isinstance(event, ToolStarted) and event.call.function.name == "waits":
                    await until(lambda: running)
                    break
        assert not running
        assert is_quiet(client)
        with pytest.raises(AbortError):
            await anext(stream)
        assert stream.result().stopped == "unfinished"


async def test_abort(fake: FakeOllama) -> None:
    """The consumer that waits is woken, and the events that it has not taken are gone."""
    ended = anyio.Event()

    async def waits() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    fake.script("/api/chat", calls(("waits", {}), ("waits", {"a": 1})))
    async with AsyncClient(fake.url) as client, await open_stream(client, waits) as stream:
        while not isinstance(await anext(stream), ToolStarted):
            pass
        assert stream.abort("enough")
        assert not stream.abort()
        with pytest.raises(AbortError, match="enough"):
            await anext(stream)
        await ended.wait()


async def test_a_cancelled_iteration_loses_nothing(fake: FakeOllama) -> None:
    """However often it is cancelled, all events come, once."""
    fake.script("/api/chat", *[calls(("double", {"n": n})) for n in range(4)], answer())
    async with AsyncClient(fake.url) as client, await open_stream(client, double) as stream:
        found: list[Any] = []
        while True:
            with anyio.CancelScope() as scope:
                if not stream._call.events:
                    scope.cancel()
                try:
                    found.append(await anext(stream))
                except StopAsyncIteration:
                    break
            if scope.cancelled_caught:
                with anyio.CancelScope(), anyio.move_on_after(0.001):
                    try:
                        found.append(await anext(stream))
                    except StopAsyncIteration:
                        break
    assert [event.round for event in found if isinstance(event, RoundEnded)] == [1, 2, 3, 4, 5]
    assert sum(isinstance(event, ToolEnded) for event in found) == 4
    assert stream.result().stopped == "answered"


async def test_one_task_iterates(fake: FakeOllama) -> None:
    """A second one is told."""

    async def waits() -> None:
        await anyio.sleep_forever()

    fake.script("/api/chat", calls(("waits", {})))
    async with (
        AsyncClient(fake.url) as client,
        await open_stream(client, waits) as stream,
        anyio.create_task_group() as tasks,
    ):
        while not isinstance(await anext(stream), ToolStarted):
            pass
        Outcome(tasks, stream.__anext__)
        await until(lambda: stream._call._consuming)
        with pytest.raises(anyio.BusyResourceError):
            await anext(stream)
        tasks.cancel_scope.cancel()


async def test_a_slow_consumer_holds_the_next_round_back(fake: FakeOllama) -> None:
    """The model is not asked again before the end of the round was taken."""
    fake.script("/api/chat", calls(("double", {"n": 1})), answer())
    async with AsyncClient(fake.url) as client, await open_stream(client, double) as stream:
        while not isinstance(await anext(stream), ToolEnded):
            pass
        await until(lambda: stream._call.events)
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert len(fake.requests) == 1
        assert isinstance(await anext(stream), RoundEnded)
        with anyio.fail_after(5):
            await fake.wait_for_requests(2)


async def test_events_are_bounded(fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools wait whose events nobody takes; a reply's parts wait one block at a time."""
    monkeypatch.setattr(events, "_MAX_WAITING", 8)
    seen = 0

    async def count(n: int) -> None:
        nonlocal seen
        seen += 1

    fake.script("/api/chat", calls(*[("count", {"n": n}) for n in range(100)]), answer())
    async with AsyncClient(fake.url) as client, await open_stream(client, count) as stream:
        while not isinstance(await anext(stream), ToolStarted):
            pass
        await until(lambda: len(stream._call.events) >= 8)
        for _ in range(100):
            await anyio.lowlevel.checkpoint()
        assert len(stream._call.events) <= 8
        assert seen < 20
        left = [event async for event in stream]
        assert sum(isinstance(event, ToolEnded) for event in left) == 100


async def test_dropping_one_warns(fake: FakeOllama) -> None:
    """The run is aborted; one that came to its end is dropped in silence."""
    gone = anyio.Event()

    async def waits() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            gone.set()

    async with AsyncClient(fake.url) as client:
        fake.script("/api/chat", calls(("waits", {})))
        stream = await open_stream(client, waits)
        while not isinstance(await anext(stream), ToolStarted):
            pass
        with pytest.warns(ResourceWarning, match="ToolStream"):
            del stream
            gc.collect()
        with anyio.fail_after(5):
            await gone.wait()
            await until(lambda: is_quiet(client))
        fake.script("/api/chat", answer())
        stream = await open_stream(client)
        async for _ in stream:
            pass
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            del stream
            gc.collect()


async def test_a_tool_that_closes_its_own_run(fake: FakeOllama) -> None:
    """It ends with it, and waits for nothing."""
    streams: list[Any] = []

    async def leave() -> None:
        await streams[0].aclose()

    fake.script("/api/chat", calls(("leave", {})))
    async with AsyncClient(fake.url) as client, await open_stream(client, leave) as stream:
        streams.append(stream)
        with anyio.fail_after(5), pytest.raises(AbortError):
            async for _ in stream:
                pass


async def test_what_it_looks_like(fake: FakeOllama) -> None:
    """Its label and its state."""
    fake.script("/api/chat", answer())
    async with AsyncClient(fake.url) as client:
        async with await open_stream(client) as stream:
            assert repr(stream) == "<ToolStream: run_tools, model 'qwen3', running>"
        assert repr(stream).endswith("ended>")
