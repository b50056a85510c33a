"""The command line `ollama-sc`: what it takes, what it refuses, and what it needs."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ollama_sc import cli
from tests import forking
from tests.cli.support import environment, run


def test_it_is_installed() -> None:
    """As `ollama-sc`, beside the library."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="ollama-sc")
    assert entry.load() is cli.main


def test_version() -> None:
    """The library's own, on stdout."""
    done = run("--version", real=True)
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        f"{importlib.metadata.version('ollama-sc')}\n",
        "",
    )


@pytest.mark.parametrize("arguments", [["--help"], ["embed", "--help"], ["embed", "-h"]])
def test_help(arguments: list[str]) -> None:
    """On stdout, no wider than a terminal of 80, with all options and statuses."""
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "embed" in done.stdout
    if arguments[0] == "embed":
        text = " ".join(done.stdout.replace("│", " ").split())
        for option in ("--model", "--output", "--field", "--key", "--input-format", "--on-error",
                       "--shard-rows", "--dimensions", "--truncate", "--no-truncate", "--host",
                       "--max-in-flight", "--batch-size", "--backend"):  # fmt: skip
            assert option in text
        assert (
            "0 done; 1 done, and some rows have no vector; 2 refused, nothing was changed" in text
        )
        assert "130 or 143 stopped by SIGINT or SIGTERM" in text


def test_a_wide_terminal_makes_no_wide_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines of more than 80 characters are hard to read; narrower ones are as the terminal is."""
    for columns, widest in ((200, 80), (60, 60)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert cli.main(["embed", "--help"]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) == widest


GIVEN = ["embed", "a.txt", "-m", "x", "-o", "out"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["bogus"], 'Unknown command "bogus"'),
        (["embed"], "requires an argument"),
        (["embed", "a.txt", "-m", "x"], "--output"),
        (["embed", "-m", "x", "-o", "out"], "name a file to embed, or - for standard input"),
        ([*GIVEN, "--bogus"], "there is no option --bogus"),
        ([*GIVEN, "--max-in-flight", "0"], "above zero"),
        ([*GIVEN, "--max-in-flight", "many"], "many"),
        ([*GIVEN, "--batch-size", "-1"], "above zero"),
        ([*GIVEN, "--shard-rows", "0"], "above zero"),
        ([*GIVEN, "--shard-rows", "x"], "a whole number, not 'x'"),
        ([*GIVEN, "--dimensions", "0"], "above zero"),
        ([*GIVEN, "--on-error", "panic"], "panic"),
        ([*GIVEN, "--backend", "curio"], "curio"),
        ([*GIVEN, "--input-format", "csv"], "csv"),
        (["embed", "no.txt", "-m", "x", "-o", "out"], "there is no file no.txt"),
        ([*GIVEN, "--field", "text"], "plain lines have neither --field nor --key"),
        ([*GIVEN, "--key", "id"], "plain lines have neither --field nor --key"),
        (
            ["embed", "a.jsonl", "-m", "x", "-o", "out", "--key", "embedding"],
            "the key column cannot",
        ),
        ([*GIVEN, "--host", "ftp://there"], "ftp"),
        ([*GIVEN, "--header", "X-A: 1", "--header", "x-a: 2"], "--header x-a is there twice"),
        ([*GIVEN, "--header", "X-A: 1", "--header", "X-A: 1"], "--header X-A is there twice"),
        (
            [*GIVEN, "--api-key-env", "PATH", "--header", "authorization: x"],
            "contradict each other",
        ),
        ([*GIVEN, "--help=1"], "--help takes no value"),
    ],
)
def test_a_wrong_command_is_refused(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    text: str,
) -> None:
    """With status 2 and one message on stderr that says what is wrong; no shard is written."""
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("a\n")
    Path("a.jsonl").write_text('{"text": "a"}\n')
    assert cli.main(arguments) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("ollama-sc: ")
    assert text in err
    assert not list(tmp_path.glob("out/part*"))


def test_what_stands_behind_two_hyphens_is_a_file(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its name looks like."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["embed", "-m", "x", "-o", "out", "--", "--no.txt"]) == 2
    assert capfd.readouterr().err == "ollama-sc: there is no file --no.txt\n"


@pytest.mark.parametrize("package", cli._REQUIRED_PACKAGES)
def test_a_missing_extra_is_named(package: str) -> None:
    """In one line, with what to install, before any of them is imported."""
    code = (
        "import sys; from ollama_sc import cli; find = cli.find_spec; "
        f"cli.find_spec = lambda name: None if name == {package!r} else find(name); "
        "status = cli.main(); assert 'pyarrow' not in sys.modules; sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--version"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == f"ollama-sc: {package} is missing: pip install 'ollama-sc[cli]'\n"
    assert done.stdout == ""


def test_no_posix_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says so, rather than to fail on an import."""
    monkeypatch.setattr(sys, "platform", "win32")
    assert cli.main([]) == 2
    assert "POSIX" in capsys.readouterr().err


def test_the_library_does_not_import_it() -> None:
    """Neither the command nor what it alone needs."""
    code = (
        "import sys, httpx; before = set(sys.modules); "  # its own command needs rich, too
        "import ollama_sc; new = set(sys.modules) - before; "
        "print([n for n in new if n.split('.')[0] in ('cyclopts', 'pyarrow', 'rich') "
        "or n.startswith('ollama_sc.cli')])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_an_interrupt_before_anything_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the status of a signal, and no traceback."""

    def interrupted(arguments: Any) -> int:
        raise KeyboardInterrupt

    from ollama_sc.cli import _app

    monkeypatch.setattr(_app, "run", interrupted)
    assert cli.main([]) == 130


def test_a_mistake_of_the_command_is_not_taken_for_a_job_that_is_done() -> None:
    """A traceback comes with status 3: 1 says that the job is done."""
    code = (
        "import sys; from ollama_sc.cli import main, _app\n"
        "_app.run = lambda arguments: 1 / 0\n"
        "sys.exit(main([]))"
    )
    done = forking.run(["-c", code], env=environment())
    assert done.returncode == 3
    assert "ZeroDivisionError" in done.stderr
