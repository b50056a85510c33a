"""Processes that are forked, not started, are as those that are started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forking
from tests.cli.support import environment

# What a process finds, that could be another's.
FOUND = """
import asyncio, json, os, signal, sys, threading, warnings
files = sys.stdin, sys.stdout, sys.stderr
print(json.dumps({
    "module": __name__,
    "arguments": sys.argv,
    "input": sys.stdin.read(),
    "folder": os.getcwd(),
    "environment": dict(os.environ),
    "leads its session": os.getsid(0) == os.getpgrp() == os.getpid(),
    "descriptors": sorted(os.listdir("/dev/fd")),
    "files": [(file.fileno(), file.mode, file.encoding, file.errors, file.line_buffering)
              for file in files],
    "threads": [thread.name for thread in threading.enumerate()],
    "loop": asyncio._get_running_loop(),
    "handlers": {number: str(signal.getsignal(number)) for number in signal.valid_signals()},
    "wakeup": signal.set_wakeup_fd(-1),
    "blocked": [*signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "options": sys.warnoptions,
    "warnings": ("error", None, Warning, None, 0) in warnings.filters,
}))
"""


@pytest.mark.skipif(
    "COVERAGE_RUN" in os.environ, reason="coverage has signal handlers and files of its own"
)
def test_a_forked_process_is_as_one_that_is_started(tmp_path: Path) -> None:
    """It finds the same: files, signals, session, environment; no thread or loop of another."""
    arguments = ["-c", FOUND, "one", "über"]
    options: dict[str, Any] = {"env": environment(MINE="yes"), "cwd": tmp_path}
    started = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        input="text", capture_output=True, check=True, text=True, start_new_session=True, **options,
    )  # fmt: skip
    forked = forking.run(arguments, input=b"text", **options)
    assert (forked.returncode, forked.stderr) == (0, "")
    assert json.loads(forked.stdout) == json.loads(started.stdout)


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ("import sys; print('said'); sys.exit(7)", 7, ""),
        ("import sys; print('said'); sys.exit('why')", 1, "why\n"),
        ("print('said'); 1 / 0", 1, "ZeroDivisionError: division by zero\n"),
        ("print('said'); file = open('/dev/null'); del file", 0, "ResourceWarning: unclosed file "),
        ("import atexit; atexit.register(print, 'said')", 0, ""),
        ("import os, signal; print('said', flush=True); os.kill(os.getpid(), 15)", -15, ""),
    ],
)
def test_it_ends_as_python_ends(program: str, status: int, said: str) -> None:
    """With its status or its signal; what it printed is there, and what was wrong."""
    done = forking.run(["-c", program], env=environment())
    assert (done.returncode, done.stdout) == (status, "said\n")
    assert said in done.stderr
    assert bool(said) == bool(done.stderr)


def test_a_kill_is_of_the_process_itself() -> None:
    """Its number is that of the process at work, and no later one gets the signal."""
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with forking.Process(["-c", program], stdout=forking.PIPE, env=environment()) as process:
        assert int(process.stdout.readline()) == process.pid
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.kill()
        assert process.wait(20) == -signal.SIGKILL
        process.kill()
        assert process.poll() == -signal.SIGKILL
