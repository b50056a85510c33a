"""Replies of a type, and functions as tools of a single call, without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.blocking.support import CHAT, MESSAGES, MODEL, is_idle
from tests.embedding.support import Served, serving

import ollama_sc
from ollama_sc import IncompleteStreamError, OutputError, RequestError
from ollama_sc.blocking import Client, _default
from ollama_sc.testing import Reply
from tests.tools.support import calls

Make = Callable[..., Client]
OSLO = '{"name": "Oslo", "size": 7}'


@dataclass
class City:
    """A city."""

    name: str
    size: int


def double(n: int) -> int:
    """Double a number."""
    return 2 * n


@pytest.fixture
def default(server: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module, whose functions ask this server."""
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    for _ in range(2):
        _default._client.close()
        _default._client.__init__()  # type: ignore[misc]
        if _ == 0:
            yield ollama_sc


@pytest.fixture(params=["asyncio", "trio", "functions"])
def caller(request: pytest.FixtureRequest, server: Served) -> Iterator[Any]:
    """What can be asked: a client on each event loop, a group of one, and the module itself."""
    if request.param == "functions":
        yield request.getfixturevalue("default")
    else:
        with Client(server.url, backend=request.param) as client:
            yield client.group() if request.param == "trio" else client


def test_a_reply_of_a_type(server: Served, caller: Any) -> None:
    """Of a chat and of a text; at the second attempt, where there may be one."""
    server.fake.script(
        CHAT, Reply.chat_text([OSLO]), Reply.chat_text(["{}"]), Reply.chat_text([OSLO])
    )
    server.fake.script("/api/generate", Reply.chat_text([f"[{OSLO}]"]))
    assert caller.chat(MODEL, MESSAGES, format=City).parsed == City("Oslo", 7)
    assert caller.chat(MODEL, MESSAGES, format=City, attempts=2).parsed == City("Oslo", 7)
    assert caller.generate(MODEL, "Hi", format=list[City]).parsed == [City("Oslo", 7)]
    assert [len(one.json["messages"]) for one in server.fake.requests[:3]] == [1, 1, 3]
    assert server.fake.requests[0].json["format"]["properties"]["size"] == {"type": "integer"}


def test_what_does_not_fit(server: Served, caller: Any) -> None:
    """The call raises; what cannot be is refused before anything is sent."""
    server.fake.script(CHAT, Reply.chat_text(["{}"]))
    with pytest.raises(OutputError) as caught:
        caller.chat(MODEL, MESSAGES, format=City)
    assert caught.value.reason == "misfit"
    count = len(server.fake.requests)
    for wrong in ({"attempts": 2}, {"format": City, "attempts": 2, "stream": True}):
        with pytest.raises(RequestError, match="attempts"):
            caller.chat(MODEL, MESSAGES, **wrong)
    with pytest.raises(RequestError, match="format"):
        caller.generate(MODEL, "Hi", format=3)
    assert len(server.fake.requests) == count


def test_a_stream_of_a_type(server: Served, caller: Any) -> None:
    """What is complete as it grows, and in the end the value."""
    server.fake.always(CHAT, Reply.chat_text(list(OSLO)))
    with caller.chat(MODEL, MESSAGES, format=City, stream=True) as stream:
        assert list(stream.partials()) == [{"name": "Oslo"}, {"name": "Oslo", "size": 7}]
        assert stream.parsed() == City("Oslo", 7)
    assert stream.parsed() == City("Oslo", 7)
    with caller.chat(MODEL, MESSAGES, format="json", stream=True) as stream:
        assert list(stream.partials())[-1] == {"name": "Oslo", "size": 7}
        assert stream.parsed() is None
    server.fake.always("/api/generate", Reply.chat_text(["12", "5"]))
    with caller.generate(MODEL, "Hi", format=int, stream=True) as stream:
        assert list(stream.partials()) == [125]
        assert stream.parsed() == 125
    server.fake.always("/api/generate", Reply.chat_text(["no JSON"]))
    with caller.generate(MODEL, "Hi", format=City, stream=True) as stream:
        assert list(stream.partials()) == []
        with pytest.raises(OutputError) as caught:
            stream.parsed()
        assert caught.value.reason == "not_json"


def test_functions_as_tools(server: Served, caller: Any) -> None:
    """Their schema is sent, and the calls are left to the caller, streamed or not."""
    server.fake.always(CHAT, calls(("double", {"n": 3})))
    reply = caller.chat(MODEL, MESSAGES, tools=[double])
    with caller.chat(MODEL, MESSAGES, tools=[double], stream=True) as stream:
        list(stream)
    for found in (reply, stream.result()):
        (call,) = found.message.tool_calls
        assert (call.function.name, call.function.arguments) == ("double", {"n": 3})
    for request in server.fake.requests:
        sent = request.json["tools"][0]["function"]
        assert sent["parameters"]["properties"] == {"n": {"type": "integer"}}
    with pytest.raises(RequestError, match="tools"):
        caller.chat(MODEL, MESSAGES, tools=[5])


def test_an_abort_between_two_parts(make: Make) -> None:
    """Nothing partial is given out after it, and the stream has no value."""
    with serving() as server:
        server.fake.script(CHAT, Reply.chat_text(list(OSLO)).replace(stall_after=20))
        client = make(server)
        with client.chat(MODEL, MESSAGES, format=City, stream=True) as stream:
            found = stream.partials()
            assert next(found) == {"name": "Oslo"}
            stream.abort("enough")
            with pytest.raises(ollama_sc.AbortError, match="enough"):
                next(found)
            with pytest.raises(IncompleteStreamError):
                stream.parsed()
        assert is_idle(client)
