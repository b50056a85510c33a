"""What can be given as a tool, into the tool that the server hears of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ollama_sc._errors import RequestError
from ollama_sc.types import Tool, ToolFunction

from .body import dump_model


def as_tool(what: str, item: object) -> Tool | Mapping[str, Any]:
    """What the server hears of a tool.

    Raises:
        RequestError: it is none.
    """
    if isinstance(item, Tool | Mapping):
        return cast("Tool | Mapping[str, Any]", item)
    from ollama_sc._schemas.callees import named_tool  # noqa: PLC0415 - for functions alone
    from ollama_sc._schemas.narrow import as_parameters  # noqa: PLC0415

    named = named_tool(item)
    if named is not None:
        try:
            parameters = as_parameters(named.schema)
        except TypeError as error:
            raise RequestError(f"{what}: the schema of {named.name!r}: {error}") from error
        tool = Tool(ToolFunction(named.name, named.description, parameters))
        if named.callee is not None:
            vars(tool)["callee"] = named.callee
        return tool
    dumped = dump_model(item)
    if isinstance(dumped, Mapping):
        return cast("Mapping[str, Any]", dumped)
    if not callable(item):
        raise RequestError(
            f"{what} must be a function, a Tool or a mapping with the function's JSON schema, "
            f"not {type(item).__name__}"
        )
    try:
        return Tool.of(item)
    except RequestError as error:
        raise RequestError(f"{what}: {error}") from error
