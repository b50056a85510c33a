"""The parts of a stream joined into one reply."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ollama_sc import ChatResponse, Function, GenerateResponse, Logprob, Message, ToolCall
from ollama_sc._replies.join import CHAT, GENERATE, StreamSpec
from ollama_sc._replies.ndjson import LineDecoder
from tests.support import recorded_body, recorded_request


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


def parts_of(body: bytes, shape: StreamSpec[Any]) -> list[Any]:
    lines = LineDecoder(
        shape.type, shape.is_terminal, max_line_bytes=10**6, status=200, request="R"
    )
    parts = lines.feed(body) + lines.finish(cut=False)
    assert lines.error is None
    return parts


def joined(shape: StreamSpec[Any], *blocks: list[Any]) -> Any:
    joiner = shape.joiner()
    for block in blocks:
        joiner.add(block)
    return joiner.result()


def chat(content: str = "", *, done: bool = False, **message: Any) -> ChatResponse[Any]:
    return ChatResponse(message=Message("assistant", content, **message), model="m", done=done)


def call(name: str, index: int = 0) -> ToolCall:
    return ToolCall(Function(name, {"n": index}, index), f"call_{name}")


def logprob(token: str) -> Logprob:
    return Logprob(token, -0.5, list(token.encode()))


# What two runs of the same request never share.
TIMES = ("created_at", "total_duration", "load_duration", "prompt_eval_duration", "eval_duration")


def test_the_recorded_chat_in_parts_is_the_recorded_chat_in_one_piece() -> None:
    """The same request, streamed and not, gives the same reply, but for its times."""
    streamed, single = recorded_request("chat-stream"), recorded_request("chat-single")
    assert {**streamed["body"], "stream": False} == single["body"]
    whole = joined(CHAT, parts_of(recorded_body("chat-stream"), CHAT))
    expected = json.loads(recorded_body("chat-single"))
    for name in TIMES:
        expected.pop(name)
        assert whole[name] is not None
        setattr(whole, name, ChatResponse(message=Message("")).get(name))
    assert whole.to_dict() == expected | {"created_at": ""}
    assert whole.complete


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("chat-stream", CHAT),
        ("chat-stream-unicode", CHAT),
        ("chat-stream-logprobs", CHAT),
        ("generate-stream", GENERATE),
    ],
)
def test_recorded_streams_joined_by_hand(name: str, shape: StreamSpec[Any]) -> None:
    """A joined stream is its last line, with the text and log probabilities of all lines."""
    body = recorded_body(name)
    lines = [json.loads(line) for line in body.split(b"\n") if line]
    expected = lines[-1]
    if shape is CHAT:
        expected["message"]["content"] = "".join(line["message"]["content"] for line in lines)
    else:
        expected["response"] = "".join(line["response"] for line in lines)
    logprobs = [item for line in lines for item in line.get("logprobs", [])]
    if logprobs:
        expected["logprobs"] = logprobs
    parts = parts_of(body, shape)
    assert joined(shape, parts).to_dict() == expected
    # The blocks that parts arrive in make no difference.
    assert joined(shape, *([part] for part in parts)) == joined(shape, parts)
    assert joined(shape, parts[:3], [], parts[3:]) == joined(shape, parts)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("chat-single", CHAT),
        ("chat-format-schema", CHAT),
        ("chat-load", CHAT),
        ("generate-single-raw", GENERATE),
        ("generate-unload", GENERATE),
    ],
)
def test_a_reply_in_one_piece_joined_is_itself(name: str, shape: StreamSpec[Any]) -> None:
    """A stream of one part joins into that part."""
    [part] = parts_of(recorded_body(name), shape)
    assert joined(shape, [part]) == part


def test_thinking_and_content_are_joined_apart() -> None:
    """Thinking is joined into thinking, content into content, in their order."""
    whole = joined(
        CHAT,
        [chat(thinking="The "), chat(thinking="user"), chat(""), chat("Hel")],
        [chat("lo", thinking="?"), chat(done=True)],
    )
    assert whole.message == Message("assistant", "Hello", thinking="The user?")


def test_without_thinking_there_is_none() -> None:
    """Where no part thinks, the whole does not; empty thinking is none either."""
    assert joined(CHAT, [chat("a"), chat("", thinking="")]).message.thinking is None


def test_tool_calls_come_together_from_wherever_they_stand() -> None:
    """Calls of parts in the middle and of the last part are all there, in order."""
    middle, last = [call("a"), call("b", 1)], [call("c", 2)]
    whole = joined(CHAT, [chat(tool_calls=middle), chat("text"), chat(done=True, tool_calls=last)])
    assert whole.message.tool_calls == [call("a"), call("b", 1), call("c", 2)]
    assert whole.message.content == "text"
    # The last part's message alone would have lost the first two.
    assert joined(CHAT, [chat(tool_calls=middle), chat(done=True)]).message.tool_calls == middle
    assert joined(CHAT, [chat("x"), chat(done=True)]).message.tool_calls is None


def test_generated_tool_calls_and_thinking() -> None:
    """`generate` has thinking and tool calls beside its text."""
    whole = joined(
        GENERATE,
        [
            GenerateResponse(response="", thinking="h"),
            GenerateResponse(response="a", thinking="m", tool_calls=[call("a")]),
            GenerateResponse(response="b", tool_calls=[call("b")], done=True, context=[1, 2]),
        ],
    )
    assert whole == GenerateResponse(
        response="ab",
        thinking="hm",
        tool_calls=[call("a"), call("b")],
        done=True,
        context=[1, 2],
    )


def test_logprobs_come_together() -> None:
    """Every token's log probability is there, those of parts without text too."""
    parts = [chat("a"), chat(""), chat("b"), chat(done=True)]
    for part, tokens in zip(parts, ("a", "xy", "", ""), strict=True):
        part.logprobs = [logprob(token) for token in tokens] or None
    assert joined(CHAT, parts).logprobs == [logprob("a"), logprob("x"), logprob("y")]
    assert joined(CHAT, parts[2:]).logprobs is None
    generated = [
        GenerateResponse(response="a", logprobs=[logprob("a")]),
        GenerateResponse(response="b", logprobs=[logprob("b")], done=True),
    ]
    assert joined(GENERATE, generated).logprobs == [logprob("a"), logprob("b")]


def test_images_come_together() -> None:
    """Images of a chat's parts are all there."""
    whole = joined(CHAT, [chat(images=["a"]), chat("x"), chat(images=["b", "c"], done=True)])
    assert whole.message.images == ["a", "b", "c"]


def test_metrics_are_the_last_parts() -> None:
    """What only the last part has, and what it has anew, is the whole's."""
    first, last = chat("a"), chat(done=True)
    first.created_at, last.created_at = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
    last.done_reason, last.eval_count, last.eval_duration = "stop", 20, 2_000_000_000
    last.remote_model = "big"
    whole = joined(CHAT, [first], [last])
    assert whole.created_at == "2026-01-01T00:00:01Z"
    assert whole.done_reason == "stop"
    assert whole.tokens_per_second == 10.0
    assert whole.remote_model == "big"
    assert whole.model == "m"


@pytest.mark.parametrize("shape", [CHAT, GENERATE])
def test_nothing_joined_is_an_empty_incomplete_reply(shape: StreamSpec[Any]) -> None:
    """Before anything has arrived, the whole is there, empty and not complete."""
    for whole in (joined(shape), joined(shape, [], [])):
        assert type(whole) is shape.type
        assert whole.text == ""
        assert not whole.complete
        assert whole.total_duration is None
    assert joined(CHAT).message.role == "assistant"


def test_a_stream_without_its_end_is_incomplete() -> None:
    """What has arrived is readable, and says that it is not whole."""
    parts = parts_of(recorded_body("chat-stream"), CHAT)
    whole = joined(CHAT, parts[:-1])
    assert not whole.complete
    assert whole.done_reason is None
    assert whole.text == joined(CHAT, parts).text
    assert joined(CHAT, parts[:4]).text == "Why is the sky"


def test_results_on_the_way_do_not_change_later() -> None:
    """A result taken in the middle stays as it was; parts stay as they arrived."""
    parts = [
        chat("a", tool_calls=[call("a")]),
        chat("b", tool_calls=[call("b")], images=["i"]),
        chat(done=True),
    ]
    parts[0].logprobs = [logprob("a")]
    before = msgspec.json.encode(parts)
    joiner = CHAT.joiner()
    joiner.add(parts[:1])
    early, again = joiner.result(), joiner.result()
    assert early == again
    joiner.add(parts[1:])
    assert joiner.result().message.tool_calls == [call("a"), call("b")]
    assert early.text == "a"
    assert early.message.tool_calls == [call("a")]
    early.message.tool_calls.append(call("mine"))
    early.logprobs.append(logprob("z"))
    assert joiner.result().message.tool_calls == [call("a"), call("b")]
    assert joiner.result().logprobs == [logprob("a")]
    assert msgspec.json.encode(parts) == before


def test_shapes_know_their_parts() -> None:
    """A shape tells a part's text, and which part is the last."""
    assert CHAT.text(chat("a")) == "a"
    assert GENERATE.text(GenerateResponse(response="b")) == "b"
    assert [CHAT.is_terminal(chat(done=done)) for done in (False, True)] == [False, True]
    assert GENERATE.is_terminal(GenerateResponse(response="", done=True))
