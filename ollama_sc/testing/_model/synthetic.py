"""The synthetic model: text, embeddings and token counts, determined by the request alone."""

import hashlib
import json
import re
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from math import hypot
from typing import Any, cast

_OPENING = ("This", " is", " synthetic", " text", " from", " a", " fake", " server", ",", " word")
_THOUGHT = ("The", " fake", " server", " only", " pretends", " to", " think", ".")
_DEPTH = 8  # levels of a schema, at most
_ITEMS = 16  # items of an array, at most
_VALUES = 1000  # values of a schema, at most; any more are null


def words(text: str) -> int:
    """The number of tokens of a text: one per word."""
    return len(text.split())


def text_tokens(subject: str) -> Iterator[str]:
    """Endless tokens; the subject, such as the prompt, determines the first number."""
    yield from _OPENING
    first = int.from_bytes(hashlib.blake2b(subject.encode("utf-8", "replace")).digest()[:2])
    for number in count(first):
        yield f" {number}"
        yield ","


def thinking_tokens() -> Sequence[str]:
    """The tokens of the thinking."""
    return _THOUGHT


def logprob(token: str, rank: int = 0) -> dict[str, object]:
    """A synthetic logprob entry, without `top_logprobs`."""
    text = token if rank == 0 else f"{token}~{rank}"
    data = text.encode("utf-8", "replace")
    chance = int.from_bytes(hashlib.blake2b(data, digest_size=2).digest()) / 65536
    return {"token": text, "logprob": -chance / 4 - rank, "bytes": list(data)}


def divide(text: str) -> list[str]:
    """A text as tokens: words with their leading space, and single other characters."""
    return re.findall(r" ?\w+|\W", text)


def json_text(schema: object) -> str:
    """JSON that matches a schema, for the common keywords; any object if there is no schema."""
    value: object = {"text": "synthetic"}
    if isinstance(schema, dict):
        root = cast("Mapping[str, Any]", schema)
        value = _SchemaSampler(root).sample(root, 0)
    return json.dumps(value, ensure_ascii=False)


class _SchemaSampler:
    """Generates a value that matches a schema; invalid keywords of the schema are ignored."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = _VALUES

    def sample(self, schema: object, depth: int) -> object:
        """A value from the schema itself, or one of its type."""
        self._left -= 1
        if not isinstance(schema, dict) or depth > _DEPTH or self._left < 0:
            return None
        fields = cast("Mapping[str, Any]", schema)
        if "const" in fields:
            return fields["const"]
        if choices := _list(fields.get("enum")):
            return choices[0]
        if "$ref" in fields:
            return self.sample(_follow(str(fields["$ref"]), self._root), depth + 1)
        for name in ("anyOf", "oneOf", "allOf"):
            if choices := _list(fields.get(name)):
                return self.sample(choices[0], depth + 1)
        return self._sample_type(fields, depth)

    def _sample_type(self, fields: Mapping[str, Any], depth: int) -> object:
        kind: object = fields.get("type")
        if isinstance(kind, list):
            kind = next(iter(cast("list[object]", kind)), None)
        properties: object = fields.get("properties")
        if kind == "object" or isinstance(properties, dict):
            parts = cast("Mapping[str, object]", properties if isinstance(properties, dict) else {})
            return {name: self.sample(part, depth + 1) for name, part in parts.items()}
        if kind == "array":
            least = _number(fields.get("minItems"), 1)
            length = int(max(1, min(least, _ITEMS)))
            return [self.sample(fields.get("items", {}), depth + 1) for _ in range(length)]
        if kind in ("integer", "number"):
            return _number(fields.get("minimum"), 1 if kind == "integer" else 0.5)
        return {"string": "text", "boolean": True}.get(str(kind))


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _number(value: object, otherwise: float) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    return otherwise


def _follow(reference: str, root: Mapping[str, Any]) -> object:
    found: object = root
    for key in reference.removeprefix("#/").split("/"):
        if not isinstance(found, dict):
            return None
        found = cast("Mapping[str, object]", found).get(key)
    return found


def embedding(text: str, dimensions: int, keep: int) -> list[float]:
    """A vector of unit length, determined by the text alone.

    Args:
        text: The text.
        dimensions: The model's dimensions.
        keep: How many of them are kept, from the first; the vector is normalised afterwards.

    Returns:
        Numbers with 8 decimals. A base64 form has the nearest float32 of each.

    """
    digest = hashlib.shake_128(text.encode("utf-8", "replace")).digest(2 * dimensions)
    numbers = array("h", digest)
    if sys.byteorder == "big":
        numbers.byteswap()
    del numbers[keep:]
    length = hypot(*numbers) or 1.0
    return [round(number / length, 8) for number in numbers]
