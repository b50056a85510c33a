"""Keys from a terminal, whose mode is given back on every way out.

It waits for them as for a socket, in either event loop, without a thread.
"""

import os
import signal
import termios
from collections.abc import Generator
from contextlib import contextmanager, suppress

import anyio

from ollama_sc.demo._keys import ABORT, Keys

_CTRL_Z = b"\x1a"


class TerminalKeys(Keys):
    """See `Keys`.

    Args:
        terminal: its descriptor.
    """

    def __init__(self, terminal: int) -> None:
        super().__init__()
        self._terminal = terminal
        self._mode: list[int | list[bytes | int]] | None = None  # what is given back

    @property
    def are_read(self) -> bool:
        """See `Keys`."""
        return self._mode is not None

    async def listen(self) -> None:
        """See `Keys`."""
        while True:
            await anyio.wait_readable(self._terminal)
            if not self._is_mine():  # what is typed is for another program
                await anyio.sleep(0.2)
                continue
            try:
                typed = os.read(self._terminal, 1024)
            except OSError:
                return
            if not typed:
                return
            if ABORT in typed.decode("ascii", "ignore").lower():
                self._pressed.set()
            if _CTRL_Z in typed:
                signal.raise_signal(signal.SIGTSTP)  # whose handler stops this job in order

    @contextmanager
    def single(self) -> Generator[None]:
        """See `Keys`."""
        self._take()
        try:
            yield
        finally:
            self._give_back()

    @contextmanager
    def as_before(self) -> Generator[None]:
        """See `Keys`."""
        self._give_back()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        if not self._is_mine():
            return
        with suppress(termios.error):
            mode = termios.tcgetattr(self._terminal)
            mine = termios.tcgetattr(self._terminal)
            mine[3] &= ~(termios.ICANON | termios.ECHO)
            mine[6][termios.VMIN], mine[6][termios.VTIME] = 1, 0
            # Else Ctrl-Z would stop `make` at once, and the shell's prompt come before our end.
            mine[6][termios.VSUSP] = os.fpathconf(self._terminal, "PC_VDISABLE").to_bytes()
            # Not TCSADRAIN: a terminal that was stopped by Ctrl-S would hold up the event loop.
            termios.tcsetattr(self._terminal, termios.TCSANOW, mine)
            self._mode = mode

    def _give_back(self) -> None:
        mode, self._mode = self._mode, None
        if mode is not None and self._is_mine():
            with suppress(termios.error):
                termios.tcsetattr(self._terminal, termios.TCSANOW, mode)

    def _is_mine(self) -> bool:
        """Whether this program is in the foreground: another one would be stopped for this."""
        try:
            return os.tcgetpgrp(self._terminal) == os.getpgrp()
        except OSError:  # a terminal without job control
            return True
