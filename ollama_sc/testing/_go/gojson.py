"""JSON, times and durations as a Go server writes and reads them."""

import json
import math
import re
import time
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from typing import Any, NoReturn

import msgspec

_ESCAPES = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    ("\u2028".encode(), b"\\u2028"),
    ("\u2029".encode(), b"\\u2029"),
)
_encoder = msgspec.json.Encoder()


def encode(value: object) -> bytes:
    """One compact JSON value; `<`, `>`, `&`, U+2028 and U+2029 escaped, the rest raw UTF-8."""
    try:
        data = _encoder.encode(value)
    except UnicodeEncodeError:  # a lone surrogate, which Go replaces when it decodes
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        data = text.encode("utf-8", "replace")
    # Outside of strings JSON has none of these characters.
    for plain, escaped in _ESCAPES:
        if plain in data:
            data = data.replace(plain, escaped)
    return data


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"invalid character '{text[0]}' looking for beginning of value")


_VALUE = "looking for beginning of value"
# Go's wording of the places where Python's decoder stops.
_PLACES = (
    ("Expecting property name", "looking for beginning of object key string"),
    ("Expecting ':'", "after object key"),
    ("Expecting ','", "after object key:value pair"),
    ("Invalid control character", "in string literal"),
    ("Invalid \\escape", "in string escape code"),
)


def _float(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"json: cannot unmarshal number {text} into Go value of type float64")
    return number


def _int(text: str) -> int:
    if len(text) > _SAFE_DIGITS:
        _float(text)
    return int(text)


_SAFE_DIGITS = 308  # any number of so many digits fits in a float64
_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_float, parse_int=_int)


def decode_first(body: bytes) -> Any:
    """The first JSON value of a body; anything after it is ignored.

    Raises:
        ValueError: The body does not begin with a JSON value, or has a number beyond float64.

    """
    text = body.decode("utf-8", "replace").lstrip(" \t\r\n")
    try:
        return _decoder.raw_decode(text)[0]
    except json.JSONDecodeError as exc:
        if exc.pos >= len(text):
            raise ValueError("unexpected EOF") from exc
        character = text[exc.pos]
        place = next((go for begin, go in _PLACES if exc.msg.startswith(begin)), _VALUE)
        raise ValueError(f"invalid character '{character}' {place}") from exc
    except RecursionError as exc:
        raise ValueError("exceeded max depth") from exc


@lru_cache(maxsize=4)
def _to_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def timestamp(ns: int | None = None) -> str:
    """A UTC time in RFC 3339 with nanoseconds, trailing zeros cut; by default now."""
    second, fraction = divmod(time.time_ns() if ns is None else ns, 1_000_000_000)
    digits = f"{fraction:09d}".rstrip("0")
    return f"{_to_second(second)}.{digits}Z" if digits else f"{_to_second(second)}Z"


def local_timestamp(ns: int) -> str:
    """A time in RFC 3339 in the server's time zone, `Z` where that is UTC."""
    second, fraction = divmod(ns, 1_000_000_000)
    local = datetime.fromtimestamp(second).astimezone()
    digits = f"{fraction:09d}".rstrip("0")
    offset = local.strftime("%z")
    zone = "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"
    return f"{local:%Y-%m-%dT%H:%M:%S}{'.' + digits if digits else ''}{zone}"


def http_date() -> str:
    """The value of a `Date` header, now."""
    return formatdate(time.time(), usegmt=True)


_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_LONGEST = 2.0**63 / 1e9  # seconds
_STEP = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)")


def duration(text: str) -> float:
    """Seconds of a Go duration such as `1h30m`.

    Raises:
        ValueError: With Go's text.

    """
    quoted = json.dumps(text, ensure_ascii=False)
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    total = 0.0
    end = 0
    for step in _STEP.finditer(rest):
        if step.start() != end:
            break
        end = step.end()
        unit = step[2]
        if not unit:
            raise ValueError(f"time: missing unit in duration {quoted}")
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration {quoted}')
        total += float(step[1]) * _UNITS[unit]
    if not rest or end != len(rest) or total >= _LONGEST:
        raise ValueError(f"time: invalid duration {quoted}")
    return -total if text[0] == "-" else total
