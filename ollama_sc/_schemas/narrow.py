"""A JSON schema cut to what the server keeps of it.

Of a tool's schema the server knows ``type``, ``description``, ``enum``, ``items``, ``anyOf``,
``properties`` and ``required``, and drops the rest in silence: what that said is said in the
description. Of an output's schema a grammar is made, which holds less than schemas can say: what it
does not hold is left out, and checked when the reply has come.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

Schema = dict[str, Any]

_REFERENCE = "$ref"
# Types that use each other twice at each level double with each: nobody's schema is so large.
_MOST_NODES = 20_000
_MOST_REPEATS = 1000  # what a grammar takes as a number of characters or items
_FORMATS = {"date", "time", "date-time", "uuid"}
_TYPES: dict[type[Any], str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


# -- references ------------------------------------------------------------------------------------


class _Resolver:
    def __init__(self, parts: Mapping[str, Schema]) -> None:
        self._parts = parts
        self._nodes = 0

    def resolve(self, value: Any, inside: tuple[str, ...]) -> Any:
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise TypeError("its schema is too large once its parts stand where they are used")
        if isinstance(value, list):
            return [self.resolve(one, inside) for one in cast("list[Any]", value)]
        if not isinstance(value, dict):
            return value
        schema = cast("Schema", value)
        reference = schema.get(_REFERENCE)
        if not isinstance(reference, str):
            return {key: self.resolve(one, inside) for key, one in schema.items()}
        name = reference.rpartition("/")[2]
        rest = {key: one for key, one in schema.items() if key != _REFERENCE}
        if name in inside or name not in self._parts:
            return {"type": "object", **self.resolve(rest, inside)}
        whole = self.resolve(self._parts[name], (*inside, name))
        return {**whole, **self.resolve(rest, inside)}


def resolved(schema: Schema, parts: Mapping[str, Schema]) -> Schema:
    """A schema with each reference replaced by what it refers to.

    A type that contains itself is any object inside of itself.

    Raises:
        TypeError: it would be too large.
    """
    found: Schema = _Resolver(parts).resolve(schema, ())
    return found


# -- of tools --------------------------------------------------------------------------------------


def for_tool(schema: Schema, description: str = "", default: str = "") -> Schema:
    """What the server keeps of a parameter's schema, with the rest in words.

    Args:
        schema: without references.
        description: in place of the schema's own.
        default: what the parameter is where it is left out, as JSON.
    """
    kept = _structure(schema, for_tool)
    notes = [description or str(schema.get("description", "")), *_in_words(schema)]
    if default or "default" in schema:
        notes.append(f"Default: {default or _default_of(schema)}.")
    notes = [note for note in notes if note]
    if notes:
        kept["description"] = " ".join([*map(_sentence, notes[:-1]), notes[-1]])
    return kept


def _default_of(schema: Schema) -> str:
    value = schema["default"]
    if schema.get("uniqueItems") and isinstance(value, list):  # a set's order is another each time
        value = sorted(cast("list[Any]", value), key=_json)
    return _json(value)


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", ":")) else f"{text}."


def _in_words(schema: Schema) -> Iterable[str]:
    """What a schema says and the server drops, as sentences."""
    if isinstance(inner := schema.get("additionalProperties"), dict):
        yield f"An object of any keys, whose values are {_described(cast('Schema', inner))}."
    if "prefixItems" in schema:
        names = ", ".join(_described(one) for one in cast("list[Schema]", schema["prefixItems"]))
        yield f"An array of {names}, in this order."
    elif schema.get("uniqueItems"):
        yield "No item twice."
    for key, words in (
        ("minimum", "At least {}."),
        ("exclusiveMinimum", "More than {}."),
        ("maximum", "At most {}."),
        ("exclusiveMaximum", "Less than {}."),
        ("multipleOf", "A multiple of {}."),
        ("minLength", "At least {} characters."),
        ("maxLength", "At most {} characters."),
        ("pattern", "Matches the pattern {}."),
        ("format", "Format: {}."),
        ("contentEncoding", "Encoded as {}."),
    ):
        if key in schema:
            yield words.format(schema[key])
    if "prefixItems" not in schema:
        for key, words in (("minItems", "At least {} items."), ("maxItems", "At most {} items.")):
            if key in schema:
                yield words.format(schema[key])


def _described(schema: Schema) -> str:
    found = for_tool(schema)
    if "enum" in found:
        return f"one of {_json(found['enum'])}"
    kind = found.get("type", "anything")
    return kind if isinstance(kind, str) else " or ".join(cast("list[str]", kind))


def _union(choices: list[Schema]) -> Schema:
    """One of several: in an order that does not depend on how the union was written.

    Python keeps one object for unions that are equal, whose order is that of whichever was first.
    """
    found: list[Schema] = []
    for one in sorted(choices, key=lambda one: (one.get("type") == "null", _json(one))):
        if one not in found:
            found.append(one)
    if not all(one.keys() == {"type"} for one in found):
        return {"anyOf": found} if len(found) > 1 else found[0]
    return {"type": _plain_type(kind for one in found for kind in _as_list(one["type"]))}


# -- of outputs ------------------------------------------------------------------------------------


def for_output(schema: Schema) -> Schema:
    """What a grammar holds of a schema; without references."""
    kept = _structure(schema, for_output)
    inner = schema.get("additionalProperties")
    if isinstance(inner, dict) and "properties" not in kept:
        kept["additionalProperties"] = for_output(cast("Schema", inner))
    for key in ("minItems", "maxItems", "minLength", "maxLength"):
        if isinstance(number := schema.get(key), int) and number <= _MOST_REPEATS:
            kept[key] = number
    if schema.get("format") in _FORMATS:
        kept["format"] = schema["format"]
    if "description" in schema:
        kept["description"] = schema["description"]
    return kept


# -- both ------------------------------------------------------------------------------------------


def _structure(schema: Schema, cut: Callable[[Schema], Schema]) -> Schema:
    """What is made of other schemas, each of them cut."""
    kept: Schema = {}
    values = _values(schema)
    if values is not None:
        kept |= {"type": _plain_type(map(_type_of, values)), "enum": values}
    elif "type" in schema:
        kept["type"] = schema["type"]
    choices = _choices(schema)
    if choices and values is None:
        kept |= _union(list(map(cut, choices)))
    if "items" in schema or "prefixItems" in schema:
        kept["items"] = cut(_items(schema))
    if "properties" in schema:
        properties = cast("dict[str, Schema]", schema["properties"])
        kept["properties"] = {name: cut(one) for name, one in properties.items()}
        if schema.get("required"):
            kept["required"] = list(schema["required"])
    return kept


def _values(schema: Schema) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    if "enum" not in schema:
        return None
    return sorted(schema["enum"], key=lambda value: (value is None, _type_of(value), value or 0))


def _choices(schema: Schema) -> list[Schema]:
    found: list[Schema] = []
    for key in ("anyOf", "oneOf"):
        found += schema.get(key) or []
    if len(all_of := cast("list[Schema]", schema.get("allOf") or [])) == 1:
        found += all_of
    return found


def _items(schema: Schema) -> Schema:
    """What each item is; of a tuple, what any of them is."""
    places: list[Schema] = schema.get("prefixItems") or []
    rest = schema.get("items")
    if isinstance(rest, dict):
        places = [*places, cast("Schema", rest)]
    if not places:
        return {}
    return places[0] if len(places) == 1 else {"anyOf": places}


def _plain_type(kinds: Iterable[str]) -> str | list[str]:
    found = sorted(set(kinds), key=lambda kind: (kind == "null", kind))
    return found[0] if len(found) == 1 else found


def _as_list(kind: str | list[str]) -> list[str]:
    return [kind] if isinstance(kind, str) else kind


def _type_of(value: object) -> str:
    return _TYPES.get(type(value), "object")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def as_parameters(schema: Mapping[str, Any]) -> Schema:
    """A whole schema of somebody else's, as the parameters of a tool."""
    parts: dict[str, Schema] = {}
    for key in ("definitions", "$defs"):
        parts |= schema.get(key) or {}
    found = for_tool(resolved(dict(schema), parts))
    kept: Schema = {"type": "object", "properties": found.get("properties", {})}
    if "required" in found:
        kept["required"] = found["required"]
    return kept
