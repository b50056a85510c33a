"""What a server says that the API does not have survives, and goes back to it."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import AsyncClient, ChatResponse, GenerateResponse, Message, _wire_object
from ollama_sc._api import arguments
from ollama_sc._replies import lenient, ndjson, open_types
from ollama_sc._replies.join import CHAT, GENERATE
from ollama_sc.testing import FakeOllama, Reply
from tests.replies.support import A, decode, decoder, part, reply
from tests.support import MESSAGES

# Keys that mean something to Python, to msgspec, to JSON or to this library.
KEYS = [
    "thought_signature",
    "extra",
    "_extra0",
    "__class__",
    "__extra__",
    "__public__",
    "keys",
    "to_dict",
    "self",
    "cls",
    "",
    " ",
    "a b",
    'quo"ted',
    "back\\slash",
    "line\nbreak",
    "\x00",
    "\x7f",
    "~",
    "~7e",
    "é漢🙂",
    "debug_info",
    "Role",
    "message",
]
KNOWN = {*Message.__struct_encode_fields__, "function", "id", "name", "arguments", "index"}
JSON = st.recursive(
    st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner | st.none(), max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=5,
)
EXTRA = st.dictionaries(
    (st.sampled_from(KEYS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)).filter(
        lambda key: key not in KNOWN
    ),
    JSON,
    max_size=4,
)


def wire(extra: Any = None, call: Any = None, function: Any = None) -> dict[str, Any]:
    """A message as a server sends it, with these fields besides in its three objects."""
    inner = {"name": "f", "arguments": {"a": 1}, **(function or {})}
    calls = [{"function": inner, "id": "1", **(call or {})}]
    return {"role": "assistant", "content": "x", "tool_calls": calls, **(extra or {})}


def line(message: dict[str, Any], *, done: bool = False) -> bytes:
    return json.dumps({"model": "m", "message": message, "done": done}).encode() + b"\n"


def sent(message: object) -> Any:
    body = arguments.encode(arguments.messages([message]), "label")
    assert isinstance(body, bytes)
    return json.loads(body)[0]


def check(found: Any, expected: dict[str, Any]) -> None:
    """An object says what this JSON says, in every way in which it can be read."""
    assert set(found.keys()) == set(found) == set(dict(found)) == set(expected)
    for key, value in expected.items():
        assert key in found
        if key == "function":
            check(found[key], value)
        elif key == "tool_calls":
            for one, other in zip(found[key], value, strict=True):
                check(one, other)
        else:
            assert found[key] == found.get(key) == dict(found)[key] == value
    assert "nonsense" not in found
    assert found.get("nonsense", 5) == 5


@settings(max_examples=100, derandomize=True, deadline=None)
@given(EXTRA, EXTRA, EXTRA, st.booleans())
def test_unknown_fields_survive_everything(
    extra: dict[str, Any], call: dict[str, Any], function: dict[str, Any], stream: bool
) -> None:
    """Whatever a server puts into its objects is read, copied, compared and sent as it came."""
    expected = wire(extra, call, function)
    body = line(expected)
    if stream:  # the second is decoded with what was learned from the first
        outcome = decode([body, body])
        assert outcome.error is None
        assert outcome.parts[0] == outcome.parts[1]
        whole = outcome.parts[1]
    else:
        whole = reply(ChatResponse, body)
    message = whole.message
    check(message, expected)
    assert isinstance(message, Message)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(whole, protocol)) == whole
    replaced = msgspec.structs.replace(message, content="y")
    check(replaced, expected | {"content": "y"})
    assert replaced != message
    for twin in (
        message,
        copy.copy(message),
        copy.deepcopy(message),
        pickle.loads(pickle.dumps(message)),
        msgspec.structs.replace(replaced, content="x"),
    ):
        check(twin, expected)
        assert twin == message
        assert not twin != message
        assert twin.to_dict() == expected
    assert whole.to_dict()["message"] == expected
    for form in (whole, message, message.to_dict(), dict(message)):
        assert sent(form) == expected
    plain = reply(ChatResponse, line(wire())).message
    assert (message == plain) == (expected == wire())
    assert (plain == message) == (expected == wire())
    assert len(repr(message)) <= 240
    assert "\n" not in repr(message)
    assert repr(message).startswith("Message(")


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_any_name_is_harmless(key: str) -> None:
    """A server's key may be called like something of ours, and is just a key."""
    message = reply(ChatResponse, line(wire({key: "v"}))).message
    assert message[key] == "v"
    assert message.__class__.__name__ == "Message"
    assert message.keys()[:2] == ["role", "content"]
    assert message.content == "x"
    message[key] = "w"
    assert sent(message) == wire({key: "w"})


@pytest.mark.parametrize("key", [key for key in KEYS if key.isprintable() and '"' not in key])
def test_the_plain_encoding_is_flat(key: str) -> None:
    """msgspec's own encoding has unknown fields beside the known ones."""
    if "\\" in key or key.startswith("~"):
        return  # no name of a Struct's field
    found = reply(ChatResponse, line(wire({key: 1}, {key: 2}, {key: 3})))
    assert json.loads(msgspec.json.encode(found))["message"] == wire({key: 1}, {key: 2}, {key: 3})


def test_an_unknown_null_is_the_same_as_nothing() -> None:
    """A null in a field that is not known is no value either."""
    found = decode([line(wire({"new": None}, {"new": None}, {"new": None}))] * 3)
    plain = decode([line(wire())] * 3)
    assert found.parts == plain.parts
    assert "new" not in found.parts[2].message


def test_other_types_with_messages_keep_them_too() -> None:
    """A generated reply's tool calls and a model's own messages keep their unknown fields."""
    body = json.dumps({"response": "x", "tool_calls": wire({}, {"c": 1}, {"f": 2})["tool_calls"]})
    [call] = reply(GenerateResponse, body.encode()).tool_calls
    assert (call["c"], call.function["f"]) == (1, 2)


# -- in a stream -----------------------------------------------------------------------------------


def joined(*blocks: bytes, type_: Any = ChatResponse) -> Any:
    outcome = decode(blocks, type_=type_)
    assert outcome.error is None
    joiner: Any = (CHAT if type_ is ChatResponse else GENERATE).joiner()
    for found in outcome.parts:
        joiner.add([found])
    together: Any = (CHAT if type_ is ChatResponse else GENERATE).joiner()
    together.add(outcome.parts)
    assert together.result() == joiner.result()
    return joiner.result()


@pytest.mark.parametrize("split", [True, False])
def test_the_result_has_the_last_value(split: bool) -> None:
    """Of an unknown field the result has the last value that is not null, never one joined."""
    values: list[Any] = ["a", "b", None, {"c": 1}, None]
    lines = [part(f"{n}", new=value) + b"\n" for n, value in enumerate(values)]
    lines += [part("5", other="x") + b"\n", part(done=True) + b"\n"]
    whole = joined(*lines) if split else joined(b"".join(lines))
    assert whole.text == "012345"
    assert dict(whole.message) == {
        "role": "assistant",
        "content": "012345",
        "new": {"c": 1},
        "other": "x",
    }
    assert whole.complete


def test_one_unknown_field_in_the_middle_of_a_long_stream() -> None:
    """Wherever it stands, it is in the result, and no part beside it changes."""
    plain = decode([A + b"\n"]).parts[0]
    for at in (0, 1, 499, 998):
        lines = [A + b"\n"] * 1000
        lines[at] = part("a", sig="s") + b"\n"
        body = b"".join(lines)
        for size in (len(body), 700):
            outcome = decode([body[start : start + size] for start in range(0, len(body), size)])
            assert [n for n, found in enumerate(outcome.parts) if found != plain] == [at]
            joiner = CHAT.joiner()
            joiner.add(outcome.parts)
            assert joiner.result().message["sig"] == "s"


def test_streamed_tool_calls_keep_theirs() -> None:
    """Calls of several parts are in the result with what belongs to each."""
    first, second = wire({}, {"c": 1}), wire({"m": 1}, {}, {"f": 2})
    whole = joined(line(first), A + b"\n", line(second), part(done=True))
    assert sent(whole)["tool_calls"] == first["tool_calls"] + second["tool_calls"]
    assert whole.message["m"] == 1


def test_what_a_later_part_leaves_blank_stays() -> None:
    """A field that only earlier parts have is in the result, with its last value."""
    first = {"model": "m", "created_at": "t", "remote_model": "r", "_debug_info": {"a": 1}}
    first["message"] = {"role": "assistant", "content": "a", "tool_name": "f"}
    usage = {"model": "", "message": {"role": "assistant"}, "eval_count": 5, "eval_duration": 7}
    last = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": None}
    whole = joined(*(json.dumps(one).encode() + b"\n" for one in (first, usage, last)))
    assert (whole.model, whole.created_at, whole.remote_model) == ("m", "t", "r")
    assert (whole.eval_count, whole.eval_duration, whole.debug_info) == (5, 7, {"a": 1})
    assert whole.message.tool_name == "f"
    assert whole.complete
    generated = joined(
        b'{"response":"a","context":[1],"image":"i"}\n{"response":"","done":true}',
        type_=GenerateResponse,
    )
    assert (generated.context, generated.image, generated.text) == ([1], "i", "a")


@pytest.mark.parametrize("at", [0, 3, 20, 96, 99])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_a_rare_field_of_any_part_is_in_the_result(at: int, size: int) -> None:
    """Where another host runs the model, and a tool's name, wherever in the stream they stand."""
    one = json.loads(A) | {"remote_model": "r", "remote_host": "h"}
    one["message"] |= {"tool_name": "f", "tool_call_id": "c"}
    lines = [A + b"\n"] * 100
    lines[at] = json.dumps(one).encode() + b"\n"
    lines.append(part(done=True) + b"\n")
    whole = joined(*(b"".join(lines[start : start + size]) for start in range(0, 101, size)))
    assert (whole.remote_model, whole.remote_host) == ("r", "h")
    assert (whole.message.tool_name, whole.message.tool_call_id) == ("f", "c")


def test_many_keys_are_no_burden() -> None:
    """Parts that have other unknown keys each, and one with thousands, are read all the same."""
    lines = [part(str(n), **{f"key{n}": n}) + b"\n" for n in range(300)]
    outcome = decode(lines)
    assert [found.message[f"key{n}"] for n, found in enumerate(outcome.parts)] == [*range(300)]
    many = {f"key{n}": n for n in range(3000)}
    assert sent(reply(ChatResponse, line(wire(many)))) == wire(many)


def test_keys_of_every_part_do_not_stay() -> None:
    """What a server makes up for each part is kept nowhere for good: only caches have it for a while."""

    def kept() -> int:
        found = [vars(module).values() for module in (_wire_object, open_types, lenient, ndjson)]
        return sum(
            len(value)
            for values in found
            for value in values
            if isinstance(value, dict | list | set)
        )

    reply(ChatResponse, line(wire({'"': 1})))
    before = kept()
    for n in range(5):
        found = reply(ChatResponse, line(wire({f'"{n}"': n, f"\x00{n}": n, f"~{n}": n})))
        assert sent(found)[f'"{n}"'] == n
    assert kept() == before


# -- over a connection -----------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("stream", [True, False])
async def test_the_next_turn_has_what_the_server_sent(fake: FakeOllama, stream: bool) -> None:
    """A reply appended to the messages goes back with the server's own fields."""
    message = wire({"sig": "s"}, {"extra_content": {"thought_signature": "t"}}, {"strict": True})
    message["tool_calls"][0]["function"]["arguments"] = {"n": 10**30}
    found = {"model": "m", "message": message, "done": True}
    fake.script("/api/chat", Reply.stream([found]) if stream else Reply.json(found))
    async with AsyncClient(fake.url) as client:
        if stream:
            async with await client.chat("llama3.2", MESSAGES, stream=True) as parts:
                async for _ in parts:
                    pass
            whole = parts.result()
        else:
            whole = await client.chat("llama3.2", MESSAGES)
        await client.chat("llama3.2", [*MESSAGES, whole])
    assert fake.requests[-1].json["messages"][1] == message


def test_integers_of_any_size_go_back() -> None:
    """An argument of more than 64 bits is sent as the model gave it."""
    found = reply(ChatResponse, line(wire(None, None, {"arguments": {"n": -(10**30), "é": "é"}})))
    assert sent(found)["tool_calls"][0]["function"]["arguments"] == {"n": -(10**30), "é": "é"}


@pytest.mark.parametrize("rare", ["images", "logprobs", "sig", "null", "error"])
@pytest.mark.parametrize("at", range(6))
def test_something_rare_is_joined_wherever_it_comes(rare: str, at: int) -> None:
    """Images, log probabilities and unknown fields of any part are in the result, in any split."""
    lines = [A + b"\n"] * 6
    special = json.loads(A)
    if rare == "logprobs":
        special["logprobs"] = [{"token": "a", "logprob": -1.0}]
    elif rare == "null":
        special["message"]["content"] = None
    else:
        special["message"][rare] = ["aGk="] if rare == "images" else "s"
    lines[at] = json.dumps(special).encode() + b"\n"
    body = b"".join(lines)
    for size in (len(body), len(A) + 1, 2 * len(A), 150):
        joiner = CHAT.joiner()
        lines_decoder = decoder()
        for start in range(0, len(body), size):
            joiner.add(lines_decoder.feed(body[start : start + size]))
        whole = joiner.result()
        assert whole.text == "a" * (5 if rare == "null" else 6)
        assert (whole.logprobs is not None) == (rare == "logprobs")
        assert whole.message.images == (["aGk="] if rare == "images" else None)
        assert whole.message.get("sig") == ("s" if rare == "sig" else None)
        assert whole.message.get("error") == ("s" if rare == "error" else None)
