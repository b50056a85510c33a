"""Responses that report progress: a stream of statuses, or only the last one."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from ollama_sc.testing._go import gojson
from ollama_sc.testing._go.fields import ApiError
from ollama_sc.testing._replies import NDJSON, Message

Steps = AsyncGenerator[dict[str, Any]]
_PLAIN = "application/json"  # no charset, as these responses bypass gin's writer


async def progress_message(steps: Steps, *, stream: bool) -> Message:
    """The response for some steps; an ApiError raised by them ends it as in the server."""
    if not stream:
        return await _last_of(steps)
    try:
        first = await anext(steps)
    except ApiError as exc:
        return Message(exc.status, _PLAIN, (gojson.encode(exc.body),), chunked=True)
    return Message(200, NDJSON, (), stream=True, source=_Lines(first, steps))


async def _last_of(steps: Steps) -> Message:
    last: dict[str, Any] = {}
    async with aclosing(steps):
        try:
            async for step in steps:
                last = step
        except ApiError as exc:
            return Message(exc.status, _PLAIN, (gojson.encode(exc.body),))
    return Message(200, _PLAIN, (gojson.encode(last),))


class _Lines:
    """The lines of a stream whose first step has run."""

    def __init__(self, first: dict[str, Any], steps: Steps) -> None:
        self._first: dict[str, Any] | None = first
        self._steps = steps
        self._over = False

    async def next(self) -> bytes | None:
        """The next line; None at the end."""
        step, self._first = self._first, None
        if step is None:
            if self._over:
                return None
            try:
                step = await anext(self._steps)
            except StopAsyncIteration:
                return None
            except ApiError as exc:
                self._over = True
                step = {"error": exc.text}
        return gojson.encode(step) + b"\n"

    async def aclose(self) -> None:
        """Abandon the remaining steps."""
        await self._steps.aclose()
