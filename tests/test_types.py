"""Requests and responses as people use them: attributes, keys, dictionaries, JSON, copies, times."""

from __future__ import annotations

import copy
import json
import math
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import (
    ChatResponse,
    EmbedResponse,
    Function,
    GenerateResponse,
    ListedModel,
    ListResponse,
    Logprob,
    Message,
    ModelDetails,
    TokenLogprob,
    ToolCall,
    VersionResponse,
)
from ollama_sc import types
from ollama_sc._api import arguments
from ollama_sc.types import WireObject
from tests.support import recorded_body


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


def decode(type_: type, data: bytes | str) -> Any:
    return msgspec.json.decode(data, type=type_)


RECORDED: list[tuple[str, type]] = [
    ("chat-single", ChatResponse),
    ("chat-format-schema", ChatResponse),
    ("chat-load", ChatResponse),
    ("generate-single-raw", GenerateResponse),
    ("generate-unload", GenerateResponse),
    ("embed-single", EmbedResponse),
    ("embed-dimensions", EmbedResponse),
    ("embed-empty-list", EmbedResponse),
    ("tags", ListResponse),
    ("version", VersionResponse),
]
STREAMED: list[tuple[str, type]] = [
    ("chat-stream", ChatResponse),
    ("chat-stream-unicode", ChatResponse),
    ("chat-stream-logprobs", ChatResponse),
    ("generate-stream", GenerateResponse),
]


def wire_objects() -> list[Any]:
    found = [pytest.param(type_, recorded_body(name), id=name) for name, type_ in RECORDED]
    for name, type_ in STREAMED:
        lines = [line for line in recorded_body(name).split(b"\n") if line]
        found += [pytest.param(type_, lines[at], id=f"{name} {at}") for at in (0, 3, -1)]
    return found


def milliseconds(moment: datetime) -> datetime:
    """Nanoseconds are cut to microseconds by one decoder and rounded by another."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def plain(value: Any) -> Any:
    """JSON with times to the millisecond."""
    if isinstance(value, dict):
        return {
            key: milliseconds(datetime.fromisoformat(item))
            if key in ("modified_at", "expires_at")
            else plain(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


# -- JSON ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("type_", "body"), wire_objects())
def test_a_recorded_reply_becomes_its_own_json_again(type_: type, body: bytes) -> None:
    """`to_dict` of what a real server sent is what it sent, empty fields and all."""
    reply = decode(type_, body)
    wire = json.loads(body)
    assert plain(reply.to_dict()) == plain(wire)
    assert json.loads(json.dumps(reply.to_dict())) == reply.to_dict()
    assert json.loads(msgspec.json.encode(reply)) == reply.to_dict()
    assert decode(type_, msgspec.json.encode(reply)) == reply


@pytest.mark.parametrize(("type_", "body"), wire_objects())
def test_a_recorded_reply_reads_like_its_json(type_: type, body: bytes) -> None:
    """Every key that the server sent is a key of the reply, with the value that it has in JSON."""
    reply = decode(type_, body)

    def compare(found: Any, sent: Any) -> None:
        if isinstance(sent, dict) and isinstance(found, WireObject):
            assert set(sent) <= set(found.keys())
            for key, value in sent.items():
                assert key in found
                compare(found[key], value)
                compare(found.get(key), value)
        elif isinstance(sent, list):
            assert len(found) == len(sent)
            for one, other in zip(found, sent, strict=True):
                compare(one, other)
        elif isinstance(found, datetime):
            assert milliseconds(found) == milliseconds(datetime.fromisoformat(sent))
        else:
            assert found == sent

    compare(reply, json.loads(body))


def test_vectors_keep_their_values() -> None:
    """Small, negative, integral and zero components are the numbers that were sent."""
    body = b'{"model":"m","embeddings":[[0.8944272,1.7888544e-7,-0.0000125,0,-0,1,6.8e-33]]}'
    [vector] = decode(EmbedResponse, body).embeddings
    assert vector == [0.8944272, 1.7888544e-07, -1.25e-05, 0.0, 0.0, 1.0, 6.8e-33]
    assert all(type(number) is float for number in vector)


def test_unknown_fields_are_left_out() -> None:
    """Fields of newer servers are ignored, on every level."""
    body = b'{"new":[1],"message":{"role":"a","content":"b","new":{}},"done":true,"x":null}'
    reply = decode(ChatResponse, body)
    assert reply == ChatResponse(message=Message("a", "b"), done=True)
    assert "new" not in reply
    assert "new" not in reply.to_dict()


def test_debug_info_has_the_apis_name_and_ours() -> None:
    """`_debug_info` is its key and its JSON, `debug_info` its attribute, and either reads it."""
    body = b'{"message":{"role":"a"},"_debug_info":{"rendered_template":"t","image_count":1}}'
    reply = decode(ChatResponse, body)
    info = {"rendered_template": "t", "image_count": 1}
    assert reply.debug_info == reply["_debug_info"] == reply["debug_info"] == info
    assert reply.to_dict()["_debug_info"] == info
    assert "debug_info" not in reply.to_dict()
    assert "_debug_info" in reply.keys()  # noqa: SIM118


# -- keys ----------------------------------------------------------------------------------------

CALLS = [ToolCall(Function("f", {"city": "Oslo", "days": 2}, 0), "call_1")]


def test_a_reply_reads_like_a_dictionary() -> None:
    """Subscripts, `in`, `get`, `keys`, iteration, `dict` and `**` see the fields with a value."""
    message = Message("assistant", "Hi", tool_calls=CALLS)
    assert message["content"] == "Hi"
    assert message["tool_calls"][0]["function"]["arguments"]["city"] == "Oslo"
    assert message.get("thinking") is None
    assert message.get("thinking", "none") == "none"
    assert message.get("role", "none") == "assistant"
    assert message.get("nonsense", 5) == 5
    assert "tool_calls" in message
    assert "thinking" not in message
    assert "nonsense" not in message
    assert 5 not in message
    assert list(message) == message.keys() == ["role", "content", "tool_calls"]
    assert dict(message) == {"role": "assistant", "content": "Hi", "tool_calls": CALLS}
    assert {**message} == dict(message)


@pytest.mark.parametrize(
    "key", ["thinking", "nonsense", "", "keys", "to_dict", "__class__", 0, None]
)
def test_a_key_without_a_value_is_a_key_error(key: Any) -> None:
    """A field that is not there, and what is no field, is a KeyError with the key."""
    with pytest.raises(KeyError) as caught:
        Message("user")[key]
    assert caught.value.args == (key,)


def test_a_field_with_an_empty_value_has_a_key() -> None:
    """Empty text, zero and false are values."""
    reply = decode(GenerateResponse, b'{"response":"","done":false,"eval_count":0}')
    assert reply["response"] == ""
    assert reply["done"] is False
    assert reply["eval_count"] == 0
    assert {"response", "done", "eval_count"} <= set(reply)


def test_fields_can_be_set_like_keys() -> None:
    """A field can be set by its key; a key that is no field cannot."""
    message = Message("user")
    message["content"] = "Hello"
    assert message.content == "Hello"
    with pytest.raises(KeyError):
        message["nonsense"] = 1


# -- in a conversation ---------------------------------------------------------------------------


def sent(messages: list[Any]) -> Any:
    return json.loads(arguments.encode(arguments.messages(messages), "label"))


@pytest.mark.parametrize("form", ["reply", "message", "dictionary", "copied"])
def test_a_reply_goes_back_into_the_conversation(form: str) -> None:
    """A reply, its message, or that as a dictionary can be appended to `messages` as it is."""
    reply = decode(ChatResponse, recorded_body("chat-single"))
    reply.message.tool_calls = CALLS
    entry = {
        "reply": reply,
        "message": reply.message,
        "dictionary": reply["message"].to_dict(),
        "copied": dict(reply.message),
    }[form]
    user = {"role": "user", "content": "Why?"}
    assert sent([user, entry, Message("tool", "rain", tool_name="f", tool_call_id="call_1")]) == [
        user,
        {
            "role": "assistant",
            "content": json.loads(recorded_body("chat-single"))["message"]["content"],
            "tool_calls": [
                {
                    "id": "call_1",
                    "function": {
                        "name": "f",
                        "arguments": {"city": "Oslo", "days": 2},
                        "index": 0,
                    },
                }
            ],
        },
        {"role": "tool", "content": "rain", "tool_name": "f", "tool_call_id": "call_1"},
    ]


def test_tool_arguments_keep_their_order() -> None:
    """Arguments go back in the model's order, nulls and empty ones included."""
    body = b'{"role":"a","tool_calls":[{"function":{"name":"f","arguments":{"z":null,"a":{}}}}]}'
    message = decode(Message, body)
    assert list(message.tool_calls[0].function.arguments) == ["z", "a"]
    assert sent([message])[0]["tool_calls"][0]["function"]["arguments"] == {"z": None, "a": {}}
    empty = Message("assistant", tool_calls=[ToolCall(Function("f", {}))])
    assert sent([empty])[0]["tool_calls"] == [{"function": {"name": "f", "arguments": {}}}]


# -- copies --------------------------------------------------------------------------------------


def everything() -> list[WireObject]:
    found: list[WireObject] = [decode(type_, recorded_body(name)) for name, type_ in RECORDED]
    token = TokenLogprob("a", -0.5, [97])
    return [
        *found,
        Message("user", "x", images=[b"\x00\xff", "aGk="]),
        ChatResponse(
            message=Message("a", tool_calls=CALLS), logprobs=[Logprob("a", -1.0, None, [token])]
        ),
        ChatResponse[int](message=Message("a")),
        GenerateResponse(response="x", context=[1], tool_calls=CALLS),
        ListedModel(details=ModelDetails(families=["llama"])),
        ModelDetails(),
        Function("f", {}),
        token,
    ]


@pytest.mark.parametrize("reply", everything(), ids=lambda reply: type(reply).__name__)
def test_replies_copy_and_pickle(reply: WireObject) -> None:
    """Copied, deeply copied or pickled, a reply is equal and of its own class."""
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        twin = pickle.loads(pickle.dumps(reply, protocol))
        assert twin == reply
        assert type(twin) is type(reply)
    assert copy.copy(reply) == reply
    deep = copy.deepcopy(reply)
    assert deep == reply
    assert deep is not reply


def test_a_pickle_names_no_private_module() -> None:
    """What programs have stored can be read by later versions: types are `ollama_sc.types`'s."""
    for name in types.__all__:
        value = getattr(types, name)
        if isinstance(value, type) and value is not WireObject and issubclass(value, WireObject):
            assert pickle.dumps(value, 0) == f"collama_sc.types\n{name}\np0\n.".encode()


def test_a_deep_copy_shares_nothing() -> None:
    """What is changed in a deep copy stays in it."""
    reply = ChatResponse(message=Message("a", tool_calls=CALLS))
    deep = copy.deepcopy(reply)
    deep.message.content = "changed"
    deep.message.tool_calls[0].function.arguments["city"] = "Rome"
    assert reply.message.content == ""
    assert CALLS[0].function.arguments["city"] == "Oslo"


# -- repr ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", everything(), ids=lambda reply: type(reply).__name__)
def test_a_repr_fits_a_terminal(reply: WireObject) -> None:
    """The repr of any reply is a few lines at most, and names its class."""
    shown = repr(reply)
    assert shown.startswith(f"{type(reply).__name__}(")
    assert shown.endswith(")")
    assert len(shown) <= 240
    assert "\n" not in shown


def test_a_repr_shows_the_text_first() -> None:
    """People look for the text: it comes first, and metrics and times come behind it."""
    reply = decode(ChatResponse, recorded_body("chat-single"))
    assert repr(reply).startswith(
        "ChatResponse(message=Message(role='assistant', content='Why is the sky blue?"
    )
    generated = decode(GenerateResponse, recorded_body("generate-single-raw"))
    assert repr(generated).startswith("GenerateResponse(response=' the limit for the 2020s.")
    long = GenerateResponse(response="word " * 1000, model="m")
    assert "word word" in repr(long)
    assert "5000 characters" in repr(long)
    assert "model='m'" in repr(long)


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.text(max_size=300),
    st.text(max_size=300) | st.none(),
    st.lists(st.text() | st.binary(), max_size=9) | st.none(),
    st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.integers())),
    st.integers(1, 50),
)
def test_a_repr_fits_a_terminal_whatever_the_content(
    content: str,
    thinking: str | None,
    images: list[str | bytes] | None,
    arguments: dict[str, Any],
    many: int,
) -> None:
    """No text, image, argument or number of them makes a repr longer than 240 characters."""
    message = Message(
        content, content, thinking, images, [ToolCall(Function(content, arguments))] * many
    )
    replies = [
        message,
        ChatResponse(message=message, model=content),
        GenerateResponse(response=content, thinking=thinking, context=[10**9] * many * 100),
        EmbedResponse(model=content, embeddings=[[0.123456789] * many] * many),
        ListResponse(models=[ListedModel(name=content, capabilities=[content] * many)] * many),
        *message.tool_calls,
    ]
    for reply in replies:
        assert len(repr(reply)) <= 240


# -- numbers -------------------------------------------------------------------------------------


def test_seconds_and_rates_by_hand() -> None:
    """Durations in nanoseconds become seconds, counts over them tokens for each second."""
    reply = GenerateResponse(
        response="",
        total_duration=2_500_000_000,
        load_duration=500_000_000,
        prompt_eval_count=30,
        prompt_eval_duration=250_000_000,
        eval_count=42,
        eval_duration=1_500_000_000,
    )
    assert reply.total_seconds == 2.5
    assert reply.load_seconds == 0.5
    assert reply.prompt_eval_seconds == 0.25
    assert reply.eval_seconds == 1.5
    assert reply.tokens_per_second == 28.0
    assert reply.prompt_tokens_per_second == 120.0


def test_the_recorded_rates_by_hand() -> None:
    """24 tokens in 1.759302962 s are 13.6418 tokens/s; 18 in 0.071971082 s are 250.1005."""
    reply = decode(ChatResponse, recorded_body("chat-single"))
    assert reply.tokens_per_second == pytest.approx(13.6418, abs=0.00005)
    assert reply.prompt_tokens_per_second == pytest.approx(250.1005, abs=0.00005)
    assert reply.total_seconds == pytest.approx(2.008332912)
    embedded = decode(EmbedResponse, recorded_body("embed-single"))
    assert embedded.total_seconds == pytest.approx(0.001674051)
    assert embedded.load_seconds == pytest.approx(0.000838907)


def test_without_metrics_there_is_no_rate() -> None:
    """Where a count or a duration is missing or zero time has passed, there is no rate."""
    part = decode(ChatResponse, b'{"message":{"role":"a"},"done":false}')
    assert part.total_seconds is part.load_seconds is None
    assert part.eval_seconds is part.prompt_eval_seconds is None
    assert part.tokens_per_second is part.prompt_tokens_per_second is None
    assert GenerateResponse(response="", eval_count=5).tokens_per_second is None
    assert GenerateResponse(response="", eval_duration=5).tokens_per_second is None
    assert GenerateResponse(response="", eval_count=5, eval_duration=0).tokens_per_second is None
    assert GenerateResponse(response="", eval_count=0, eval_duration=5).tokens_per_second == 0.0
    assert GenerateResponse(response="", total_duration=0).total_seconds == 0.0
    largest = GenerateResponse(response="", eval_count=2**63 - 1, eval_duration=1)
    assert math.isfinite(largest.tokens_per_second)


# -- times ---------------------------------------------------------------------------------------

MOMENT = datetime(2026, 8, 1, 10, 20, 30, tzinfo=UTC)
DIGITS = "123456789"


def timestamps() -> list[Any]:
    found = [
        ("2026-08-01T10:20:30Z", MOMENT),
        ("2026-08-01T10:20:30+00:00", MOMENT),
        ("2026-08-01T10:20:30-07:00", MOMENT.replace(tzinfo=timezone(timedelta(hours=-7)))),
        (
            "2026-08-01T10:20:30.5+05:30",
            datetime(2026, 8, 1, 10, 20, 30, 500_000, timezone(timedelta(hours=5.5))),
        ),
        ("2026-08-01T10:20:30.999999999Z", MOMENT + timedelta(microseconds=999_999)),
        ("2026-12-31T23:59:59.9999999Z", datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC)),
        (
            "0001-01-01T00:00:00+01:00",
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        ),
        (
            "2319-01-02T03:04:05.123456789-07:00",
            datetime(2319, 1, 2, 3, 4, 5, 123_456, timezone(timedelta(hours=-7))),
        ),
        ("9999-12-31T23:59:59.123456789Z", datetime(9999, 12, 31, 23, 59, 59, 123_456, UTC)),
    ]
    for count in range(1, 10):
        micros = int(DIGITS[:count].ljust(6, "0")[:6])
        found.append(
            (f"2026-08-01T10:20:30.{DIGITS[:count]}Z", MOMENT + timedelta(microseconds=micros))
        )
    return [pytest.param(*pair, id=pair[0]) for pair in found]


def near(found: datetime | None, expected: datetime) -> bool:
    """The same to the microsecond, whether the rest was cut or rounded."""
    assert found is not None
    assert found.utcoffset() == expected.utcoffset()
    difference = (found.replace(tzinfo=None) - expected.replace(tzinfo=None)) / timedelta(
        microseconds=1
    )
    return difference in (0, 1)


@pytest.mark.parametrize(("text", "moment"), timestamps())
def test_timestamps_of_every_shape(text: str, moment: datetime) -> None:
    """0 to 9 digits, any offset, year 1 and year 2319 are read, with the offset that was sent."""
    reply = decode(ChatResponse, f'{{"created_at":"{text}","message":{{"role":"a"}}}}')
    assert near(reply.created, moment)
    assert reply.to_dict()["created_at"] == text
    model = decode(ListedModel, f'{{"modified_at":"{text}"}}')
    assert near(model.modified_at, moment)
    assert near(datetime.fromisoformat(model.to_dict()["modified_at"]), moment)
    assert decode(ListedModel, msgspec.json.encode(model)) == model


def test_without_a_time_there_is_none() -> None:
    """A part that has no `created_at` was created at no time."""
    assert decode(GenerateResponse, b'{"response":""}').created is None
    assert decode(ListedModel, b"{}").modified_at is None


def test_whole_and_complete_and_text() -> None:
    """`complete` is `done`, and `text` is what the model wrote, in both replies."""
    reply = decode(ChatResponse, recorded_body("chat-single"))
    assert reply.complete
    assert reply.text == reply.message.content
    generated = decode(GenerateResponse, b'{"response":"x","done":false}')
    assert not generated.complete
    assert generated.text == "x"
