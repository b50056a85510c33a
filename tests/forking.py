"""Processes of Python that need no start: a server that has imported everything forks them.

An interpreter that starts and imports the command takes most of a second, a fork some milliseconds.
What is forked is a process like any other: its arguments, environment, folder, session and standard
files are its own, signals reach it alone, and it ends as Python ends. Only what it imports is there
before it begins, and warnings are errors in it. A test whose subject is the start takes
`subprocess`.
"""

from __future__ import annotations

import atexit
import gc
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import DEVNULL, PIPE
from types import ModuleType
from typing import Any

# What the command and the examples load, also late, on either event loop.
IMPORTED = """
ollama_sc.cli._app ollama_sc.cli._bar ollama_sc.testing anyio._backends._asyncio
anyio._backends._trio httptools pandas pyarrow.pandas_compat pyarrow.parquet stamina cyclopts.help
cyclopts.config docstring_parser rich.markdown
"""


# -- the tests' side -------------------------------------------------------------------------------


class Process:
    """What `subprocess.Popen` is, of a forked process, as far as tests need it.

    Args:
        arguments: what would follow `python`: `-m` and a module, `-c` and a program, or a file;
            then its own arguments.
        stdin, stdout, stderr: a file, a descriptor, `PIPE` or `DEVNULL`; stdout and stderr are this
            process's if not given.
        env: its whole environment; None: this process's.
        cwd: its folder; None: this process's.
    """

    def __init__(
        self,
        arguments: Sequence[str | Path],
        *,
        stdin: Any = DEVNULL,
        stdout: Any = 1,
        stderr: Any = 2,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.args = [*map(str, arguments)]
        self.returncode: int | None = None
        with ExitStack() as given:  # closed here once the process has them
            self._connection, connection = Pipe()
            given.callback(connection.close)
            self.stdin, read = _ends(given, stdin, "w")
            self.stdout, written = _ends(given, stdout, "r")
            self.stderr, complained = _ends(given, stderr, "r")
            server = _server()
            socket.send_fds(server, [b" "], [connection.fileno(), read, written, complained])
            self._connection.send(
                (self.args, str(cwd or Path.cwd()), dict(os.environ if env is None else env))
            )
        self.pid: int = self._connection.recv()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what has not ended, and close everything."""
        self.kill()
        self.wait()
        for file in (self.stdin, self.stdout, self.stderr):
            if file is not None:
                with suppress(BrokenPipeError):
                    file.close()

    def poll(self) -> int | None:
        """The exit status, or less the signal's number; None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The same, once it has ended."""
        if self.returncode is None:
            if not self._connection.poll(timeout):
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = self._connection.recv()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(9)


def run(
    arguments: Sequence[str | Path], *, input: bytes = b"", timeout: float = 50, **options: Any
) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run` does: wait for a process, give it a pipe, take what it prints."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        files = {"stdin": PIPE, "stdout": stdout, "stderr": stderr}
        with Process(arguments, **files | options) as process:
            if process.stdin is not None:
                with suppress(BrokenPipeError):
                    process.stdin.buffer.write(input)
                    process.stdin.close()
            status = process.wait(timeout)
        said = [file.seek(0) or file.read().decode() for file in (stdout, stderr)]
    return subprocess.CompletedProcess(process.args, status, *said)


def _ends(given: ExitStack, file: Any, mode: str) -> tuple[Any, int]:
    """Our end, if it is a pipe, and the descriptor that the process gets."""
    if file == PIPE:
        reading, writing = os.pipe()
        ours, theirs = (writing, reading) if mode == "w" else (reading, writing)
        given.callback(os.close, theirs)
        return open(ours, mode, encoding="utf-8", newline=""), theirs
    if file == DEVNULL:
        file = given.enter_context(open(os.devnull, "r+b", buffering=0))
    return None, file if isinstance(file, int) else file.fileno()


@cache
def _server() -> socket.socket:
    """Where the server takes requests; it ends when this end is closed."""
    from tests.support import ROOT  # the server itself needs nothing of that

    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "tests.forking"],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the tests
            cwd=ROOT,
        )

    @atexit.register
    def end() -> None:
        ours.close()
        process.wait()

    return ours


# -- the server ------------------------------------------------------------------------------------


def _serve() -> None:
    """Fork at each request. Returns in what is forked, and once the tests have ended."""
    for name in IMPORTED.split():
        import_module(name)
    gc.collect()
    gc.freeze()
    requests = socket.socket(fileno=0)
    while True:
        _, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
        if not descriptors:
            requests.close()
            return
        if _fork() == 0:
            requests.detach()
            _start(Connection(descriptors[0]), descriptors[1:])
            return
        for descriptor in descriptors:
            os.close(descriptor)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _start(connection: Connection, files: Sequence[int]) -> None:
    """Fork once more: wait here, to tell how the process ends, and be the process there."""
    arguments, cwd, env = connection.recv()
    pid = _fork()
    if pid:
        for descriptor in files:
            os.close(descriptor)
        connection.send(pid)
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError):
            connection.send(os.waitstatus_to_exitcode(status))
        os._exit(0)
    connection.close()
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, descriptor in enumerate(files):
        os.dup2(descriptor, number)
        os.close(descriptor)
    # A shell has these ignored in what it starts in the background, as all of the tests can be.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())  # as at a start
    _run(arguments)


def _run(arguments: list[str]) -> None:
    """Do what `python` does with these arguments."""
    match arguments:
        case ["-m", module, *rest]:
            sys.argv[1:] = rest
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", program, *rest]:
            sys.argv = ["-c", *rest]
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(program, "<string>", "exec"), main.__dict__)
        case [path, *rest]:
            sys.argv = [path, *rest]
            runpy.run_path(path, run_name="__main__")


def _fork() -> int:
    with warnings.catch_warnings():
        # Of threads: those of the libraries' own allocators and such, which know of forks.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


if __name__ == "__main__":
    _serve()
