"""What a job shows while it runs: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import os
import pty
import signal
from pathlib import Path

import pytest

from ollama_sc.cli import _bar, _reporter
from tests.cli.support import (
    BACKENDS,
    COMMAND,
    MODEL,
    environment,
    write_jsonl,
)
from tests.forking import PIPE, Process


def in_terminal(*arguments: str | Path, host: str, stop: bool = False) -> tuple[int, str, str]:
    """Status, stderr in a terminal, and stdout; with `stop`, Ctrl-C when the first shard is there."""
    master, slave = pty.openpty()
    with Process(
        [*COMMAND, *arguments], stdout=PIPE, stderr=slave, env=environment(OLLAMA_HOST=host)
    ) as process:
        os.close(slave)
        output = b""
        try:
            while True:
                try:
                    block = os.read(master, 65536)
                except OSError:  # Linux's way to say that the other side is closed
                    break
                output += block
                if stop and b"/s" in output:
                    stop = False
                    process.send_signal(signal.SIGINT)
            return process.wait(20), output.decode(), process.stdout.read()
        finally:
            os.close(master)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_terminal_gets_a_bar(url: str, tmp_path: Path, backend: str) -> None:
    """With counts, at the end all of them; the cursor is given back, stdout stays empty."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 2000)
    with corpus.open("a") as file:
        file.write('{"text": null}\n')
    status, shown, out = in_terminal(
        "embed", corpus, "-m", MODEL, "-o", tmp_path / "out", "--backend", backend, host=url
    )
    assert (status, out) == (1, "")
    assert shown.rfind("2,001 of 2,001") < shown.find("Done: 2,001 rows")
    assert "1 failed" in shown
    assert "Done: 2,001 rows in 1 shard" in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") > -1


def test_ctrl_c_in_a_terminal(url: str, tmp_path: Path) -> None:
    """The bar ends, the cursor is back, the way to go on is said."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 100_000)
    status, shown, _ = in_terminal(
        "embed", corpus, "-m", MODEL, "-o", tmp_path / "out", host=url, stop=True
    )
    assert status == 130
    assert "stopped by SIGINT" in shown
    assert "Go on with: ollama-sc embed" in shown
    assert "Traceback" not in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l") > -1


def test_plain_lines_from_time_to_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts, rate, time left and failures, and not more often than is good for a log."""
    now = 100.0
    monkeypatch.setattr(_reporter.time, "monotonic", lambda: now)
    lines = _reporter.LineReporter()
    lines.start(1000, 21_000)
    for now, done, failed in ((101, 1500, 0), (109.9, 2000, 0), (110, 3000, 0), (120, 5000, 2)):
        lines.update(done, failed)
    lines.start(0, None)
    now = 130.0
    lines.update(50, 0)
    lines.start(0, 10)
    now = 140.0
    lines.update(0, 0)
    assert capsys.readouterr().err.splitlines() == [
        "3,000 of 21,000 rows, 200/s, 1 min 30 s left",
        "5,000 of 21,000 rows, 200/s, 1 min 20 s left, 2 failed",
        "50 rows, 5/s",
        "0 of 10 rows, 0/s",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (9.96, "10.0 s"), (12.4, "12 s"), (59.6, "60 s"), (60, "1 min 0 s"),
     (3599.7, "1 h 0 min"), (3660, "1 h 1 min"), (200_000, "55 h 33 min")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    """As people say them."""
    assert _reporter.duration(seconds) == text


def test_a_bar_before_the_job_has_begun(capfd: pytest.CaptureFixture[str]) -> None:
    """What is said before there is anything to count is printed."""
    with _bar.bar_reporter() as shown:
        shown.say("Left out: [bold]x[/bold]")
        shown.update(5, 0)
    assert "Left out: [bold]x[/bold]\n" in capfd.readouterr().err
