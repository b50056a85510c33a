"""The observer of calls that makes spans and metrics: one span for each call, ended once."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from opentelemetry import metrics, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from ollama_sc._calls.observing import CallObserver, told
from ollama_sc._calls.outcome import Observed
from ollama_sc._errors import AbortError
from ollama_sc._http.messages import Request
from ollama_sc._version import __version__

from . import _content
from ._asked import Asked, asked, common_attributes
from ._instruments import Instruments

_NAME = "ollama_sc"


class Telemetry:
    """Observes all calls of the process; see `observing.Observer`."""

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None,
        meter_provider: metrics.MeterProvider | None,
        *,
        content: bool,
    ) -> None:
        self.content = content
        self.tracer = trace.get_tracer(_NAME, __version__, tracer_provider)
        self.instruments = Instruments(metrics.get_meter(_NAME, __version__, meter_provider))

    def started(self, call: Observed, subject: Any) -> CallObserver | None:
        """A request that runs a model, or a job."""
        if isinstance(subject, str):
            return _Job(self, subject)
        if not isinstance(subject, tuple):
            return None
        request, url = cast("tuple[Request, str]", subject)
        what = asked(request, url, streams=hasattr(call, "joiner"))
        if what is None:
            return None
        # What a job asks for is the job's own, by thousands: it has one span.
        return _Request(self, what, None if call.is_part_of_one else request)

    @contextmanager
    def tool(self, name: str, details: Mapping[str, Any]) -> Generator[Span]:
        """The span of a tool, which is the current one meanwhile."""
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": name,
            "gen_ai.tool.type": "function",
        }
        if details.get("call_id"):
            attributes["gen_ai.tool.call.id"] = details["call_id"]
        if details.get("description"):
            attributes["gen_ai.tool.description"] = details["description"]
        if self.content and details.get("arguments") is not None:
            attributes["gen_ai.tool.call.arguments"] = _content.as_json(details["arguments"])
        span = self.tracer.start_span(f"execute_tool {name}", attributes=attributes)
        try:
            with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                yield span
        except AbortError:  # its task was cancelled, by whatever means
            raise
        except Exception as error:
            _fail(span, error)
            raise
        finally:
            span.end()


class _Request:
    """One request: its span, and what it counts."""

    def __init__(self, telemetry: Telemetry, what: Asked, request: Request | None) -> None:
        self._telemetry = telemetry
        self._what = what
        self._streams = bool(what.attributes["gen_ai.request.stream"])
        self._began = time.perf_counter()
        self._queued: float | None = None
        self._connected: float | None = None
        self._sent: float | None = None
        self._first: float | None = None
        self._span: Span | None = None
        if request is not None:
            name = f"{what.operation} {what.model}".rstrip()
            span = telemetry.tracer.start_span(
                name, kind=SpanKind.CLIENT, attributes=what.attributes
            )
            if span.is_recording():
                self._span = span
                if telemetry.content:
                    span.set_attributes(_content.of_request(request))

    def slot_acquired(self) -> None:
        self._queued = time.perf_counter() - self._began

    def connected(self) -> None:
        self._connected = time.perf_counter() - self._began

    def sent(self) -> None:
        self._sent = time.perf_counter() - self._began

    def first_part(self) -> None:
        self._first = time.perf_counter() - self._began

    def ended(self, call: Observed) -> None:
        seconds = time.perf_counter() - self._began
        how, error = call.end()
        failed = error if how == "error" else None
        reply = self._reply(call)
        try:
            self._record(seconds, failed, reply)
        finally:
            if self._span is not None:
                self._end_span(self._span, how, failed, reply)

    def _reply(self, call: Observed) -> Any:
        """What has arrived; of a stream its last part, where nobody wants the text."""
        joiner = getattr(call, "joiner", None)
        if joiner is not None and not self._telemetry.content:
            return joiner.last
        return call.reply

    def _record(self, seconds: float, failed: BaseException | None, reply: Any) -> None:
        instruments = self._telemetry.instruments
        attributes = dict(self._what.common)
        if model := _text(reply, "model"):
            attributes["gen_ai.response.model"] = model
        tokens = {
            "input": _number(reply, "prompt_eval_count"),
            "output": _number(reply, "eval_count"),
        }
        for kind, number in tokens.items():
            if number is not None:
                instruments.tokens.record(number, attributes | {"gen_ai.token.type": kind})
        if self._queued is not None:
            instruments.queue.record(self._queued, attributes)
        if self._first is not None:
            instruments.first_chunk.record(self._first, attributes)
        if (load := _load_seconds(reply)) is not None:
            instruments.load.record(load, attributes)
        if failed is not None:
            attributes["error.type"] = type(failed).__name__
        instruments.duration.record(seconds, attributes)

    def _end_span(self, span: Span, how: str, failed: BaseException | None, reply: Any) -> None:
        try:
            found: dict[str, Any] = {
                "ollama_sc.end": how,
                "ollama_sc.queue_time": self._queued,
                "ollama_sc.time_to_connection": self._connected,
                "ollama_sc.time_to_sent": self._sent,
                "gen_ai.response.time_to_first_chunk": self._first,
                "gen_ai.response.model": _text(reply, "model"),
                "gen_ai.usage.input_tokens": _number(reply, "prompt_eval_count"),
                "gen_ai.usage.output_tokens": _number(reply, "eval_count"),
                "ollama_sc.load_duration": _load_seconds(reply),
            }
            if reason := _text(reply, "done_reason"):
                found["gen_ai.response.finish_reasons"] = [reason]
            span.set_attributes({key: value for key, value in found.items() if value is not None})
            if self._telemetry.content and reply is not None:
                span.set_attributes(_content.of_reply(reply))
            if failed is not None:
                _fail(span, failed)
        finally:
            span.end()

    def batch_done(self, texts: int, failures: int) -> None:
        """It is no job."""

    def retried(self) -> None:
        """It is no job."""


class _Job:
    """An embedding job: its span, and its counters."""

    def __init__(self, telemetry: Telemetry, model: str) -> None:
        self._instruments = telemetry.instruments
        self._common = common_attributes("embeddings", model)
        self._counts = {"batches": 0, "texts": 0, "skipped_rows": 0, "retries": 0}
        self._span = telemetry.tracer.start_span(f"embed_many {model}", attributes=self._common)

    def batch_done(self, texts: int, failures: int) -> None:
        self._counts["batches"] += 1
        self._counts["texts"] += texts
        self._counts["skipped_rows"] += failures
        self._instruments.batches.add(1, self._common)
        if failures:
            self._instruments.skipped.add(failures, self._common)

    def retried(self) -> None:
        self._counts["retries"] += 1
        self._instruments.retries.add(1, self._common)

    def ended(self, call: Observed) -> None:
        try:
            how, error = call.end()
            self._span.set_attribute("ollama_sc.end", how)
            for name, number in self._counts.items():
                self._span.set_attribute(f"ollama_sc.job.{name}", number)
            if how == "error" and error is not None:
                _fail(self._span, error)
        finally:
            self._span.end()

    def slot_acquired(self) -> None:
        """Its requests have slots."""

    def connected(self) -> None:
        """Its requests have connections."""

    def sent(self) -> None:
        """Its requests are sent."""

    def first_part(self) -> None:
        """It is no stream."""


def _field(reply: Any, name: str) -> Any:
    """A field of a reply, typed or as plain JSON; ``None`` where there is none."""
    if isinstance(reply, dict):
        return cast("dict[str, Any]", reply).get(name)
    return getattr(reply, name, None)


def _text(reply: Any, name: str) -> str | None:
    """A field that is a text, and not an empty one: plain JSON can hold anything."""
    value = _field(reply, name)
    return value if isinstance(value, str) and value else None


def _number(reply: Any, name: str) -> int | None:
    value = _field(reply, name)
    return value if type(value) is int and value >= 0 else None


def _load_seconds(reply: Any) -> float | None:
    nanoseconds = _number(reply, "load_duration")
    return None if nanoseconds is None else nanoseconds / 1e9


def _fail(span: Span, error: BaseException) -> None:
    """The error of a span: its class, and what of its text is no content."""
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(StatusCode.ERROR, told(error) or None)
