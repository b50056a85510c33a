"""Arguments that cannot be right are errors before anything happens."""

from __future__ import annotations

from collections import UserList
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import ChatResponse, ClientClosedError, Message, RequestError, Timeouts
from tests.api.support import CLIENT, USER, first_step


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


def cyclic() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def deep() -> Any:
    found: Any = 1
    for _ in range(100_000):
        found = [found]
    return found


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
    "format": lambda: CLIENT.chat("m", [USER], format=complex),  # type: ignore[call-overload]
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


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "api", "", "."]), max_size=2),
    st.sampled_from(["..", "%2e%2e", ".%2E", "%2e.", "%252e%252e", "..;x", "%2E%2e;y"]),
    st.sampled_from(["", "/", "/tags", "?x", "?a=b/c", "%2ftags", "%5Ctags", "\\tags"]),
)
def test_no_path_leaves_the_prefix(before: list[str], up: str, behind: str) -> None:
    """Two dots are refused in any spelling that is read so on the way, also before a query."""
    path = "/".join(["", *before, up]) + behind
    error = first_step(CLIENT.request("GET", path))
    assert isinstance(error, RequestError)
    assert "path" in str(error)


@pytest.mark.parametrize("path", ["/api/tags?path=/../x", "/a..b", "/a/...", "/%2e", "/v1/a.b?.."])
def test_dots_that_lead_nowhere_may_be(path: str) -> None:
    """What only looks like it goes out."""
    assert not isinstance(first_step(CLIENT.request("GET", path)), RequestError)
