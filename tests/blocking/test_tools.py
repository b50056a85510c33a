"""Tools, typed replies and conversations without an event loop."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from tests.blocking.support import CHAT, MESSAGES, MODEL, is_idle
from tests.embedding.support import Served, wait_until

from ollama_sc import (
    AbortError,
    ChatResponse,
    IncompleteStreamError,
    OutputError,
    RequestError,
    RoundEnded,
    ToolEnded,
    ToolStarted,
    keep_last,
)
from ollama_sc.blocking import Client, Conversation
from ollama_sc.testing import Reply

Make = Callable[..., Client]
TEXT = '{"name": "Oslo", "size": 7}'


@dataclass
class City:
    name: str
    size: int


def look(place: str) -> str:
    """Look at a place."""
    return f"{place}: nothing"


async def later(place: str) -> str:
    """Look at a place later."""
    await anyio.lowlevel.checkpoint()
    return f"{place}: still nothing"


def calls(*names: str) -> Reply:
    return Reply.chat_text(
        tool_calls=[{"name": name, "arguments": {"place": "x"}} for name in names]
    )


def script(server: Served, *replies: Reply) -> None:
    server.fake.script(CHAT, *replies)


def test_a_run(server: Served, make: Make) -> None:
    """Functions of both kinds are called; messages may be a generator."""
    script(server, calls("look", "later"), Reply.chat_text("Nothing."))
    client = make(server)
    run = client.run_tools("qwen3", (one for one in MESSAGES), [look, later])
    assert run.text == "Nothing."
    assert [record.result for record in run.calls] == ["x: nothing", "x: still nothing"]
    assert is_idle(client)


def test_a_tool_can_use_the_client(server: Served, make: Make) -> None:
    """In its thread, and another one's; each counts its own requests."""
    client, other = make(server, max_in_flight=1), make(server)

    def ask(place: str) -> str:
        return client.chat(MODEL, MESSAGES).text + other.chat(MODEL, MESSAGES).text

    script(server, calls("ask"), Reply.chat_text("a"), Reply.chat_text("b"), Reply.chat_text("c"))
    run = client.run_tools("qwen3", MESSAGES, [ask])
    assert (run.calls[0].result, run.text) == ("ab", "c")


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
def test_the_callers_context(server: Served, make: Make, anyio_backend: str) -> None:
    """Hooks, tools of both kinds, texts and progress see the caller's variables, as without threads."""
    variable: ContextVar[str] = ContextVar("variable", default="none")
    seen: list[tuple[str, str]] = []

    def note(what: str) -> None:
        seen.append((what, variable.get()))

    async def hook(_: Any) -> None:
        note("hook")

    def quick(place: str) -> None:
        note("quick")

    async def slow(place: str) -> None:
        await anyio.sleep(0)  # in the client's event loop, whichever the caller's is
        note("slow")

    def texts() -> Iterator[str]:
        note("texts")
        yield "one"

    def plain_hook(_: Any) -> None:
        note("plain hook")

    client = make(server, event_hooks={"request": [hook, plain_hook]})
    client.version()
    script(server, calls("quick", "slow"), Reply.chat_text("Done."))

    async def caller() -> None:
        variable.set("the caller's")
        client.run_tools("qwen3", MESSAGES, [quick, slow])
        with client.embed_many(
            "all-minilm", texts(), on_progress=lambda _: note("progress")
        ) as job:
            list(job)

    anyio.run(caller, backend=anyio_backend)
    assert [seen.pop(0), seen.pop(0)] == [("hook", "none"), ("plain hook", "none")]
    assert set(seen) == {
        (what, "the caller's")
        for what in ("hook", "plain hook", "quick", "slow", "texts", "progress")
    }


def test_an_abort_counts_once(server: Served, make: Make) -> None:
    """A tool of one client waits for another client's reply, which counts it as its own."""
    client, other = make(server), make(server)
    counted: list[int] = []

    def ask(place: str) -> str:
        try:
            return other.chat(MODEL, MESSAGES).text
        except AbortError as error:
            return str(error.reason)

    script(server, calls("ask"), Reply.silence(), Reply.chat_text("done"))

    def abort() -> None:
        wait_until(lambda: len(server.fake.requests) == 2)
        counted.append(other.abort("enough"))

    thread = threading.Thread(target=abort)
    thread.start()
    run = client.run_tools("qwen3", MESSAGES, [ask])
    thread.join()
    assert counted == [1]
    assert run.calls[0].result == "enough"


def test_a_streamed_run(server: Served, make: Make) -> None:
    """Its events, its text and its result."""
    client = make(server)
    script(server, calls("look"), Reply.chat_text("No thing."))
    with client.run_tools("qwen3", MESSAGES, [look], stream=True) as stream:
        events = list(stream)
    kinds = {type(event) for event in events}
    assert kinds == {*kinds} >= {ToolStarted, ToolEnded, RoundEnded}
    assert any(isinstance(event, ChatResponse) for event in events)
    assert stream.result().text == "No thing."
    script(server, calls("look"), Reply.chat_text("No thing."))
    with client.run_tools("qwen3", MESSAGES, [look], stream=True) as stream:
        assert "".join(stream.iter_text()) == "No thing."
    assert is_idle(client)


def test_leaving_and_aborting_a_streamed_run(server: Served, make: Make) -> None:
    """Leaving ends it and waits; an abort reaches the consumer; dropping it warns."""
    client = make(server)
    for number, how in enumerate(("leave", "abort", "drop"), 1):
        script(server, calls("look"), Reply.silence())
        stream = client.run_tools("qwen3", MESSAGES, [look], stream=True)
        for event in stream:
            if isinstance(event, RoundEnded):
                break
        wait_until(lambda count=2 * number: len(server.fake.requests) == count)  # type: ignore[misc]
        if how == "leave":
            stream.close()
        elif how == "abort":
            assert stream.abort("enough")
            with pytest.raises(AbortError, match="enough"):
                next(stream)
        else:
            with pytest.warns(ResourceWarning, match="use `with`"):
                del stream
                gc.collect()
        wait_until(lambda: is_idle(client))
        if how != "drop":
            assert stream.result().stopped == "unfinished"


def test_one_thread_iterates(server: Served, make: Make) -> None:
    """A second one is told."""
    client = make(server)
    script(server, calls("look"), Reply.silence())
    with client.run_tools("qwen3", MESSAGES, [look], stream=True) as stream:
        errors: list[BaseException] = []

        def read() -> None:
            try:
                for _ in stream:
                    pass
            except AbortError as error:
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        wait_until(lambda: len(server.fake.requests) == 2 and bool(stream._waiting))
        with pytest.raises(RequestError, match="another thread"):
            next(stream)
        stream.abort()
        thread.join()
        assert len(errors) == 1


def test_typed_replies(server: Served, make: Make) -> None:
    """Whole, streamed, tried again from a generator of messages, and of another form."""
    client = make(server)
    script(server, *[Reply.chat_text([one]) for one in (TEXT, "{}", TEXT, "{}")])
    assert client.chat(MODEL, MESSAGES, format=City).parsed == City("Oslo", 7)
    again = client.chat(MODEL, (one for one in MESSAGES), format=City, attempts=2)
    assert again.parsed == City("Oslo", 7)
    assert len(server.fake.requests[-1].json["messages"]) == 3
    with pytest.raises(OutputError):
        client.chat(MODEL, MESSAGES, format=City)
    script(server, Reply.chat_text(list(TEXT)).replace(stall_after=2), Reply.chat_text(list(TEXT)))
    with client.chat(MODEL, MESSAGES, format=City, stream=True) as stream:
        with pytest.raises(IncompleteStreamError):
            stream.parsed()
    with client.chat(MODEL, MESSAGES, format=City, stream=True) as stream:
        assert list(stream.partials()) == [{"name": "Oslo"}, {"name": "Oslo", "size": 7}]
        assert stream.parsed() == City("Oslo", 7)
    with client.chat(MODEL, MESSAGES, stream=True) as plain:
        list(plain)
        assert plain.parsed() is None


@pytest.mark.parametrize("grouped", [False, True])
def test_conversations(server: Served, make: Make, grouped: bool) -> None:
    """A list that grows by whole turns, with a client and with a group."""
    client: Any = make(server)
    caller = client.group() if grouped else client
    talk = Conversation(caller, "qwen3", system="s", tools=[look], trim=keep_last(4))
    script(server, calls("look"), Reply.chat_text("Nothing."), Reply.error(500, "boom"))
    assert talk.send("What is there?").text == "Nothing."
    with pytest.raises(Exception, match="boom"):
        talk.send("Sure?")
    with talk.send("Sure?", stream=True) as stream:
        text = "".join(stream.iter_text())
    assert [message.role for message in talk.messages] == [
        "system", "user", "assistant", "tool", "assistant", "user", "assistant",
    ]  # fmt: skip
    assert talk.messages[-1].content == text
    talk.messages = talk.messages[:1]
    with talk.send("Left early", stream=True) as stream:
        next(stream)
    assert len(talk.messages) == 1
    assert "1 messages" in repr(talk)
    with pytest.raises(RequestError, match="client"):
        Conversation(None, "m")  # type: ignore[arg-type]
    if grouped:
        caller.close()
