"""Programs that run in processes of their own, forked from one that has imported everything."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

from tests.support import LONG, ROOT

SECONDS = 30  # that a program may take
PYTHON = [sys.executable, "-X", "dev", "-W", "error"]
# asyncio's debug mode tells of each callback that took long, as they do on a busy machine.
QUIET = """
import logging
logging.getLogger("asyncio").addFilter(lambda record: not str(record.msg).startswith("Executing "))
"""


class Done(NamedTuple):
    """A program that has ended, and what it said."""

    returncode: int
    stdout: str
    stderr: str


class Programs:
    """Runs programs one after the other; a context manager.

    Args:
        folder: for what they write.
    """

    def __init__(self, folder: Path) -> None:
        self._stdout = folder / "stdout"
        self._stderr = folder / "stderr"
        self._said = b""

    def __enter__(self) -> Programs:
        self._forker = subprocess.Popen(
            [*PYTHON, "-m", "tests.embedding.forker"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        return self

    def __exit__(self, *failure: object) -> None:
        with self._forker:
            self._forker.kill()

    def run(self, program: str) -> Done:
        """Run a program in Python's developer mode, where each warning is an error.

        The long form starts a new Python for each.
        """
        program = QUIET + textwrap.dedent(program)
        if LONG:
            done = subprocess.run(
                [*PYTHON, "-c", program],
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            return Done(done.returncode, done.stdout, done.stderr)
        asked = json.dumps([program, str(self._stdout), str(self._stderr)])
        assert self._forker.stdin is not None
        self._forker.stdin.write(asked.encode() + b"\n")
        self._forker.stdin.flush()
        process = self._number()
        try:
            returncode = self._number()
        except TimeoutError:
            os.killpg(process, signal.SIGKILL)
            self._number()
            raise
        return Done(returncode, self._stdout.read_text(), self._stderr.read_text())

    def _number(self) -> int:
        """The next number that the forker says."""
        assert self._forker.stdout is not None
        source = self._forker.stdout.fileno()
        deadline = time.monotonic() + SECONDS
        while b"\n" not in self._said:
            if not select.select([source], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError
            more = os.read(source, 100)
            assert more, "the forker has ended"
            self._said += more
        number, _, self._said = self._said.partition(b"\n")
        return int(number)
