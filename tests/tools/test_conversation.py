"""A conversation is a list that grows by whole turns."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import (
    AbortError,
    AsyncClient,
    Conversation,
    Function,
    Message,
    RequestError,
    ResponseError,
    RoundEnded,
    ToolCall,
    ToolStarted,
    keep_last,
)
from ollama_sc.testing import FakeOllama, Reply
from tests.api.support import CLIENT
from tests.support import Outcome
from tests.tools.support import answer, calls

pytestmark = pytest.mark.anyio


async def look(place: str) -> str:
    """Look at a place."""
    return f"nothing at {place}"


def roles(talk: Conversation) -> list[str]:
    return [message.role for message in talk.messages]


async def test_turns_are_added(fake: FakeOllama) -> None:
    """Your message, the model's, and calls with their results; the next turn sends all of it."""
    async with AsyncClient(fake.url) as client, client.group() as group:
        for caller in (client, group):
            fake.script(
                "/api/chat", calls(("look", {"place": "x"})), answer("Nothing."), answer("Yes.")
            )
            talk = Conversation(caller, "qwen3", system="Be brief.", tools=[look], think=False)
            run = await talk.send("What is there?", images=[b"png"])
            assert run.text == "Nothing."
            assert roles(talk) == ["system", "user", "assistant", "tool", "assistant"]
            assert talk.messages[1].images == [b"png"]
            await talk.send("Really?")
            assert roles(talk)[5:] == ["user", "assistant"]
            sent = fake.requests[-1].json
            assert [message["role"] for message in sent["messages"]] == roles(talk)[:-1]
            assert sent["messages"][1]["images"] == ["cG5n"]
            assert sent["think"] is False
            assert repr(talk) == "<Conversation with 'qwen3', 7 messages>"


async def test_the_list_is_the_users(fake: FakeOllama) -> None:
    """It can be given, changed and replaced; the one that was given stays as it is."""
    mine = [{"role": "user", "content": "Hi", "mine": 1}, Message("assistant", "Hello")]
    async with AsyncClient(fake.url) as client:
        talk = Conversation(client, "llama3.2", messages=mine)
        await talk.send("And?")
        assert len(mine) == 2
        assert fake.requests[-1].json["messages"][0]["mine"] == 1
        del talk.messages[:2]
        talk.messages.append({"role": "user", "content": "plain"})  # type: ignore[arg-type]
        await talk.send("And?")
        assert [one["content"] for one in fake.requests[-1].json["messages"]][::3] == [
            "And?",
            "And?",
        ]
        talk.messages = []
        await talk.send("New.")
        assert roles(talk) == ["user", "assistant"]
        again = Conversation(client, "llama3.2", system="b", messages=[Message("system", "a")])
        assert again.messages == [Message("system", "b")]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_turn_that_fails_adds_nothing(fake: FakeOllama, stream: bool) -> None:
    """By the server's error, in the first round or later, by a tool's, an abort, a cancellation."""
    begun = anyio.Event()

    async def waits() -> None:
        begun.set()
        await anyio.sleep_forever()

    async def fails() -> None:
        raise LookupError("mine")

    async with AsyncClient(fake.url) as client:
        talk = Conversation(client, "qwen3", system="s", tools=[look, waits, fails])
        before = list(talk.messages)

        async def send() -> None:
            found: Any = await talk.send("?", stream=stream)
            if stream:
                async with found as events:
                    async for _ in events:
                        pass

        fake.script("/api/chat", Reply.error(500, "boom"))
        with pytest.raises(ResponseError):
            await send()
        fake.script("/api/chat", calls(("look", {"place": "x"})), Reply.error(500, "boom"))
        with pytest.raises(ResponseError):
            await send()
        fake.script("/api/chat", calls(("fails", {})))
        with pytest.raises(LookupError):
            await send()
        for how in ("abort", "cancel"):
            begun = anyio.Event()
            fake.script("/api/chat", calls(("look", {"place": "x"})), calls(("waits", {})))
            async with anyio.create_task_group() as tasks:
                outcome = Outcome(tasks, send)
                await begun.wait()
                if how == "abort":
                    client.abort()
                    await outcome.event.wait()
                    assert isinstance(outcome.error, AbortError)
                else:
                    tasks.cancel_scope.cancel()
        assert talk.messages == before
        fake.script("/api/chat", answer())
        await send()
        assert roles(talk) == ["system", "user", "assistant"]


@pytest.mark.parametrize("where", ["first", "round", "last"])
async def test_leaving_a_stream(fake: FakeOllama, where: str) -> None:
    """A turn counts when its last event was taken, however fast the server was."""
    fake.script("/api/chat", calls(("look", {"place": "x"})), answer())
    async with AsyncClient(fake.url) as client:
        talk = Conversation(client, "qwen3", tools=[look])
        async with await talk.send("?", stream=True) as stream:
            async for event in stream:
                await anyio.sleep(0.002 if where == "first" else 0)
                if where == "first":
                    break
                if where == "round" and isinstance(event, RoundEnded):
                    break
                if where == "last" and isinstance(event, RoundEnded) and event.round == 2:
                    break
        assert len(talk.messages) == (4 if where == "last" else 0)
        await talk.send("Again.")


@pytest.mark.parametrize("stream", [False, True])
async def test_two_sends_at_once(fake: FakeOllama, stream: bool) -> None:
    """The second is told; when the first has ended, the next can be sent."""

    async def waits() -> None:
        await anyio.sleep_forever()

    fake.script("/api/chat", calls(("waits", {})))
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        talk = Conversation(client, "qwen3", tools=[waits])
        if stream:
            events: Any = await talk.send("?", stream=True)
            while not isinstance(await anext(events), ToolStarted):
                pass
        else:
            Outcome(tasks, talk.send, "?")
            await fake.wait_for_requests(1)
        with pytest.raises(anyio.BusyResourceError, match="already sending a message with this"):
            await talk.send("!")
        assert talk.messages == []
        if stream:
            await events.aclose()
        else:
            client.abort()
            while talk._busy:
                await anyio.lowlevel.checkpoint()
        fake.script("/api/chat", answer())
        await talk.send("!")
        assert roles(talk) == ["user", "assistant"]


async def test_trim(fake: FakeOllama) -> None:
    """What it returns is sent; the list stays whole, also where it works in place or fails."""
    seen: list[int] = []

    def trim(messages: list[Message]) -> list[Message]:
        seen.append(len(messages))
        del messages[:-1]
        return messages

    async with AsyncClient(fake.url) as client:
        talk = Conversation(client, "llama3.2", trim=trim)
        for _ in range(3):
            await talk.send("?")
        assert seen == [1, 3, 5]
        assert len(talk.messages) == 6
        assert [len(request.json["messages"]) for request in fake.requests] == [1, 1, 1]
        talk = Conversation(client, "llama3.2", trim=lambda _: [])
        with pytest.raises(RequestError):
            await talk.send("?")
        talk = Conversation(client, "llama3.2", trim=lambda _: 1 / 0)  # type: ignore[arg-type, return-value]
        with pytest.raises(ZeroDivisionError):
            await talk.send("?")
        assert talk.messages == []
        assert not talk._busy


ROLES = st.lists(st.sampled_from(["user", "assistant", "tool", "tool"]), max_size=12)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 2), ROLES, st.integers(1, 6))
def test_keep_last(systems: int, given_roles: list[str], count: int) -> None:
    """The last ones with the system messages, and never a result without its call."""
    messages = [Message("system", f"s{n}") for n in range(systems)]
    messages += [Message(role, str(n)) for n, role in enumerate(given_roles)]
    before = list(messages)
    kept = keep_last(count)(messages)
    rest = kept[systems:]
    assert messages == before
    assert kept[:systems] == messages[:systems]
    assert rest == messages[len(messages) - len(rest) :]
    assert len(rest) >= min(count, len(given_roles))
    if len(rest) > count:
        assert all(message.role == "tool" for message in rest[1:-count][:1])
    if rest and rest[0].role == "tool":
        assert len(rest) == len(given_roles)
    if len(rest) < len(given_roles) and len(rest) > count:
        assert rest[0].role != "tool"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
def test_keep_last_of_results_of_other_roles(count: int) -> None:
    """A tool may give a message of the user's, such as an image: that is a result, too."""
    called = [ToolCall(Function("look", {})), ToolCall(Function("look", {}))]
    messages = [
        Message("user", "What is there?"),
        Message("assistant", tool_calls=called),
        Message("user", "a picture"),
        Message("tool", "nothing", tool_name="look"),
        Message("assistant", tool_calls=called[:1]),
        Message("user", "another picture"),
        Message("assistant", "A cat."),
    ]
    kept = keep_last(count)(messages)
    assert len(kept) == {1: 1, 2: 3, 3: 3, 4: 6, 5: 6, 6: 6}[count]
    assert kept == messages[-len(kept) :]


@pytest.mark.parametrize("count", [0, -1, None, "3", True, 1.5])
def test_keep_last_of_nothing(count: Any) -> None:
    """It keeps something."""
    with pytest.raises(RequestError):
        keep_last(count)


@pytest.mark.parametrize(
    "fields",
    [
        {"client": None},
        {"model": ""},
        {"system": 5},
        {"messages": [5]},
        {"messages": "Hi"},
        {"tools": [5]},
        {"trim": 5},
        {"max_rounds": 0},
    ],
    ids=str,
)
def test_bad_arguments_are_refused_when_it_is_made(fields: dict[str, Any]) -> None:
    """Before anything is sent."""
    with pytest.raises(RequestError):
        Conversation(**({"client": CLIENT, "model": "m"} | fields))
    with pytest.raises(TypeError, match="max_rounds"):
        Conversation(CLIENT, "m", max_round=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("content", [None, 5, b"x", ["x"]])
async def test_bad_content(content: Any, anyio_backend: Any) -> None:
    """Refused, and the next turn can be sent."""
    talk = Conversation(CLIENT, "m")
    with pytest.raises(RequestError):
        await talk.send(content)
    assert not talk._busy
