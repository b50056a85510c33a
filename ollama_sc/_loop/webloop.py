"""Deadlines on Pyodide's event loop, which loses some of them. Knows nothing of requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_MENDED = "_ollama_sc_mended"


def mend_deadlines(loop: Any) -> None:
    """Let a time that has just passed be scheduled as "now"; once for each loop.

    Pyodide's loop raises ValueError for a time in the past, where asyncio's own calls back at once.
    A deadline is in the past whenever the clock ticks between the look at it and `call_at`. Where
    that happens in a timer, as in anyio's when a browser's fired a little early, the error goes to
    the log, the deadline is lost, and what it was for hangs. It is the loop's defect, and so it is
    mended there: users' own cancel scopes and `asyncio.timeout` are scheduled by the same method.
    """
    if getattr(loop, _MENDED, False):
        return
    original: Callable[..., Any] = loop.call_later

    def call_later(delay: float, callback: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return original(max(delay, 0.0), callback, *args, **kwargs)

    loop.call_later = call_later  # `call_at` goes through it, too
    setattr(loop, _MENDED, True)
