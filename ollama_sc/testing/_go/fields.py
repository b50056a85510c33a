"""Typed access to a request's JSON, with the server's errors for fields of a wrong type."""

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from ollama_sc.testing import _version
from ollama_sc.testing._version import Version

from . import gojson, structs

_INTEGERS = (
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "draft_num_predict",
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
)
_FLOATS = (
    "top_p",
    "min_p",
    "typical_p",
    "temperature",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
)
_OPTION_TYPES = {
    **dict.fromkeys(_INTEGERS, "integer"),
    **dict.fromkeys(_FLOATS, "float32"),
    "use_mmap": "boolean",
    "stop": "array",
}
_LARGEST = (1 << 63) - 1
_LEVELS = ("high", "medium", "low", "max")


class ApiError(Exception):
    """Ends a request with an error object.

    Args:
        status: The HTTP status.
        text: The text of `error`.
        in_stream: Sent as the first item of a stream if the request asks for one.
        body: The whole object if it has more fields than `error`.
        headers: Further headers.
        ndjson: The content type is that of a stream, as in errors relayed by a stub.

    """

    def __init__(
        self,
        status: int,
        text: str,
        *,
        in_stream: bool = False,
        body: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
        ndjson: bool = False,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.in_stream = in_stream
        self.body = {"error": text} if body is None else body
        self.headers = headers or {}
        self.ndjson = ndjson


class Fields:
    """A JSON object of a request: keys are case-insensitive, null is absent, wrong types draw 400.

    The fields listed in `structs` are checked when the body is decoded, as in Go.
    """

    def __init__(self, values: Mapping[str, object], struct: str) -> None:
        self._values = {key.lower(): value for key, value in values.items() if value is not None}
        self._struct = struct

    @classmethod
    def of_body(cls, body: bytes, struct: str) -> "Fields":
        """The object in a request's body."""
        if not body.strip():
            raise ApiError(400, "missing request body")
        try:
            value = gojson.decode_first(body)
        except ValueError as exc:
            raise ApiError(400, str(exc)) from exc
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise ApiError(400, structs.mismatch(value, "value", f"api.{struct}"))
        text = structs.first_mismatch(cast("object", value), struct)
        if text is not None:
            raise ApiError(400, text)
        return cls(cast("dict[str, object]", value), struct.rpartition(".")[2])

    def value(self, name: str) -> Any:
        """A field of any type; None where absent."""
        return self._values.get(name)

    def string(self, name: str) -> str:
        """A string; "" where absent."""
        return cast("str", self._typed(name, str, "string", ""))

    def boolean(self, name: str) -> bool | None:
        """True, False, or None where absent."""
        return cast("bool | None", self._typed(name, bool, "bool", None))

    def integer(self, name: str) -> int:
        """An integer; 0 where absent."""
        return cast("int", self._typed(name, int, "int", 0))

    def mapping(self, name: str) -> dict[str, Any]:
        """An object; empty where absent."""
        return cast("dict[str, Any]", self._typed(name, dict, structs.ANY_MAP, {}))

    def items(self, name: str, kind: str = "value") -> list[Any]:
        """A list; empty where absent."""
        return cast("list[Any]", self._typed(name, list, f"[]{kind}", []))

    def objects(self, name: str, struct: str) -> "list[Fields]":
        """A list of objects; empty where absent. A null item counts as an empty object."""
        found: list[Fields] = []
        for item in self.items(name, f"api.{struct}"):
            value: object = {} if item is None else item
            if not isinstance(value, dict):
                where = f"{self._struct}.{name}"
                raise ApiError(400, structs.mismatch(value, where, f"api.{struct}"))
            found.append(Fields(cast("dict[str, object]", value), struct))
        return found

    def _typed(self, name: str, kind: type[object], go_name: str, absent: object) -> object:
        value = self._values.get(name)
        if value is None:
            return absent
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ApiError(400, structs.mismatch(value, f"{self._struct}.{name}", go_name))
        return value


def read_options(fields: Fields) -> dict[str, Any]:
    """The validated `options`; unknown names and nulls are dropped."""
    found: dict[str, Any] = {}
    for name, value in fields.mapping("options").items():
        kind = _OPTION_TYPES.get(name)
        if kind is None or value is None:
            continue
        if not _fits(value, kind):
            raise ApiError(500, f'option "{name}" must be of type {kind}')
        if kind == "array" and not all(isinstance(item, str) for item in value):
            raise ApiError(500, f'option "{name}" must be of an array of strings')
        found[name] = _clamped(value) if kind == "integer" else value
    return found


def _clamped(value: float) -> int:
    """The nearest integer that fits in 64 bits."""
    return max(-_LARGEST, min(int(value), _LARGEST))


def _fits(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind in ("integer", "float32"):
        return isinstance(value, (int, float))
    return kind == "array" and isinstance(value, list)


def read_think(fields: Fields, version: Version) -> bool | str | None:
    """The validated `think`; None where absent."""
    value = fields.value("think")
    if value is None or isinstance(value, bool):
        return value
    levels = _LEVELS if version.has(_version.THINK_MAX) else _LEVELS[:3]
    choice = ", ".join(f'"{level}"' for level in levels) + ", true, or false"
    if not isinstance(value, str):
        raise ApiError(400, f"think must be a boolean or string ({choice})")
    if value not in levels:
        quoted = json.dumps(value, ensure_ascii=False)
        raise ApiError(400, f"invalid think value: {quoted} (must be {choice})")
    return value


def read_keep_alive(fields: Fields) -> float | None:
    """The validated `keep_alive` in seconds; None where absent.

    Infinite if negative, and if too long for a Go duration.
    """
    value = fields.value("keep_alive")
    if value is None:
        return None
    if isinstance(value, str):
        try:
            seconds = gojson.duration(value)
        except ValueError as exc:
            raise ApiError(400, str(exc)) from exc
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        names = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}
        raise ApiError(400, f"Unsupported type: '{names[type(value)]}'")
    return math.inf if seconds < 0 or seconds * 1e9 >= _LARGEST else seconds


def read_format(fields: Fields) -> object:
    """The validated `format`: None, `"json"` or a schema object."""
    value = fields.value("format")
    if value is None or value == "":
        return None
    if value == "json" or isinstance(value, dict):
        return cast("object", value)
    raw = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = (
        f"invalid format: {json.dumps(raw, ensure_ascii=False)}; "
        'expected "json" or a valid JSON Schema object'
    )
    raise ApiError(500, text, in_stream=True)
