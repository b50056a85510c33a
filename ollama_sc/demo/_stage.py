"""What each part of the demo is given, and what it leaves for the end."""

from dataclasses import dataclass, field

import anyio

from ollama_sc import AsyncClient
from ollama_sc.demo._keys import Keys
from ollama_sc.demo._screen import Screen
from ollama_sc.demo._server import Server

TICK = 0.1  # seconds between two drawings
LOAD_SECONDS = 60.0  # a model that must be loaded first has so long


@dataclass
class Stage:
    """What a part works with.

    Attributes:
        seconds: how long the chats run; what the fake server does takes its time accordingly.
        seen: what was shown, for the last lines: whether it went as it should, and the text.
    """

    screen: Screen
    keys: Keys
    server: Server
    client: AsyncClient
    seconds: float
    seen: list[tuple[bool, str]] = field(default_factory=list[tuple[bool, str]])

    def hint(self, what: str) -> str:
        """What the key does; empty where there is none."""
        return f"a: {what}" if self.keys.are_read else ""


async def tick(pressed: anyio.Event) -> None:
    """Wait until it is time to draw again, or the key is pressed."""
    with anyio.move_on_after(TICK):
        await pressed.wait()
