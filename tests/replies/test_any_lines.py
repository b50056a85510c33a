"""Whatever lines come, parts and errors do not depend on how the network splits them."""

import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import ChatResponse, OllamaError
from tests.replies.support import DONE, ERROR, HARMLESS, A, B, C, contents, decode, part

LINES = st.sampled_from([A, B, C, HARMLESS, part("é漢🙂\u2028"), b"", b" ", b"\r"])
BAD = st.sampled_from(
    [ERROR, A + B, A[:20], A[20:], b"5", b"[]", b"null", b"\xff", b"{", b"}", b"x", b"\x00", DONE]
)


def cuts(body: bytes, positions: list[int]) -> list[bytes]:
    """A body in pieces, cut at these positions."""
    points = [0, *sorted(position % (len(body) + 1) for position in positions), len(body)]
    return [body[start:end] for start, end in zip(points, points[1:], strict=False)]


# What could come right where lines are decoded together: separators, halves, two on one line.
TOGETHER = [A, b"", b" \t\r", b",", b"[", b"]", b"],[", A + B, A + b" " + B, A + b"," + B, A + b","]
TOGETHER += [b"," + A, A[:10], A[10:] + B, A[:-1], b"}", b"}" + B, DONE]


@pytest.mark.parametrize("first", TOGETHER, ids=repr)
def test_lines_together_are_what_they_are_apart(first: bytes) -> None:
    """What a read of several lines comes to is what each of them comes to in a read of its own."""
    for rest in product(TOGETHER, repeat=2):
        lines = [line + b"\n" for line in (first, *rest)]
        assert decode([b"".join(lines)]).sight == decode(lines).sight, lines


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
