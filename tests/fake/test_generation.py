"""What the fake generates: text, thinking, tool calls, logprobs, and what decides about them."""

from __future__ import annotations

import json
import re

import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests.fake.support import CHAT, GENERATE, ask, lines

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("path", "text"), [("/api/chat", "message"), ("/api/generate", "response")]
)
@pytest.mark.parametrize(
    ("keep_alive", "reason"), [(None, "load"), (0, "unload"), ("0s", "unload"), (5, "load")]
)
async def test_load_and_unload_are_single_objects(path, text, keep_alive, reason):
    """They are one application/json object, though a stream was asked for."""
    async with FakeOllama() as fake:
        response = await ask(fake, path, {"model": "llama3.2", "keep_alive": keep_alive})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert not response.text.endswith("\n")
    value = response.json()
    empty = {"role": "assistant", "content": ""} if text == "message" else ""
    del value["created_at"]
    assert value == {"model": "llama3.2", text: empty, "done": True, "done_reason": reason}


async def test_text_follows_from_the_request():
    """The same request draws the same text, another one another text; joined deltas are the single answer."""
    async with FakeOllama() as fake:
        first = lines(await ask(fake, "/api/chat", CHAT))
        single = (await ask(fake, "/api/chat", CHAT | {"stream": False})).json()
        other = (
            await ask(
                fake,
                "/api/chat",
                {**CHAT, "messages": [{"role": "user", "content": "?"}], "stream": False},
            )
        ).json()
    text = "".join(item["message"]["content"] for item in first)
    assert len(first) == 25
    assert text == single["message"]["content"] != other["message"]["content"]
    assert "synthetic" in text
    assert [item["done"] for item in first] == [False] * 24 + [True]
    assert first[-1]["done_reason"] == "stop"
    assert first[-1]["eval_count"] == 24
    assert not any("total_duration" in item for item in first[:-1])


@pytest.mark.parametrize(
    ("num_predict", "count", "reason"),
    [(3, 3, "length"), (40, 40, "length"), (-1, 24, "stop"), (2.9, 2, "length")],
)
async def test_num_predict(num_predict, count, reason):
    """num_predict decides the length; floats are cut."""
    async with FakeOllama() as fake:
        got = lines(
            await ask(fake, "/api/generate", GENERATE | {"options": {"num_predict": num_predict}})
        )
    assert len(got) - 1 == got[-1]["eval_count"] == count
    assert got[-1]["done_reason"] == reason
    assert len(got[-1]["context"]) >= count


async def test_stop_cuts_the_text():
    """The text ends before the first stop string."""
    async with FakeOllama() as fake:
        got = await ask(
            fake,
            "/api/generate",
            GENERATE | {"stream": False, "options": {"stop": ["fake", "s syn"]}},
        )
    assert got.json()["response"] == "This i"
    assert got.json()["done_reason"] == "stop"


async def test_thinking_comes_first_and_by_default():
    """A model that can think does so unless think is false."""
    async with FakeOllama() as fake:
        got = lines(await ask(fake, "/api/chat", CHAT | {"model": "qwen3"}))
        quiet = lines(await ask(fake, "/api/chat", CHAT | {"model": "qwen3", "think": False}))
    kinds = ["thinking" in item["message"] for item in got]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds[0]
    assert not kinds[-1]
    assert not any("thinking" in item["message"] for item in quiet)


@pytest.mark.parametrize(
    ("path", "text"), [("/api/chat", "message"), ("/api/generate", "response")]
)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("thinking", "tokens", "left"),
    [
        ((), ["a"] * 31, None),
        ((), [*["a"] * 31, "b", *["a"] * 31], None),
        ((), ["a"] * 32, 31),
        ((), ["b", *["a"] * 99], 32),
        (["a"] * 32, ["b"], 31),
        (["a"] * 20, ["a"] * 20, 31),
    ],
)
async def test_the_guard_against_repetition(path, text, stream, thinking, tokens, left):
    """More than 31 identical tokens in a row end a reply with status 200, and it is never done."""
    body = {"model": "qwen3", "messages": CHAT["messages"], "prompt": "Why?", "stream": stream}
    async with FakeOllama() as fake:
        fake.script(path, Reply.chat_text(tokens, thinking=thinking))
        response = await ask(fake, path, body | {"logprobs": True})
    assert response.status_code == 200
    got = [json.loads(line) for line in response.text.splitlines()]
    assert got[-1]["done"] is (left is None)
    said = [entry["token"] for item in got for entry in item.get("logprobs", ())]
    assert said == [*thinking, *tokens][:left]
    if left is not None:
        beside = {"model", "created_at", text, "done", "logprobs", "thinking"}
        assert all(set(item) <= beside for item in got)  # neither metrics nor a reason


async def test_logprobs():
    """Each chunk has those of its token, the last none; a single answer has all."""
    async with FakeOllama(tokens=3) as fake:
        got = lines(await ask(fake, "/api/chat", CHAT | {"logprobs": True, "top_logprobs": 2}))
        plain = lines(await ask(fake, "/api/generate", GENERATE | {"logprobs": True}))
        single = (await ask(fake, "/api/chat", CHAT | {"logprobs": True, "stream": False})).json()
    entry = got[0]["logprobs"][0]
    assert entry["token"] == got[0]["message"]["content"]
    assert bytes(entry["bytes"]).decode() == entry["token"]
    assert len(entry["top_logprobs"]) == 2
    assert "logprobs" not in got[-1]
    assert "top_logprobs" not in plain[0]["logprobs"][0]
    assert len(single["logprobs"]) == 3


async def test_format_gives_json_that_fits():
    """With a schema the text is an object of its properties; with "json" any object."""
    schema = {
        "type": "object",
        "$defs": {"color": {"enum": ["red", "blue"]}},
        "properties": {
            "city": {"type": "string"},
            "people": {"type": "integer"},
            "color": {"$ref": "#/$defs/color"},
            "tags": {"type": "array", "items": {"type": ["boolean", "null"]}},
            "size": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        },
    }
    async with FakeOllama() as fake:
        fitted = (await ask(fake, "/api/chat", CHAT | {"format": schema, "stream": False})).json()
        streamed = lines(await ask(fake, "/api/chat", CHAT | {"format": "json"}))
    assert json.loads(fitted["message"]["content"]) == {
        "city": "text", "people": 1, "color": "red", "tags": [True], "size": 0.5,
    }  # fmt: skip
    assert isinstance(json.loads("".join(item["message"]["content"] for item in streamed)), dict)


async def test_scripted_text_and_tool_calls():
    """Reply.chat_text becomes a stream or an object of either endpoint, as the request asks."""
    reply = Reply.chat_text(
        "Hi <you> & me",
        thinking=["Hm", "m"],
        tool_calls=[{"name": "f", "arguments": {"b": 1, "a": 2}}],
    )
    async with FakeOllama() as fake:
        fake.always("/api/chat", reply)
        fake.script("/api/generate", reply, reply.replace())
        chat = await ask(fake, "/api/chat", CHAT)
        single = (await ask(fake, "/api/chat", CHAT | {"stream": False, "tools": [{}]})).json()
        without = (await ask(fake, "/api/chat", CHAT | {"stream": False})).json()
        generate = lines(await ask(fake, "/api/generate", GENERATE))
        refused = await ask(fake, "/api/chat", CHAT | {"model": "nope"})
        fake.always("/api/chat", Reply.chat_text(tool_calls=[{"name": "f"}], calls_at_end=True))
        at_end = lines(await ask(fake, "/api/chat", CHAT))
    assert b"\\u003cyou\\u003e" in chat.content
    assert b"\\u0026" in chat.content
    got = lines(chat)
    assert [item["message"].get("thinking", "") for item in got[:2]] == ["Hm", "m"]
    assert "".join(item["message"]["content"] for item in got) == "Hi <you> & me"
    call = got[-2]["message"]["tool_calls"][0]
    assert call["id"].startswith("call_")
    assert call["function"] == {"index": 0, "name": "f", "arguments": {"b": 1, "a": 2}}
    assert single["message"]["thinking"] == "Hmm"
    assert single["message"]["tool_calls"] == [call]
    assert "tool_calls" not in without["message"]
    assert generate[-2]["tool_calls"] == [call]
    assert refused.status_code == 404
    assert len(at_end) == 1
    assert at_end[0]["message"]["tool_calls"][0]["function"]["arguments"] == {}


async def test_created_at_has_no_trailing_zeros():
    """Times are RFC 3339 in UTC with up to nine digits."""
    async with FakeOllama() as fake:
        got = lines(await ask(fake, "/api/chat", CHAT | {"options": {"num_predict": 50}}))
    for item in got:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", item["created_at"])


async def test_token_rate_paces_streams_and_single_answers():
    """Ten tokens at a hundred a second take about a tenth of a second, in either form."""
    async with FakeOllama(tokens=11, token_rate=100) as fake:
        for stream in (False, True, True, True):
            await ask(fake, "/api/chat", CHAT | {"stream": stream})
        for request in fake.requests:
            assert 0.09 < request.finished_at - request.received_at < 2
        whole, *streamed = (each.headers_sent_at - each.received_at for each in fake.requests)
        assert min(streamed) < 0.09 < whole
        assert fake.requests[-1].parts_sent == 12


async def test_a_prompt_longer_than_the_context():
    """It is cut silently, unless truncate or shift is false: then it is refused with 400."""
    long = {"model": "llama3.2", "prompt": "a b c", "options": {"num_ctx": 2}}
    async with FakeOllama() as fake:
        cut = await ask(fake, "/api/generate", long)
        shifted = await ask(fake, "/api/generate", long | {"shift": False})
        refused = await ask(fake, "/api/generate", long | {"truncate": False, "stream": False})
    assert cut.status_code == 200
    assert shifted.status_code == refused.status_code == 400
    assert shifted.headers["content-type"] == "application/json"
    assert shifted.json()["error"].startswith("the prompt is longer than the context length")
    assert json.loads(refused.json()["error"])["error"]["code"] == 400


async def test_debug_render_only():
    """The prompt comes back, and nothing is generated."""
    async with FakeOllama() as fake:
        chat = (await ask(fake, "/api/chat", CHAT | {"_debug_render_only": True})).json()
        body = {**GENERATE, "_debug_render_only": True, "images": ["aGk="]}
        generate = (await ask(fake, "/api/generate", body)).json()
    assert list(chat) == ["model", "created_at", "message", "done", "_debug_info"]
    assert chat["_debug_info"] == {"rendered_template": "Why?"}
    assert generate["_debug_info"] == {"rendered_template": "The sky is", "image_count": 1}


TOOLS = [
    {"type": "function", "function": {"name": "add", "parameters": {
        "type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
    }}},
    {"type": "function", "function": {"name": "now"}},
    {"type": "function", "function": {"parameters": {}}},
]  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
async def test_tools_are_asked_for(stream):
    """Each that has a name, once after each question; then the answer comes."""
    asked = CHAT | {"tools": TOOLS, "stream": stream}
    result = {"role": "tool", "tool_name": "add", "content": "2"}
    async with FakeOllama(call_tools=True) as fake:
        first = await ask(fake, "/api/chat", asked)
        then = await ask(fake, "/api/chat", {**asked, "messages": [*CHAT["messages"], result]})
        without = await ask(fake, "/api/chat", CHAT | {"stream": stream})
        fake.script("/api/chat", Reply.chat_text("scripted"))
        scripted = await ask(fake, "/api/chat", asked)
    calls = [
        call["function"]
        for line in first.text.splitlines()
        for call in json.loads(line)["message"].get("tool_calls", ())
    ]
    assert [(call["name"], call["arguments"]) for call in calls] == [
        ("add", {"a": 1, "b": "text"}),
        ("now", {}),
    ]
    for response in (then, without, scripted):
        assert "tool_calls" not in response.text
