"""`python -m ollama_sc.demo`: it shows what it promises, in time, and ends cleanly in every case."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from rich.console import Console

from ollama_sc import AsyncClient
from ollama_sc.demo._chats import _tell_how_many, _Watch
from ollama_sc.demo._keys import Keys
from ollama_sc.demo._options import Options
from ollama_sc.demo._panels import Chat, render
from ollama_sc.demo._screen import Screen
from ollama_sc.demo._server import Server, find_server
from ollama_sc.demo._stage import Stage
from ollama_sc.testing import FakeOllama
from tests.docs.demo_runs import (
    DEMO,
    NOBODY,
    ReadPipe,
    environment,
    in_terminal,
    in_terminal_of_its_own,
    piped,
    preloaded,
    started,
)

BACKENDS = ["trio", "asyncio"]
BRIEF = ["--seconds", "0.15", "--texts", "320"]
WHOLE = "test_without_a_server_it_brings_its_own"  # the last ones here
ENDLESS = {"token_rate": 50, "tokens": 100_000}


def checked(status: int | None, output: str, errors: str) -> str:
    """What holds wherever stdout is no terminal."""
    assert (status, errors) == (0, "")
    assert all(len(line) <= 80 for line in output.splitlines())
    assert "\x1b" not in output
    assert not re.search(" $", output, re.MULTILINE)
    assert output.endswith("requests in flight: 0, open connections: 0\n")
    return output


def run(*arguments: str, host: str = NOBODY) -> str:
    """What the demo prints where stdout is no terminal."""
    return checked(*piped(*arguments, host=host))


def refused(status: int, output: str, errors: str) -> str:
    """What it says where it does not begin: one line, no traceback."""
    assert status == 2
    assert errors.startswith("python -m ollama_sc.demo: ")
    assert errors.count("\n") == 1
    return errors


@pytest.fixture(scope="module", autouse=True)
def process_to_fork() -> Iterator[None]:
    """What `piped` and `in_terminal` need."""
    with preloaded():
        yield


def as_make_runs_it(backend: str) -> tuple[float, int, str, str]:
    """Seconds, exit status, stdout and stderr of the whole demo."""
    start = time.monotonic()
    done = subprocess.run(
        [*DEMO, "--backend", backend],
        env=environment(NOBODY),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    return time.monotonic() - start, done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module", autouse=True)
def whole_runs(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[Any]]]:
    """One on each event loop, beside the other tests: most of its time it waits."""
    wanted = any(item.name.startswith(WHOLE) for item in request.session.items)
    with ThreadPoolExecutor() as threads:
        yield {b: threads.submit(as_make_runs_it, b) for b in BACKENDS if wanted}


@contextmanager
def server(**settings: object) -> Iterator[str]:
    """A server that is not the demo's own; nothing of it is left open."""
    fake = FakeOllama(**settings)  # type: ignore[arg-type]
    with start_blocking_portal() as portal:
        with portal.wrap_async_context_manager(fake):
            yield fake.url
            portal.call(fake.wait_all_closed)
        assert fake.in_flight == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_a_server_it_uses_that_one(backend: str) -> None:
    """It takes the models that it finds, and says what can be measured from here."""
    with server(**ENDLESS) as url:
        output = run("--backend", backend, *BRIEF, host=url)
    assert f"Server: Ollama at {url}, model" in output
    assert "fake" not in output
    assert "ended 6 requests:" in output
    assert "every consumer had its AbortError, and 0 connections were in use" in output
    assert "320 vectors of 768 numbers" in output


def test_a_server_and_its_models_can_be_named() -> None:
    """The options go before the environment and the smallest model."""
    with server(**ENDLESS) as url:
        options = ["--host", url, "--model", "qwen3", "--embed-model", "all-minilm"]
        output = run(*options, *BRIEF)
    assert f"Server: Ollama at {url}, model qwen3" in output
    assert "320 vectors of 384 numbers" in output or "320 vectors of 768 numbers" in output


def test_a_model_that_the_server_lacks_is_named() -> None:
    """It says what there is in its place."""
    with server(models=["llama3.2"]) as url:
        text = refused(*piped("--model", "qwen3", host=url))
        assert text.endswith(f"the server at {url} has no model qwen3; it has llama3.2:latest\n")


def test_a_host_that_cannot_be_right_is_named() -> None:
    """It is no server that does not answer."""
    assert "must be http or https, not 'ftp'" in refused(*piped("--host", "ftp://x"))


def without(package: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr where a package is not installed."""
    program = (
        f"import runpy, sys; sys.modules[{package!r}] = None; sys.argv[1:] = {list(arguments)};"
        "runpy.run_module('ollama_sc.demo', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("package", ["rich", "trio"])
def test_what_is_missing_is_named(package: str) -> None:
    """With the command that brings it."""
    text = refused(*without(package, "--backend", "trio"))
    assert f"needs {package}, which is missing: pip install 'ollama-sc[demo]'" in text


def test_without_trio_it_runs_on_asyncio() -> None:
    """Where nothing else is said."""
    assert "ollama-sc on asyncio" in checked(*without("trio", *BRIEF))


@pytest.mark.parametrize("option", [["--seconds", "0"], ["--seconds", "x"], ["--texts", "-1"]])
def test_a_number_that_cannot_be_right_is_refused(option: list[str]) -> None:
    """The error names the option and what was written."""
    status, _, errors = piped(*option)
    assert status == 2
    assert re.search(rf"argument {option[0]}: it must be .*, not '{option[1]}'\n$", errors)


def test_where_one_chat_is_answered_at_a_time_it_says_why_the_others_wait() -> None:
    """As a real server with one slot for each model."""
    with server(parallel=1, **ENDLESS) as url:
        output = " ".join(run(*BRIEF, host=url).split())
    assert "5 of 6 wait in the server's queue: it answers 1 at a time." in output
    assert "OLLAMA_NUM_PARALLEL=6, set where it runs, lets it answer all." in output
    assert "5 waited in the server's queue, for want of OLLAMA_NUM_PARALLEL=6" in output
    assert "ended 6 requests" in output


@pytest.mark.anyio
async def test_where_the_queue_moves_on_it_is_no_longer_to_blame(anyio_backend: object) -> None:
    """Nor is it at once, for some chats are a little slower than others."""
    async with AsyncClient(NOBODY) as client:
        stage = Stage(Screen(), Keys(), Server(NOBODY, "llama3.2", None), client, 4.0)
        chats = [Chat(f"subject {number}") for number in range(6)]
        watch = _Watch(stage, chats)
        watch._began = start = anyio.current_time()
        for chat in chats[:3]:
            chat.state, chat.parts = "streaming", 1
        watch._look_for_queue(start + 0.9)
        assert not any(chat.queued for chat in chats)
        watch._look_for_queue(start + 1.1)
        assert [chat.queued for chat in chats] == [False] * 3 + [True] * 3
        assert (
            "3 of 6 wait in the server's queue: it answers 3 at a time." in watch._why_they_wait()
        )
        for chat in chats:
            chat.state, chat.parts = "streaming", 1
        watch._look_for_queue(start + 1.2)
        assert watch._why_they_wait() == ""
        _tell_how_many(stage, chats)
        assert stage.seen == [(True, "6 chats streamed side by side, each a task")]


def test_without_an_embedding_model_it_says_so() -> None:
    """The second part is skipped, and it names what is missing."""
    with server(models=["llama3.2"], **ENDLESS) as url:
        output = run(*BRIEF, host=url)
    assert "Skipped: this server has no embedding model." in output


def test_without_a_chat_model_it_brings_its_own_server() -> None:
    """A server that can only embed is not used."""
    with server(models=["all-minilm"]) as url:
        output = run(*BRIEF, host=url)
    assert f"The server at {url} has no model for chats." in output
    assert "The bundled fake server stands in" in output


def test_where_all_chats_have_ended_there_is_nothing_to_abort() -> None:
    """A model that says little is finished before the abort."""
    with server(tokens=5) as url:
        output = run(*BRIEF, host=url)
    assert "All chats had ended: there was nothing left to abort." in output


def test_a_chat_that_fails_says_why() -> None:
    """What the server answers stands on the screen."""
    with server(models=["llama3.2"], parallel=1, max_queue=0, **ENDLESS) as url:
        output = run(*BRIEF, host=url)
    assert "failed: POST /api/chat, model 'llama3.2:latest': server busy" in " ".join(
        output.split()
    )
    assert "ended 1 request:" in output
    assert "5 of 6 chats failed: see above" in output


def test_a_job_that_fails_says_why() -> None:
    """The rest of the demo goes on."""
    with server(embed_error=lambda text: (400, "no such text"), **ENDLESS) as url:
        output = run(*BRIEF, host=url)
    assert "It failed: " in output
    assert "the embedding job failed: see above" in output


def test_the_picture_is_saved(tmp_path: Path) -> None:
    """`--save-svg` draws the last state of the screen."""
    picture = tmp_path / "demo.svg"
    run(*BRIEF, "--save-svg", str(picture))
    text = picture.read_text()
    assert text.startswith("<svg")
    assert "aborted" in text


def test_a_picture_that_cannot_be_saved_is_named(tmp_path: Path) -> None:
    """After all has been shown."""
    picture = tmp_path / "missing" / "demo.svg"
    status, output, errors = piped(*BRIEF, "--save-svg", str(picture))
    assert status == 1
    assert "what you saw" in output
    assert errors.startswith("python -m ollama_sc.demo: ")
    assert str(picture) in errors
    assert errors.count("\n") == 1


def test_where_nobody_reads_on_it_ends() -> None:
    """As in `... | head -1`: no traceback, and the status of programs that SIGPIPE ends."""
    with open(os.devnull) as nothing, ReadPipe() as out, ReadPipe() as errors:
        standard = [nothing.fileno(), out.writer, errors.writer]
        with started(BRIEF, standard, environment()) as program:
            out.close_writer()
            errors.close_writer()
            assert "ollama-sc on " in out.read_line()
            out.close()
            assert errors.read() == ""
            assert program.wait() == 128 + signal.SIGPIPE


# -- in a terminal ---------------------------------------------------------------------------------


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
    # What was asked for is no alarm: nothing is red, and the last lines have green ticks.
    assert "\x1b[31m" not in output
    assert output.count("\x1b[1;32m✓") == 4


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_c_ends_it_cleanly(backend: str) -> None:
    """In the middle of the chats: no traceback, the cursor is back, the status says why."""
    status, output = in_terminal("--backend", backend, at=b"streaming, ", send=signal.SIGINT)
    assert status == 128 + signal.SIGINT
    assert "Stopped: every request has been ended." in output
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l")
    assert "Traceback" not in output
    last = output[output.rfind("\x1b[?25l") :]
    assert "cancelled, " in last or "cancelled while it waited" in last


@pytest.mark.parametrize("send", [b"\x03\x03", signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_every_signal_ends_it_cleanly(send: bytes | signal.Signals) -> None:
    """An impatient Ctrl-C on the keyboard, too."""
    status, output = in_terminal("--backend", "asyncio", at=b"streaming, ", send=send)
    assert status == 128 + (signal.SIGINT if isinstance(send, bytes) else send)
    assert "Stopped: every request has been ended." in output
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l")
    assert "Traceback" not in output


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_key_aborts_the_chats(backend: str) -> None:
    """At once, without Enter; other keys do nothing, and none is shown."""
    start = time.monotonic()
    status, output = in_terminal(
        "--backend", backend, "--seconds", "30", "--texts", "16", at=b"streaming, ", send=b"xyzA"
    )
    assert time.monotonic() - start < 25
    assert status == 0
    assert "a: abort all of them now (by itself in 30 s)" in output
    assert "xyz" not in output
    assert 'client.abort("a was pressed")' in output
    assert "one job turned 16 texts into vectors" in output


def test_a_key_aborts_the_job() -> None:
    """What came before stays counted."""
    status, output = in_terminal(
        "--seconds", "0.3", "--texts", "1000000", at=b"abort the job", send=b"a"
    )
    assert status == 0
    assert 'client.abort("enough")' in output
    assert re.search(r"one job turned [\d,]+ texts into vectors, until a was", output)


@pytest.mark.parametrize("without", ["stdin", "TERM"])
def test_where_there_is_no_terminal_there_is_no_key(without: str) -> None:
    """Nothing promises one."""
    if without == "stdin":
        with open(os.devnull) as nothing:
            status, output = in_terminal(*BRIEF, stdin=nothing)
        assert "client.abort() in 0 s" in output
    else:
        status, output = in_terminal(*BRIEF, TERM="dumb")
        assert "\x1b" not in output
    assert status == 0
    assert "a: abort" not in output


def test_without_colours_nothing_is_coloured() -> None:
    """`NO_COLOR`, see https://no-color.org: bold is none."""
    status, output = in_terminal(*BRIEF, NO_COLOR="1")
    assert status == 0
    assert set(re.findall(r"\x1b\[([\d;]*)m", output)) == {"0", "1"}


def test_an_exception_gives_the_terminal_back() -> None:
    """A mistake of the demo itself is a traceback in a terminal that shows what is typed."""
    program = (
        "import anyio, sys; from ollama_sc.demo import _app, __main__ as demo\n"
        "async def broken(stage, texts):\n"
        "    with stage.screen.live(lambda: 'drawn'):\n"
        "        assert stage.keys.are_read\n"
        "        raise ZeroDivisionError('a mistake')\n"
        "_app.show_chats = _app.show_vectors = broken\n"
        "_app.show_chats = lambda stage: broken(stage, 0)\n"
        "sys.argv[1:] = []\n"
        "sys.exit(demo.main())"
    )
    status, output = in_terminal_of_its_own([sys.executable, "-c", program])
    assert status == 1
    assert "ZeroDivisionError: a mistake" in output
    assert output.rfind("\x1b[?25h") > output.rfind("\x1b[?25l")


STOPPED = """
import os, signal, subprocess, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
before = termios.tcgetattr(0)
demo = subprocess.Popen(sys.argv[1:], process_group=0)
os.tcsetpgrp(0, demo.pid)
status = os.waitpid(demo.pid, os.WUNTRACED)[1]
assert os.WIFSTOPPED(status), status
assert termios.tcgetattr(0) == before
print("it is stopped", flush=True)
os.killpg(demo.pid, signal.SIGCONT)
sys.exit(demo.wait())
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_ctrl_z_gives_the_terminal_back_for_a_while(backend: str) -> None:
    """The shell finds it as it was; afterwards the demo goes on, and the key works again."""
    demo = [*DEMO, "--backend", backend, "--seconds", "30", "--texts", "16"]
    status, output = in_terminal_of_its_own(
        [sys.executable, "-c", STOPPED, *demo],
        (b"streaming, ", b"\x1a"),
        (b"it is stopped\r\n\x1b[?25l", b"a"),
    )
    assert status == 0
    before, _, after = output.partition("it is stopped")
    assert before.rfind("\x1b[?25h") > before.rfind("\x1b[?25l")
    assert 'client.abort("a was pressed")' in after


BESIDE = """
import subprocess, sys, termios
before = termios.tcgetattr(0)
demo = subprocess.Popen(sys.argv[1:], process_group=0)
status = demo.wait()
assert termios.tcgetattr(0) == before
sys.exit(status)
"""


def test_in_the_background_it_leaves_the_terminal_alone() -> None:
    """What is typed is for others, and a program that touched the terminal would be stopped."""
    status, output = in_terminal_of_its_own(
        [sys.executable, "-c", BESIDE, *DEMO, *BRIEF], (b"streaming, ", b"a\n")
    )
    assert status == 0
    assert 'client.abort("enough")' in output
    assert "client.abort() in 0 s" in output
    assert "a: abort" not in output


@pytest.mark.parametrize(
    ("width", "height"), [(200, 50), (120, 24), (80, 24), (60, 15), (50, 12), (30, 10), (10, 8)]
)
def test_the_chats_fit_on_the_screen(width: int, height: int) -> None:
    """With room for two lines below them, and each with its state."""
    chats = [Chat(f"subject {number}", "word 字 " * 200, 7, "streaming") for number in range(6)]
    console = Console(width=width, height=height, force_terminal=True, color_system=None)
    with console.capture() as drawn:
        console.print(render(chats, console))
    lines = drawn.get().splitlines()
    assert len(lines) <= height - 2
    assert all(console.measure(line).maximum <= width for line in lines)
    if width >= 30:
        assert drawn.get().count("streaming, 7 parts") == 6


def test_a_text_cannot_move_the_cursor() -> None:
    """What a model says is drawn without control characters."""
    chat = Chat("the moon", "one\ntwo\x1b[2J\tthree\x07")
    assert chat.words == "one two[2J three"


# -- the whole of it, which has run meanwhile ------------------------------------------------------


@pytest.mark.anyio
async def test_the_demo_shows_no_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, anyio_backend: Any
) -> None:
    """The server's address is shown without it, from the option and from the environment."""
    monkeypatch.setenv("OLLAMA_HOST", "http://me:s3cret@127.0.0.1:9")
    for host in ("me:s3cret@127.0.0.1:9", None):
        async with find_server(Screen(), Options(host=host)):
            pass
    shown = capsys.readouterr()
    assert "...@127.0.0.1:9" in shown.out + shown.err
    assert "s3cret" not in shown.out + shown.err


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_server_it_brings_its_own(
    backend: str, whole_runs: dict[str, Future[Any]]
) -> None:
    """As `make demo` runs it: all parts, within 20 seconds, and it says what it talks to."""
    seconds, *run = whole_runs[backend].result()
    assert seconds < 20
    output = checked(*run)
    assert f"ollama-sc on {backend}" in output
    assert "No Ollama answers at 127.0.0.1:9." in output
    assert "The bundled fake server stands in: http://127.0.0.1:" in output
    assert 'client.abort("enough") ended 6 requests:' in output
    saw = re.search(r"the server saw the last connection close after ([\d.]+) ms", output)
    assert saw is not None
    assert float(saw[1]) < 1000
    assert re.search(r"^[\d,]+ vectors of 384 numbers in [\d.]+ s: [\d,]+ texts/s", output, re.M)
    assert re.search(r"^  after 1 s, parts of each chat: (\d+, ){5}\d+$", output, re.M)
    assert re.search(r"^  \d+ of 400 texts$", output, re.M)
