"""The bar that a terminal gets."""

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


@contextmanager
def bar() -> Generator["Bar"]:
    """A bar on stderr that stays, as it is at the end, and gives the cursor back."""
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
        yield Bar(progress)


class Bar:
    """See `Reporter`."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._before = 0
        self._of = ""

    def say(self, text: str) -> None:
        """See `Reporter`."""
        self._progress.console.print(Text(text), soft_wrap=True)

    def start(self, done: int, total: int | None) -> None:
        """See `Reporter`."""
        self._before = done
        self._of = "" if total is None else f" of {total:,}"
        self._task = self._progress.add_task(
            "", total=total, completed=done, rows=f"{done:,}{self._of}", rate="", failed=""
        )

    def update(self, done: int, failed: int) -> None:
        """See `Reporter`."""
        if self._task is None:
            return
        elapsed = self._progress.tasks[0].elapsed
        rate = f"{(done - self._before) / elapsed:,.0f}/s" if elapsed else ""
        shown = f"{failed:,} failed" if failed else ""
        self._progress.update(
            self._task, completed=done, rows=f"{done:,}{self._of}", rate=rate, failed=shown
        )

    def end(self) -> None:
        """See `Reporter`."""
        self._progress.stop()
