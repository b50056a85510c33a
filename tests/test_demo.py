"""`examples/demo.py`: it shows what it promises, in time, and ends cleanly in every case."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DEMO = [sys.executable, "-W", "error", str(ROOT / "examples" / "demo.py")]
NOBODY = "127.0.0.1:9"
BACKENDS = ["trio", "asyncio"]
BRIEF = ["--seconds", "1", "--texts", "320"]


def environment(host: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    screen = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
    return {**kept, **screen, "OLLAMA_HOST": host}


def run(*arguments: str, host: str = NOBODY) -> str:
    """What the demo prints where stdout is no terminal."""
    done = subprocess.run(
        [*DEMO, *arguments],
        env=environment(host),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert done.stdout.endswith("requests in flight: 0, open connections: 0\n")
    return done.stdout


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """A server that is not the demo's own."""
    with subprocess.Popen(
        [sys.executable, "-m", "ollama_sc.testing", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_server_it_brings_its_own(backend: str) -> None:
    """As `make demo` runs it: all parts, within 20 seconds, and it says what it talks to."""
    start = time.monotonic()
    output = run("--backend", backend)
    assert time.monotonic() - start < 20
    assert f"ollama-sc on {backend}" in output
    assert "No Ollama answers at 127.0.0.1:9." in output
    assert "The bundled fake server stands in: http://127.0.0.1:" in output
    assert 'client.abort("enough") ended 6 requests:' in output
    saw = re.search(r"the server saw the last connection close after ([\d.]+) ms", output)
    assert saw is not None
    assert float(saw[1]) < 1000
    assert re.search(r"^[\d,]+ vectors of 384 numbers in [\d.]+ s: [\d,]+ texts/s", output, re.M)


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_a_server_it_uses_that_one(backend: str) -> None:
    """It takes the models that it finds, and says what can be measured from here."""
    with server("--token-rate", "50", "--tokens", "100000") as url:
        output = run("--backend", backend, *BRIEF, host=url)
    assert f"Server: Ollama at {url}, model" in output
    assert "fake" not in output
    assert "ended 6 requests:" in output
    assert "every consumer had its AbortError, and 0 connections were in use" in output
    assert "320 vectors of 768 numbers" in output


def test_without_an_embedding_model_it_says_so() -> None:
    """The second part is skipped, and it names what is missing."""
    with server("--models", "llama3.2", "--token-rate", "50", "--tokens", "100000") as url:
        output = run(*BRIEF, host=url)
    assert "Skipped: this server has no embedding model." in output


def test_without_a_chat_model_it_brings_its_own_server() -> None:
    """A server that can only embed is not used."""
    with server("--models", "all-minilm") as url:
        output = run(*BRIEF, host=url)
    assert f"The server at {url} has no model for chats." in output
    assert "The bundled fake server stands in" in output


def test_where_all_chats_have_ended_there_is_nothing_to_abort() -> None:
    """A model that says little is finished before the abort."""
    with server("--tokens", "5") as url:
        output = run(*BRIEF, host=url)
    assert "All chats had ended: there was nothing left to abort." in output


def test_a_chat_that_fails_says_why() -> None:
    """What the server answers stands on the screen."""
    with server("--models", "llama3.2", "--parallel", "1", "--max-queue", "0", "--token-rate", "50",
                "--tokens", "100000") as url:  # fmt: skip
        output = run(*BRIEF, host=url)
    assert "failed: POST /api/chat, model 'llama3.2:latest': server busy" in " ".join(
        output.split()
    )
    assert "ended 1 request:" in output


def test_the_picture_is_saved(tmp_path: Path) -> None:
    """`--save-svg` draws the last state of the screen."""
    picture = tmp_path / "demo.svg"
    run(*BRIEF, "--save-svg", str(picture))
    text = picture.read_text()
    assert text.startswith("<svg")
    assert "aborted" in text


def in_terminal(*arguments: str, stop_at: bytes | None = None) -> tuple[int, str]:
    """Exit status and output in a terminal; Ctrl-C where `stop_at` shows up."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*DEMO, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=environment(NOBODY),
        start_new_session=True,
    ) as process:
        os.close(slave)
        output = b""
        try:
            while block := _read(master):
                output += block
                if stop_at is not None and stop_at in output:
                    stop_at = None
                    process.send_signal(signal.SIGINT)
            return process.wait(10), output.decode()
        finally:
            os.close(master)
            process.kill()


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # Linux's way to say that the other side is closed
        return b""


@pytest.mark.parametrize("backend", BACKENDS)
def test_in_a_terminal_it_is_live(backend: str) -> None:
    """Chats are drawn while they stream and after they were aborted, with the cursor given back."""
    status, output = in_terminal("--backend", backend, *BRIEF)
    assert status == 0
    assert "streaming, " in output
    assert "aborted, " in output
    assert "320 of 320" in output
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l")
    assert "Traceback" not in output


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_ends_it_cleanly(backend: str) -> None:
    """In the middle of the chats: no traceback, the cursor is back, the status says why."""
    status, output = in_terminal("--backend", backend, stop_at=b"streaming, ")
    assert status == 128 + signal.SIGINT
    assert "Stopped: every request has been ended." in output
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l")
    assert "Traceback" not in output
