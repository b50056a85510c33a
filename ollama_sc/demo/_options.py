"""What the demo is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PROGRAM = "python -m ollama_sc.demo"
REFUSED = 2  # the exit status of what cannot be begun
EMBED_SECONDS = 5.0  # what is not embedded by then is left out


@dataclass
class Options:
    """What the command line says.

    Attributes:
        backend: the event loop.
        host: the server; None is what OLLAMA_HOST says, or the local one.
        model: for the chats; None is the smallest that the server has.
        embed_model: for the vectors; None is the smallest.
        seconds: how long the chats run, from the first part of the first one.
        texts: how many are embedded.
        save_svg: where the screen is saved as a picture.
    """

    backend: Literal["trio", "asyncio"] = "trio"
    host: str | None = None
    model: str | None = None
    embed_model: str | None = None
    seconds: float = 4.0
    texts: int = 400
    save_svg: Path | None = None
