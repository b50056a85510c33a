"""An stderr that may fail: it is closed, its reader has died, its disk is full."""

import io
import os
import sys
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, suppress
from typing import TextIO


@contextmanager
def ignore_stderr_errors() -> Generator[None]:
    """Drop what cannot be written to stderr: that is no reason for a job to end."""
    with open(os.devnull, "w") as null:  # noqa: PTH123 - takes the descriptor of a closed stderr
        original: TextIO | None = sys.stderr
        file = null if original is None else original
        try:
            with redirect_stderr(_ErrorIgnoringFile(file)):
                yield
        finally:
            try:
                file.flush()
            except OSError:  # it would fail again at the exit, and change the exit status
                os.dup2(null.fileno(), file.fileno())


class _ErrorIgnoringFile(io.TextIOBase):
    """Writes to a file, and drops what it does not take."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    @property
    def encoding(self) -> str:  # type: ignore[override] # pyright: ignore[reportIncompatibleVariableOverride] - typeshed's can be set
        """The file's encoding, by which rich chooses what it can draw."""
        return self._file.encoding

    def write(self, text: str, /) -> int:
        with suppress(OSError, ValueError):  # ValueError: it is closed
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._file.flush()

    def isatty(self) -> bool:
        return self._file.isatty()

    def fileno(self) -> int:
        return self._file.fileno()
