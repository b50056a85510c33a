"""The command `ollama-sc` as a process: what it prints where, and its exit statuses."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pty
import re
import select
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_support import (
    COMMAND,
    MODEL,
    SERVER,
    contents,
    environment,
    failures,
    manifest,
    process_server,
    shards,
    table,
    write_jsonl,
)

from ollama_sc import cli
from ollama_sc.cli import _bar, _progress

BACKENDS = ["trio", "asyncio"]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with process_server(*SERVER, "--backend", "asyncio") as found:
        yield found


def run(
    *arguments: str | Path, host: str = "127.0.0.1:9", input: bytes = b"", cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, where neither stdout nor stderr is a terminal; every warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "ollama_sc.cli", *map(str, arguments)],
        env=environment(OLLAMA_HOST=host),
        input=input,
        capture_output=True,
        check=False,
        timeout=50,
        cwd=cwd,
    )
    found = subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )
    assert "Traceback" not in found.stderr, found.stderr
    return found


# -- the command -----------------------------------------------------------------------------------


def test_it_is_installed() -> None:
    """As `ollama-sc`, beside the library."""
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="ollama-sc")
    assert entry.load() is cli.main


def test_version() -> None:
    """The library's own, on stdout."""
    done = run("--version")
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
        ([*GIVEN, "--shard-rows", "x"], '"x"'),
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


@pytest.mark.parametrize("package", ["cyclopts", "rich", "numpy", "pyarrow", "stamina"])
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


# -- a job -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_job(url: str, tmp_path: Path, backend: str) -> None:
    """As the README shows it: shards in a folder, words on stderr, nothing on stdout."""
    write_jsonl(tmp_path / "corpus.jsonl", 300)
    arguments = ["embed", "corpus.jsonl", "--field", "text", "--model", MODEL, "-o", "vectors/"]
    arguments += ["--backend", backend]
    done = run(*arguments, host=url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    first, second = done.stderr.splitlines()
    assert first == "Done: 300 rows in 1 shard in vectors, vectors of 8 numbers"
    assert re.fullmatch(r"This run: 300 rows in [\d.]+ s, [\d,]+/s", second)
    assert table(tmp_path / "vectors").num_rows == 300
    done = run(*arguments, host=url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "Done before: 300 rows in vectors\n"


@pytest.mark.parametrize("format", ["jsonl", "lines", "parquet"])
def test_formats_give_the_same_vectors(url: str, tmp_path: Path, format: str) -> None:
    """JSONL by a glob of several files, plain lines by standard input, Parquet."""
    texts = [f"text {number}" for number in range(100)]
    arguments: list[str | Path] = []
    data = b""
    if format == "jsonl":
        for part in range(4):
            rows = [json.dumps({"text": text}) for text in texts[25 * part : 25 * part + 25]]
            (tmp_path / f"part{part}.jsonl").write_text("\n".join(rows))
        arguments = [tmp_path / "part?.jsonl"]
    elif format == "lines":
        data = "\n".join(texts).encode()
        arguments = ["-", "--input-format", "lines"]
    else:
        pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
        arguments = [tmp_path / "a.parquet"]
    write_jsonl(tmp_path / "expected.jsonl", 0)
    for name, given in (("out", arguments), ("one", ["-"])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        done = run(
            "embed", *given, "-m", MODEL, "-o", tmp_path / name, "--shard-rows", "40", host=url,
            input=data if given is arguments else lines,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert len(shards(tmp_path / "out")) == 3


def test_the_document_is_right(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code reads what its command writes, it names every option, its links lead somewhere."""
    root = Path(__file__).parent.parent
    text = (root / "docs" / "embed.md").read_text()
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "corpus.jsonl", 5)
    command = re.search(r"^ollama-sc (embed corpus.jsonl --field .*)$", text, re.MULTILINE)
    assert command is not None
    assert command[0] in (root / "README.md").read_text()
    assert run(*command[1].split(), host=url, cwd=tmp_path).returncode == 0
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["table"].num_rows == 5
    options = set(re.findall(r"--[a-z][a-z-]+", run("embed", "--help").stdout))
    assert options - {"--help", "--output", "--model", "--truncate"} <= set(
        re.findall(r"--[a-z][a-z-]+", text)
    )


def test_some_rows_that_failed_are_status_1(url: str, tmp_path: Path) -> None:
    """With the name of their list."""
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    done = run("embed", tmp_path / "a.jsonl", "-m", MODEL, "-o", tmp_path / "out", host=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"1 row has no vector: {tmp_path}/out/failures.jsonl says why\n" in done.stderr
    assert failures(tmp_path / "out") == [
        {"row": 1, "key": 1, "where": f"{tmp_path}/a.jsonl:2", "reason": '"text" is null'}
    ]


def test_no_server_is_status_3(tmp_path: Path) -> None:
    """It says whom it asked, and the exact command that goes on, without a password."""
    write_jsonl(tmp_path / "a b.jsonl", 3)
    arguments = ["embed", "a b.jsonl", "-m", MODEL, "-o", "out"]
    done = run(*arguments, "--host", "http://me:secret@127.0.0.1:9", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "stopped: GET /api/tags: cannot connect to http://127.0.0.1:9" in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.endswith(
        f"Go on with: ollama-sc embed 'a b.jsonl' -m {MODEL} -o out --host http://...@127.0.0.1:9\n"
    )


def test_a_full_disk(url: str, tmp_path: Path) -> None:
    """A real limit on the size of files, in the middle of a shard; with room it goes on."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 3000)
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, -1)); "
        "from ollama_sc.cli import main; sys.exit(main())"
    )
    arguments = ["embed", str(corpus), "-m", MODEL, "-o", str(tmp_path / "out"), "--host", url]
    done = subprocess.run(
        [sys.executable, "-c", limited, *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 3
    assert f"stopped: cannot write to {tmp_path}/out: File too large" in done.stderr
    assert shards(tmp_path / "out") == []
    assert not list((tmp_path / "out").glob(".tmp*"))
    assert run(*arguments).returncode == 0
    assert table(tmp_path / "out").num_rows == 3000


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals(url: str, tmp_path: Path, backend: str, number: signal.Signals) -> None:
    """While a pipe has nothing to read: done rows are kept, the status says why, it goes on."""
    lines = [f"text {n}\n" for n in range(60)]
    arguments = ["embed", "-", "--input-format", "lines", "-m", MODEL, "-o", str(tmp_path / "out")]
    arguments += ["--shard-rows", "20", "--batch-size", "5", "--backend", backend, "--host", url]
    reading, writing = os.pipe()
    with subprocess.Popen(
        [*COMMAND, *arguments], stdin=reading, stderr=subprocess.PIPE, env=environment(), text=True
    ) as process:
        os.close(reading)
        os.write(writing, "".join(lines[:47]).encode())
        assert process.stderr is not None
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
        print("opening", flush=True)
sys.addaudithook(audit)
sys.exit(main())
"""
    arguments = ["embed", str(tmp_path / "pipe.jsonl"), "-m", MODEL, "-o", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments, "--backend", backend, "--host", url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "opening\n"
        process.send_signal(number)
        try:
            _, text = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 128 + number
    assert text.startswith(f"ollama-sc: stopped by {number.name}\nGo on with: ")
    assert not (tmp_path / "out").exists()


def test_a_second_signal_ends_it_at_once(url: str, tmp_path: Path) -> None:
    """Where keeping what is done takes too long; nothing is lost that the manifest counts."""
    program = """
import sys, anyio
from ollama_sc.cli import _shards, main
async def keep(self):
    print("keeping", flush=True)
    await anyio.sleep_forever()
_shards.Shards.keep = keep
sys.exit(main())
"""
    arguments = ["embed", "-", "--input-format", "lines", "-m", MODEL, "-o", str(tmp_path / "out")]
    with subprocess.Popen(
        [sys.executable, "-c", program, *arguments, "--host", url, "--shard-rows", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
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


def exists(tmp_path: Path) -> bool:
    return (tmp_path / "out" / "manifest.json").exists()


def test_memory_does_not_grow_with_the_corpus(url: str, tmp_path: Path) -> None:
    """Ten times the rows take no more than a little more memory."""
    peaks: list[int] = []
    measure = (
        "import resource, sys; from ollama_sc.cli import main; status = main(); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    for count in (5_000, 50_000):
        corpus = tmp_path / f"{count}.jsonl"
        with corpus.open("w") as file:
            file.writelines(f'{{"text": "text {n} {"x" * 100}"}}\n' for n in range(count))
        arguments = ["embed", corpus, "-m", MODEL, "-o", tmp_path / corpus.stem, "--host", url]
        arguments += ["--shard-rows", "1000"]
        done = subprocess.run(
            [sys.executable, "-c", measure, *map(str, arguments)],
            check=True,
            capture_output=True,
            text=True,
        )
        peaks.append(int(done.stdout))
    print(f"peaks in KiB: {peaks}")
    assert peaks[1] - peaks[0] < 20_000, f"KiB: {peaks}"


# -- what nobody hears -----------------------------------------------------------------------------


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full", "2>&1 >&3 | true", "2>&- <&-"])
def test_a_job_needs_no_listener(url: str, tmp_path: Path, stderr: str) -> None:
    """With stderr closed, full or without a reader the statuses are the same, and stdout is empty."""
    (tmp_path / "some.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    write_jsonl(tmp_path / "all.jsonl", 3)
    for name, field, status in (("all", "text", 0), ("some", "text", 1), ("all", "no", 2)):
        arguments = ["embed", f"{name}.jsonl", "--field", field, "-m", MODEL, "-o", name + field]
        command = shlex.join([*COMMAND, *arguments, "--host", url])
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&1; {command} {stderr}; exit ${{PIPESTATUS[0]}}"],
            env=environment(), check=False, capture_output=True, cwd=tmp_path, timeout=50,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (status, b"")


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
    with subprocess.Popen(
        [*COMMAND, *arguments, "--host", url, "--batch-size", "1", "--shard-rows", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=slave, env=environment(),
    ) as process:  # fmt: skip
        os.close(slave)
        assert process.stdin is not None
        process.stdin.write(b"first\n" * 65)
        process.stdin.flush()
        while not exists(tmp_path):
            os.read(master, 65536)
        os.close(master)
        process.stdin.write(b"then\n" * 1000)
        process.stdin.close()
        assert process.wait(30) == 0
    assert manifest(tmp_path / "out")["progress"]["rows"] == 1065


# -- what is seen ----------------------------------------------------------------------------------


def in_terminal(*arguments: str | Path, host: str, stop: bool = False) -> tuple[int, str, str]:
    """Status, stderr in a terminal, and stdout; with `stop`, Ctrl-C when the first shard is there."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=slave,
        env=environment(OLLAMA_HOST=host),
        start_new_session=True,
        text=True,
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
            assert process.stdout is not None
            return process.wait(20), output.decode(), process.stdout.read()
        finally:
            os.close(master)
            process.kill()


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
    monkeypatch.setattr(_progress.time, "monotonic", lambda: now)
    lines = _progress.PlainLines()
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
    assert _progress.duration(seconds) == text


def test_a_bar_before_the_job_has_begun(capfd: pytest.CaptureFixture[str]) -> None:
    """What is said before there is anything to count is printed."""
    with _bar.bar() as shown:
        shown.say("Left out: [bold]x[/bold]")
        shown.update(5, 0)
    assert "Left out: [bold]x[/bold]\n" in capfd.readouterr().err
