"""JSON in pieces: plain values of what is complete, at whatever place it is cut."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc._replies.partials import Scanner


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


def scan(text: str, cuts: Any = 1) -> list[Any]:
    """The values that come out of a text that is cut into pieces."""
    scanner = Scanner()
    found: list[Any] = []
    pieces = [text[at : at + cuts] for at in range(0, len(text), cuts)]
    for piece in pieces:
        if scanner.feed(piece):
            found.append(scanner.value)
    if scanner.finish():
        found.append(scanner.value)
    return found


def test_values_grow() -> None:
    """A field is there once it is complete, at whatever depth."""
    text = '{"name": "Os\\"lo", "size": 12, "tags": ["a", {"x": []}], "none": {}, "n": null}'
    assert scan(text) == [
        {"name": 'Os"lo'},
        {"name": 'Os"lo', "size": 12},
        {"name": 'Os"lo', "size": 12, "tags": ["a"]},
        {"name": 'Os"lo', "size": 12, "tags": ["a", {"x": []}]},
        {"name": 'Os"lo', "size": 12, "tags": ["a", {"x": []}], "none": {}},
        {"name": 'Os"lo', "size": 12, "tags": ["a", {"x": []}], "none": {}, "n": None},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", [12]),
        ('"x"', ["x"]),
        ("true", [True]),
        ("[]", [[]]),
        (" {} ", [{}]),
        ("[[[]]]", [[[[]]]]),
        ("-1.5e3", [-1500.0]),
        ("", []),
        ("Sure! [1]", []),
        ("```json\n[1]\n```", []),
        ("{1: 2}", []),
        ("]", []),
        ("{]", []),
        ("[1}2]", [[1]]),
        ('{"a": 1, "a": 2}', [{"a": 1}, {"a": 2}]),
        (
            '{"a": {"x": 1}, "a": {"y": 2, "z": 3}}',
            [{"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"y": 2, "z": 3}}],
        ),
        ('"\\ud83d\\ude00 \\u00"', []),
        ("[1] [2]", [[1]]),
        ('[1, "unfinished', [[1]]),
        ("[1, 2", [[1], [1, 2]]),
    ],
)
def test_what_is_complete(text: str, expected: list[Any]) -> None:
    """Of any JSON, and nothing of what is none; a number alone is complete at the end."""
    for cuts in (1, 2, 3, 1000):
        found = scan(text, cuts)
        if cuts == 1:
            assert found == expected
        assert found[-1:] == expected[-1:]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def is_part(small: Any, large: Any) -> bool:
    """Whether one value is what another one was before it was whole."""
    if isinstance(small, dict):
        return isinstance(large, dict) and all(
            key in large and is_part(one, large[key]) for key, one in small.items()
        )
    if isinstance(small, list):
        return isinstance(large, list) and all(map(is_part, small, large[: len(small)]))
    return bool(small == large)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(JSON, st.integers(1, 7), st.sampled_from([None, 1]), st.booleans())
def test_any_json_in_any_pieces(value: Any, cuts: int, indent: Any, plain: bool) -> None:
    """The last value is the whole; each is a part of the next, and none changes after it was out."""
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    scanner = Scanner()
    found: list[Any] = []
    copies: list[Any] = []
    for piece in [*(text[at : at + cuts] for at in range(0, len(text), cuts)), None]:
        if scanner.finish() if piece is None else scanner.feed(piece):
            found.append(scanner.value)
            copies.append(copy.deepcopy(scanner.value))
    assert found[-1] == json.loads(text)
    assert found == copies
    assert all(map(is_part, found, found[1:]))


def fastest(pieces: list[str]) -> float:
    """The least time for each piece, in seconds."""
    best = 1.0
    for _ in range(3):
        scanner = Scanner()
        before = time.thread_time()
        for piece in pieces:
            scanner.feed(piece)
        best = min(best, (time.thread_time() - before) / len(pieces))
    return best


@pytest.mark.parametrize("text", ["x" * 200_000, '\\"' * 100_000, "\\\\" * 100_000])
def test_a_long_string_costs_what_its_pieces_cost(text: str) -> None:
    """Ten times the text costs about as much for each piece, with quotation marks in it too."""
    whole = json.dumps([text]) if "\\" not in text else f'["{text}"]'
    pieces = [whole[at : at + 4] for at in range(0, len(whole), 4)]
    assert fastest(pieces) < 10 * fastest(pieces[: len(pieces) // 10]) + 1e-6
    assert scan(whole, 4)[-1] == json.loads(whole)
