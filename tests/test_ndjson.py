"""Bytes into lines into typed objects, however the network splits them."""

import json
import time
from collections.abc import Iterable
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
import pytest
from conftest import recorded_body
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import (
    AuthorizationError,
    ChatResponse,
    EmbedResponse,
    GenerateResponse,
    ListResponse,
    ModelNotFoundError,
    OllamaError,
    ProtocolError,
    RateLimitError,
    ResponseError,
    VersionResponse,
)
from ollama_sc._ndjson import LineDecoder, decode_reply


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


LABEL = "POST /api/chat, model 'x'"
LIMIT = 1_000_000


class Outcome(NamedTuple):
    """What a stream comes to: its parts, whether it is whole, and what is wrong with it."""

    parts: list[Any]
    complete: bool
    error: OllamaError | None

    @property
    def sight(self) -> tuple[Any, ...]:
        """What a consumer can tell apart."""
        return self.parts, self.complete, type(self.error), str(self.error)


def decoder(type_: type = ChatResponse, limit: int = LIMIT) -> LineDecoder[Any]:
    return LineDecoder(type_, attrgetter("done"), max_line_bytes=limit, status=200, request=LABEL)


def decode(
    blocks: Iterable[bytes], *, type_: type = ChatResponse, limit: int = LIMIT, cut: bool = False
) -> Outcome:
    """Feed blocks as a stream's task does: until the terminal object, an error, or the end."""
    lines = decoder(type_, limit)
    parts: list[Any] = []
    for block in [*blocks, None]:
        parts += lines.finish(cut=cut) if block is None else lines.feed(block)
        if lines.error is not None or lines.complete:
            break
    return Outcome(parts, lines.complete, lines.error)


def text(*pieces: str) -> list[str]:
    return list(pieces)


def contents(outcome: Outcome) -> list[str]:
    return [part.message.content for part in outcome.parts]


def part(content: str = "", *, done: bool = False, **message: object) -> bytes:
    body = {"role": "assistant", "content": content, **message}
    return json.dumps({"model": "x", "message": body, "done": done}, ensure_ascii=False).encode()


A, B, C = part("a"), part("b"), part("c")
DONE = part(done=True)
ERROR = b'{"error":"boom"}'
# Its arguments have a key "error", so it is no error, but has to be looked at.
HARMLESS = part("h", tool_calls=[{"function": {"name": "f", "arguments": {"error": "none"}}}])

STREAMS = {
    "chat-stream": ChatResponse,
    "chat-stream-unicode": ChatResponse,
    "chat-stream-logprobs": ChatResponse,
    "generate-stream": GenerateResponse,
}


def each_alone(body: bytes, type_: type) -> list[Any]:
    """The parts as one plain decoder sees them, line by line."""
    return [msgspec.json.decode(line, type=type_) for line in body.split(b"\n") if line]


# -- recorded streams, split and cut -------------------------------------------------------------


@pytest.mark.parametrize(("name", "type_"), STREAMS.items())
def test_a_recorded_stream_in_one_piece(name: str, type_: type) -> None:
    """A whole stream gives one part for each of its lines, and its last part is terminal."""
    body = recorded_body(name)
    outcome = decode([body], type_=type_)
    assert outcome == (each_alone(body, type_), True, None)
    assert len(outcome.parts) == body.count(b"\n")


@pytest.mark.parametrize(("name", "type_"), STREAMS.items())
def test_a_recorded_stream_split_at_every_byte(name: str, type_: type) -> None:
    """Wherever the network splits a stream in two, its parts are the same."""
    body = recorded_body(name)
    whole = each_alone(body, type_)
    for position in range(len(body) + 1):
        outcome = decode([body[:position], body[position:]], type_=type_)
        assert outcome == (whole, True, None), position


@pytest.mark.parametrize(("name", "type_"), STREAMS.items())
@pytest.mark.parametrize("size", [1, 2, 7, 100, 1000])
def test_a_recorded_stream_in_small_pieces(name: str, type_: type, size: int) -> None:
    """Byte by byte or in pieces of any size, a stream's parts are the same."""
    body = recorded_body(name)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert decode(pieces, type_=type_) == (each_alone(body, type_), True, None)


@pytest.mark.parametrize(("name", "type_"), STREAMS.items())
@pytest.mark.parametrize("cut", [True, False], ids=["broken", "ended"])
def test_a_recorded_stream_cut_at_every_byte(name: str, type_: type, cut: bool) -> None:
    """A stream that stops anywhere gives the parts that are whole, and no error of its own."""
    body = recorded_body(name)
    whole = each_alone(body, type_)
    ends = [number for number, byte in enumerate(body) if byte == 0x0A]
    for position in range(len(body)):
        # A line is whole without its newline, too.
        count = sum(end <= position for end in ends)
        outcome = decode([body[:position]], type_=type_, cut=cut)
        assert outcome == (whole[:count], count == len(whole), None), position


def test_a_line_of_every_token_cut_at_every_byte() -> None:
    """Half a number, literal, escape or character at the end of a reply is merely incomplete."""
    line = (
        b'{"n":[-1.5e-7,0,1E+2,2.0],"l":[true,false,null],"s":"\\u00e9 \\ud83d\\ude42 \\n \xc3\xa9 '
        b'\xf0\x9f\x99\x82","message":{"role":"a"},"done":true}'
    )
    assert decode([line]).complete
    for position in range(len(line)):
        outcome = decode([A + b"\n" + line[:position]], cut=False)
        assert contents(outcome) == ["a"], line[:position]
        assert outcome.error is None, line[:position]


def test_parts_come_as_soon_as_their_line_ends() -> None:
    """A part is there with the newline, and does not wait for what comes after it."""
    lines = decoder()
    assert lines.feed(A) == []
    assert len(lines.feed(b"\n" + B)) == 1
    assert len(lines.feed(b"\n" + C + b"\n" + A[:5])) == 2
    assert lines.finish(cut=True) == []
    assert not lines.complete


# -- lines ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029", "\x7f", "\u00a0"], ids=ascii)
def test_only_a_newline_ends_a_line(character: str) -> None:
    """Characters that Python takes for line ends are text like any other, in raw UTF-8."""
    line = part(f"one{character}two")
    assert character.encode() in line
    outcome = decode([line + b"\n" + DONE + b"\n"])
    assert contents(outcome) == text(f"one{character}two", "")
    assert outcome.complete


@pytest.mark.parametrize(
    "body",
    [
        A + b"\r\n" + DONE + b"\r\n",
        A + b"\n\n\n" + DONE + b"\n",
        b"\n\r\n \t\n" + A + b"\n \n" + DONE + b"\n\n",
        b"  " + A + b"  \n\t" + DONE + b"\t\r\n",
        A + b"\n" + DONE,
        A + b"\n" + DONE + b"\r",
        A + b"\r\n" + DONE + b" ",
    ],
    ids=["crlf", "blank", "more blank", "indented", "no last newline", "no last \\n", "space"],
)
def test_white_space_around_lines_counts_for_nothing(body: bytes) -> None:
    """\\r\\n, blank lines, spaces, and a last line without newline give the same two parts."""
    for position in range(len(body) + 1):
        outcome = decode([body[:position], body[position:]])
        assert contents(outcome) == ["a", ""], position
        assert outcome.complete
        assert outcome.error is None


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n\t", b"\n" * 1000])
def test_a_stream_of_nothing(body: bytes) -> None:
    """An empty stream has no parts, no error, and no end."""
    assert decode([body]) == ([], False, None)


def test_empty_blocks_change_nothing() -> None:
    """A block without bytes is none."""
    outcome = decode([b"", A, b"", b"\n", b"", DONE, b""])
    assert contents(outcome) == ["a", ""]
    assert outcome.complete


# -- the terminal object -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "after",
    [A, ERROR, b"garbage", b"{", b"\xff\xfe", b"[" * 50_000, b"x" * 500, b"0\r\n\r\n", DONE],
    ids=["part", "error", "garbage", "half", "bytes", "deep", "long", "chunk", "another end"],
)
@pytest.mark.parametrize("newline", [b"", b"\n"], ids=["cut", "whole"])
def test_what_follows_the_terminal_object_is_ignored(after: bytes, newline: bytes) -> None:
    """Bytes behind the end are no parts and no errors, whatever they are; they are surplus."""
    body = A + b"\n" + DONE + b"\n" + after + newline
    for position in range(len(A + DONE), len(A + DONE) + 6):
        lines = decoder(limit=200)
        parts = lines.feed(body[:position]) + lines.feed(body[position:])
        assert [part.message.content for part in parts] == ["a", ""], position
        assert lines.complete, position
        assert lines.error is None, position
        assert lines.surplus, position
        assert lines.finish(cut=False) == []


@pytest.mark.parametrize("after", [b"", b"\n", b" \n", b"\r\n\n", b" ", b"\n\t"])
def test_white_space_after_the_terminal_object_is_no_surplus(after: bytes) -> None:
    """White space behind the end does not spoil the connection, in the same read or the next."""
    body = A + b"\n" + DONE + b"\n" + after
    for position in range(len(A), len(body) + 1):
        lines = decoder()
        lines.feed(body[:position])
        lines.feed(body[position:])
        assert lines.complete
        assert not lines.surplus, position


def test_the_terminal_object_in_the_middle_of_a_block() -> None:
    """Lines before the end are parts, lines after it are not, in one block."""
    outcome = decode([b"\n".join([A, B, DONE, C, A, b""])])
    assert contents(outcome) == ["a", "b", ""]
    assert outcome.complete


@pytest.mark.parametrize("newline", [b"", b"\n"])
def test_a_single_reply_is_a_stream_of_one(newline: bytes) -> None:
    """What the server sends for loading, one JSON object without newline, is a whole stream."""
    body = recorded_body("chat-load")
    assert not body.endswith(b"\n")
    outcome = decode([body + newline])
    assert outcome.complete
    assert [part.done_reason for part in outcome.parts] == ["load"]


# -- one line, one object ------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [[], [A], [HARMLESS], [DONE]], ids=["alone", "a", "h", "done"])
def test_two_objects_on_one_line_are_the_same_whatever_is_beside_them(beside: list[bytes]) -> None:
    """What becomes of two objects on a line does not depend on the lines of the same read."""
    alone = decode([A + B + b"\n"])
    together = decode([b"\n".join([A + B, *beside, b""])])
    assert type(together.error) is type(alone.error)
    assert contents(together)[: len(alone.parts)] == contents(alone)


def test_an_object_over_two_lines_is_an_error_in_any_split() -> None:
    """JSON that goes over lines is no NDJSON, whether the lines come together or apart."""
    pretty = json.dumps(json.loads(A), indent=1).encode() + b"\n"
    for position in range(len(pretty)):
        outcome = decode([pretty[:position], pretty[position:]])
        assert type(outcome.error) is ProtocolError, position
        assert outcome.parts == []


# -- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [([], [A]), ([A], [B]), ([A, B], []), ([HARMLESS], [DONE]), ([A, b"", B], [b"", DONE])],
    ids=["first", "between", "last", "after a harmless one", "blank lines"],
)
@pytest.mark.parametrize(
    "error", [ERROR, b' { "error" : "boom" } ', b'{"status":"x","error":"boom","y":null}']
)
def test_an_error_object_anywhere(before: list[bytes], after: list[bytes], error: bytes) -> None:
    """An error object ends the stream with its text, behind the parts that came before it."""
    body = b"\n".join([*before, error, *after, b""])
    expected = contents(decode([b"\n".join([*before, b""])]))
    for position in range(len(body)):
        outcome = decode([body[:position], body[position:]])
        assert contents(outcome) == expected, position
        assert type(outcome.error) is ResponseError, position
        assert outcome.error.error == "boom"
        assert outcome.error.status_code == 200
        assert outcome.error.request == LABEL
        assert not outcome.complete


@pytest.mark.parametrize("cut", [True, False])
def test_an_error_object_without_newline(cut: bool) -> None:
    """The last line may be an error without its newline, as remote models send it."""
    outcome = decode([A + b"\n", ERROR[:5], ERROR[5:]], cut=cut)
    assert contents(outcome) == ["a"]
    assert type(outcome.error) is ResponseError


@pytest.mark.parametrize("cut", [True, False])
def test_half_an_error_object_is_no_error(cut: bool) -> None:
    """A stream that stops inside an error object is incomplete; nobody can know the error."""
    for position in range(1, len(ERROR)):
        outcome = decode([A + b"\n" + ERROR[:position]], cut=cut)
        assert contents(outcome) == ["a"]
        assert outcome.error is None
        assert not outcome.complete


@pytest.mark.parametrize(
    ("line", "cls"),
    [
        (b'{"error":{"message":"boom"}}', ResponseError),
        (b'{"error":"{\\"error\\":{\\"code\\":400,\\"message\\":\\"boom\\"}}"}', ResponseError),
        (b'{"StatusCode":429,"Status":"429 Too Many","error":"boom"}', RateLimitError),
        (b'{"StatusCode":404,"error":"boom"}', ModelNotFoundError),
        (b'{"StatusCode":401,"error":"boom","signin_url":"https://x"}', AuthorizationError),
        (part(done=True)[:-1] + b',"error":"boom"}', ResponseError),
    ],
)
def test_error_objects_of_every_shape(line: bytes, cls: type) -> None:
    """Remote models' errors in a stream are of the class that their own status says."""
    outcome = decode([A + b"\n" + line + b"\n"])
    assert type(outcome.error) is cls
    assert outcome.error.error == "boom"


@pytest.mark.parametrize(
    "line",
    [
        HARMLESS,
        part('he said "error": no'),
        part("x", role="error"),
        part("x")[:-1] + b',"error":null}',
        part("x")[:-1] + b',"new_field":{"error":"not ours"}}',
        part("x")[:-1] + b',"status":"error"}',
        part("x")[:-1] + b',"_debug_info":{"rendered_template":"\\"error\\""}}',
    ],
)
def test_the_word_error_elsewhere_is_no_error(line: bytes) -> None:
    """Only a key "error" of the object itself, with a value, makes it an error."""
    outcome = decode([A + b"\n" + line + b"\n" + DONE + b"\n"])
    assert len(outcome.parts) == 3
    assert outcome.error is None
    assert outcome.complete
    assert decode([line], cut=False).error is None


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"<html><body>502</body></html>",
        b"5",
        b"null",
        b'"text"',
        b"[]",
        b"[" + A + b"]",
        b"{}",
        b'{"model":"x","done":false}',
        b'{"message":"text","done":false}',
        b'{"message":{"role":5},"done":false}',
        b'{"message":{"role":"a"},"done":"no"}',
        b"\xef\xbb\xbf" + A,
        A[:-1],
        A + b"}",
        A + b" x",
        b"data: " + A,
        b"\x00",
        b"\x1f\x8b\x08\x00",
        A.replace(b'"a"', b'"\xff"'),
        A.replace(b'"a"', b'"\xed\xa0\x80"'),
        A.replace(b'"a"', b'"\\ud800"'),
        A.replace(b'"a"', b'"\x01"'),
        A.replace(b'"a"', b"NaN"),
    ],
    ids=ascii,
)
def test_a_line_that_is_not_the_apis(line: bytes) -> None:
    """A bad line is a ProtocolError that shows it, behind the good parts before it."""
    body = A + b"\n" + B + b"\n" + line + b"\n" + DONE + b"\n"
    for split in (len(body), len(A) + 1, len(A + B) + 2, len(A + B) + 3):
        outcome = decode([body[:split], body[split:]])
        assert contents(outcome) == ["a", "b"]
        assert type(outcome.error) is ProtocolError
        assert outcome.error.request == LABEL
        assert outcome.error.excerpt == line[:200]
        assert outcome.error.__cause__ is not None
        str(outcome.error).encode()  # no half characters
        assert not outcome.complete


@pytest.mark.parametrize(
    ("line", "cls"),
    [
        (b"garbage", ProtocolError),
        (b"<html>", ProtocolError),
        (b"5", ProtocolError),
        (b"[]", ProtocolError),
        (b"{}", ProtocolError),
        (A + b"}", ProtocolError),
        (A[:-1], type(None)),
        (A[:30], type(None)),
        (A.replace(b'"a"', b'"\xc3'), type(None)),
    ],
    ids=ascii,
)
def test_a_bad_last_line_of_a_reply_that_ended(line: bytes, cls: type) -> None:
    """Where a reply ends properly, half an object is merely incomplete, and garbage an error."""
    outcome = decode([A + b"\n" + line], cut=False)
    assert contents(outcome) == ["a"]
    assert type(outcome.error) is cls
    assert not outcome.complete


@pytest.mark.parametrize("line", [b"garbage", b"5", A + b"}", b"\xff", b"[" * 100], ids=ascii)
def test_a_bad_last_line_of_a_broken_connection(line: bytes) -> None:
    """Where the connection broke, what is wrong with the last line is that, and no more."""
    outcome = decode([A + b"\n" + line], cut=True)
    assert contents(outcome) == ["a"]
    assert outcome.error is None
    assert not outcome.complete


def test_a_whole_last_part_of_a_broken_connection_counts() -> None:
    """A terminal object that arrived is the end, although its newline did not."""
    assert decode([A + b"\n" + DONE], cut=True).complete


def deep(levels: int, *, inside: str) -> bytes:
    nested = b"[" * levels + b"]" * levels
    return {
        "nothing": nested,
        "an object": b'{"a":' * levels + b"1" + b"}" * levels,
        "an unknown field": A[:-1] + b',"new":' + nested + b"}",
        "an error": b'{"error":' + nested + b"}",
        "an error's text": msgspec.json.encode({"error": '{"a":' + nested.decode()}),
        "arguments": part(
            tool_calls=[{"function": {"name": "f", "arguments": {"a": "DEEP"}}}]
        ).replace(b'"DEEP"', nested),
        "arguments beside a null": part(
            thinking=5, tool_calls=[{"function": {"name": "f", "arguments": {"a": "DEEP"}}}]
        )
        .replace(b'"DEEP"', nested)
        .replace(b'"content": ""', b'"content": null')
        .replace(b'"thinking": 5', b'"thinking": null'),
    }[inside]


@pytest.mark.parametrize(
    "inside",
    [
        "nothing",
        "an object",
        "an unknown field",
        "an error",
        "an error's text",
        "arguments",
        "arguments beside a null",
    ],
)
@pytest.mark.parametrize("levels", [300, 600, 900, 100_000])
def test_deep_nesting_is_a_part_or_an_error(inside: str, levels: int) -> None:
    """However deep a line is nested, nothing but a part or an OllamaError comes of it."""
    line = deep(levels, inside=inside)
    for outcome in (decode([A + b"\n" + line + b"\n"]), decode([A + b"\n" + line])):
        assert contents(outcome)[0] == "a"
        assert len(outcome.parts) == 2 or isinstance(outcome.error, OllamaError)
    cut = decode([A + b"\n" + line[: len(line) // 2]])
    assert contents(cut) == ["a"]


# -- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", [1, 2, 3, 50])
@pytest.mark.parametrize("newline", [b"", b"\n"], ids=["endless", "ended"])
def test_a_line_over_the_limit(pieces: int, newline: bytes) -> None:
    """A line that is too long is a ProtocolError, in one piece or in many, ended or not."""
    line = b'{"x":"' + b"y" * 1000 + b'"}' + newline
    size = -(-len(line) // pieces)
    blocks = [line[start : start + size] for start in range(0, len(line), size)]
    outcome = decode([A + b"\n", *blocks], limit=500)
    assert contents(outcome) == ["a"]
    assert type(outcome.error) is ProtocolError
    assert "500" in str(outcome.error)
    assert outcome.error.excerpt == line[: len(outcome.error.excerpt)]
    assert 0 < len(outcome.error.excerpt) <= 200


@pytest.mark.parametrize("newline", [b"", b"\n"], ids=["endless", "ended"])
def test_good_parts_before_a_line_over_the_limit_come_first(newline: bytes) -> None:
    """The parts of a read are delivered although a line after them is too long."""
    outcome = decode([A + b"\n" + B + b"\n" + b"x" * 1000 + newline], limit=500)
    assert contents(outcome) == ["a", "b"]
    assert type(outcome.error) is ProtocolError


@pytest.mark.parametrize("newline", [b"\n", b""])
def test_the_limit_is_for_a_line_not_for_a_read(newline: bytes) -> None:
    """Many lines in one read may be longer than the limit together; each alone may reach it."""
    limit = len(DONE) + 5
    padded = [line + b" " * (limit - len(line)) for line in (A, B, C, DONE)]
    assert {len(line) for line in padded} == {limit}
    body = b"\n".join(padded) + newline
    for blocks in ([body], [body[:40], body[40:]], [bytes([byte]) for byte in body]):
        outcome = decode(blocks, limit=limit)
        assert contents(outcome) == ["a", "b", "c", ""]
        assert outcome.complete
    assert type(decode([body], limit=limit - 1).error) is ProtocolError


def test_an_endless_line_is_not_kept() -> None:
    """What a too long line has brought is let go of, at once."""
    lines = decoder(limit=1000)
    for _ in range(10):
        lines.feed(b"x" * 150)
    assert type(lines.error) is ProtocolError
    assert sum(map(len, lines._pieces)) <= 1000


def test_a_long_line_in_many_pieces_costs_no_more_than_its_length() -> None:
    """Four times the pieces of a line take about four times the time, not sixteen times."""

    def seconds(pieces: int) -> float:
        lines = decoder(limit=10**9)
        began = time.process_time()
        for _ in range(pieces):
            lines.feed(b" " * 1000)
        assert len(lines.feed(A + b"\n")) == 1
        return time.process_time() - began

    short = min(seconds(2_000) for _ in range(3))
    long = min(seconds(8_000) for _ in range(3))
    assert long < 10 * short + 0.01


# -- null, absent, unknown -----------------------------------------------------------------------

FULL: dict[str, Any] = {
    "model": "x",
    "remote_model": "y",
    "remote_host": "https://z",
    "created_at": "2026-08-01T10:20:30Z",
    "message": {
        "role": "assistant",
        "content": "text",
        "thinking": "hm",
        "images": ["aGk="],
        "tool_calls": [
            {"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"n": 1}}}
        ],
        "tool_name": "f",
        "tool_call_id": "call_1",
    },
    "done": True,
    "done_reason": "stop",
    "_debug_info": {"rendered_template": "t"},
    "logprobs": [
        {
            "token": "a",
            "logprob": -0.5,
            "bytes": [97],
            "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}],
        }
    ],
    "total_duration": 1,
    "load_duration": 2,
    "prompt_eval_count": 3,
    "prompt_eval_duration": 4,
    "eval_count": 5,
    "eval_duration": 6,
}
GENERATED: dict[str, Any] = {
    **{key: value for key, value in FULL.items() if key != "message"},
    "response": "text",
    "thinking": "hm",
    "context": [1, 2],
    "tool_calls": FULL["message"]["tool_calls"],
    "image": "aGk=",
    "completed": 1,
    "total": 2,
}
REQUIRED = {"message", "response", "role", "name", "arguments", "function", "token", "logprob"}


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = []
    if isinstance(value, dict):
        for key, item in value.items():
            if path[-1:] not in [("arguments",), ("_debug_info",)]:
                found += [(*path, key), *paths(item, (*path, key))]
    elif isinstance(value, list):
        for number, item in enumerate(value):
            found += paths(item, (*path, number))
    return found


def changed(whole: dict[str, Any], path: tuple[Any, ...], *, absent: bool) -> bytes:
    copy = json.loads(json.dumps(whole))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    if absent:
        del inner[path[-1]]
    else:
        inner[path[-1]] = None
    return json.dumps(copy).encode()


@pytest.mark.parametrize(
    ("type_", "whole", "path"),
    [
        pytest.param(type_, whole, path, id=f"{type_.__name__} {'.'.join(map(str, path))}")
        for type_, whole in ((ChatResponse, FULL), (GenerateResponse, GENERATED))
        for path in paths(whole)
    ],
)
def test_null_is_the_same_as_absent(
    type_: type, whole: dict[str, Any], path: tuple[Any, ...]
) -> None:
    """A null in any field means what leaving the field out means, in a stream and in a reply."""
    absent = decode([changed(whole, path, absent=True)], type_=type_, cut=False)
    null = decode([changed(whole, path, absent=False) + b"\n"], type_=type_, cut=False)
    assert null.parts == absent.parts
    assert type(null.error) is type(absent.error)
    assert isinstance(absent.error, ProtocolError) == (path[-1] in REQUIRED)


@pytest.mark.parametrize("null", ["content", "done", "none of them"])
def test_a_null_inside_tool_arguments_is_a_value(null: str) -> None:
    """An argument that the model gave as null is kept, also beside a field that is null."""
    arguments = {"unit": None, "deep": {"a": None, "b": [None, {"c": None}]}}
    whole = json.loads(part("x", tool_calls=[{"function": {"name": "f", "arguments": arguments}}]))
    if null == "content":
        whole["message"]["content"] = None
    elif null == "done":
        whole["done"] = None
    outcome = decode([json.dumps(whole).encode() + b"\n"])
    assert outcome.error is None
    [call] = outcome.parts[0].message.tool_calls
    assert call.function.arguments == arguments


@pytest.mark.parametrize(
    "unknown", ['"new":1', '"new":null', '"new":{"a":[{}]}', '"":""', '"done_":true', '"Done":true']
)
def test_unknown_fields_are_ignored(unknown: str) -> None:
    """Fields that this library does not know change nothing, at any level."""
    plain = decode([A]).parts
    outer = A[:-1] + f",{unknown}}}".encode()
    inner = A.replace(b'{"role"', f'{{{unknown},"role"'.encode())
    assert decode([outer + b"\n" + inner + b"\n"]).parts == plain * 2


def test_numbers_and_text_keep_their_values() -> None:
    """Escapes, raw characters, big integers and small floats arrive as what they are."""
    line = (
        b'{"message":{"role":"assistant","content":"\\u003cb\\u003e \\u0026 \\u2028 \xc3\xa9'
        b'\xf0\x9f\x99\x82 \\ud83d\\ude42 \\"\\\\\\n\\u0000"},"done":true,"total_duration":'
        b'9007199254740993,"logprobs":[{"token":"a","logprob":-1.7888544e-7},{"token":"b",'
        b'"logprob":-0},{"token":"c","logprob":1}]}'
    )
    [reply] = decode([line]).parts
    assert reply.message.content == '<b> & \u2028 é🙂 🙂 "\\\n\0'
    assert reply.total_duration == 2**53 + 1
    assert [item.logprob for item in reply.logprobs] == [-1.7888544e-7, 0.0, 1.0]


# -- whole replies -------------------------------------------------------------------------------


def reply(type_: Any, body: bytes, status: int = 200) -> Any:
    return decode_reply(type_, body, status=status, request=LABEL)


def test_a_whole_reply() -> None:
    """A reply in one piece becomes its type, white space around it notwithstanding."""
    assert reply(VersionResponse, b' {"version":"0.33.0"}\r\n').version == "0.33.0"
    assert reply(EmbedResponse, b'{"model":"m","embeddings":[]}').embeddings == []
    assert reply(Any, b'{"a":[1,null]}') == {"a": [1, None]}
    assert reply(dict[str, int], b'{"a":1}') == {"a": 1}


@pytest.mark.parametrize(
    "body", [b'{"models":null}', b'{"models":[]}', b"{}", b'{"models":[],"x":1}']
)
def test_a_list_that_is_null_is_empty(body: bytes) -> None:
    """`models: null`, which some servers send, is an empty list, and so is its absence."""
    assert reply(ListResponse, body).models == []


def test_a_listed_model_with_nulls() -> None:
    """A model whose manifest lacks much is listed with what there is."""
    body = b"""{"models":[{"name":"x","model":"x","modified_at":"0001-01-01T00:00:00Z","size":0,
        "digest":"","details":{"families":null,"family":null,"context_length":null},
        "capabilities":null},{"name":"y","details":null,"modified_at":null,"size":null}]}"""
    first, second = reply(ListResponse, body).models
    assert first.details.families is None
    assert first.capabilities is None
    assert second.details is None
    assert second.modified_at is None


@pytest.mark.parametrize("status", [200, 201, 299])
def test_an_error_object_in_a_whole_reply(status: int) -> None:
    """An error object is an error whatever the status, with that status."""
    for type_ in (VersionResponse, Any, dict[str, str]):
        with pytest.raises(ResponseError) as caught:
            reply(type_, ERROR, status)
        assert caught.value.status_code == status
        assert caught.value.error == "boom"


def test_an_error_that_is_null_is_none_in_a_whole_reply() -> None:
    """`error: null` says that there is no error."""
    assert reply(VersionResponse, b'{"version":"1","error":null}').version == "1"


@pytest.mark.parametrize(
    "body",
    [b"", b"  ", b"\xff", b"{", b"[]", b"null", b"<html>", b'{"version":5}', b'{"version":null}']
    + [b"\xef\xbb\xbf{}", b'{"version":"1"}{"version":"2"}', b'{"version":"1"} x', b"{" * 100_000]
    + [b'{"error":' + b"[" * 100_000, b'{"error":"x"', b'{"version":"1","error":' + b"[" * 900],
    ids=lambda body: ascii(body)[:30],
)
def test_a_whole_reply_that_is_not_the_apis(body: bytes) -> None:
    """Anything else is a ProtocolError with the beginning of what arrived."""
    with pytest.raises(ProtocolError) as caught:
        reply(VersionResponse, body)
    assert caught.value.excerpt == body[:200]
    assert caught.value.request == LABEL
    assert len(str(caught.value)) < 1200


def test_the_excerpt_of_binary_garbage_can_be_printed() -> None:
    """Bytes that are no text are shown as escapes."""
    with pytest.raises(ProtocolError) as caught:
        reply(VersionResponse, b"\x1b[2J\xff\xfe\x00\n")
    assert str(caught.value).isprintable()


# -- anything ------------------------------------------------------------------------------------

LINES = st.sampled_from([A, B, C, HARMLESS, part("é漢🙂\u2028"), b"", b" ", b"\r"])
BAD = st.sampled_from(
    [ERROR, A + B, A[:20], A[20:], b"5", b"[]", b"null", b"\xff", b"{", b"}", b"x", b"\x00", DONE]
)


def cuts(body: bytes, positions: list[int]) -> list[bytes]:
    """A body in pieces, cut at these positions."""
    points = [0, *sorted(position % (len(body) + 1) for position in positions), len(body)]
    return [body[start:end] for start, end in zip(points, points[1:], strict=False)]


POSITIONS = st.lists(st.integers(0, 100_000), max_size=8)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(LINES, max_size=12), POSITIONS, st.booleans())
def test_valid_lines_are_the_same_in_any_split(
    lines: list[bytes], positions: list[int], newline: bool
) -> None:
    """Any sequence of valid lines, in any split, decodes to the same parts."""
    body = b"\n".join(lines) + (b"\n" if newline else b"")
    expected = [json.loads(line)["message"]["content"] for line in lines if line.strip()]
    outcome = decode(cuts(body, positions))
    assert contents(outcome) == expected
    assert outcome.error is None
    assert not outcome.complete


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(LINES | BAD, max_size=10), POSITIONS, st.booleans(), st.booleans())
def test_bad_lines_are_the_same_in_any_split(
    lines: list[bytes], positions: list[int], newline: bool, cut: bool
) -> None:
    """Whatever the lines are, parts, end and error do not depend on how the network splits them."""
    body = b"\n".join(lines) + (b"\n" if newline else b"")
    byte_by_byte = decode([bytes([byte]) for byte in body], cut=cut)
    assert decode(cuts(body, positions), cut=cut).sight == byte_by_byte.sight


@settings(max_examples=300, derandomize=True, deadline=None)
@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([b'{"error":', b"}", b"{", b"[", b'"', b"\n", A[:-1], b"\\u"])).map(
        b"".join
    ),
    POSITIONS,
    st.booleans(),
    st.integers(1, 300),
)
def test_any_bytes_in_any_split_raise_nothing(
    body: bytes, positions: list[int], cut: bool, limit: int
) -> None:
    """Arbitrary bytes never raise: what is wrong with them is an OllamaError in `error`."""
    outcome = decode(cuts(body, positions), cut=cut, limit=limit)
    assert outcome.error is None or isinstance(outcome.error, OllamaError)
    assert all(isinstance(item, ChatResponse) for item in outcome.parts)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.binary(max_size=200))
def test_any_body_is_a_reply_or_an_ollama_error(body: bytes) -> None:
    """Arbitrary bytes as a whole reply are the type asked for, or an OllamaError."""
    try:
        found = reply(VersionResponse, body)
    except OllamaError as error:
        assert error.request == LABEL
    else:
        assert isinstance(found, VersionResponse)
