"""What a function's text and annotations say of it and of its parameters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from dataclasses import is_dataclass
from datetime import datetime, time
from inspect import cleandoc
from types import UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin, get_type_hints

# What stands between the colons of a parameter's field in Sphinx's style.
_FIELD = re.compile(
    r"^[^\S\n]*:(?:param|parameter|arg|argument|key|keyword)\b[^:\n]*:", re.MULTILINE
)
# A section of Google's style as the whole text, which has no indent to it then.
_LONE_SECTION = re.compile(r"(?:Args|Arguments|Parameters|Params):\n(?=\S)")
# A type in Google's style, which the parser takes to end at its first colon.
_TYPE = re.compile(r"^[^\S\n]+\*{0,2}\w+ ?\([^\n]*?\)[^\S\n]*:(?=\s)", re.MULTILINE)
_TIMES = {datetime: "date-time", time: "time"}
_COMMA = re.compile(r"\s*,\s*")


def of_text(text: str | None) -> tuple[str, dict[str, str]]:
    """The description of a function in its docstring, and those of its parameters by name.

    The styles of Google, NumPy, Sphinx and Epydoc are understood.
    """
    if not text:
        return "", {}
    import docstring_parser  # noqa: PLC0415 - only who has functions as tools needs it

    # The parser takes a field apart at spaces, and the indent off all that follows a first line.
    squeezed = _FIELD.sub(lambda field: _COMMA.sub(",", field[0]), text)
    squeezed = _TYPE.sub(lambda found: found[0][:-1].replace(":", " ") + ":", squeezed)
    if _LONE_SECTION.match(squeezed):
        squeezed = squeezed.replace("\n", "\n    ")
    try:
        found = docstring_parser.parse("\n" + squeezed)
    except Exception:  # noqa: BLE001 - it only looks like one of the styles, and breaks the parser
        return text, {}
    parts = (found.short_description, found.long_description)
    parameters: dict[str, str] = {}
    for parameter in found.params:
        if parameter.description:
            for name in parameter.arg_name.split(","):
                parameters[name.strip(" *`")] = _one_line(parameter.description)
    between = "\n\n" if found.blank_after_short_description else "\n"
    return between.join(part for part in parts if part), parameters


def own_text(class_: type) -> str | None:
    """The docstring that somebody has written for a class, not one of its bases or its maker."""
    text, name = class_.__doc__, class_.__name__
    made = hasattr(class_, "_fields") or is_dataclass(class_)
    if not text or (made and text.startswith(f"{name}(")):  # which is its signature
        return None
    return cleandoc(text)


def text_of_method(class_: type, name: str) -> str | None:
    """The docstring of a method that is written in Python, its own or that which it overrides."""
    for base in class_.__mro__:
        method = vars(base).get(name)
        if inspect.isfunction(method) and method.__doc__:
            return cleandoc(method.__doc__)
    return None


def of_annotation(annotation: Any, default: object = None) -> str:
    """What an `Annotated` says in plain text, in a `Doc` or in a field of pydantic's.

    Of a union that says nothing itself, what the first of its types says.
    """
    said = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    for one in (*said, default):
        if isinstance(one, str) and one is not default:
            return _one_line(one)
        for name in ("documentation", "description"):
            text = getattr(one, name, None)
            if isinstance(text, str) and text:
                return _one_line(text)
    union = _plain(annotation)
    if get_origin(union) in (Union, UnionType):
        for one in get_args(union):
            if inner := of_annotation(one):
                return inner
    return ""


def describe_items(schema: dict[str, Any], annotation: Any) -> None:
    """Put what annotations say of a list's items into its schema, at whatever depth.

    And the format of times, which msgspec leaves out where they may be without a time zone.
    """
    _name_format(schema, annotation)
    items, args = schema.get("items"), get_args(_plain(annotation))
    values = schema.get("additionalProperties")
    if isinstance(values, dict) and len(args) == 2:
        describe_items(cast("dict[str, Any]", values), args[1])
    if isinstance(items, dict) and len(args) == 1:
        of_items = cast("dict[str, Any]", items)
        if said := of_annotation(args[0]):
            of_items.setdefault("description", said)
        describe_items(of_items, args[0])


def _name_format(schema: dict[str, Any], annotation: Any) -> None:
    """Say the format of a time, or of the one that is in a union."""
    choices = schema.get("anyOf", [schema])
    texts = [one for one in choices if one.get("type") == "string" and "enum" not in one]
    union = _plain(annotation)
    members = get_args(union) if get_origin(union) in (Union, UnionType) else (annotation,)
    for member in members:
        said = get_args(member)[1:] if get_origin(member) is Annotated else ()
        name = _TIMES.get(_plain(member)) if isinstance(_plain(member), type) else None
        if name and len(texts) == 1 and all(getattr(one, "tz", None) is None for one in said):
            texts[0].setdefault("format", name)


def _plain(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def describe_fields(types: Iterable[Any], parts: dict[str, Any]) -> None:
    """Put what annotations say of fields into the schemas of classes, by the class's name."""
    for name, hints in _fields_of(types).items():
        for field, schema in parts.get(name, {}).get("properties", {}).items():
            if field in hints:
                if said := of_annotation(hints[field]):
                    schema.setdefault("description", said)
                describe_items(schema, hints[field])


def _fields_of(types: Iterable[Any]) -> dict[str, dict[str, Any]]:
    """The annotations of the fields of all classes in some types, by the class's name.

    Names of fields are those in JSON. Of classes that have one name, nothing is said.
    """
    classes: dict[str, set[type]] = {}
    waiting = list(types)
    seen: set[int] = set()
    found: dict[str, dict[str, Any]] = {}
    while waiting:
        type_ = waiting.pop()
        waiting += get_args(type_)
        if not isinstance(type_, type) or id(type_) in seen or type_.__module__ == "builtins":
            continue
        seen.add(id(type_))
        try:
            hints = get_type_hints(type_, include_extras=True)
        except (NameError, TypeError):  # as msgspec will say, if that matters
            continue
        waiting += hints.values()
        encoded = _names_in_json(type_)
        found[type_.__name__] = {encoded.get(name, name): hint for name, hint in hints.items()}
        classes.setdefault(type_.__name__, set()).add(type_)
    return {name: hints for name, hints in found.items() if len(classes[name]) == 1}


def _names_in_json(type_: type) -> dict[str, str]:
    names: tuple[str, ...] = getattr(type_, "__struct_fields__", ())
    written: tuple[str, ...] = getattr(type_, "__struct_encode_fields__", ())
    found = dict(zip(names, written, strict=True))
    for name, field in getattr(type_, "__pydantic_fields__", {}).items():
        found[name] = field.alias or name
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())
