"""Runs of tools without an event loop: what they return, their events, and what ends them."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from tests.blocking.support import CHAT, is_idle, threads
from tests.embedding.support import Served, wait_until

from ollama_sc import (
    AbortError,
    ChatResponse,
    ClientClosedError,
    RequestError,
    RequestTimeout,
    ResponseError,
    RoundEnded,
    Timeouts,
    ToolEnded,
    ToolStarted,
    blocking,
)
from ollama_sc.blocking import Client, ToolStream
from ollama_sc.testing import Reply
from tests.tools.support import USER, answer, calls
from tests.tools.test_tool_stream import kinds

Make = Callable[..., Client]
QWEN = "qwen3"
marked: ContextVar[str] = ContextVar("marked", default="")


def double(n: int) -> int:
    """Double a number."""
    return 2 * n


class Waits:
    """An asynchronous tool that waits until it is cancelled."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()

    async def __call__(self) -> None:
        """Wait."""
        self.began.set()
        try:
            await anyio.sleep_forever()
        finally:
            self.ended.set()


@pytest.fixture
def waits() -> Waits:
    return Waits()


def opened(client: Client | blocking.Group, *tools: Any, **fields: Any) -> ToolStream:
    """A streamed run, of which what came before the first call was taken."""
    stream = client.run_tools(QWEN, [USER], tools, stream=True, **fields)
    while not isinstance(next(stream), ToolStarted):
        pass
    return stream


# -- what they return ------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_run(server: Served, make: Make, stream: bool) -> None:
    """Functions run in threads, asynchronous ones in the event loop, both in the caller's context."""
    seen: dict[str, tuple[threading.Thread, str]] = {}

    def in_a_thread(n: int) -> int:
        seen["thread"] = threading.current_thread(), marked.get()
        return n + 1

    async def in_the_loop(n: int) -> int:
        await anyio.lowlevel.checkpoint()
        seen["loop"] = threading.current_thread(), marked.get()
        return n + 2

    def approve(call: Any) -> bool | str:
        seen[f"approve {call.function.name}"] = threading.current_thread(), marked.get()
        return call.function.name != "double" or "not that one"

    wanted = [("in_a_thread", {"n": "1"}), ("in_the_loop", {"n": 1}), ("double", {"n": 1})]
    server.fake.script(CHAT, calls(*wanted), answer())
    client = make(server, max_in_flight=1)
    tools = [in_a_thread, in_the_loop, double]
    token = marked.set("mine")
    try:
        if stream:
            with client.run_tools(QWEN, [USER], tools, stream=True, approve=approve) as events:
                list(events)
            run = events.result()
        else:
            run = client.run_tools(QWEN, [USER], tools, approve=approve)
    finally:
        marked.reset(token)
    assert run.text == "It rains."
    assert (run.rounds, run.stopped) == (2, "answered")
    assert [record.result for record in run.calls] == [2, 3, None]
    assert [record.outcome for record in run.calls] == ["returned", "returned", "refused"]
    assert [message.role for message in run.messages] == [
        "user",
        "assistant",
        *["tool"] * 3,
        "assistant",
    ]
    assert {mark for _, mark in seen.values()} == {"mine"}
    assert client._worker is not None
    assert seen["loop"][0] is client._worker._thread
    others = [seen[name][0] for name in seen if name != "loop"]
    assert not {client._worker._thread, threading.current_thread()} & set(others)
    assert is_idle(client)
    assert client.chat(QWEN, run.messages).text


def test_an_answer_of_a_type(server: Served, make: Make) -> None:
    """In the reply of the run, and of a streamed one."""
    server.fake.script(CHAT, *[calls(("double", {"n": 2})), answer("[4]")] * 2)
    client = make(server)
    assert client.run_tools(QWEN, [USER], [double], format=list[int]).response.parsed == [4]
    with client.run_tools(QWEN, [USER], [double], format=list[int], stream=True) as stream:
        assert "".join(stream.iter_text()) == "[4]"
    assert stream.result().response.parsed == [4]


def test_what_cannot_be(server: Served, make: Make) -> None:
    """It is refused before anything is sent."""
    client = make(server)
    for wrong in (
        {"tools": [5]},
        {"messages": []},
        {"max_rounds": 0},
        {"stream": 1},
        {"approve": "me"},
    ):
        fields = {"messages": [USER], "tools": [double]} | wrong
        with pytest.raises(RequestError, match="run_tools"):
            client.run_tools(QWEN, **fields)
    with pytest.raises(TypeError, match="max_round"):
        client.run_tools(QWEN, [USER], max_round=3)  # type: ignore[call-overload]
    assert not server.fake.requests


def test_what_a_tool_raises(server: Served, make: Make) -> None:
    """It is raised as it is, and ends the others; or the model is told."""
    mine = LookupError("mine")

    def fails() -> None:
        raise mine

    waits = Waits()
    wanted = calls(("wait", {}), ("fails", {}))
    tools = [blocking_tool(waits), fails]
    server.fake.script(CHAT, wanted, calls(("fails", {})), answer())
    client = make(server)
    with pytest.raises(LookupError) as caught:
        client.run_tools(QWEN, [USER], tools)
    assert caught.value is mine
    assert waits.ended.is_set()
    run = client.run_tools(QWEN, [USER], tools, on_tool_error="tell")
    assert run.calls[0].error is mine
    assert is_idle(client)


def blocking_tool(waits: Waits) -> Any:
    async def wait() -> None:
        """Wait."""
        await waits()

    return wait


# -- events ----------------------------------------------------------------------------------------


def test_events_come_in_order(server: Served, make: Make) -> None:
    """Parts, the calls' beginnings and ends, the end of the round; then the answer's parts."""
    server.fake.script(CHAT, calls(("double", {"n": 1}), ("nope", {})), answer())
    with make(server).run_tools(QWEN, [USER], [double], stream=True) as stream:
        found = list(stream)
        assert list(stream) == []
        assert repr(stream) == "<ToolStream: run_tools, model 'qwen3', ended>"
    calling = [kind for kind in kinds(found) if kind in ("ToolStarted", "ToolEnded")]
    assert kinds(found) == ["ChatResponse", *calling, "RoundEnded", "ChatResponse", "RoundEnded"]
    assert sum(isinstance(event, ToolStarted) for event in found) == 1
    outcomes = [event.record.outcome for event in found if isinstance(event, ToolEnded)]
    assert sorted(outcomes) == ["returned", "unknown"]
    ends = [event for event in found if isinstance(event, RoundEnded)]
    assert stream.result().messages == [USER, *ends[0].messages, *ends[1].messages]


def test_a_slow_consumer_holds_the_next_round_back(server: Served, make: Make) -> None:
    """The model is not asked again before the end of the round was taken; results are whole rounds."""
    server.fake.script(CHAT, calls(("double", {"n": 1})), answer())
    client = make(server)
    with opened(client, double) as stream:
        assert "running" in repr(stream)
        while not isinstance(event := next(stream), ToolEnded):
            pass
        assert event.record.result == 2
        wait_until(lambda: RoundEnded in map(type, stream._call.events))
        assert [message.role for message in stream.result().messages] == [
            "user", "assistant", "tool",
        ]  # fmt: skip
        for _ in range(10):
            client.statistics()  # each a turn of the event loop
        assert len(server.fake.requests) == 1
        assert stream.result().stopped == "unfinished"
        assert isinstance(next(stream), RoundEnded)
        server.wait_for_requests(2)
        list(stream)
    assert stream.result().stopped == "answered"


def test_an_error_of_the_server(server: Served, make: Make) -> None:
    """In the first reply the call raises it; in a later one iterating does, each time."""
    client = make(server)
    server.fake.script(CHAT, Reply.error(400, "boom"))
    with pytest.raises(ResponseError, match="boom"):
        client.run_tools(QWEN, [USER], [double], stream=True)
    server.fake.script(CHAT, calls(("double", {"n": 1})), Reply.error(500, "boom"))
    found: list[Any] = []
    with opened(client, double) as stream, pytest.raises(ResponseError, match="boom"):
        found.extend(iter(lambda: next(stream), None))
    for _ in range(2):
        with pytest.raises(ResponseError, match="boom"):
            next(stream)
    assert [message.role for message in stream.result().messages] == ["user", "assistant", "tool"]
    assert is_idle(client)


@pytest.mark.parametrize("where", ["part", "tool", "round"])
def test_break_ends_the_run(server: Served, make: Make, waits: Waits, where: str) -> None:
    """Leaving the block ends the model's request and the tools, and waits for them."""
    replies = [calls(("double", {"n": 1})), calls(("wait", {})), answer()]
    if where == "part":
        replies = [Reply.chat_text([f"{n} " for n in range(10_000)]).replace(rate=100)]
    if where == "round":  # the next one has begun when it is left, but no tool of it
        replies[1] = replies[1].replace(delay=10)
    server.fake.script(CHAT, *replies)
    client = make(server)
    tools = [double, blocking_tool(waits)]
    with client.run_tools(QWEN, [USER], tools, stream=True) as stream:
        for event in stream:
            if where == "part" and isinstance(event, ChatResponse):
                break
            if where == "round" and isinstance(event, RoundEnded):
                break
            if isinstance(event, ToolStarted) and event.call.function.name == "wait":
                assert waits.began.wait(10)
                break
    assert waits.ended.is_set() == (where == "tool")
    assert is_idle(client)
    with pytest.raises(AbortError, match="closed"):
        next(stream)
    assert stream.result().stopped == "unfinished"
    stream.close()
    assert stream.abort() is False


@pytest.mark.parametrize("who", ["stream", "client", "group", "total"])
@pytest.mark.parametrize("stream", [False, True])
def test_what_ends_a_run(server: Served, make: Make, waits: Waits, who: str, stream: bool) -> None:
    """From another thread; it counts as one, and reaches the tools and the one who waits."""
    server.fake.script(CHAT, calls(("Waits", {}), ("Waits", {"a": 1})), answer())
    client = make(server)
    group = client.group()
    if who == "stream" and not stream:
        return
    timeout = Timeouts(total=0.2 if who == "total" else None)
    running = opened(group, waits, timeout=timeout) if stream else None

    def work() -> None:
        if running is not None:
            list(running)
        else:
            group.run_tools(QWEN, [USER], [waits], timeout=timeout)

    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(work)
        assert waits.began.wait(10)
        if running is not None:
            assert who != "stream" or running.abort("enough")
        if who == "client":
            assert client.abort("enough") == 1
        if who == "group":
            assert group.abort("enough") == 1
        with pytest.raises(RequestTimeout if who == "total" else AbortError) as caught:
            outcome.result(20)
    assert who == "total" or caught.value.reason == "enough"  # type: ignore[union-attr]
    assert waits.ended.is_set()
    assert is_idle(client)
    group.close()


def test_an_abort_discards_what_waits(server: Served, make: Make) -> None:
    """Events that were handed over and not taken are not given out."""
    server.fake.script(CHAT, Reply.chat_text([f"{n} " for n in range(50)]), answer())
    client = make(server)
    with client.run_tools(QWEN, [USER], stream=True) as stream:
        next(stream)
        while not stream._ready:
            next(stream)
        assert stream.abort("enough")
        with pytest.raises(AbortError, match="enough"):
            next(stream)


def test_dropping_one_warns(server: Served, make: Make, waits: Waits) -> None:
    """The run is aborted; one that came to its end is dropped in silence, and holds its client."""
    server.fake.script(CHAT, calls(("Waits", {})), answer())
    client = make(server)
    stream = opened(client, waits)
    with pytest.warns(ResourceWarning, match="ToolStream.*use `with`") as caught:
        del stream
        gc.collect()
    assert len(caught) == 1
    assert waits.ended.wait(10)
    wait_until(lambda: is_idle(client))
    stream = Client(server.url).run_tools(QWEN, [USER], stream=True)
    gc.collect()
    assert "".join(stream.iter_text()) == "It rains."
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del stream
        gc.collect()
    wait_until(lambda: len(threads()) == 1)  # that of the client which was dropped ends


def test_two_threads_on_one_stream(server: Served, make: Make, waits: Waits) -> None:
    """The second one gets an error that says so; the first one goes on."""
    server.fake.script(CHAT, calls(("Waits", {})))
    stream = opened(make(server), waits)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, stream)
        wait_until(lambda: stream._call._consuming)
        with pytest.raises(RequestError, match="another thread is iterating"):
            next(stream)
        stream.abort("enough")
        with pytest.raises(AbortError, match="enough"):
            waiting.result()


def test_a_client_that_is_closed(server: Served, make: Make, waits: Waits) -> None:
    """Its streams end, and say why, before and after; what was taken stays."""
    server.fake.script(CHAT, calls(("Waits", {})))
    client = make(server)
    stream = opened(client, waits)
    client.close()
    assert waits.ended.is_set()
    with pytest.raises(AbortError, match="closed"):
        next(stream)
    assert stream.abort() is False
    stream.close()
    assert stream.result().stopped == "unfinished"
    with pytest.raises(ClientClosedError):
        client.run_tools(QWEN, [USER], [double])
