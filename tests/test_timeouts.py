"""Time limits: what ``timeout=`` accepts."""

from __future__ import annotations

import math
import pickle
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from ollama_sc import RequestError, Timeouts


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


NAMES = ("connect", "first_chunk", "idle", "total")


def test_only_connecting_is_limited_by_default() -> None:
    """A model may load for minutes, so that only connecting has a limit of its own: 10 seconds."""
    assert Timeouts() == Timeouts(connect=10.0, first_chunk=None, idle=None, total=None)


@pytest.mark.parametrize("seconds", [1, 0.5, 30, 1e-6, 86_400.0])
def test_a_number_limits_connecting_and_each_silence(seconds: float) -> None:
    """A number means what it means in httpx; it says nothing of the whole."""
    limits = Timeouts.of(seconds)
    assert (limits.connect, limits.first_chunk, limits.idle) == (seconds,) * 3
    assert limits.total is None


def test_infinity_is_no_limit() -> None:
    """An infinite number of seconds is a number above zero, and never passes."""
    assert Timeouts.of(math.inf).idle == math.inf


@pytest.mark.parametrize(
    "limits",
    [
        Timeouts(),
        Timeouts(connect=None),
        Timeouts(connect=1, first_chunk=2.5, idle=3, total=4),
        Timeouts(total=0.001),
    ],
)
def test_limits_are_taken_as_they_are(limits: Timeouts) -> None:
    """`Timeouts` goes through unchanged."""
    assert Timeouts.of(limits) is limits


BAD: list[Any] = [
    0,
    0.0,
    -0.0,
    -1,
    -1e-9,
    math.nan,
    -math.inf,
    True,
    False,
    "5",
    b"5",
    "",
    [5],
    {},
    Decimal(5),
    Fraction(1, 2),
    timedelta(seconds=5),
    5j,
    ...,
]


@pytest.mark.parametrize("value", BAD, ids=repr)
def test_a_number_that_is_none_is_refused(value: object) -> None:
    """Zero, less, NaN, truth values and things that are no numbers are RequestErrors."""
    with pytest.raises(RequestError, match="^timeout: ") as caught:
        Timeouts.of(value)  # type: ignore[arg-type]
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1, math.nan, True, "5"], ids=repr)
def test_a_bad_limit_is_named(name: str, value: Any) -> None:
    """Each limit of `Timeouts` is checked, and the error says which is wrong."""
    with pytest.raises(RequestError) as caught:
        Timeouts.of(Timeouts(**{name: value}))
    assert name in str(caught.value)


def test_a_number_beyond_floats_raises_nothing_of_its_own() -> None:
    """An integer that no float holds is a limit or a RequestError, not an OverflowError."""
    for number in (10**400, -(10**400)):
        try:
            limits = Timeouts.of(number)
        except RequestError:
            continue
        assert number > 0
        assert limits.idle == number


def test_limits_are_named_and_fixed() -> None:
    """Limits are given by name, compare by value, and cannot be changed after the check."""
    with pytest.raises(TypeError):
        Timeouts(5)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Timeouts(read=5)  # type: ignore[call-arg]
    limits = Timeouts(idle=5)
    with pytest.raises(AttributeError):
        limits.idle = 6
    assert limits == Timeouts(idle=5)
    assert hash(limits) == hash(Timeouts(idle=5))
    assert pickle.loads(pickle.dumps(limits)) == limits
    assert repr(limits) == "Timeouts(connect=10.0, first_chunk=None, idle=5, total=None)"
