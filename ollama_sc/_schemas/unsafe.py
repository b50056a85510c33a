"""A union that msgspec must not be given: reading it, it writes past the memory it has reserved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import msgspec

from .models import is_model

_BOUNDS = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length")


def refuse_unsafe(types: Iterable[Any]) -> None:
    """Refuse a tuple of a fixed length in one union with a value that has bounds.

    The process can end by that, with msgspec 0.23 and those before it. Fields of classes at any
    depth are looked at, too.

    Raises:
        TypeError: there is such a union.
    """
    waiting = list(types)
    seen: set[int] = set()
    while waiting:
        type_ = waiting.pop()
        if get_origin(type_) in (Union, UnionType):
            members = list(_members(type_))
            if any(bounded for _, bounded in members) and any(
                get_origin(one) is tuple and ... not in get_args(one) for one, _ in members
            ):
                raise TypeError("a tuple cannot be in one union with a value that has bounds")
        waiting += get_args(type_)
        if hasattr(type_, "__supertype__"):  # a NewType
            waiting.append(type_.__supertype__)
        class_ = get_origin(type_) or type_
        if not isinstance(class_, type) or id(class_) in seen or class_.__module__ == "builtins":
            continue
        seen.add(id(class_))
        if not is_model(class_):  # pydantic reads those by itself
            try:
                waiting += get_type_hints(class_, include_extras=True).values()
            except (NameError, TypeError):  # as msgspec will say
                continue


def _members(type_: Any, *, bounded: bool = False) -> Iterator[tuple[Any, bool]]:
    """The types of a union, those of unions in it, and whether each of them has bounds."""
    if get_origin(type_) is Annotated:
        type_, *said = get_args(type_)
        metas = [one for one in said if isinstance(one, msgspec.Meta)]
        has = any(getattr(meta, name) is not None for meta in metas for name in _BOUNDS)
        yield from _members(type_, bounded=bounded or has)
    elif get_origin(type_) in (Union, UnionType):
        for one in get_args(type_):
            yield from _members(one, bounded=bounded)
    elif hasattr(type_, "__supertype__"):
        yield from _members(type_.__supertype__, bounded=bounded)
    else:
        yield type_, bounded
