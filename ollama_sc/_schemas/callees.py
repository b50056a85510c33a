"""What runs when a model wants a tool called: a function, or an object with its own schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from .functions import Signature, is_async, signature_of

# What objects of others call their schema, and the method that takes the arguments as one mapping.
_SCHEMAS = ("inputSchema", "input_schema", "parameters", "schema")
_METHODS = ("call", "run")


class Callee(NamedTuple):
    """What is called.

    Attributes:
        function: what is called.
        signature: how its arguments are read; ``None`` where it takes them as they come.
        is_async: false for what runs in a worker thread.
        takes_mapping: whether it takes all arguments as one mapping.
        timeout, abandon: see `Tool.of`.
    """

    function: Callable[..., Any]
    signature: Signature | None
    is_async: bool
    takes_mapping: bool = False
    timeout: float | None = None
    abandon: bool = False


def callee_of(
    function: Callable[..., Any], *, timeout: float | None = None, abandon: bool = False
) -> Callee:
    """A function to be called, with the limits that its user gives it.

    Raises:
        TypeError: it cannot be a tool, or a limit is none.
    """
    if not callable(function):
        raise TypeError(f"{function!r:.80} cannot be called")
    if timeout is not None and (
        isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout > 0  # pyright: ignore[reportUnnecessaryIsInstance]
    ):
        raise TypeError(f"its timeout must be seconds above zero, not {timeout!r:.80}")
    return Callee(
        function, signature_of(function), is_async(function), timeout=timeout, abandon=abandon
    )


class NamedTool(NamedTuple):
    """A tool that brings its own name and schema, such as one of an MCP client.

    Attributes:
        callee: what runs it; ``None`` where the object only describes a tool.
    """

    name: str
    description: str | None
    schema: Mapping[str, Any]
    callee: Callee | None


def named_tool(item: object) -> NamedTool | None:
    """What an object says of itself, where it is a tool with a name and a schema."""
    name = getattr(item, "name", None)
    if isinstance(item, type) or not isinstance(name, str):
        return None
    for attribute in _SCHEMAS:
        schema = getattr(item, attribute, None)
        if isinstance(schema, Mapping):
            break
    else:
        return None
    description = getattr(item, "description", None)
    return NamedTool(
        name,
        description if isinstance(description, str) else None,
        cast("Mapping[str, Any]", schema),
        _callee_of_named(item),
    )


def _callee_of_named(item: object) -> Callee | None:
    for method in _METHODS:
        function = getattr(item, method, None)
        if callable(function):
            return Callee(function, None, is_async(function), takes_mapping=True)
    if callable(item):
        return Callee(item, None, is_async(item))
    return None
