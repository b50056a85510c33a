"""Reports retries, which the library logs."""

import logging
import time
from collections.abc import Generator
from contextlib import contextmanager

from ollama_sc.cli._reporter import REPORT_INTERVAL, Reporter


@contextmanager
def report_retries(reporter: Reporter) -> Generator[None]:
    """Report why requests are retried, once in `REPORT_INTERVAL` seconds."""
    logger = logging.getLogger("ollama_sc")
    handler = _Handler(reporter)
    propagated = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagated
        logger.removeHandler(handler)


class _Handler(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__()
        self._reporter = reporter
        self._last_report = -REPORT_INTERVAL

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, unless another one was said lately."""
        now = time.monotonic()
        if now - self._last_report >= REPORT_INTERVAL:
            self._last_report = now
            text = record.getMessage()
            self._reporter.say(text[:1].upper() + text[1:])
