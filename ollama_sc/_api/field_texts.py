"""The texts of fields in the docstrings of the calls that take them.

A field is described once, in the docstring of the `TypedDict` that has it first. A call's docstring
says ``**fields: see `ChatFields`.``; what `help` shows in that place is each field's own text.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from inspect import cleandoc
from textwrap import indent

from . import fields as api_fields

_NAMES = re.compile(r"^    (\w[\w, ]*): ", re.MULTILINE)
# The whole entry: its line, and those that are indented further.
_SEE_FIELDS = re.compile(r"^    \*\*fields: [^\n]*(?:\n     +[^\n]*)*", re.MULTILINE)
_BEHIND_ARGUMENTS = re.compile(r"^(?=Returns:|Raises:)", re.MULTILINE)


def with_field_texts(docstring: str | None, fields: type) -> str | None:
    """A call's docstring, in which its fields stand in place of where they are to be seen."""
    if docstring is None:  # python -OO
        return None
    text = cleandoc(docstring)
    entries = [f"{name}: {said}" for name, said in texts_of(fields).items()]
    shown = indent("\n".join(entries), "    ")
    if _SEE_FIELDS.search(text):
        return _SEE_FIELDS.sub(lambda _: shown, text, count=1)
    before, head, after = text.partition("\nArgs:\n")
    if head:
        arguments, gap, rest = after.partition("\n\n")
        return f"{before}{head}{arguments}\n{shown}{gap}{rest}"
    place = _BEHIND_ARGUMENTS.search(text)
    before, after = (text, "") if place is None else (text[: place.start()], text[place.start() :])
    return f"{before.rstrip()}\n\nArgs:\n{shown}\n\n{after}".rstrip()


def texts_of(fields: type) -> dict[str, str]:
    """What is said of each field, in the order of the signature."""
    own = _said_by(fields)
    found: dict[str, str] = {}
    for name, annotation in fields.__annotations__.items():
        text = own.get(name)
        for module in (fields.__module__, api_fields.__name__):
            text = text or _said(module).get((name, annotation))
        if text is not None:
            found[name] = text
    return found


@cache
def _said(module: str) -> dict[tuple[str, object], str]:
    """The first text of each field of a name and a type, in the order of a module's classes.

    (A `TypedDict` does not tell, at run time, what it was derived from.)
    """
    found: dict[tuple[str, object], str] = {}
    for value in vars(sys.modules[module]).values():
        if isinstance(value, type) and value.__module__ == module:
            for name, text in _said_by(value).items():
                found.setdefault((name, value.__annotations__[name]), text)
    return found


@cache
def _said_by(fields: type) -> dict[str, str]:
    """The entries of ``Attributes:`` in a class's own docstring."""
    section = cleandoc(fields.__doc__ or "").partition("\nAttributes:\n")[2].rstrip()
    heads = list(_NAMES.finditer(section))
    found: dict[str, str] = {}
    for number, head in enumerate(heads):
        end = heads[number + 1].start() if number + 1 < len(heads) else None
        lines = section[head.end() : end].rstrip().replace("\n    ", "\n")
        found.update(dict.fromkeys(head[1].split(", "), lines))
    return found
