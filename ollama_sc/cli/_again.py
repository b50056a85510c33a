"""Tells of requests that are tried again, in place of what stamina logs by itself."""

import time
from collections.abc import Generator
from contextlib import contextmanager

from stamina.instrumentation import RetryDetails, get_on_retry_hooks, set_on_retry_hooks

from ollama_sc.cli._progress import SECONDS, Reporter


@contextmanager
def told(reporter: Reporter) -> Generator[None]:
    """Say why requests are tried again, from time to time."""
    last = -SECONDS

    def say(details: RetryDetails) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS:
            last = now
            reporter.say(f"Trying again: {details.caused_by}")

    before = get_on_retry_hooks()
    set_on_retry_hooks([say])
    try:
        yield
    finally:
        set_on_retry_hooks(before)
