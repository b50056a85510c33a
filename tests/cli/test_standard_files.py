"""Standard input and stderr that are closed, full, or have nobody at the other end."""

from __future__ import annotations

import os
import pty
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forking
from tests.cli.support import (
    COMMAND,
    MODEL,
    environment,
    exists,
    manifest,
    write_jsonl,
)


def forked(arguments: list[str], stderr: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What bash does with the same word, of a forked process."""
    program = ["-m", "ollama_sc.cli"]
    options: dict[str, Any] = {}
    if stderr == "2>/dev/full":
        options["stderr"] = os.open("/dev/full", os.O_WRONLY)
    elif stderr == "2>&1 >&3 | true":
        reading, options["stderr"] = os.pipe()
        os.close(reading)
    else:  # and what Python's start makes of a descriptor that is closed
        closed = "import os, sys; from ollama_sc.cli import main; sys.stderr = os.close(2); "
        closed += "sys.stdin = os.close(0); " if "<&-" in stderr else ""
        program = ["-c", f"{closed}sys.exit(main())"]
    done = forking.run([*program, *arguments], env=environment(), cwd=cwd, **options)
    if options:
        os.close(options["stderr"])
    return done


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full", "2>&1 >&3 | true", "2>&- <&-"])
def test_a_job_needs_no_listener(url: str, tmp_path: Path, stderr: str) -> None:
    """With stderr closed, full or without a reader the statuses are the same, and stdout is empty.

    The first of the jobs is one of a Python that starts like that.
    """
    (tmp_path / "some.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    write_jsonl(tmp_path / "all.jsonl", 3)
    for name, field, status in (("all", "text", 0), ("some", "text", 1), ("all", "no", 2)):
        arguments = ["embed", f"{name}.jsonl", "--field", field, "-m", MODEL, "-o", name + field]
        arguments += ["--host", url]
        if status == 0:
            command = shlex.join([sys.executable, *COMMAND, *arguments])
            done = subprocess.run(
                ["bash", "-c", f"exec 3>&1; {command} {stderr}; exit ${{PIPESTATUS[0]}}"],
                env=environment(), check=False, capture_output=True, cwd=tmp_path, timeout=50,
                text=True,
            )  # fmt: skip
        else:
            done = forked(arguments, stderr, tmp_path)
        assert (done.returncode, done.stdout) == (status, "")


def test_a_mistake_of_the_command_needs_no_listener() -> None:
    """Its own errors have their status, too, where their traceback cannot be written."""
    code = "import sys; from ollama_sc.cli import _app, main; _app.run = None; sys.exit(main())"
    for stderr in ("2>&-", "2>/dev/full"):
        command = f"{shlex.join([sys.executable, '-c', code])} {stderr}"
        assert subprocess.run(["bash", "-c", command], check=False).returncode == 3


def test_a_terminal_that_goes_away_ends_nothing(url: str, tmp_path: Path) -> None:
    """The bar has nowhere to go then."""
    arguments = ["embed", "-", "--input-format", "lines", "-m", MODEL, "-o", str(tmp_path / "out")]
    master, slave = pty.openpty()
    with forking.Process(
        [*COMMAND, *arguments, "--host", url, "--batch-size", "1", "--shard-rows", "10"],
        stdin=forking.PIPE, stdout=forking.DEVNULL, stderr=slave, env=environment(),
    ) as process:  # fmt: skip
        os.close(slave)
        process.stdin.write("first\n" * 65)
        process.stdin.flush()
        while not exists(tmp_path):
            os.read(master, 65536)
        os.close(master)
        process.stdin.write("then\n" * 1000)
        process.stdin.close()
        assert process.wait(30) == 0
    assert manifest(tmp_path / "out")["progress"]["rows"] == 1065


def test_a_closed_standard_input_is_refused(tmp_path: Path) -> None:
    """`-` without a standard input draws a message and status 2, not a traceback."""
    done = subprocess.run(
        [sys.executable, *COMMAND, "embed", "-", "-m", MODEL, "-o", str(tmp_path / "out")],
        env=environment(),
        preexec_fn=lambda: os.close(0),  # noqa: PLW1509
        stdin=None,
        capture_output=True,
        check=False,
        timeout=50,
        text=True,
    )
    assert (done.returncode, done.stderr) == (2, "ollama-sc: standard input is closed\n")
