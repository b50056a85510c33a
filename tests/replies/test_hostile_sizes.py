"""Errors and lines without end: time linear in their size, messages short, memory bounded."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import OllamaError, ProtocolError, ResponseError
from ollama_sc._replies.errors import error_in, error_reply
from ollama_sc._replies.ndjson import LineDecoder, raise_error_object
from ollama_sc.types import ChatResponse
from tests.replies.support import A

LABEL = "POST /api/chat, model 'x'"
SHORT = 1200  # characters of a message


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


PIECES = [
    *(
        "<",
        ">",
        "<title",
        "<title>",
        "<TITLE ",
        "</title",
        "</title>",
        "<title></titl",
        "<a",
        "<!--",
    ),
    *("&", "&#", "&#x", "&#9", "&amp", "&nbsp;", " ", "\n", "\t", "\x00", "é", "🙂", "9", "x", '"'),
    *("{", '{"error":', "[", "not found ", "404 ", "path", "model ", "\\u0041", "'", "`"),
]


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=3).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=3).map("".join),
    st.sampled_from([404, 502, 503]),
)
def test_a_page_of_any_pieces_costs_little(repeated: str, first: str, status: int) -> None:
    """A page as long as one is read, or an error's text, made of what parsers stumble over."""
    text = (first + repeated * (64 * 1024 // len(repeated)))[: 64 * 1024]
    for body in (text.encode(), msgspec.json.encode({"error": text})):
        began = time.process_time()
        error = error_reply(status, {}, body, request=LABEL)
        assert time.process_time() - began < 0.1
        assert len(str(error)) < SHORT
        assert len(error.error) < 5000


@pytest.mark.parametrize(
    "error",
    [
        b'"' + b"A" * 30_000_000 + b'"',
        b'"' + "é漢🙂".encode() * 3_000_000 + b'"',
        b'"' + b"\\ud83d\\ude42" * 2_500_000 + b'"',
        b'"' + b"\\n" * 15_000_000 + b'"',
        b'{"message":"' + b"A" * 30_000_000 + b'"}',
        b"[" + b"1," * 15_000_000 + b"1]",
        b"[" + b"{}," * 10_000_000 + b"1]",
    ],
    ids=["text", "UTF-8", "escapes", "newlines", "object", "numbers", "objects"],
)
@pytest.mark.parametrize("beside", [b"", b',"x":1,"signin_url":"' + b"u" * 1_000_000 + b'"'])
def test_an_error_object_without_end(error: bytes, beside: bytes) -> None:
    """Neither the time nor the memory is many times its size, and what is shown is short."""
    body = b'{"error":' + error + beside + b"}"
    began = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ResponseError) as caught:
            raise_error_object(body, 200, LABEL)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 1.5
    assert peak < 2_000_000
    assert len(str(caught.value)) < SHORT
    assert len(caught.value.error) < 5000
    str(caught.value).encode()


@pytest.mark.parametrize(
    "text", [b"\\ud83d", b"a\\ude42", b"\\ud83d\\ude42\\ud83d", b"\\\\\\ud83d", b'\\"\\ud83d']
)
def test_half_characters_without_end(text: bytes) -> None:
    """Text with them takes a few times its size, in an error object, beside one, and elsewhere."""
    long = text * (100_000 // len(text))
    for body in (b'{"error":"' + long + b'"}', b'{"x":"' + long + b'","error":"boom"}'):
        tracemalloc.start()
        try:
            with pytest.raises(ResponseError) as caught:
                raise_error_object(body, 200, LABEL)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4 * len(body)
        assert len(str(caught.value)) < SHORT
        str(caught.value).encode()


@pytest.mark.parametrize("size", [*range(65_400, 65_700, 7), 100_000, 100_001, 100_002])
def test_a_long_text_is_cut_between_characters(size: int) -> None:
    """Whatever stands where it is cut, what is kept is the text's own start."""
    for text in ("a" * size, "é" * size, "🙂" * size, "a" + "\n🙂" * size, "\x01" * size):
        for ascii_only in (False, True):
            body: bytes = (
                json.dumps({"error": text}).encode()
                if ascii_only
                else msgspec.json.encode({"error": text})
            )
            found = error_in(body)
            assert found is not None
            assert text.startswith(found["error"])
            assert len(found["error"]) >= 3990


# -- lines in tiny reads ---------------------------------------------------------------------------


def decoder(limit: int) -> LineDecoder[Any]:
    return LineDecoder(
        ChatResponse[Any],
        lambda part: part.done,
        max_line_bytes=limit,
        status=200,
        request=LABEL,
    )


def test_long_lines_in_one_read_are_copied_once() -> None:
    """Of several lines, one of them long, there is never more than their text beside a copy."""
    long = A.replace(b'"a"', b'"' + b"x" * 4_000_000 + b'"')
    block = b"\n".join([A, long, A, b""])
    lines = decoder(10_000_000)
    tracemalloc.start()
    try:
        parts = lines.feed(block)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [len(part.message.content) for part in parts] == [1, 4_000_000, 1]
    assert peak < 2.2 * len(block)


@pytest.mark.parametrize("read", [1, 2, 3, 7, 100])
def test_a_line_in_tiny_reads_costs_its_size(read: int) -> None:
    """However few bytes each read brings, the line takes about as much memory as it has bytes."""
    text = "x" * 200_000
    line = b'{"message":{"role":"assistant","content":"%b"},"done":true}\n' % text.encode()
    reads = [line[start : start + read] for start in range(0, len(line), read)]
    lines = decoder(10**7)
    tracemalloc.start()
    try:
        for block in reads[:-1]:
            assert lines.feed(bytes(bytearray(block))) == []
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    [part] = lines.feed(reads[-1])
    assert part.message.content == text
    assert kept < 2.5 * len(line)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=1, max_size=5), st.lists(st.integers(1, 9)))
def test_many_fragments_are_the_same_lines(sizes: list[int], reads: list[int]) -> None:
    """Joining them half-way changes nothing."""
    texts = ["y" * size for size in sizes]
    data = b"".join(
        b'{"message":{"role":"assistant","content":"%b"},"done":false}\n' % text.encode()
        for text in texts
    )
    lines, parts, start, turn = decoder(10**6), [], 0, 0
    while start < len(data):
        step = reads[turn % len(reads)] if reads else 1
        parts += lines.feed(data[start : start + step])
        start, turn = start + step, turn + 1
    assert [part.message.content for part in parts] == texts
    assert lines.error is None


def test_a_line_that_is_too_long_is_noticed_in_tiny_reads() -> None:
    """Its limit holds however it comes, and nothing of it is kept."""
    lines = decoder(10_000)
    for _ in range(10_001):
        lines.feed(b"x")
    assert isinstance(lines.error, ProtocolError)
    assert isinstance(lines.error, OllamaError)
    assert len(str(lines.error)) < SHORT
