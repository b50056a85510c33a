"""OpenTelemetry: a span for each generation and embedding, and metrics, by the GenAI conventions.

It is on where the program has set OpenTelemetry's SDK up before it opens a client, and after
`enable`; `disable` turns it off. Requests go on as they do without it. Needs OpenTelemetry's API:
``pip install 'ollama-sc[telemetry]'``.

Spans: ``chat {model}``, ``text_completion {model}`` and ``embeddings {model}`` of kind CLIENT for
requests, ``embed_many {model}`` for an embedding job, whose requests count in the metrics alone,
and ``execute_tool {name}``. Texts are in them only by the conventions' opt-in: the environment
variable ``OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT``, or ``enable(content=True)``.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import metrics, trace

from ollama_sc._calls import observing

from ._content import wants_content
from ._observer import Telemetry

__all__ = ["disable", "enable", "execute_tool"]

_telemetry: Telemetry | None = None
_decided = False  # whether the program has said what it wants


def enable(
    *,
    tracer_provider: trace.TracerProvider | None = None,
    meter_provider: metrics.MeterProvider | None = None,
    content: bool | None = None,
) -> None:
    """Record the calls that start from now on, of all clients in this process.

    Args:
        tracer_provider: where spans go; ``None``: OpenTelemetry's global one.
        meter_provider: where metrics go; ``None``: the global one.
        content: whether spans hold messages, prompts and replies; ``None``: as the environment
            variable of the conventions says, by which they do not.
    """
    global _decided  # noqa: PLW0603 - one process, one answer
    _decided = True
    _turn_on(Telemetry(tracer_provider, meter_provider, content=wants_content(content)))


def disable() -> None:
    """Record no call that starts from now on."""
    global _decided  # noqa: PLW0603
    _decided = True
    _turn_on(None)


def enable_if_set_up() -> None:
    """Record calls where the program has set the SDK up, and has not said otherwise."""
    if _decided or _telemetry is not None:
        return
    if _is_set_up(trace.get_tracer_provider()) or _is_set_up(metrics.get_meter_provider()):
        _turn_on(Telemetry(None, None, content=wants_content(None)))


@contextmanager
def execute_tool(
    name: str,
    *,
    call_id: str | None = None,
    description: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Generator[trace.Span]:
    """A span ``execute_tool {name}`` around a tool that your program runs for a model.

    ::

        for call in reply.message.tool_calls or []:
            with execute_tool(call.function.name, arguments=call.function.arguments):
                result = run(call)

    It is the current span inside of the block. An exception is the span's error, a cancellation is
    none. Where telemetry is off this does nothing.

    Args:
        name: the tool's.
        call_id: of the model's call, where it has one.
        description: of the tool.
        arguments: recorded by the opt-in for content alone.
    """
    if _telemetry is None:
        yield trace.INVALID_SPAN
        return
    details = {"call_id": call_id, "description": description, "arguments": arguments}
    with _telemetry.tool(name, details) as span:
        yield span


def _turn_on(telemetry: Telemetry | None) -> None:
    global _telemetry  # noqa: PLW0603
    if _telemetry is not None:
        observing.remove(_telemetry)
    _telemetry = telemetry
    if telemetry is not None:
        observing.add(telemetry)


def _is_set_up(provider: object) -> bool:
    """Whether a provider is more than the API's own, which does nothing."""
    return not type(provider).__name__.lstrip("_").startswith(("Proxy", "NoOp"))
