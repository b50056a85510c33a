"""Ways to run the demo: with pipes, and in a terminal of its own, which is left as it was."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from tests.support import ROOT

DEMO = [sys.executable, "-W", "error", "-m", "ollama_sc.demo"]
NOBODY = "127.0.0.1:9"


def environment(host: str = NOBODY, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    kept.pop("NO_COLOR", None)
    screen = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color", "PYTHON_COLORS": "0"}
    return {**kept, **screen, "OLLAMA_HOST": host, **more}


class Program:
    """A demo that runs."""

    def __init__(self, told: io.FileIO) -> None:
        self._told = told
        self.pid = int(told.readline())

    def wait(self, seconds: float = 50) -> int:
        """Its exit status, or minus the signal that ended it."""
        assert select.select([self._told], [], [], seconds)[0], "it does not end"
        return int(self._told.readline())

    def end(self) -> None:
        """Whatever it does."""
        with self._told, suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


_door: socket.socket | None = None


@contextmanager
def preloaded() -> Iterator[None]:
    """The process that the others are forked from."""
    global _door
    mine, its = socket.socketpair()
    command = [sys.executable, "-W", "error", "-m", "tests.docs.preloaded", str(its.fileno())]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), pass_fds=[its.fileno()]):
        its.close()
        with mine:
            _door = mine
            yield
            _door = None


@contextmanager
def started(
    arguments: Sequence[str],
    standard: Sequence[int],
    env: dict[str, str],
    *,
    terminal: bool = False,
) -> Iterator[Program]:
    """`python -W error -m ollama_sc.demo`, with descriptors for stdin, stdout and stderr."""
    assert _door is not None
    told, tell = os.pipe()
    request = {"arguments": list(arguments), "environment": env, "terminal": terminal}
    socket.send_fds(_door, [json.dumps(request).encode()], [*standard, tell])
    os.close(tell)
    program = Program(io.FileIO(told))
    try:
        yield program
    finally:
        program.end()


def piped(*arguments: str, host: str = NOBODY) -> tuple[int, str, str]:
    """Exit status, stdout and stderr where none of them is a terminal."""
    with open(os.devnull) as nothing, ReadPipe() as out, ReadPipe() as err:
        standard = [nothing.fileno(), out.writer, err.writer]
        with started(arguments, standard, environment(host)) as program:
            out.close_writer()
            err.close_writer()
            output = out.read()
            return program.wait(), output, err.read()


class ReadPipe:
    """A pipe that something is read from."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._file = open(self.reader, encoding="utf-8")

    def close_writer(self) -> None:
        os.close(self.writer)

    def read(self) -> str:
        return self._file.read()

    def read_line(self) -> str:
        return self._file.readline()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> ReadPipe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def in_terminal(
    *arguments: str,
    at: bytes | None = None,
    send: bytes | signal.Signals = b"",
    stdin: IO[str] | None = None,
    **more: str,
) -> tuple[int, str]:
    """Exit status and output in a terminal, which is left as it was.

    Args:
        arguments: of the demo.
        at: what has to show up before something is sent.
        send: keys, or a signal.
        stdin: something other than the terminal.
        more: environment variables.
    """
    with terminal() as (master, slave):
        standard = [slave if stdin is None else stdin.fileno(), slave, slave]
        with started(arguments, standard, environment(**more), terminal=True) as program:
            os.close(slave)
            output = conversation(master, program.pid, (at, send))
            return program.wait(10), output


def in_terminal_of_its_own(
    command: Sequence[str], *steps: tuple[bytes | None, bytes | signal.Signals]
) -> tuple[int, str]:
    """The same for another program, and for what is sent in several steps."""
    with (
        terminal() as (master, slave),
        subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment(),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),
        ) as process,
    ):
        os.close(slave)
        try:
            output = conversation(master, process.pid, *steps)
            return process.wait(10), output
        finally:
            process.kill()


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Both sides of a terminal, which afterwards is in the mode that it had."""
    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(master)
        yield master, slave
        assert termios.tcgetattr(master) == before
    finally:
        os.close(master)


def conversation(master: int, pid: int, *steps: tuple[bytes | None, bytes | signal.Signals]) -> str:
    """All that is shown; what is sent when something shows up."""
    output = b""
    todo = list(steps)
    seen = 0
    end = time.monotonic() + 50
    while True:
        assert select.select([master], [], [], max(0, end - time.monotonic()))[0], output
        try:
            block = os.read(master, 65536)
        except OSError:  # Linux's way to say that the other side is closed
            return output.decode()
        if not block:
            return output.decode()
        output += block
        mark, what = todo[0] if todo else (None, b"")
        if mark is not None and mark in output[seen:]:
            seen = len(output)
            todo.pop(0)
            if isinstance(what, signal.Signals):
                os.kill(pid, what)
            else:
                os.write(master, what)
