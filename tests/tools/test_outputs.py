"""Replies that are values of a type: what is sent, what is read, and what does not fit."""

from __future__ import annotations

import copy
import json
import pickle
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union

import attrs
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from ollama_sc import (
    AbortError,
    AsyncClient,
    ChatResponse,
    GenerateResponse,
    IncompleteStreamError,
    Message,
    OutputError,
    RequestError,
    RequestTimeout,
    Timeouts,
)
from ollama_sc._api.outputs import output_of
from ollama_sc._schemas import forms, narrow
from ollama_sc.testing import FakeOllama, Reply
from tests.api.support import CLIENT, first_step
from tests.support import Outcome, is_quiet, raw_server, recorded_body, recording, replying
from tests.tools.support import USER, calls
from tests.tools.test_schemas import COMPOSED

pytestmark = pytest.mark.anyio


class City(msgspec.Struct):
    name: str
    size: int


@dataclass
class Data:
    name: str
    size: int


@attrs.define
class Attrs:
    name: str
    size: int


class Typed(TypedDict):
    name: str
    size: int


class Model(BaseModel):
    name: str
    size: int


class Other(BaseModel):
    other: int


class Zip(msgspec.Struct):
    name: Literal["Berlin", "Paris"]
    zip: Literal["10115", "75001"]


class Pair(NamedTuple):
    left: int
    right: str


class Tree(msgspec.Struct):
    value: int
    children: list[Tree] = []


OSLO = '{"name": "Oslo", "size": 7}'
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "size": {"type": "integer"}},
    "required": ["name", "size"],
}


async def chat(fake: FakeOllama, format: Any, text: str, **fields: Any) -> Any:
    fake.script("/api/chat", *(Reply.chat_text([one]) for one in text.split("|")))
    async with AsyncClient(fake.url, max_in_flight=1) as client:
        try:
            return await client.chat("qwen3", [USER], format=format, **fields)
        finally:
            assert is_quiet(client)


# -- types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [City, Data, Attrs, Model, Typed])
async def test_each_kind_of_class(fake: FakeOllama, cls: Any) -> None:
    """The same schema for each; the reply is a value of it."""
    reply = await chat(fake, cls, OSLO)
    assert reply.parsed == cls(name="Oslo", size=7)
    assert fake.requests[-1].json["format"] == SCHEMA


@pytest.mark.parametrize(
    ("format", "text", "expected"),
    [
        (list[City], f"[{OSLO}]", [City("Oslo", 7)]),
        (City | None, "null", None),
        (Optional[City], OSLO, City("Oslo", 7)),
        (Literal["a", "b"], '"b"', "b"),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (dict[int, str], '{"1": "a"}', {1: "a"}),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (Pair, '[1, "a"]', Pair(1, "a")),
        (set[int], "[1, 1]", {1}),
        (int, "5", 5),
        (str, '"x"', "x"),
        (bool, "true", True),
        (date, '"2026-01-31"', date(2026, 1, 31)),
        (Any, '{"a": [1]}', {"a": [1]}),
        (dict, "{}", {}),
        (list[Model], f"[{OSLO}]", [Model(name="Oslo", size=7)]),
        (Union[Model, Other], '{"other": 1}', Other(other=1)),
        (Tree, '{"value": 1, "children": [{"value": 2}]}', Tree(1, [Tree(2)])),
        (Annotated[int, msgspec.Meta(ge=1)], "5", 5),
    ],
)
async def test_other_types(fake: FakeOllama, format: Any, text: str, expected: Any) -> None:
    """Whatever msgspec or pydantic can read."""
    reply = await chat(fake, format, text)
    assert reply.parsed == expected
    assert type(reply.parsed) is type(expected)


async def test_generate(fake: FakeOllama) -> None:
    """As in a chat."""
    fake.script(
        "/api/generate", Reply.chat_text([OSLO]), Reply.chat_text(["{}"]), Reply.chat_text([OSLO])
    )
    async with AsyncClient(fake.url) as client:
        reply = await client.generate("llama3.2", "A city", format=City)
        assert reply.parsed == City("Oslo", 7)
        assert isinstance(reply, GenerateResponse)
        reply = await client.generate("llama3.2", "A city", format=City, attempts=2)
        assert reply.parsed == City("Oslo", 7)
    prompt = fake.requests[-1].json["prompt"]
    assert prompt.startswith("A city\n\n{}\n\n")
    assert "`name`" in prompt


KEYWORDS = {"type", "enum", "anyOf", "items", "properties", "required", "additionalProperties"}
KEYWORDS |= {"minItems", "maxItems", "minLength", "maxLength", "format", "description"}


def keywords(schema: dict[str, Any]) -> set[str]:
    found = set(schema)
    inner = [*schema.get("anyOf", ()), *schema.get("properties", {}).values()]
    inner += [one for key in ("items", "additionalProperties") if (one := schema.get(key))]
    for one in inner:
        found |= keywords(one)
    return found


@settings(max_examples=200, derandomize=True, deadline=None)
@given(COMPOSED)
def test_a_grammar_can_hold_it(type_: Any) -> None:
    """No references, no tuples, no bounds of numbers: those are checked when the reply has come."""
    try:
        schema = narrow.for_output(forms.schema_of(type_))
    except TypeError:
        return
    assert keywords(schema) <= KEYWORDS
    json.dumps(schema)


# -- the value is no field -------------------------------------------------------------------------


async def test_it_is_no_field_of_the_api(fake: FakeOllama) -> None:
    """Not in dictionaries, comparisons or JSON; copies and pickles have it."""
    fake.script("/api/chat", *[Reply.chat_text([OSLO])] * 2)
    async with AsyncClient(fake.url) as client:
        reply = await client.chat("llama3.2", [USER], format=City)
        plain = await client.chat("llama3.2", [USER], format=SCHEMA)
        await client.chat("llama3.2", [USER, reply])
    assert plain.parsed is None
    assert isinstance(reply, ChatResponse)
    assert "parsed" not in reply
    assert reply.get("parsed") is None
    assert "parsed" not in reply.to_dict()
    assert b"parsed" not in msgspec.json.encode(reply)
    plain.created_at, plain.total_duration = reply.created_at, reply.total_duration
    plain.load_duration = reply.load_duration
    plain.eval_duration, plain.prompt_eval_duration = (
        reply.eval_duration,
        reply.prompt_eval_duration,
    )
    assert reply == plain
    assert plain == reply
    assert repr(reply).startswith("ChatResponse(")
    for twin in (copy.copy(reply), copy.deepcopy(reply), pickle.loads(pickle.dumps(reply))):
        assert twin == reply
        assert twin.parsed == City("Oslo", 7)
        assert twin.message == reply.message
    assert copy.deepcopy(reply).message is not reply.message


# -- what does not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{}", "$"),
        ('{"name": "x", "size": "7"}', "$.size"),
        ('{"name": 5, "size": 7}', "$.name"),
        ("[]", "$"),
        ("null", "$"),
        ("7", "$"),
    ],
)
@pytest.mark.parametrize("cls", [City, Data, Attrs, Model, Typed])
async def test_a_misfit(fake: FakeOllama, cls: Any, text: str, path: str) -> None:
    """It is raised by the call, with its place."""
    lax = cls is Model and '"7"' in text
    if lax:  # pydantic takes a text of digits
        assert (await chat(fake, cls, text)).parsed == Model(name="x", size=7)
        return
    with pytest.raises(OutputError) as caught:
        await chat(fake, cls, text)
    error = caught.value
    assert (error.reason, error.text) == ("misfit", text)
    assert error.path.startswith(path)
    assert error.response.text == text
    assert "/api/chat, model 'qwen3'" in str(error)
    assert isinstance(error, ValueError)
    twin = pickle.loads(pickle.dumps(error))
    assert (twin.reason, twin.path, twin.response) == (error.reason, error.path, error.response)


async def test_a_misfit_inside_of_models(fake: FakeOllama) -> None:
    """The path goes on where pydantic says it."""

    class Country(msgspec.Struct):
        cities: list[Model]

    with pytest.raises(OutputError) as caught:
        await chat(fake, Country, '{"cities": [{"name": "x", "size": 1}, {"name": "y"}]}')
    assert caught.value.path == "$.cities[1].size"

    with pytest.raises(OutputError) as caught:
        await chat(fake, Union[Model, Other], '{"name": 5, "size": 7}')
    assert caught.value.path == "$.name"
    with pytest.raises(OutputError) as caught:
        await chat(fake, list[Model | Other], "[5]")
    assert caught.value.path == "$[0]"

    class Strict(BaseModel):
        size: int = Field(ge=3)

    with pytest.raises(OutputError) as caught:
        await chat(fake, Strict, '{"size": 1}')
    assert caught.value.path == "$.size"
    assert "minimum" not in json.dumps(fake.requests[-1].json["format"])


@pytest.mark.parametrize(
    ("format", "text"),
    [
        (Pair, '[1, 2]'),
        (tuple[int, str], "[1]"),
        (Annotated[int, msgspec.Meta(ge=10)], "5"),
        (Annotated[str, msgspec.Meta(pattern="^a$")], '"b"'),
        (Annotated[list[int], msgspec.Meta(max_length=1)], "[1, 2]"),
        (dict[str, int], '{"a": "b"}'),
        (Tree, '{"value": 1, "children": [{"x": 2}]}'),
        (date, '"2026-13-31"'),
    ],
)  # fmt: skip
async def test_what_a_grammar_does_not_hold(fake: FakeOllama, format: Any, text: str) -> None:
    """It is checked when the reply has come."""
    with pytest.raises(OutputError) as caught:
        await chat(fake, format, text)
    assert caught.value.reason == "misfit"


@pytest.mark.parametrize(
    "text", ["", "Sure!", "```json\n{}\n```", '{"name": ', "{'name': 1}", OSLO + "x"]
)
async def test_no_json(fake: FakeOllama, text: str) -> None:
    """Where the server ignores `format`, or the model had nothing to say."""
    with pytest.raises(OutputError) as caught:
        await chat(fake, City, text)
    assert (caught.value.reason, caught.value.path) == ("not_json", "$")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 5_000 + "1" + "}" * 5_000, '{"a":"x","b":' + "[" * 9_999]
)
@pytest.mark.parametrize(
    "format", [dict[str, int], list[int], Any, int, Model, Union[Model, Other]]
)
def test_a_text_that_is_nested_too_deeply(format: Any, text: str) -> None:
    """It is no JSON, or cut off where the server says so: models can go on like that for ever."""
    output = output_of({"format": format}, stream=False, prompted=True)
    assert output is not None
    for done_reason in ("stop", "length"):
        reply: Any = ChatResponse(message=Message("assistant", text), done_reason=done_reason)
        with pytest.raises(OutputError) as caught:
            output.parse(reply, "label")
        assert caught.value.reason == ("truncated" if done_reason == "length" else "not_json")


JSON_TEXT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
).map(lambda value: json.dumps({"a": value, "bé": "\ud83d\ude00 ü\\"}))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(JSON_TEXT, st.data())
def test_a_reply_that_is_cut_off(text: str, data: Any) -> None:
    """Wherever it is cut: it is truncated where the server says so, and no JSON where not."""
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    for type_ in (City, dict[str, int], Any):
        output = output_of({"format": type_}, stream=False, prompted=True)
        assert output is not None
        for done_reason, reason in (("length", "truncated"), ("stop", "not_json")):
            reply: Any = ChatResponse(message=Message("assistant", cut), done_reason=done_reason)
            with pytest.raises(OutputError) as caught:
                output.parse(reply, "label")
            assert caught.value.reason == reason


async def test_a_number_that_may_be_cut_off(fake: FakeOllama) -> None:
    """Nobody knows whether there would have been more digits."""
    fake.script(
        "/api/chat", *[Reply.chat_text(["12"], done_reason=why) for why in ("length", "stop")]
    )
    async with AsyncClient(fake.url) as client:
        with pytest.raises(OutputError) as caught:
            await client.chat("llama3.2", [USER], format=int)
        assert caught.value.reason == "truncated"
        assert (await client.chat("llama3.2", [USER], format=int)).parsed == 12


async def test_a_real_servers_replies(anyio_backend: Any) -> None:
    """One that fits, whatever the order of its fields, and one that `num_predict` has cut off."""
    whole, cut = recording("0.33/chat-format-schema"), recording("0.33/chat-format-truncated")
    async with raw_server(replying(whole)) as url, AsyncClient(url) as client:
        reply = await client.chat("gemma3:270m", [USER], format=Zip)
        assert reply.parsed == Zip("Paris", "10115")
    async with raw_server(replying(cut)) as url, AsyncClient(url) as client:
        with pytest.raises(OutputError, match="num_predict") as caught:
            await client.chat("gemma3:270m", [USER], format=City)
        assert caught.value.reason == "truncated"
        assert caught.value.text == "{\n    "
    assert recorded_body("0.33/chat-format-schema")


async def test_tools_are_called_instead(fake: FakeOllama) -> None:
    """The error says so, and has the reply."""
    fake.script("/api/chat", calls(("f", {})))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    async with AsyncClient(fake.url) as client:
        with pytest.raises(OutputError, match="tools") as caught:
            await client.chat("qwen3", [USER], format=City, tools=[tool])
    assert caught.value.response.message.tool_calls


# -- attempts --------------------------------------------------------------------------------------


async def test_attempts(fake: FakeOllama) -> None:
    """The model is asked again, with its answer and the error; the last error is raised."""
    reply = await chat(fake, City, "no|{}|" + OSLO, attempts=3)
    assert reply.parsed == City("Oslo", 7)
    messages = fake.requests[-1].json["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant", "user"]
    assert messages[1]["content"] == "{}"
    assert "`name`" in messages[2]["content"]
    assert all(request.json["format"] == SCHEMA for request in fake.requests)
    assert all("attempts" not in request.json for request in fake.requests)
    with pytest.raises(OutputError) as caught:
        await chat(fake, City, "no|{}", attempts=2)
    assert caught.value.text == "{}"
    assert len(fake.requests) == 5


async def test_attempts_are_one_operation(fake: FakeOllama) -> None:
    """An abort counts it as one, and a total time is that of all of them."""
    fake.script("/api/chat", Reply.chat_text(["{}"]), Reply.silence())
    async with AsyncClient(fake.url) as client:
        import anyio  # noqa: PLC0415

        async with anyio.create_task_group() as tasks:

            async def call() -> Any:
                return await client.chat("qwen3", [USER], format=City, attempts=3)

            outcome = Outcome(tasks, call)
            await fake.wait_for_requests(2)
            assert client.abort() == 1
            await outcome.event.wait()
            assert isinstance(outcome.error, AbortError)
        fake.script("/api/chat", Reply.chat_text(["{}"]), Reply.silence())
        with pytest.raises(RequestTimeout):
            await client.chat("qwen3", [USER], format=City, attempts=3, timeout=Timeouts(total=0.2))


# -- streams ---------------------------------------------------------------------------------------


async def test_a_stream(fake: FakeOllama) -> None:
    """Its values grow; the last is whole, and of the type."""
    reply = Reply.chat_text(list(OSLO))
    fake.script("/api/chat", reply.replace(stall_after=2), reply)
    async with AsyncClient(fake.url) as client:
        async with await client.chat("llama3.2", [USER], format=City, stream=True) as stream:
            with pytest.raises(IncompleteStreamError):
                stream.parsed()
        stream = await client.chat("llama3.2", [USER], format=City, stream=True)
        async with stream:
            found = [value async for value in stream.partials()]
            assert found == [{"name": "Oslo"}, {"name": "Oslo", "size": 7}]
            assert stream.parsed() == City("Oslo", 7)
            assert stream.parsed() == City("Oslo", 7)
            assert isinstance(stream.result(), ChatResponse)
    assert fake.requests[-1].json["format"] == SCHEMA


async def test_a_stream_that_does_not_fit(fake: FakeOllama) -> None:
    """Iterating raises nothing; the value is asked for in the end."""
    fake.script(
        "/api/generate", Reply.chat_text("no JSON"), Reply.chat_text("[1, 2", done_reason="length")
    )
    async with AsyncClient(fake.url) as client:
        for reason, values in (("not_json", []), ("truncated", [[1], [1, 2]])):
            async with await client.generate(
                "llama3.2", "p", format=list[int], stream=True
            ) as stream:
                assert [value async for value in stream.partials()] == values
                with pytest.raises(OutputError) as caught:
                    stream.parsed()
            assert caught.value.reason == reason


async def test_a_stream_of_no_type(fake: FakeOllama) -> None:
    """It has partial values of whatever JSON there is, and no parsed one."""
    fake.script("/api/chat", Reply.chat_text('{"a": 1}'))
    async with AsyncClient(fake.url) as client:
        async with await client.chat("llama3.2", [USER], format="json", stream=True) as stream:
            assert [value async for value in stream.partials()] == [{"a": 1}]
            assert stream.parsed() is None


async def test_a_broken_stream(fake: FakeOllama) -> None:
    """It has no value."""
    fake.script("/api/chat", Reply.chat_text(list(OSLO)).replace(cut_after=8))
    async with AsyncClient(fake.url) as client:
        async with await client.chat("llama3.2", [USER], format=City, stream=True) as stream:
            with pytest.raises(IncompleteStreamError):
                async for _ in stream.partials():
                    pass
            with pytest.raises(IncompleteStreamError):
                stream.parsed()


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"format": complex},
        {"format": list[complex]},
        {"format": object},
        {"format": Data | Attrs},
        {"format": City, "attempts": 0},
        {"format": City, "attempts": "2"},
        {"format": City, "attempts": True},
        {"format": City, "attempts": 2, "stream": True},
        {"format": "json", "attempts": 2},
        {"format": SCHEMA, "attempts": 1},
        {"attempts": 2},
        {"format": "xml"},
        {"format": "JSON"},
        {"format": 3},
        {"format": [City]},
    ],
    ids=str,
)
def test_bad_formats_are_refused_before_anything_happens(fields: dict[str, Any]) -> None:
    """In the first step, with the endpoint and the model."""
    for call in (
        lambda: CLIENT.chat("m", [USER], **fields),
        lambda: CLIENT.generate("m", "p", **fields),
    ):
        error = first_step(call())
        assert isinstance(error, RequestError), repr(error)
        assert "model 'm'" in str(error)


def test_what_a_type_cannot_have_is_named() -> None:
    """The type inside of it that has no form in JSON, in the words of this library."""
    for format_, text in (
        (complex, "format cannot be complex: complex has no form in JSON"),
        (dict[str, list[Path]], r"format cannot be dict.*: pathlib.Path has no form in JSON"),
    ):
        error = first_step(CLIENT.chat("m", [USER], format=format_))
        assert re.search(text, str(error)), str(error)
        assert "hook" not in str(error)


def test_a_type_needs_something_to_answer() -> None:
    """Without messages the server loads the model, and says nothing."""
    for call in (
        lambda: CLIENT.chat("m", format=City),
        lambda: CLIENT.chat("m", [], format=City, stream=True),
        lambda: CLIENT.generate("m", format=City),
        lambda: CLIENT.generate("m", "", format=City),
    ):
        assert isinstance(first_step(call()), RequestError)
