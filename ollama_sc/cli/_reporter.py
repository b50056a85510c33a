"""Reports the progress of a job on stderr: a bar where one can be drawn, lines elsewhere."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

REPORT_INTERVAL = 10.0  # seconds between two lines


class Reporter(Protocol):
    """Reports what a job does, and how far it is."""

    def say(self, text: str) -> None:
        """Print a line."""
        ...

    def start(self, done: int, total: int | None) -> None:
        """Start the progress at the rows that earlier runs have done; of `total`, if known."""
        ...

    def update(self, done: int, failed: int) -> None:
        """Report how many rows are done, and how many of them failed."""
        ...

    def end(self) -> None:
        """End the progress; lines may follow."""
        ...


@contextmanager
def open_reporter() -> Generator[Reporter]:
    """The reporter for what stderr is."""
    if sys.stderr.isatty():
        from ollama_sc.cli import _bar  # noqa: PLC0415 - rich takes its time to import

        if _bar.can_draw():
            with _bar.bar_reporter() as reporter:
                yield reporter
            return
    yield LineReporter()


class LineReporter:
    """A `Reporter` that prints a line every `REPORT_INTERVAL` seconds."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._done_before = 0
        self._total: int | None = None

    def say(self, text: str) -> None:
        """See `Reporter`."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - what a command does

    def start(self, done: int, total: int | None) -> None:
        """See `Reporter`."""
        self._start = self._last = time.monotonic()
        self._done_before = done
        self._total = total

    def update(self, done: int, failed: int) -> None:
        """See `Reporter`."""
        now = time.monotonic()
        if now - self._last < REPORT_INTERVAL:
            return
        self._last = now
        rate = (done - self._done_before) / (now - self._start)
        of_total = "" if self._total is None else f" of {self._total:,}"
        text = f"{done:,}{of_total} rows, {rate:,.0f}/s"
        if self._total is not None and rate:
            text += f", {duration(max(0, self._total - done) / rate)} left"
        self.say(f"{text}, {failed:,} failed" if failed else text)

    def end(self) -> None:
        """See `Reporter`."""


def duration(seconds: float) -> str:
    """Seconds as text, such as ``2 min 5 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
