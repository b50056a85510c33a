"""Arguments into the body of a request, or into an error before anything happens."""

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
from conftest import recorded_body

from ollama_sc import (
    AsyncClient,
    ChatFields,
    ChatResponse,
    ClientClosedError,
    EmbedFields,
    GenerateFields,
    Message,
    RequestError,
    Timeouts,
    _request,
)

CLIENT = AsyncClient("127.0.0.1:9")  # never opened
USER = {"role": "user", "content": "Hi"}


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


def first_step(coroutine: Coroutine[Any, Any, Any]) -> BaseException | None:
    """What a call raises in its first step, with no event loop at all; None where it waits."""
    try:
        coroutine.send(None)
    except BaseException as error:
        return error
    finally:
        coroutine.close()
    return None


def chat(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """The body that a chat sends."""
    return body_of("/api/chat", ChatFields, *args, messages=_request.messages([USER]), **kwargs)


def body_of(path: str, allowed: type, model: str = "m", /, **kwargs: Any) -> dict[str, Any]:
    given = {key: kwargs.pop(key) for key in list(kwargs) if key in allowed.__annotations__}
    built = _request.build(path, model, allowed, given, **kwargs)
    assert built.method == "POST"
    assert built.path == path
    assert built.body is not None
    return json.loads(built.body)


def cyclic() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def deep() -> Any:
    found: Any = 1
    for _ in range(100_000):
        found = [found]
    return found


# -- what cannot be right ------------------------------------------------------------------------

BAD_CALLS: dict[str, Any] = {
    **{
        f"{name}: model {ascii(model)}": lambda call=call, model=model: call(model)
        for name, call in {
            "chat": lambda model: CLIENT.chat(model, [USER]),
            "chat stream": lambda model: CLIENT.chat(model, [USER], stream=True),
            "generate": lambda model: CLIENT.generate(model, "Hi"),
            "embed": lambda model: CLIENT.embed(model, "Hi"),
        }.items()
        for model in ("", "  ", "\t\n", None, 5, b"llama", ["llama"], {"model": "x"}, "\ud800")
    },
    **{
        f"messages: {name}": lambda messages=messages: CLIENT.chat("m", messages)
        for name, messages in {
            "str": "Hi",
            "bytes": b"Hi",
            "dict": USER,
            "Message": Message("user", "Hi"),
            "ChatResponse": ChatResponse(message=Message("a")),
            "generator": (message for message in [USER]),
            "set": {1},
            "number": 5,
            "of text": ["Hi"],
            "of lists": [[USER]],
            "of None": [USER, None],
            "no role": [{"content": "Hi"}],
            "role None": [{"role": None, "content": "Hi"}],
            "role blank": [{"role": " ", "content": "Hi"}],
            "role number": [{"role": 5, "content": "Hi"}],
            "Message role blank": [Message("", "Hi")],
            "Message role None": [Message(None, "Hi")],  # type: ignore[arg-type]
            "content list": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
            "content dict": [{"role": "user", "content": {"text": "Hi"}}],
            "content bytes": [{"role": "user", "content": b"Hi"}],
            "content number": [{"role": "user", "content": 5}],
            "Message content list": [Message("user", ["Hi"])],  # type: ignore[arg-type]
            "Message content bytes": [Message("user", b"Hi")],  # type: ignore[arg-type]
            "Message content number": [Message("user", 5)],  # type: ignore[arg-type]
            "surrogate": [{"role": "user", "content": "\ud800"}],
            "object": [{**USER, "new": object()}],
            "cyclic": [{**USER, "new": cyclic()}],
            "deep": [{**USER, "new": deep()}],
        }.items()
    },
    **{
        f"prompt {ascii(prompt)}": lambda prompt=prompt: CLIENT.generate("m", prompt)
        for prompt in (5, b"Hi", ["Hi"], USER, True, "\ud800")
    },
    "suffix": lambda: CLIENT.generate("m", "Hi", b"end"),  # type: ignore[call-overload]
    **{
        f"input {name}": lambda given=given: CLIENT.embed("m", given)
        for name, given in {
            "None": None,
            "number": 5,
            "bytes": b"Hi",
            "bytearray": bytearray(b"Hi"),
            "dict": {"a": "b"},
            "set": {"a"},
            "generator": (text for text in ["a"]),
            "of numbers": [1, 2],
            "of bytes": ["a", b"b"],
            "of None": ["a", None],
            "of lists": [["a"]],
            "surrogate": ["a", "\ud800"],
        }.items()
    },
    **{
        f"options {name}": lambda given=given: CLIENT.chat("m", [USER], options=given)
        for name, given in {
            "list": [("seed", 1)],
            "text": "seed=1",
            "number": 5,
            "set": {"seed"},
            "object in it": {"seed": object()},
            "odd key": {(1, 2): 3},
            "cyclic": {"stop": cyclic()},
        }.items()
    },
    **{
        f"extra {name}": lambda given=given: CLIENT.embed("m", "Hi", extra=given)
        for name, given in {
            "list": [("a", 1)],
            "text": "a=1",
            "number": 5,
            "object in it": {"a": object()},
            "odd key": {(1, 2): 3},
            "surrogate": {"a": "\ud800"},
        }.items()
    },
    "images": lambda: CLIENT.generate("m", "Hi", images=[object()]),  # type: ignore[list-item]
    "tools": lambda: CLIENT.chat("m", [USER], tools=[print]),  # type: ignore[list-item]
    "format": lambda: CLIENT.chat("m", [USER], format=int),  # type: ignore[call-overload]
    "keep_alive": lambda: CLIENT.chat("m", [USER], keep_alive=object()),  # type: ignore[call-overload]
    "method": lambda: CLIENT.request("BREW", "/api/pot"),
    "no path": lambda: CLIENT.request("GET", ""),
    "path without slash": lambda: CLIENT.request("GET", "api/tags"),
    "whole URL": lambda: CLIENT.request("GET", "http://h/api/tags"),
    "path with a space": lambda: CLIENT.request("GET", "/api/ tags"),
    "path with a newline": lambda: CLIENT.request("GET", "/api\r\nX: y"),
    "path with a delete": lambda: CLIENT.request("GET", "/api\x7f"),
    "path with a surrogate": lambda: CLIENT.request("GET", "/api/\ud800"),
    "json": lambda: CLIENT.request("POST", "/api/x", json=object()),
    "timeout": lambda: CLIENT.chat("m", [USER], timeout=-1),
    "timeout of a stream": lambda: CLIENT.chat("m", [USER], stream=True, timeout=0),
    "limit of a timeout": lambda: CLIENT.embed("m", "Hi", timeout=Timeouts(idle=-1)),
    "timeout text": lambda: CLIENT.request("GET", "/", timeout="5"),  # type: ignore[call-overload]
}


@pytest.mark.parametrize("name", BAD_CALLS)
def test_bad_arguments_are_refused_before_anything_happens(name: str) -> None:
    """What cannot be right is a RequestError in the call's first step, without an event loop."""
    error = first_step(BAD_CALLS[name]())
    assert type(error) is RequestError, repr(error)
    assert 10 < len(str(error)) < 1000


@pytest.mark.anyio
@pytest.mark.parametrize(
    "call",
    [
        lambda: CLIENT.chat("m", [USER]),
        lambda: CLIENT.chat("m"),
        lambda: CLIENT.chat("m", [], stream=True),
        lambda: CLIENT.chat("m", (USER, Message("assistant", "Hi"))),
        lambda: CLIENT.chat("m", UserList([USER])),
        lambda: CLIENT.generate("m"),
        lambda: CLIENT.generate("m", "", "", stream=True),
        lambda: CLIENT.embed("m"),
        lambda: CLIENT.embed("m", []),
        lambda: CLIENT.embed("m", ("a", "b")),
        lambda: CLIENT.list(),
        lambda: CLIENT.version(timeout=5),
        lambda: CLIENT.request("get", "/api/ps?x=1"),
        lambda: CLIENT.request("POST", "/api/é", json=[]),
    ],
)
async def test_a_good_call_gets_further(call: Any) -> None:
    """The same client refuses good calls only because nobody opened it."""
    with pytest.raises(ClientClosedError, match="async with"):
        await call()


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: CLIENT.chat("m", [USER], temperature=0), "temperature"),
        (lambda: CLIENT.chat("m", [USER], prompt="Hi"), "prompt"),
        (lambda: CLIENT.chat("m", [USER], _debug_render_only=True), "_debug_render_only"),
        (lambda: CLIENT.generate("m", messages=[USER]), "messages"),
        (lambda: CLIENT.generate("m", tools=[]), "tools"),
        (lambda: CLIENT.embed("m", "Hi", stream=True), "stream"),
        (lambda: CLIENT.embed("m", "Hi", think=True), "think"),
        (lambda: CLIENT.list(model="m"), "model"),
        (lambda: CLIENT.version(verbose=True), "verbose"),
    ],
)
def test_an_unknown_keyword_is_a_type_error(call: Any, word: str) -> None:
    """A keyword that a call does not have is a TypeError that names it, as everywhere in Python."""
    error = first_step(call())
    assert type(error) is TypeError, repr(error)
    assert word in str(error)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chat: model None", "'llama3.2'"),
        ("messages: str", "[{'role': 'user', 'content': 'Hello'}]"),
        ("messages: Message", "not Message"),
        ("messages: of None", "messages[1]"),
        ("messages: no role", "messages[0] needs a role: 'system', 'user'"),
        ("messages: content list", "'images'"),
        ("input of bytes", "input[1] must be text, not bytes"),
        ("options list", "options must be a mapping, not list"),
        ("extra text", "extra must be a mapping, not str"),
        ("options object in it", "POST /api/chat, model 'm'"),
        ("method", "GET, HEAD, POST"),
        ("path without slash", "slash"),
    ],
)
def test_an_error_about_arguments_says_what_to_write(name: str, words: str) -> None:
    """The error names the argument, and what it should be."""
    assert words in str(first_step(BAD_CALLS[name]()))


# -- bodies --------------------------------------------------------------------------------------


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
    [message] = _request.messages([UserDict(USER)])
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
    first, second = json.loads(_request.encode(_request.messages(messages), ""))
    assert first["images"] == [text]
    assert second["images"] == [text, "aGk="]


def test_messages_of_every_kind() -> None:
    """Mappings, Messages and replies stand side by side, and what they hold is all sent."""
    reply = msgspec.json.decode(recorded_body("chat-single"), type=ChatResponse)
    given = [USER, Message("system", "Be brief."), reply, {"role": "user", "new_field": 1}]
    assert json.loads(_request.encode(_request.messages(given), "")) == [
        USER,
        {"role": "system", "content": "Be brief."},
        {"role": "assistant", "content": reply.message.content},
        {"role": "user", "new_field": 1},
    ]
    assert _request.messages(None) == []
    assert given[0] is USER


def test_arguments_are_left_as_they_were() -> None:
    """A call changes nothing in what it was given."""
    messages, options, extra = [dict(USER)], {"seed": 1}, {"a": 1}
    fields = {"options": options, "extra": extra, "keep_alive": timedelta(1), "think": None}
    before = repr((messages, fields))
    _request.build("/p", "m", ChatFields, fields, messages=_request.messages(messages))
    assert repr((messages, fields)) == before


def test_text_arrives_as_it_was() -> None:
    """Every character goes to the server as itself."""
    text = '<b>é漢🙂 & \u2028\x85\x00\\"\n</b>'
    built = _request.build("/p", "m", ChatFields, {}, messages=[{"role": "user", "content": text}])
    assert built.body is not None
    assert json.loads(built.body)["messages"][0]["content"] == text


@pytest.mark.parametrize(
    ("arguments", "label", "body"),
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
def test_plain_requests(arguments: Any, label: str, body: bytes | None) -> None:
    """`request` sends what it is given, and its errors name the endpoint and the model."""
    built = _request.plain(*arguments)
    assert built.label == label
    assert built.body == body


def test_a_label_names_endpoint_and_model() -> None:
    """Errors of a model's calls say which endpoint and which model."""
    assert _request.build("/api/chat", "llama3.2", ChatFields, {}).label == (
        "POST /api/chat, model 'llama3.2'"
    )
