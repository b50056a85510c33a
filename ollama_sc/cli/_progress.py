"""What a job says while it runs, on stderr: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

SECONDS = 10.0  # between two plain lines


class Reporter(Protocol):
    """How a job tells of itself."""

    def say(self, text: str) -> None:
        """Print a line that stays."""
        ...

    def start(self, done: int, total: int | None) -> None:
        """Begin to count, from what was done before."""
        ...

    def update(self, done: int, failed: int) -> None:
        """Tell how many rows are done."""
        ...

    def end(self) -> None:
        """There is no more to count; lines may follow."""
        ...


@contextmanager
def reporter() -> Generator[Reporter]:
    """What suits stderr."""
    if sys.stderr.isatty():
        from ollama_sc.cli._bar import bar  # noqa: PLC0415 - rich takes its time to import

        with bar() as shown:
            yield shown
    else:
        yield PlainLines()


class PlainLines:
    """A line from time to time."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._before = 0
        self._total: int | None = None

    def say(self, text: str) -> None:
        """See `Reporter`."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - what a command does

    def start(self, done: int, total: int | None) -> None:
        """See `Reporter`."""
        self._start = self._last = time.monotonic()
        self._before = done
        self._total = total

    def update(self, done: int, failed: int) -> None:
        """See `Reporter`."""
        now = time.monotonic()
        if now - self._last < SECONDS:
            return
        self._last = now
        rate = (done - self._before) / (now - self._start)
        of = "" if self._total is None else f" of {self._total:,}"
        text = f"{done:,}{of} rows, {rate:,.0f}/s"
        if self._total is not None and rate:
            text += f", {duration(max(0, self._total - done) / rate)} left"
        self.say(f"{text}, {failed:,} failed" if failed else text)

    def end(self) -> None:
        """See `Reporter`."""


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
