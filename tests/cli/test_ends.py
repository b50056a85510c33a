"""How jobs end: with nothing left behind, nothing that is damaged taken up, and a word at once."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ollama_sc.cli import _files, _job
from ollama_sc.testing import FakeOllama
from tests import forking
from tests.cli.support import (
    COMMAND,
    MODEL,
    Said,
    contents,
    embed,
    environment,
    manifest,
    options,
    run,
    shards,
    stop_after,
    table,
    write_jsonl,
)
from tests.cli.test_progress import in_terminal
from tests.forking import PIPE, Process


@pytest.fixture
def anyio_backend() -> str:
    """What is read, written and said is no matter of the event loop."""
    return "asyncio"


# -- nothing is left -------------------------------------------------------------------------------


def limited(size: int, *arguments: Any) -> Any:
    """The command where files cannot be larger than this, as `ulimit -f` does it."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, -1)); "
        "from ollama_sc.cli import main; sys.exit(main())"
    )
    return forking.run(["-c", code, *arguments])


@pytest.mark.parametrize(("size", "existing"), [(400, False), (16 * 1024, True)])
def test_a_job_that_ends_before_its_first_row_leaves_nothing(
    url: str, tmp_path: Path, size: int, existing: bool
) -> None:
    """No manifest, no lock, no folder that it made; with room, another job can take the folder."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 3000)
    out = tmp_path / "new" / "out"
    if existing:
        out.mkdir(parents=True)
    arguments = ["embed", str(corpus), "-m", MODEL, "-o", str(out), "--host", url]
    done = limited(size, *arguments)
    assert done.returncode == 3, done.stderr
    assert f"stopped: cannot write to {out}: File too large" in done.stderr
    assert out.exists() is existing
    assert not existing or list(out.iterdir()) == []
    assert run(*arguments, "--key", "id").returncode == 0


@pytest.mark.anyio
async def test_a_killed_job_without_rows_binds_nothing(fake: FakeOllama, tmp_path: Path) -> None:
    """Its manifest counts none: what it left is removed, and another job begins."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 50)
    out = tmp_path / "out"
    await embed(fake, corpus, out)
    saved = (out / "_manifest.json").read_text().replace('"rows": 50', '"rows": 0')
    saved = saved.replace('"done": true', '"done": false')
    for name in shards(out)[1:]:
        (out / name).unlink()
    (out / "_manifest.json").write_text(saved)
    (out / ".tmp-part-00001.parquet").write_bytes(b"x")
    (out / ".next").write_bytes(b"x")
    assert (await embed(fake, corpus, out, field="id"))[0] == 0
    assert sorted(path.name for path in out.iterdir()) == [".lock", "_manifest.json", *shards(out)]
    await embed(fake, corpus, tmp_path / "straight", field="id")
    assert contents(out) == contents(tmp_path / "straight")


# -- what is damaged -------------------------------------------------------------------------------


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.write_bytes(
        {
            "100 bytes": data[:100],
            "a byte less": data[:-1],
            "half": data[: len(data) // 2],
            "zeros": bytes(len(data)),
            "its end": data[:-100] + bytes(100),
            "text": b"nothing",
        }[how]
    )


@pytest.mark.anyio
@pytest.mark.parametrize("how", ["100 bytes", "a byte less", "half", "zeros", "its end", "text"])
@pytest.mark.parametrize("done", [True, False])
async def test_a_shard_that_is_damaged_is_not_taken_for_whole(
    fake: FakeOllama, tmp_path: Path, how: str, done: bool
) -> None:
    """Each of a job that is done, and each of one that goes on; it says which, and how."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 50)
    if not done:
        stop_after(fake, 6)
    await embed(fake, corpus, tmp_path / "out", max_in_flight=1)
    for name in shards(tmp_path / "out"):
        path = tmp_path / "out" / name
        whole = path.read_bytes()
        damage(path, how)
        status, said = await embed(fake, corpus, tmp_path / "out")
        assert status == 2
        assert f"ollama-sc: {path} is damaged (" in said.text
        assert "_manifest.json counts it: bring it back, or use another folder" in said.text
        path.write_bytes(whole)
    path = tmp_path / "out" / "part-00001.parquet"
    pq.write_table(pq.read_table(path).slice(0, 7), path)
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert (status, f"{path} is cut (7 rows of 20)" in said.text) == (2, True)


# -- links, and file systems -----------------------------------------------------------------------


NAMES = [
    ".lock", "_manifest.json", "manifest.json", "_failures.jsonl", ".next", ".tmp-_manifest.json",
    ".tmp-part-00000.parquet", ".tmp-.next", "part-00000.parquet", "part-00001.parquet",
]  # fmt: skip


@pytest.mark.anyio
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["file", "nowhere", "device"])
async def test_no_link_is_followed(fake: FakeOllama, tmp_path: Path, name: str, kind: str) -> None:
    """Whoever planted it: what it leads to is as it was, and no file comes about there."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 50)
    with corpus.open("a") as file:
        file.write('{"text": null}\n')
    victim = tmp_path / "victim"
    target = {"file": victim, "nowhere": tmp_path / "nowhere", "device": Path("/dev/null")}[kind]
    victim.write_text("precious")
    out = tmp_path / "out"
    out.mkdir()
    (out / name).symlink_to(target)
    for _ in range(2):
        status, _ = await embed(fake, corpus, out)
        assert status in (1, 2, 3)
        assert victim.read_text() == "precious"
        assert not (tmp_path / "nowhere").exists()
    if status == 1:
        assert not any(path.is_symlink() for path in out.iterdir())
        assert table(out).num_rows == 51


@pytest.mark.anyio
@pytest.mark.parametrize(
    "name", ["_manifest.json", "_failures.jsonl", ".next", "part-00001.parquet"]
)
async def test_no_link_is_followed_in_a_job_that_goes_on(
    fake: FakeOllama, tmp_path: Path, name: str
) -> None:
    """A file that was replaced by a link is none, and neither is a hole for a pipe to hang in."""
    corpus = tmp_path / "a.jsonl"
    corpus.write_text('{"text": null}\n' + '{"text": "good"}\n' * 70)
    out, away = tmp_path / "out", tmp_path / "away"
    stop_after(fake, 6)
    await embed(fake, corpus, out, max_in_flight=1)
    (out / name).rename(away)
    before = away.read_bytes()
    (out / name).symlink_to(away)
    status, said = await embed(fake, corpus, out)
    assert status == 2
    assert f"{name} is a symbolic link" in said.text or "cannot write to" in said.text
    assert away.read_bytes() == before
    (out / name).unlink()
    os.mkfifo(out / name)
    status, said = await embed(fake, corpus, out)
    assert status == 2


@pytest.mark.anyio
async def test_a_lock_that_is_somebodys_file_is_not_emptied(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """Also where it is a hard link, which looks like any file."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").hardlink_to(tmp_path / "victim")
    assert (await embed(fake, corpus, tmp_path / "out"))[0] == 0
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.anyio
@pytest.mark.parametrize("number", sorted(_files._CANNOT_SYNC))
async def test_a_file_system_that_cannot_sync(
    fake: FakeOllama, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Folders, or anything: a job is done there all the same."""
    fsync = os.fsync

    def refuse(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}") or number == errno.ENOSYS:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    assert (await embed(fake, corpus, tmp_path / "out"))[0] == 0
    assert manifest(tmp_path / "out")["progress"]["done"] is True


@pytest.mark.anyio
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
async def test_a_disk_that_fails_is_another_thing(
    fake: FakeOllama, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """What cannot be written stops the job."""

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert (status, os.strerror(number) in said.text) == (3, True)


# -- a word at once --------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_is_answered_at_once(
    fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Before anything is kept, which can take a while."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 100)
    said_when_kept: list[str] = []

    class Killing(Said):
        def update(self, done: int, failed: int) -> None:
            if done >= 32:
                os.kill(os.getpid(), number)

    said = Killing()
    keep = _job.Shards.save_partial

    async def save_partial(self: Any) -> None:
        said_when_kept.extend(said.lines)
        await keep(self)

    monkeypatch.setattr(_job.Shards, "save_partial", save_partial)
    job = options(corpus, tmp_path / "out", [fake.url], max_in_flight=1)
    assert await _job.run(job, said) == 128 + number
    assert said_when_kept[-1] == f"{number.name}: stopping; another signal ends it at once"


def test_the_command_does_not_import_pandas(url: str, tmp_path: Path) -> None:
    """Where it is installed, that would be a second or two; afterwards a program can import it."""
    write_jsonl(tmp_path / "a.jsonl", 30)
    code = (
        "import sys; from ollama_sc.cli import main; status = main(); "
        "assert not [name for name in sys.modules if name.split('.')[0] == 'pandas']; "
        "import pandas; sys.exit(status)"
    )
    arguments = ["embed", "a.jsonl", "-m", MODEL, "-o", "out", "--host", url, "--key", "id"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_draw_gets_lines(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, term: str
) -> None:
    """As a log does, while the job runs; nothing steers it."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 300)
    code = (
        "import sys; from ollama_sc.cli import _reporter, main; _reporter.REPORT_INTERVAL = 0.0; "
        "sys.exit(main())"
    )
    master, slave = os.openpty()
    env = environment(OLLAMA_HOST=url, TERM=term)
    with Process(
        ["-c", code, "embed", corpus, "-m", MODEL, "-o", tmp_path / "out"], stdout=PIPE, stderr=slave, env=env
    ) as process:  # fmt: skip
        os.close(slave)
        output = b""
        try:
            while block := os.read(master, 65536):
                output += block
        except OSError:  # Linux's way to say that the other side is closed
            pass
        os.close(master)
        assert process.wait(20) == 0
    text = output.decode()
    assert " of 300 rows, " in text
    assert text.index(" of 300 rows") < text.index("Done: 300 rows")
    assert "\x1b" not in text


def test_a_terminal_that_can_draw_gets_a_bar(url: str, tmp_path: Path) -> None:
    """The same job on another terminal."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 300)
    status, shown, _ = in_terminal("embed", corpus, "-m", MODEL, "-o", tmp_path / "out", host=url)
    assert (status, "\x1b[" in shown) == (0, True)
    assert COMMAND
