"""Arguments become the body of a request, and nothing is added or lost."""

from __future__ import annotations

import base64
import json
import math
from collections import ChainMap, OrderedDict, UserDict, UserList
from collections.abc import Coroutine
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import msgspec
import pytest

from ollama_sc import (
    AsyncClient,
    ChatFields,
    ChatResponse,
    EmbedFields,
    GenerateFields,
    Message,
    RequestError,
)
from ollama_sc._api import arguments
from tests.api.support import CLIENT, USER, first_step
from tests.support import recorded_body


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


def chat(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """The body that a chat sends."""
    return body_of("/api/chat", ChatFields, *args, messages=arguments.messages([USER]), **kwargs)


def body_of(path: str, allowed: type, model: str = "m", /, **kwargs: Any) -> dict[str, Any]:
    given = {key: kwargs.pop(key) for key in list(kwargs) if key in allowed.__annotations__}
    built = arguments.build_request(path, model, allowed, given, **kwargs)
    assert built.method == "POST"
    assert built.path == path
    assert built.body is not None
    return json.loads(built.body)


def test_the_least_body() -> None:
    """Nothing goes to the server that nobody gave, but for the model and whether to stream."""
    assert chat(stream=False) == {"model": "m", "messages": [USER], "stream": False}
    assert body_of("/p", EmbedFields, input="x") == {"model": "m", "input": "x"}


def test_none_is_absent() -> None:
    """A field that is None is not sent, in all calls."""
    everything = dict.fromkeys([*ChatFields.__annotations__])
    assert chat(stream=True, **everything) == {"model": "m", "messages": [USER], "stream": True}
    everything = dict.fromkeys([*GenerateFields.__annotations__])
    assert body_of("/p", GenerateFields, prompt=None, suffix=None, **everything) == {"model": "m"}
    everything = dict.fromkeys([*EmbedFields.__annotations__])
    assert body_of("/p", EmbedFields, input=[], **everything) == {"model": "m", "input": []}


def test_what_is_empty_or_false_is_sent() -> None:
    """Empty and false values mean something: they are not absent."""
    sent = body_of(
        "/p",
        GenerateFields,
        prompt="",
        suffix="",
        raw=False,
        think=False,
        keep_alive=0,
        options={},
        format="",
        images=[],
        context=[],
        truncate=False,
    )
    assert sent == {
        "model": "m",
        "prompt": "",
        "suffix": "",
        "raw": False,
        "think": False,
        "keep_alive": 0,
        "options": {},
        "format": "",
        "images": [],
        "context": [],
        "truncate": False,
    }


def sent_by(coroutine: Coroutine[Any, Any, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """The body of a call, taken where it would go to the network."""
    taken: list[Any] = []

    async def take(self: Any, request: Any, *rest: Any, **more: Any) -> Any:
        taken.append(request)
        raise LookupError

    monkeypatch.setattr(AsyncClient, "_ask", take)
    monkeypatch.setattr(AsyncClient, "_fetch", take)
    monkeypatch.setattr(AsyncClient, "_generate", take)
    assert type(first_step(coroutine)) is LookupError
    body = taken[0].body
    return None if body is None else json.loads(body)


@pytest.mark.parametrize("stream", [True, False])
def test_stream_is_always_sent(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server streams by default, so that `stream` goes along whatever it is."""
    for coroutine in (
        CLIENT.chat("m", [USER], stream=stream),
        CLIENT.generate("m", "Hi", stream=stream),
    ):
        assert sent_by(coroutine, monkeypatch)["stream"] is stream
    assert sent_by(CLIENT.chat("m"), monkeypatch)["stream"] is False
    assert sent_by(CLIENT.generate("m"), monkeypatch)["stream"] is False
    assert "stream" not in sent_by(CLIENT.embed("m", "Hi"), monkeypatch)


def test_every_argument_reaches_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each argument of each call stands in its body by the API's name."""
    common = {
        "options": {"seed": 1, "stop": ["a"]},
        "keep_alive": "1h30m",
        "truncate": False,
        "think": "high",
        "format": {"type": "object", "properties": {}},
        "logprobs": True,
        "top_logprobs": 3,
        "shift": False,
    }
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert sent_by(
        CLIENT.chat("m", [USER], tools=tools, debug_render_only=True, timeout=5, **common),
        monkeypatch,
    ) == {
        "model": "m",
        "messages": [USER],
        "stream": False,
        "tools": tools,
        "_debug_render_only": True,
        **common,
    }
    own = {"system": "s", "template": "t", "context": [1], "raw": True}
    pixels = {"width": 1, "height": 2, "steps": 3}
    assert sent_by(
        CLIENT.generate("m", "p", "s", images=["aGk="], **common, **own, **pixels), monkeypatch
    ) == {
        "model": "m",
        "prompt": "p",
        "suffix": "s",
        "stream": False,
        "images": ["aGk="],
        **common,
        **own,
        **pixels,
    }
    assert sent_by(
        CLIENT.embed("m", ["a", ""], dimensions=8, truncate=True, keep_alive=-1, options={}),
        monkeypatch,
    ) == {
        "model": "m",
        "input": ["a", ""],
        "dimensions": 8,
        "truncate": True,
        "keep_alive": -1,
        "options": {},
    }


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (timedelta(minutes=5), 300),
        (timedelta(seconds=1.5), 1.5),
        (timedelta(0), 0),
        (timedelta(seconds=-1), -1),
        (timedelta(days=2), 172_800),
        (timedelta(milliseconds=1), 0.001),
        ("1h30m", "1h30m"),
        (30, 30),
        (0.5, 0.5),
        (-1, -1),
    ],
)
def test_keep_alive(given: object, sent: object) -> None:
    """A timedelta goes as its seconds; numbers and durations as they are."""
    assert chat(keep_alive=given)["keep_alive"] == sent


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "fields", [lambda n: {"keep_alive": n}, lambda n: {"options": {"temperature": n}}]
)
def test_a_number_that_json_does_not_have_is_not_sent_as_null(number: float, fields: Any) -> None:
    """Infinity and NaN would become null, which means "the default": they are RequestErrors."""
    with pytest.raises(RequestError):
        chat(**fields(number))


def test_extra_fields_win() -> None:
    """`extra` adds fields, and takes the place of those that are there."""
    extra = {"new": {"a": [1]}, "think": "max", "raw": None}
    sent = body_of("/p", GenerateFields, stream=False, think=False, raw=True, extra=extra)
    assert sent == {"model": "m", "stream": False, **extra}
    assert "extra" not in sent
    assert extra == {"new": {"a": [1]}, "think": "max", "raw": None}


def test_extra_does_not_decide_on_streaming() -> None:
    """What is read as one reply must not be asked for as a stream, nor the other way round."""
    with pytest.raises(RequestError, match="stream"):
        body_of("/p", GenerateFields, stream=False, extra={"stream": True})


@pytest.mark.parametrize(
    "mapping",
    [MappingProxyType({"a": 1}), ChainMap({"a": 1}), UserDict({"a": 1}), OrderedDict(a=1)],
    ids=lambda mapping: type(mapping).__name__,
)
def test_any_mapping_is_one(mapping: Any) -> None:
    """Where a mapping is asked for, one of any type will do, at any depth."""
    assert chat(extra=mapping)["a"] == 1
    assert chat(options=mapping)["options"] == {"a": 1}
    assert chat(format=mapping)["format"] == {"a": 1}
    assert chat(tools=[mapping])["tools"] == [{"a": 1}]
    assert chat(options={"inner": mapping})["options"]["inner"] == {"a": 1}
    [message] = arguments.messages([UserDict(USER)])
    assert message == USER


def test_any_sequence_is_one() -> None:
    """Where a sequence is asked for, one of any type will do."""
    assert body_of("/p", GenerateFields, context=range(3))["context"] == [0, 1, 2]
    assert body_of("/p", GenerateFields, context=(1, 2))["context"] == [1, 2]
    assert body_of("/p", GenerateFields, images=(b"a",))["images"] == ["YQ=="]
    assert body_of("/p", GenerateFields, images=UserList([b"a"]))["images"] == ["YQ=="]
    assert chat(tools=UserList([{"a": 1}]))["tools"] == [{"a": 1}]


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_images_become_base64(kind: type) -> None:
    """Bytes become base64 in the standard alphabet, padded; text goes as it is."""
    data = bytes(range(256)) + b"\xfb"
    text = base64.b64encode(data).decode()
    assert "+" in text
    assert "/" in text
    assert text.endswith("=")
    assert body_of("/p", GenerateFields, images=[kind(data), "aGk="])["images"] == [text, "aGk="]
    messages = [{**USER, "images": [kind(data)]}, Message("user", images=[kind(data), "aGk="])]
    first, second = json.loads(arguments.encode(arguments.messages(messages), ""))
    assert first["images"] == [text]
    assert second["images"] == [text, "aGk="]


def test_messages_of_every_kind() -> None:
    """Mappings, Messages and replies stand side by side, and what they hold is all sent."""
    reply = msgspec.json.decode(recorded_body("chat-single"), type=ChatResponse)
    given = [USER, Message("system", "Be brief."), reply, {"role": "user", "new_field": 1}]
    assert json.loads(arguments.encode(arguments.messages(given), "")) == [
        USER,
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": reply.message.content},
        {"role": "user", "new_field": 1},
    ]
    assert arguments.messages(None) == []
    assert given[0] is USER


def test_arguments_are_left_as_they_were() -> None:
    """A call changes nothing in what it was given."""
    messages, options, extra = [dict(USER)], {"seed": 1}, {"a": 1}
    fields = {"options": options, "extra": extra, "keep_alive": timedelta(1), "think": None}
    before = repr((messages, fields))
    arguments.build_request("/p", "m", ChatFields, fields, messages=arguments.messages(messages))
    assert repr((messages, fields)) == before


def test_text_arrives_as_it_was() -> None:
    """Every character goes to the server as itself."""
    text = '<b>é漢🙂 & \u2028\x85\x00\\"\n</b>'
    built = arguments.build_request(
        "/p", "m", ChatFields, {}, messages=[{"role": "user", "content": text}]
    )
    assert built.body is not None
    assert json.loads(built.body)["messages"][0]["content"] == text


@pytest.mark.parametrize(
    ("given", "label", "body"),
    [
        (("GET", "/api/tags"), "GET /api/tags", None),
        (("get", "/api/ps"), "GET /api/ps", None),
        (("POST", "/api/me", {}), "POST /api/me", b"{}"),
        (
            ("DELETE", "/api/delete", {"model": "x"}),
            "DELETE /api/delete, model 'x'",
            b'{"model":"x"}',
        ),
        (("POST", "/p", {"model": 5}), "POST /p", b'{"model":5}'),
        (("POST", "/p", [1]), "POST /p", b"[1]"),
        (("POST", "/p", Message("a", "b")), "POST /p", b'{"role":"a","content":"b"}'),
    ],
)
def test_plain_requests(given: Any, label: str, body: bytes | None) -> None:
    """`request` sends what it is given, and its errors name the endpoint and the model."""
    built = arguments.raw_request(*given)
    assert built.label == label
    assert built.body == body


def test_a_label_names_endpoint_and_model() -> None:
    """Errors of a model's calls say which endpoint and which model."""
    assert arguments.build_request("/api/chat", "llama3.2", ChatFields, {}).label == (
        "POST /api/chat, model 'llama3.2'"
    )
