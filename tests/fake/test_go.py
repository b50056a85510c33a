"""JSON, times and durations as a Go server writes and reads them."""

from __future__ import annotations

import pytest

from ollama_sc.testing._go import gojson


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400), ("1.5h", 5400), ("0", 0), ("-1s", -1), ("+.5s", 0.5), ("2us", 2e-6)],
)
def test_durations(text, seconds):
    """Go's durations are read as Go reads them."""
    assert gojson.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-", "1", "1x", "x1s", "1s2", "1 s"])
def test_wrong_durations(text):
    """What is no duration is refused."""
    with pytest.raises(ValueError, match="^time: "):
        gojson.duration(text)


def test_json_is_escaped_as_go_escapes_it():
    """Angle brackets, ampersand and the two separators are escaped, other text is raw UTF-8."""
    assert gojson.encode({"a": "<é&\u2028>"}) == '{"a":"\\u003cé\\u0026\\u2028\\u003e"}'.encode()
    assert gojson.encode("\ud800<") == b'"?\\u003c"'


def test_times():
    """Trailing zeros of the fraction are cut, with the point where nothing is left."""
    assert gojson.timestamp(1_000_000_000) == "1970-01-01T00:00:01Z"
    assert gojson.timestamp(1_990_000_000) == "1970-01-01T00:00:01.99Z"
