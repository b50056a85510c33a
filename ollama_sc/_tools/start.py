"""How runs are made of checked arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ollama_sc._api import arguments
from ollama_sc._api.base import BaseClient
from ollama_sc._api.fields import MessageLike, ToolLike
from ollama_sc._api.outputs import output_of
from ollama_sc._errors import RequestError

from .events import RunCall
from .fields import RUN_DEFAULTS, AnyRunFields
from .messages import as_messages
from .results import ToolRun
from .rounds import Caller
from .run import Asking, Run
from .stream import ToolStream
from .toolbox import Toolbox

_OWN = {*RUN_DEFAULTS, "format", "attempts"}


def make_run(
    client: BaseClient,
    model: str,
    messages: Iterable[MessageLike],
    tools: Sequence[ToolLike],
    fields: Mapping[str, Any],
    *,
    stream: bool,
) -> tuple[RunCall, Run]:
    """A run that has not started.

    Raises:
        TypeError: an unknown field.
        RequestError: an invalid argument.
    """
    arguments.reject_unknown(fields, AnyRunFields)
    label = f"run_tools, model {arguments.shown(model)}"
    try:
        if not isinstance(stream, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RequestError(f"stream must be True or False, not {stream!r:.80}")
        settings = _settings(fields)
        output = output_of(fields, stream=stream, prompted=True)
        toolbox = _toolbox(tools)
        asking = Asking(
            model,
            {key: value for key, value in fields.items() if key not in _OWN},
            toolbox,
            fields.get("format") or None if output is None else output.schema,
            output,
            stream,
        )
        conversation = as_messages(messages)
        if not conversation:
            raise RequestError("a run needs messages: without them the model has nothing to answer")
        for with_tools in {bool(tools), asking.format is None}:  # whatever will be sent
            asking.request(conversation, with_tools=with_tools)
        timeouts = client._timeouts(fields)
    except RequestError as error:
        error.request = label
        raise
    call = RunCall(client._calls.runtime, label, timeouts)
    caller = Caller(
        toolbox,
        max_parallel=settings["max_parallel"],
        max_repeats=settings["max_repeats"],
        tell=settings["on_tool_error"] == "tell",
        approve=settings["approve"],
        emit=call.put if stream else None,
        label=label,
    )
    run = Run(client, call, asking, conversation, caller, settings["max_rounds"])
    return call, run


async def start_run(
    client: BaseClient,
    call: RunCall,
    run: Run,
    *,
    stream: bool,
    on_complete: Callable[[], object] | None = None,
) -> ToolRun[Any] | ToolStream[Any]:
    """Start a run; its result, or a stream once the model begins to answer."""
    client._calls.start_operation(call, run.work)
    if not stream:
        return await call.outcome()
    call.on_complete = on_complete
    await call.wait(call.responded)
    if not call.succeeded:
        call.raise_error()
    return ToolStream(call, run.snapshot)


def check_run(tools: Sequence[ToolLike], fields: Mapping[str, Any]) -> None:
    """Raise `TypeError` for a field that there is not, and `RequestError` for a wrong value."""
    arguments.reject_unknown(fields, AnyRunFields)
    _settings(fields)
    _toolbox(tools)


def _toolbox(tools: Sequence[ToolLike]) -> Toolbox:
    if isinstance(tools, str | bytes) or not isinstance(tools, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RequestError(f"tools must be a list of tools, not {type(tools).__name__}")
    return Toolbox(tools)


def _settings(fields: Mapping[str, Any]) -> dict[str, Any]:
    found = {**RUN_DEFAULTS, **{key: fields[key] for key in RUN_DEFAULTS if key in fields}}
    for name in ("max_rounds", "max_parallel", "max_repeats"):
        value = found[name]
        if value is None and name != "max_repeats":
            raise RequestError(f"{name} must be a whole number above zero, not None")
        arguments.count(name, value)
    if found["max_repeats"] == 1:
        raise RequestError("max_repeats must be two or more: the first call would not be run")
    if found["on_tool_error"] not in ("raise", "tell"):
        raise RequestError(
            f"on_tool_error must be 'raise' or 'tell', not {found['on_tool_error']!r:.80}"
        )
    if found["approve"] is not None and not callable(found["approve"]):
        raise RequestError(f"approve must be a function, not {found['approve']!r:.80}")
    return found
