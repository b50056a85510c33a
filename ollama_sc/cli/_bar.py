"""The progress bar, for a terminal."""

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text


def can_draw() -> bool:
    """Whether stderr is a terminal on which a bar can be drawn, again and again in its place."""
    console = Console(stderr=True)
    return console.is_terminal and console.is_interactive and not console.is_dumb_terminal


@contextmanager
def bar_reporter() -> Generator["BarReporter"]:
    """A bar on stderr. At the end its last state stays there, and the cursor is shown again."""
    console = Console(stderr=True, highlight=False)
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TextColumn("[green]{task.fields[rows]}"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("[red]{task.fields[failed]}"),
    )
    progress = Progress(
        *columns,
        console=console,
        refresh_per_second=5,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    with progress:
        yield BarReporter(progress)


class BarReporter:
    """A `Reporter` that draws a progress bar, with lines of text above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._done_before = 0
        self._of_total = ""

    def say(self, text: str) -> None:
        """See `Reporter`."""
        self._progress.console.print(Text(text), soft_wrap=True)

    def start(self, done: int, total: int | None) -> None:
        """See `Reporter`."""
        self._done_before = done
        self._of_total = "" if total is None else f" of {total:,}"
        self._task = self._progress.add_task(
            "", total=total, completed=done, rows=f"{done:,}{self._of_total}", rate="", failed=""
        )

    def update(self, done: int, failed: int) -> None:
        """See `Reporter`."""
        if self._task is None:
            return
        elapsed = self._progress.tasks[0].elapsed
        rate = f"{(done - self._done_before) / elapsed:,.0f}/s" if elapsed else ""
        failures = f"{failed:,} failed" if failed else ""
        self._progress.update(
            self._task, completed=done, rows=f"{done:,}{self._of_total}", rate=rate, failed=failures
        )

    def end(self) -> None:
        """See `Reporter`."""
        self._progress.stop()
