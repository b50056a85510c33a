"""Chats on a screen of any size: boxes where there is room for them, a line for each where not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

State: TypeAlias = Literal["waiting", "streaming", "done", "aborted", "cancelled", "failed"]

_COLOURS: dict[State, str] = {
    "waiting": "blue",
    "streaming": "green",
    "done": "cyan",
    "aborted": "yellow",  # it is what was asked for
    "cancelled": "yellow",
    "failed": "red",
}
_HEAD = 5  # lines above the chats that should stay on the screen, ...
_FOOT = 4  # ... and lines below
_TALLEST = 7
_NARROWEST = 24  # a box


@dataclass
class Chat:
    """One chat, as far as it is."""

    subject: str
    text: str = ""
    parts: int = 0
    state: State = "waiting"
    queued: bool = False  # it waits although others are answered

    @property
    def label(self) -> str:
        """Its state in a few words."""
        if self.state in ("aborted", "cancelled") and not self.parts:
            return f"{self.state} while it waited"
        return f"{self.state}, {self.parts} parts" if self.parts else self.state

    @property
    def words(self) -> str:
        """Its text on one line, without what would move the cursor."""
        if self.queued:
            return "waits for its turn in the server's queue"
        return "".join(filter(str.isprintable, " ".join(self.text.split())))


def render(chats: Sequence[Chat], console: Console) -> RenderableType:
    """Draw all chats."""
    width, height = console.size
    columns = next((n for n in (3, 2) if width // n >= _NARROWEST * n / 2), 1)
    rows = math.ceil(len(chats) / columns)
    # On a small screen what stands above may go.
    each = max((height - _HEAD - _FOOT) // rows, min(3, (height - _FOOT) // rows))
    if each < 3 or width < _NARROWEST:
        return Group(*(_line(chat, width) for chat in chats))
    grid = Table.grid(expand=True)
    for _ in range(columns):
        grid.add_column(ratio=1)
    boxes = [_box(chat, console, width // columns, min(each, _TALLEST)) for chat in chats]
    for row in range(rows):
        grid.add_row(*boxes[row * columns : (row + 1) * columns])
    return grid


def _box(chat: Chat, console: Console, width: int, height: int) -> Panel:
    """A box with the last lines of a chat."""
    colour = _COLOURS[chat.state]
    lines = Text(chat.words).wrap(console, width - 4)[2 - height :]
    return Panel(
        Text("\n").join(lines),
        title=Text(chat.subject, "bold"),
        subtitle=Text(chat.label, colour),
        border_style=colour,
        height=height,
    )


def _line(chat: Chat, width: int) -> Text:
    """The same where there is no room for a box."""
    start = f"{chat.subject}: {chat.label}  "
    room = max(0, width - len(start))
    line = Text.assemble((start, _COLOURS[chat.state]), chat.words[-room:] if room else "")
    line.truncate(width)
    return line
