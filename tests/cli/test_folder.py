"""The folder of a job: one job at a time, no file of others, nothing that is missing."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pyarrow.parquet as pq
import pytest

from ollama_sc import RequestError
from ollama_sc.cli import _folder, _job
from ollama_sc.cli._errors import Refused
from ollama_sc.embedding import read_folder
from ollama_sc.testing import FakeOllama
from tests.cli.support import (
    Said,
    embed,
    manifest,
    options,
    stop_after,
    table,
    write_jsonl,
)

pytestmark = pytest.mark.anyio
PARTIAL = ".next"


async def test_one_job_at_a_time(fake: FakeOllama, corpus: Path, tmp_path: Path) -> None:
    """Another one on the same folder is refused at once; afterwards it may go on."""
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, said = await embed(fake, corpus, tmp_path / "out")
        assert (status, said.text) == (
            2,
            f"ollama-sc: another ollama-sc is at work in {tmp_path / 'out'}",
        )
        assert not fake.requests
    assert (await embed(fake, corpus, tmp_path / "out"))[0] == 0


async def test_two_jobs_at_once(fake: FakeOllama, corpus: Path, tmp_path: Path) -> None:
    """One of them does it all."""
    statuses: list[int] = []

    async def one() -> None:
        statuses.append((await embed(fake, corpus, tmp_path / "out"))[0])

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one)
            tasks.start_soon(one)
    assert sorted(statuses) == [0, 2]
    assert table(tmp_path / "out").num_rows == 50


@pytest.mark.parametrize("folder", ["file/out", "file", "/proc/out"])
async def test_a_folder_that_cannot_be_written_is_refused(
    fake: FakeOllama, corpus: Path, tmp_path: Path, folder: str
) -> None:
    """Before anything is asked of the server."""
    (tmp_path / "file").write_text("a file")
    status, said = await embed(fake, corpus, tmp_path / folder)
    assert status == 2
    assert said.text.startswith(f"ollama-sc: cannot write to {tmp_path / folder}: ")
    assert not fake.requests


REFUSED = [
    {"field": "body"},
    {"key": "no"},
    {"model": "no"},
    {"hosts": ["ftp://there"]},
    {"inputs": ["/proc/self/mem"], "input_format": "jsonl"},
]


@pytest.mark.parametrize("changed", REFUSED)
async def test_a_refusal_leaves_nothing(
    fake: FakeOllama, corpus: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    """No folder that was not there, nothing in one that was: the command that is right can follow."""
    out = tmp_path / "new" / "out"
    said = Said()
    refused = dataclasses.replace(options(corpus, out, [fake.url]), **changed)
    assert await _job.run(refused, said) == 2, said.text
    assert sorted(tmp_path.iterdir()) == [corpus]
    out.mkdir(parents=True)
    assert await _job.run(refused, said) == 2
    assert list(out.iterdir()) == []
    assert (await embed(fake, corpus, out))[0] == 0


@pytest.mark.parametrize("rows", [0, 8])
async def test_a_stop_binds_only_with_rows(fake: FakeOllama, tmp_path: Path, rows: int) -> None:
    """What was stopped before any row was done can be given another way."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 50)
    stop_after(fake, rows // 8)
    assert (await embed(fake, corpus, tmp_path / "out", max_in_flight=1))[0] == 3
    assert (tmp_path / "out").exists() is bool(rows)
    assert (await embed(fake, corpus, tmp_path / "out", key="id"))[0] == (2 if rows else 0)


def test_a_lock_that_is_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that leaves a folder may remove it while another one is on its way in."""
    out = tmp_path / "out"
    flock = fcntl.flock
    removals = [1, 2, 3]

    def removed(lock: Any, how: int) -> None:
        if removals and removals.pop():
            (out / ".lock").unlink()
            out.rmdir()
        flock(lock, how)

    monkeypatch.setattr(fcntl, "flock", removed)
    with (
        _folder.open_folder(out),
        pytest.raises(Refused, match="at work"),
        _folder.open_folder(out),
    ):
        pass
    assert not removals
    assert not out.exists()
    removals += [1] * 100
    with pytest.raises(Refused, match="cannot write to"), _folder.open_folder(out):
        pass
    assert not out.exists()


def test_many_at_the_door(tmp_path: Path) -> None:
    """Of jobs that make and remove one folder all the time, no two are ever in it."""
    program = """
import pathlib, sys
from contextlib import suppress
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._folder import open_folder as opened
inside = pathlib.Path(sys.argv[1]) / "inside"
entered = 0
while entered < 500:
    with suppress(Refused), opened(inside.parent / "new" / "out"):
        entered += 1
        inside.touch(exist_ok=False)
        inside.unlink()
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(50) for process in processes] == [0, 0, 0]


async def test_foreign_shards_are_not_overwritten(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """A folder with shards and no manifest, or a manifest that is none, is refused."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-00000.parquet").write_bytes(b"mine")
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert status == 2
    assert "is there without a _manifest.json" in said.text
    for text in ("{}", "no JSON", '{"format": 2}', "\udcff"):
        (tmp_path / "out" / "_manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        status, said = await embed(fake, corpus, tmp_path / "out")
        assert status == 2
        assert "is no manifest of this version" in said.text
    assert (tmp_path / "out" / "part-00000.parquet").read_bytes() == b"mine"


@pytest.mark.parametrize("lost", ["part-00001.parquet", "_failures.jsonl", PARTIAL])
async def test_what_the_manifest_counts_must_be_there(
    fake: FakeOllama, tmp_path: Path, lost: str
) -> None:
    """It says which file is missing, rather than to make a hole."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": null}\n' + '{"text": "good"}\n' * 70)
    stop_after(fake, 6)
    await embed(fake, corpus, tmp_path / "out", max_in_flight=1)
    assert manifest(tmp_path / "out")["progress"]["rows"] == 49
    (tmp_path / "out" / lost).unlink()
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert status == 2
    assert lost in said.text
    (tmp_path / "out" / lost).write_bytes(b"")
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert status == 2
    assert lost in said.text


async def test_a_shard_that_is_cut_is_not_taken_up(fake: FakeOllama, tmp_path: Path) -> None:
    """What was kept of the next shard must have as many rows as the manifest counts."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 60)
    stop_after(fake, 4)
    await embed(fake, corpus, tmp_path / "out", max_in_flight=1)
    kept = tmp_path / "out" / PARTIAL
    pq.write_table(pq.read_table(kept).slice(0, 3), kept)
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert status == 2
    assert f"{kept} is cut: the manifest counts 12 rows in it" in said.text


async def test_bytes_that_have_changed_are_not_taken_up(fake: FakeOllama, tmp_path: Path) -> None:
    """Wherever they are among the vectors; in shards they are found by who reads them."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 60)
    stop_after(fake, 4)
    await embed(fake, corpus, tmp_path / "out", max_in_flight=1)
    for name in (PARTIAL, "part-00000.parquet"):
        path = tmp_path / "out" / name
        whole = path.read_bytes()
        vector = np.float32(pq.read_table(path).column("embedding")[5].as_py()).tobytes()
        at = whole.index(vector) + 7
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        if name == PARTIAL:
            status, said = await embed(fake, corpus, tmp_path / "out")
            assert status == 2
            assert f"cannot read {path}, which the manifest counts" in said.text
            path.write_bytes(whole)
        else:
            with pytest.raises(RequestError, match=r"cannot read .*part-00000\.parquet"):
                read_folder(tmp_path / "out")


async def test_no_memory_for_a_shard(fake: FakeOllama, tmp_path: Path) -> None:
    """It is said, and which option it is; nothing is left."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 3)
    for rows in (2**55, 2**62):
        status, said = await embed(fake, corpus, tmp_path / "out", shard_rows=rows)
        assert status == 3
        assert "no memory for a shard" in said.text
        assert "--shard-rows" in said.text
        assert not (tmp_path / "out").exists()


async def test_vectors_of_another_length_stop_it(fake: FakeOllama, tmp_path: Path) -> None:
    """A server that has changed its mind about the length breaks no shard."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 60)
    stop_after(fake, 4)
    await embed(fake, corpus, tmp_path / "out", max_in_flight=1)
    before = manifest(tmp_path / "out")
    async with FakeOllama(dimensions=4) as other:
        status, said = await embed(other, corpus, tmp_path / "out")
    assert status == 3
    assert "the server's vectors have 4 numbers, and had 8 before" in said.text
    assert manifest(tmp_path / "out") == before


async def test_what_the_system_refuses_is_said(
    fake: FakeOllama, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest that cannot be read, a file system without locks."""
    (tmp_path / "out" / "_manifest.json").mkdir(parents=True)
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert status == 2
    assert f"cannot read {tmp_path}/out/_manifest.json: Is a directory" in said.text

    def no_locks(*args: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert (status, said.text) == (2, f"ollama-sc: cannot lock {tmp_path}/out: No locks available")
