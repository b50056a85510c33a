"""Signals end a job of the command in order, and nothing that was done is lost."""

from __future__ import annotations

import os
import select
import signal
from pathlib import Path

import pytest

from tests.cli.support import (
    BACKENDS,
    COMMAND,
    MODEL,
    contents,
    environment,
    exists,
    manifest,
    run,
)
from tests.forking import PIPE, Process


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(url: str, tmp_path: Path, backend: str, number: signal.Signals) -> None:
    """While a pipe has nothing to read: done rows are kept, the status says why, it goes on."""
    lines = [f"text {n}\n" for n in range(60)]
    arguments = ["embed", "-", "--input-format", "lines", "-m", MODEL, "-o", str(tmp_path / "out")]
    arguments += ["--shard-rows", "20", "--batch-size", "5", "--backend", backend, "--host", url]
    reading, writing = os.pipe()
    with Process([*COMMAND, *arguments], stdin=reading, stderr=PIPE, env=environment()) as process:
        os.close(reading)
        os.write(writing, "".join(lines[:47]).encode())
        done = 0
        while done < 40:
            done = manifest(tmp_path / "out")["progress"]["rows"] if exists(tmp_path) else 0
            select.select([], [], [], 0.01)
        process.send_signal(number)
        text = process.stderr.read()
        assert process.wait(20) == 128 + number
    os.close(writing)
    assert f"ollama-sc: stopped by {number.name}\n" in text
    assert "Traceback" not in text
    done = manifest(tmp_path / "out")["progress"]["rows"]
    assert done in (40, 45)
    assert text.endswith(f"{done} rows are done\nGo on with: ollama-sc {' '.join(arguments)}\n")
    again = run(*arguments, input="".join(lines).encode())
    assert again.returncode == 0
    assert again.stderr.startswith(f"Going on after {done} rows that are done\n")
    straight = [
        str(tmp_path / "straight") if "/out" in argument else argument for argument in arguments
    ]
    assert run(*straight, input="".join(lines).encode()).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_nobody_writes_to_a_pipe(
    url: str, tmp_path: Path, backend: str, number: signal.Signals
) -> None:
    """A named pipe that nobody has opened for writing keeps no job from its end."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    program = """
import os, sys
from ollama_sc.cli import main
def audit(event, arguments):
    if event == "open" and str(arguments[0]).endswith("pipe.jsonl"):
        os.write(1, b"opening\\n")  # print() in this thread would hold a lock, maybe at the exit
sys.addaudithook(audit)
sys.exit(main())
"""
    arguments = ["embed", str(tmp_path / "pipe.jsonl"), "-m", MODEL, "-o", str(tmp_path / "out")]
    with Process(
        ["-c", program, *arguments, "--backend", backend, "--host", url],
        stdout=PIPE, stderr=PIPE, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "opening\n"
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        text = process.stderr.read()
    stopping = f"{number.name}: stopping; another signal ends it at once\n"
    assert text.startswith(f"{stopping}ollama-sc: stopped by {number.name}\nGo on with: ")
    assert not (tmp_path / "out").exists()


def test_a_second_signal_ends_it_at_once(url: str, tmp_path: Path) -> None:
    """Where keeping what is done takes too long; nothing is lost that the manifest counts."""
    program = """
import sys, anyio
from ollama_sc.cli import _shards, main
async def keep(self):
    print("keeping", flush=True)
    await anyio.sleep_forever()
_shards.Shards.save_partial = keep
sys.exit(main())
"""
    arguments = ["embed", "-", "--input-format", "lines", "-m", MODEL, "-o", str(tmp_path / "out")]
    with Process(
        ["-c", program, *arguments, "--host", url, "--shard-rows", "1"],
        stdin=PIPE, stdout=PIPE, env=environment(),
    ) as process:  # fmt: skip
        process.stdin.write("text\n" * 65)
        process.stdin.flush()
        while not exists(tmp_path):
            select.select([], [], [], 0.01)
        while manifest(tmp_path / "out")["progress"]["rows"] < 64:
            select.select([], [], [], 0.01)
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "keeping\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert manifest(tmp_path / "out")["progress"]["rows"] == 64
