"""Where everything is printed: a live view on a terminal, plain lines elsewhere."""

import io
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

from rich.console import Console, RenderableType
from rich.live import Live
from rich.rule import Rule
from rich.text import Text

_WIDTH = 80  # of what is no terminal


class Screen:
    """Prints, and keeps what stays on it, for `--save-svg`."""

    def __init__(self) -> None:
        with suppress(AttributeError):  # stdout was closed or replaced
            cast("io.TextIOWrapper", sys.stdout).reconfigure(errors="replace")  # a locale's limits
        self.console = Console(highlight=False)
        self.is_live = self.console.is_terminal and not self.console.is_dumb_terminal
        if not self.is_live:
            self.console.width = min(self.console.width, _WIDTH)
        self._kept: list[RenderableType] = []
        self._view: Live | None = None

    def conclude(self, text: str, *, good: bool) -> None:
        """Print one of the last lines, with a tick where it went as it should."""
        done = "✓" if self.console.encoding.startswith("utf") else "+"
        mark = (done, "bold green") if good else ("-", "bold yellow")
        self.show(self._wrapped(Text(text), Text.assemble("  ", mark, " ")))

    def show(self, content: RenderableType = "", style: str = "") -> None:
        """Print something; a string is plain text, without markup."""
        if isinstance(content, str):
            content = self._wrapped(Text(content, style))
        self._kept.append(content)
        self.console.print(content)

    def item(self, text: str) -> None:
        """Print something that is part of what stands above it."""
        self.show(self._wrapped(Text(text), Text("  ")))

    def head(self, title: str) -> None:
        """Begin a part."""
        self.show()
        self.show(Rule(Text(title, "bold"), align="left", style="cyan"))

    def note(self, text: str) -> None:
        """Print how far it is, where no live view shows it."""
        if not self.is_live:
            self.console.print(self._wrapped(Text(text), Text("  ")))

    def _wrapped(self, text: Text, start: Text | None = None) -> Text:
        """Lines that fit, without spaces at their ends; those after the first one are indented."""
        start = start or Text()
        lines = text.wrap(self.console, self.console.width - len(start))
        for line in lines:
            line.rstrip()
        return Text.assemble(start, Text("\n" + " " * len(start)).join(lines))

    @contextmanager
    def live(self, render: Callable[[], RenderableType]) -> Generator[Callable[[], None]]:
        """Show something that changes; the block calls what it gets to have it drawn again."""
        if not self.is_live:
            yield lambda: None
            self._kept.append(render())
            return
        self._view = self._opened(render())
        try:
            yield lambda: self._draw(render())
        finally:
            view, self._view = self._view, None
            try:
                view.update(render(), refresh=True)
            finally:
                view.stop()
            self._kept.append(render())

    @contextmanager
    def left(self) -> Generator[None]:
        """Another program has the terminal for a while: a new view follows this one."""
        view = self._view
        if view is None:
            yield
            return
        view.stop()
        try:
            yield
        finally:
            self._view = self._opened(view.get_renderable())

    def _draw(self, content: RenderableType) -> None:
        if self._view is not None:
            self._view.update(content, refresh=True)

    def _opened(self, content: RenderableType) -> Live:
        # Without rich's own thread, which would disturb what is being measured.
        view = Live(content, console=self.console, auto_refresh=False)
        view.start(refresh=True)
        return view

    def save_svg(self, path: Path) -> None:
        """Save what has been printed, as a picture of a terminal."""
        console = Console(
            record=True,
            width=self.console.width,
            file=io.StringIO(),
            force_terminal=True,
            color_system="truecolor",
            highlight=False,
        )
        for content in self._kept:
            console.print(content)
        path.write_text(console.export_svg(title="make demo"), encoding="utf-8")
