"""One leaf that cannot be read costs itself alone, unless it carries the answer."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import (
    ChatResponse,
    EmbedResponse,
    GenerateResponse,
    ListResponse,
    Message,
    OllamaError,
    ProtocolError,
    ResponseError,
    VersionResponse,
    types,
)
from ollama_sc.types import WireObject
from tests.replies.support import DONE, A, contents, decode, part, reply
from tests.replies.test_null_and_unknown import FULL, GENERATED

MODEL: dict[str, Any] = {
    "name": "x:latest",
    "model": "x:latest",
    "remote_host": "https://z",
    "modified_at": "2026-08-01T10:20:30Z",
    "expires_at": "2026-08-01T10:20:30Z",
    "size": 5,
    "size_vram": 4,
    "context_length": 4096,
    "digest": "abc",
    "details": {"format": "gguf", "families": ["a", "b"], "context_length": 8},
    "capabilities": ["tools", "vision"],
}
SHOWN: dict[str, Any] = {
    "license": "MIT",
    "modelfile": "FROM x",
    "details": MODEL["details"],
    "messages": [FULL["message"]],
    "model_info": {"general.architecture": "x", "deep": {"a": None}},
    "tensors": [{"name": "t", "type": "F16", "shape": [1, 2]}],
    "capabilities": ["tools"],
    "modified_at": "2026-08-01T10:20:30Z",
}
WHOLE: list[tuple[type[WireObject], dict[str, Any]]] = [
    (ChatResponse, FULL),
    (GenerateResponse, GENERATED),
    (EmbedResponse, {"model": "x", "embeddings": [[0.5, 1]], "total_duration": 1}),
    (types.EmbeddingsResponse, {"embedding": [0.5, 1]}),
    (ListResponse, {"models": [MODEL, {**MODEL, "name": "y"}]}),
    (types.ProcessResponse, {"models": [MODEL, {**MODEL, "name": "y"}]}),
    (types.ShowResponse, SHOWN),
    (types.ProgressResponse, {"status": "s", "digest": "d", "total": 2, "completed": 1}),
    (types.ServerStatus, {"cloud": {"disabled": True, "source": "env"}}),
    (types.UserResponse, {"id": "i", "email": "e", "name": "n"}),
    (
        types.RecommendationsResponse,
        {"recommendations": [{"model": "x", "description": "d", "vram_bytes": 1}]},
    ),
    (types.WebSearchResponse, {"results": [{"title": "t", "url": "u"}, {"title": "v"}]}),
    (types.WebFetchResponse, {"title": "t", "content": "c", "links": ["a", "b"]}),
    (VersionResponse, {"version": "1"}),
]
STRICT = {"message", "content", "response", "done", "embeddings", "embedding", "version", "status"}
FREE = {"arguments", "_debug_info", "model_info"}
ODD = [5, "", "odd", True, [], {}, [None], {"odd": 1}, -1.5, 10**30, [[]], "0", ["a", 5]]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a reply, but those in what is free of form."""
    found = [path] if path else []
    if path[-1:] and path[-1] in FREE:
        return found
    pairs: Any = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list) and value and isinstance(value[0], dict):
        pairs = enumerate(value)
    for key, item in pairs:
        found += leaves(item, (*path, key))
    return found


def replaced(whole: Any, path: tuple[Any, ...], odd: Any) -> Any:
    if not path:
        return odd
    copy = dict(whole) if isinstance(whole, dict) else list(whole)
    copy[path[0]] = replaced(copy[path[0]], path[1:], odd)
    return copy


def without(value: Any, path: tuple[Any, ...]) -> Any:
    """A reply's values without one place, and without what can stand for an absent one."""
    if isinstance(value, WireObject):
        found = {
            key: without(value[key], path[1:] if path[:1] == (key,) else ("",)) for key in value
        }
        return {key: item for key, item in found.items() if path != (key,)}
    if isinstance(value, list) and value and isinstance(value[0], WireObject):
        return [
            without(item, path[1:] if path[:1] == (n,) else ("",)) for n, item in enumerate(value)
        ]
    return value


CASES = [
    pytest.param(type_, whole, path, id=f"{type_.__name__} {'.'.join(map(str, path))}")
    for type_, whole in WHOLE
    for path in leaves(whole)
]


@pytest.mark.parametrize(("type_", "whole", "path"), CASES)
def test_a_leaf_costs_itself_alone(
    type_: type[WireObject], whole: dict[str, Any], path: tuple[Any, ...]
) -> None:
    """Whatever stands in one place of a reply, all the others are read as they are."""
    good = reply(type_, json.dumps(whole).encode())
    for odd in ODD:
        body = json.dumps(replaced(whole, path, odd)).encode()
        if path[-1] in STRICT and "messages" not in path and type_ is not types.WebFetchResponse:
            try:
                read = reply(type_, body)
            except ProtocolError:
                continue
            assert read[path[0]] is not None
            continue
        if path[-1] in {"models", "results", "recommendations"} and not isinstance(odd, list):
            with pytest.raises(ProtocolError):
                reply(type_, body)
            continue
        if isinstance(odd, dict) and isinstance(path[-1], int):
            continue  # an object is an item
        read = reply(type_, body)
        if isinstance(path[-1], int):
            good_items, items = good, read
            for key in path[:-1]:
                good_items, items = good_items[key], items[key]
            assert items == good_items[: path[-1]] + good_items[path[-1] + 1 :]
            continue
        if path[:1] == ("messages",) and path[-1] == "content":
            assert read.details == good.details
            continue
        assert without(read, path) == without(good, path), odd
        msgspec.json.encode(read) if odd != 10**30 else None


@pytest.mark.parametrize(
    ("type_", "whole"), WHOLE, ids=lambda value: getattr(value, "__name__", "")
)
def test_docstrings_name_the_strict_fields(type_: type[WireObject], whole: dict[str, Any]) -> None:
    """The docstring of a type of reply lists the fields that are strict."""
    doc = cast("str", type_.__doc__)
    if not type_.__strict__:
        assert "Strict fields: none" in doc
        return
    found = re.search(r"Strict fields?: ((?:[^.`]|`\w+`)*)", doc)
    assert found is not None
    named = set(re.findall(r"`(\w+)`", found[1])) - {"content"}
    assert named == set(type_.__strict__)
    for name in type_.__strict__:
        with pytest.raises(ProtocolError):
            reply(type_, json.dumps({**whole, name: 5}).encode())


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.data())
def test_many_odd_leaves_at_once(data: st.DataObject) -> None:
    """Whatever JSON stands in however many places: a reply or a ProtocolError, never another."""
    type_, whole = data.draw(st.sampled_from(WHOLE))
    value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    )
    for _ in range(data.draw(st.integers(1, 4))):
        whole = replaced(whole, data.draw(st.sampled_from(leaves(whole))), data.draw(value))
    body = json.dumps(whole).encode()
    try:
        read = reply(type_, body)
    except (ProtocolError, ResponseError):
        return
    assert isinstance(read, type_)
    repr(read)
    assert all(read[key] is not None for key in read)
    for name in ("total_seconds", "tokens_per_second", "created", "complete", "text"):
        getattr(read, name, None)


# -- the last part ---------------------------------------------------------------------------------


@pytest.mark.parametrize("message", ["", '"message":null,', '"message":{},'])
def test_a_last_part_without_a_message(message: str) -> None:
    """The last part needs no message: it ends the stream, with its metrics."""
    line = f'{{"model":"x",{message}"done":true,"done_reason":"stop","eval_count":5}}'.encode()
    outcome = decode([A + b"\n" + line + b"\n"])
    assert outcome.complete
    assert outcome.error is None
    assert outcome.parts[-1].message == Message("assistant")
    assert outcome.parts[-1].eval_count == 5
    assert reply(ChatResponse, line).text == ""


@pytest.mark.parametrize("response", ["", '"response":null,', '"image":"aGk=",'])
def test_a_last_part_without_a_response(response: str) -> None:
    """The last part of `generate` needs no response."""
    line = f'{{"model":"x",{response}"done":true}}'.encode()
    outcome = decode([b'{"response":"a","done":false}\n' + line], type_=GenerateResponse)
    assert outcome.complete
    assert outcome.parts[-1].response == ""
    assert reply(GenerateResponse, line).image == ("aGk=" if "image" in response else None)


@pytest.mark.parametrize("done", ['"true"', "1", "0", '""', "[]", "{}", '"no"'])
@pytest.mark.parametrize("type_", [ChatResponse, GenerateResponse])
def test_done_is_strict(type_: type, done: str) -> None:
    """`done` decides whether a reply is whole: what is no boolean is an error."""
    line = f'{{"message":{{"role":"a","content":"x"}},"response":"x","done":{done}}}'.encode()
    assert type(decode([line + b"\n"], type_=type_).error) is ProtocolError


# -- tool calls ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("null", {}),
        ('""', {}),
        ('" \\n"', {}),
        ('"null"', {}),
        ("{}", {}),
        ('"{}"', {}),
        ('"{\\"a\\": {\\"b\\": null}}"', {"a": {"b": None}}),
        ('" {\\"a\\":1}\\n"', {"a": 1}),
        ('"{\\"a\\":"', {"_raw": '{"a":'}),
        ('"Oslo"', {"_raw": "Oslo"}),
        ('"[1]"', {"_raw": "[1]"}),
        ("[1]", {"_raw": [1]}),
        ("5", {"_raw": 5}),
        ("false", {"_raw": False}),
        ('"{\\"a\\":\\"\\\\ud800\\"}"', {"a": "\ufffd"}),
        ('"\\ud800"', {"_raw": "\ufffd"}),
    ],
)
@pytest.mark.parametrize("null", ["", '"thinking":null,', '"role":null,'])
def test_arguments_of_every_form(sent: str, read: dict[str, Any], null: str) -> None:
    """Arguments are an object, the text of one, nothing, or kept as they came."""
    line = (
        f'{{"message":{{"role":"assistant",{null}"content":"x","tool_calls":[{{"id":"1",'
        f'"function":{{"name":"f","arguments":{sent}}}}}]}},"done":true}}'
    ).encode()
    for found in (reply(ChatResponse, line), decode([A + b"\n" + line]).parts[1]):
        [call] = found.message.tool_calls
        assert call.function.arguments == read
        assert (call.id, call.function.name, found.text) == ("1", "f", "x")


def test_missing_arguments_are_none_given() -> None:
    """A call without `arguments` has none, and its siblings stay."""
    message = part("x", done=True, tool_calls=[{"function": {"name": "f"}}, 5, {"id": "2"}])
    first, second = reply(ChatResponse, message).message.tool_calls
    assert first.function.arguments == second.function.arguments == {}
    assert (first.function.name, second.function.name, second.id) == ("f", "", "2")


# -- lists -----------------------------------------------------------------------------------------


def test_the_list_of_another_server() -> None:
    """A list with empty times and sizes, as llama-server gives it, is a list."""
    body = (
        b'{"models":[{"name":"m","model":"m","modified_at":"","size":"","digest":"","type":"model",'
        b'"description":"","tags":[""],"capabilities":["completion"],"parameters":"","details":'
        b'{"parent_model":"","format":"gguf","family":"","families":[""],"parameter_size":""}}],'
        b'"object":"list","data":[{"id":"m","meta":null}]}'
    )
    [model] = reply(ListResponse, body).models
    assert (model.name, model.modified_at, model.size, model.digest) == ("m", None, None, "")
    assert model.details.format == "gguf"


@pytest.mark.parametrize("odd", ["yesterday", "", 5, {}, [], True, "2026-13-01T00:00:00Z"])
@pytest.mark.parametrize("at", [0, 10, 20])
def test_one_odd_time_among_many_models(odd: Any, at: int) -> None:
    """Of 21 models the one with an odd time has none; all have the rest."""
    models = [{**MODEL, "name": f"m{number}"} for number in range(21)]
    models[at]["modified_at"] = odd
    found = reply(ListResponse, json.dumps({"models": models}).encode()).models
    assert [model.name for model in found] == [f"m{number}" for number in range(21)]
    assert [model.modified_at is None for model in found] == [n == at for n in range(21)]
    assert all(model.details.families == ["a", "b"] for model in found)


def test_items_that_are_no_objects_are_left_out() -> None:
    """What is no object in a list of them is left out, and so is what is no text among texts."""
    models = [5, {**MODEL, "capabilities": ["tools", 5, None]}, None, "x", []]
    [model] = reply(ListResponse, json.dumps({"models": models}).encode()).models
    assert model.capabilities == ["tools"]


# -- JSON that others read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("\\ud800", "\ufffd"),
        ("\\uDC00", "\ufffd"),
        ("a\\ud83d", "a\ufffd"),
        ("\\ud83d\\ud83d\\ude42", "\ufffd🙂"),
        ("\\ude42\\ud83d", "\ufffd\ufffd"),
        ("\\ud83dx\\ude42", "\ufffdx\ufffd"),
        ("\\\\ud800\\ud800", "\\ud800\ufffd"),
        ('\\"\\ud800\\n', '"\ufffd\n'),
        ("\\ud800\\u0041", "\ufffdA"),
    ],
)
def test_half_characters(text: str, read: str) -> None:
    """Half a surrogate pair is U+FFFD, in a stream, a reply, and in a key; the rest stays."""
    line = A.replace(b'"a"', f'"{text}"'.encode())
    outcome = decode([A + b"\n" + line + b"\n" + DONE + b"\n"])
    assert contents(outcome) == ["a", read, ""]
    assert outcome.complete
    assert reply(ChatResponse, line).text == read
    assert reply(Any, f'{{"{text}":1}}'.encode()) == {read: 1}
    read.encode()


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(st.characters() | st.sampled_from('\ud800\udbff\udc00\udfff\\"u'), max_size=20))
def test_any_text_that_json_can_escape(text: str) -> None:
    """Every text that Python's json writes is read, with U+FFFD for what is no character."""
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    line = json.dumps({"message": {"role": "a", "content": text}, "new": text}).encode()
    [found] = decode([line + b"\n"]).parts
    found.text.encode()
    assert found.text == expected or "\ufffd" in expected


@pytest.mark.parametrize(
    "number", ["1e400", "-1e400", "1" * 30, "1" * 5000, "-" + "9" * 400, "1e-999", "1.5", "-0"]
)
@pytest.mark.parametrize(
    "where", ["total_duration", "eval_count", "unknown", "created_at", "_debug_info"]
)
def test_numbers_of_any_size(number: str, where: str) -> None:
    """A number that nothing can hold costs itself, not the stream."""
    value = number if where != "_debug_info" else f'{{"a":{number},"b":1}}'
    line = part("b")[:-1] + f',"{where}":{value}}}'.encode()
    outcome = decode([A + b"\n" + line + b"\n" + DONE])
    assert contents(outcome) == ["a", "b", ""]
    assert outcome.complete
    assert outcome.parts[1].total_seconds is None or where == "total_duration"
    assert outcome.parts[1].tokens_per_second is None


def test_whole_numbers_with_a_point() -> None:
    """Counts, sizes and durations that a server writes as floats are read where they are whole."""
    metrics = (
        b'"total_duration":1.5e9,"eval_count":12.0,"load_duration":-0.0,"prompt_eval_count":2.5'
    )
    whole = reply(ChatResponse, A.replace(b'"done": false', b'"done":true,' + metrics))
    assert (whole.total_duration, whole.eval_count, whole.load_duration) == (1_500_000_000, 12, 0)
    assert type(whole.eval_count) is int
    assert whole.prompt_eval_count is None
    [model] = reply(ListResponse, b'{"models":[{"name":"a","size":4.7e9}]}').models
    assert model.size == 4_700_000_000


@pytest.mark.parametrize("body", [b"1e400", b"NaN", b"Infinity", b'"1"', b"null", b"[]"])
def test_vectors_are_strict(body: bytes) -> None:
    """A vector with something in it that is no number is an error."""
    with pytest.raises(OllamaError):
        reply(EmbedResponse, b'{"embeddings":[[0.5,' + body + b"]]}")


def test_keys_that_stand_twice() -> None:
    """Of a key that stands twice the last value counts, as in JavaScript and Python."""
    line = b'{"message":{"role":"a","content":"x"},"done":false,"done":true,"eval_count":"","eval_count":5}'
    outcome = decode([line])
    assert outcome.complete
    assert outcome.parts[0].eval_count == 5
