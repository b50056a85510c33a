"""The key that aborts, or its absence: where stdin is no terminal, and on Windows."""

from collections.abc import Generator
from contextlib import contextmanager

import anyio

ABORT = "a"


class Keys:
    """Says when `a` is pressed. This class has no key: the event is never set."""

    def __init__(self) -> None:
        self._pressed = anyio.Event()

    @property
    def are_read(self) -> bool:
        """Whether there is such a key."""
        return False

    def next_press(self) -> anyio.Event:
        """What is set when `a` is pressed from now on."""
        self._pressed = anyio.Event()
        return self._pressed

    async def listen(self) -> None:
        """Read keys until cancelled, or until the terminal is gone."""

    @contextmanager
    def single(self) -> Generator[None]:
        """Keys come one by one, without Enter, and are not shown; Ctrl-C stays what it is."""
        yield

    @contextmanager
    def as_before(self) -> Generator[None]:
        """The terminal is for a while what it was: another program has it."""
        yield
