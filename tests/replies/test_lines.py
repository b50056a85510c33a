"""Bytes become lines, and lines parts, however the network splits them."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest

from ollama_sc import ChatResponse, GenerateResponse, ProtocolError
from tests.replies.support import (
    DONE,
    ERROR,
    HARMLESS,
    A,
    B,
    C,
    contents,
    decode,
    decoder,
    part,
    text,
)
from tests.support import recorded_body

# -- recorded streams, split and cut ---------------------------------------------------------------


STREAMS = {
    "chat-stream": ChatResponse,
    "chat-stream-unicode": ChatResponse,
    "chat-stream-logprobs": ChatResponse,
    "generate-stream": GenerateResponse,
}


def each_alone(body: bytes, type_: type) -> list[Any]:
    """The parts as one plain decoder sees them, line by line."""
    return [msgspec.json.decode(line, type=type_) for line in body.split(b"\n") if line]


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


# -- lines -----------------------------------------------------------------------------------------


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


# -- the terminal object ---------------------------------------------------------------------------


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
        assert lines.trailing_data, position
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
        assert not lines.trailing_data, position


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


# -- one line, one object --------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [[], [A], [HARMLESS], [DONE]], ids=["alone", "a", "h", "done"])
def test_two_objects_on_one_line_are_the_same_whatever_is_beside_them(beside: list[bytes]) -> None:
    """What becomes of two objects on a line does not depend on the lines of the same read."""
    alone = decode([A + B + b"\n"])
    together = decode([b"\n".join([A + B, *beside, b""])])
    assert type(together.error) is type(alone.error)
    assert contents(together)[: len(alone.parts)] == contents(alone)


@pytest.mark.parametrize("blank", [b"\n", b" \n", b"\r\n"], ids=ascii)
def test_a_blank_line_does_not_make_two_objects_of_one_line_right(blank: bytes) -> None:
    """Two objects on a line are an error, also where a blank line comes with the same read."""
    together = decode([blank + A + B + b"\n"])
    assert together.sight == decode([blank, A + B + b"\n"]).sight


def test_an_object_over_two_lines_is_an_error_in_any_split() -> None:
    """JSON that goes over lines is no NDJSON, whether the lines come together or apart."""
    pretty = json.dumps(json.loads(A), indent=1).encode() + b"\n"
    for position in range(len(pretty)):
        outcome = decode([pretty[:position], pretty[position:]])
        assert type(outcome.error) is ProtocolError, position
        assert outcome.parts == []


# -- limits ----------------------------------------------------------------------------------------


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
    assert sum(map(len, lines._fragments)) <= 1000


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
