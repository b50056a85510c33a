"""stderr, which nobody may hear: it is closed, its reader has died, its disk is full."""

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import TextIO


@contextmanager
def unheard() -> Generator[None]:
    """Let what cannot be written to stderr be lost: a job does not end for want of a listener."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - takes the descriptor of a closed stderr
        heard: TextIO | None = sys.stderr
        file = nowhere if heard is None else heard
        try:
            with redirect_stderr(_Lossy(file)):
                yield
        finally:
            try:
                file.flush()
            except OSError:  # as it would again at the exit, which then had a status of its own
                os.dup2(nowhere.fileno(), file.fileno())


class _Lossy(io.TextIOBase):
    """A file that takes everything."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    @property
    def encoding(self) -> str:  # type: ignore[override] # pyright: ignore[reportIncompatibleVariableOverride] - typeshed's can be set
        """What rich asks for, to draw what can be drawn."""
        return self._file.encoding

    def write(self, text: str, /) -> int:
        with suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def isatty(self) -> bool:
        return self._file.isatty()

    def fileno(self) -> int:
        return self._file.fileno()
