"""Runs of tools whose answer is a value of a type."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_sc import AsyncClient, OutputError
from ollama_sc.testing import FakeOllama, Reply
from tests.tools.support import USER, answer, calls
from tests.tools.test_outputs import OSLO, SCHEMA, City

pytestmark = pytest.mark.anyio


def look(place: str) -> str:
    """Look at a place."""
    return place


@pytest.mark.parametrize("stream", [False, True])
async def test_a_run_has_a_typed_answer(fake: FakeOllama, stream: bool) -> None:
    """The format is not sent with tools; an answer that does not fit is asked for in it."""
    fake.script(
        "/api/chat", calls(("look", {"place": "x"})), answer("It is Oslo."), Reply.chat_text([OSLO])
    )
    fake.script("/api/chat", calls(("look", {"place": "x"})), Reply.chat_text([OSLO]))
    async with AsyncClient(fake.url, max_in_flight=1) as client:
        for rounds in (3, 2):
            found = await client.run_tools("qwen3", [USER], [look], format=City, stream=stream)
            if stream:
                async with found as events:
                    async for _ in events:
                        pass
                found = events.result()
            assert found.response.parsed == City("Oslo", 7)
            assert (found.rounds, found.stopped) == (rounds, "answered")
            roles = [message.role for message in found.messages]
            assert roles == ["user", "assistant", "tool", "assistant"]
    formats = [request.json.get("format") for request in fake.requests]
    assert formats == [None, None, SCHEMA, None, None]
    assert ["tools" in request.json for request in fake.requests] == [True, True, False, True, True]


async def test_a_run_without_tools_is_asked_in_its_format(fake: FakeOllama) -> None:
    """There is nothing that the format could keep it from; attempts count from there."""
    fake.script(
        "/api/chat", Reply.chat_text(["{}"]), Reply.chat_text([OSLO]), Reply.chat_text(["{}"])
    )
    async with AsyncClient(fake.url) as client:
        found = await client.run_tools("qwen3", [USER], [], format=City, attempts=2)
        assert found.response.parsed == City("Oslo", 7)
        assert [message.role for message in found.messages] == ["user", "assistant"]
        with pytest.raises(OutputError):
            await client.run_tools("qwen3", [USER], [], format=City)
    assert all(request.json["format"] == SCHEMA for request in fake.requests)


async def test_a_runs_answer_is_tried_again(fake: FakeOllama) -> None:
    """In its format, as often as it may be."""
    fake.script("/api/chat", *[Reply.chat_text([one]) for one in ("It is Oslo.", "{}", OSLO)])
    async with AsyncClient(fake.url) as client:
        found = await client.run_tools("qwen3", [USER], [look], format=City, attempts=2)
        assert found.response.parsed == City("Oslo", 7)
        assert (found.rounds, len(found.messages)) == (3, 2)
        fake.script("/api/chat", *[Reply.chat_text([one]) for one in ("It is Oslo.", "{}")])
        with pytest.raises(OutputError):
            await client.run_tools("qwen3", [USER], [look], format=City)


@pytest.mark.parametrize("stopped", ["max_rounds", "repeated"])
async def test_a_run_that_is_stopped_answers_in_its_format(fake: FakeOllama, stopped: str) -> None:
    """It has a typed answer all the same, from what it found until then."""
    fake.script("/api/chat", calls(("look", {"place": "x"})), calls(("look", {"place": "x"})))
    fake.script("/api/chat", Reply.chat_text([OSLO]))
    limits: dict[str, Any] = {"max_rounds": 2} if stopped == "max_rounds" else {"max_repeats": 2}
    async with AsyncClient(fake.url) as client:
        found = await client.run_tools("qwen3", [USER], [look], format=City, **limits)
    assert found.response.parsed == City("Oslo", 7)
    assert (found.stopped, found.rounds) == (stopped, 3)
    assert "tools" not in fake.requests[-1].json


async def test_a_run_with_a_plain_format(fake: FakeOllama) -> None:
    """JSON that is JSON already is the answer; a schema is asked for."""
    async with AsyncClient(fake.url) as client:
        for format, text, count in (("json", "{}", 1), ("json", "no", 2), (SCHEMA, OSLO, 2)):
            before = len(fake.requests)
            fake.script("/api/chat", *[Reply.chat_text([text])] * count)
            found = await client.run_tools("qwen3", [USER], [look], format=format)
            assert len(fake.requests) == before + count
            assert found.text == text
            assert found.response.parsed is None
            if count == 2:
                assert fake.requests[-1].json["format"] == format
