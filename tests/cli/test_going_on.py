"""A job that was stopped goes on where it was, to the same result."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ollama_sc.cli import _folder, _job
from ollama_sc.testing import FakeOllama
from tests.cli.support import (
    Said,
    contents,
    embed,
    failures,
    manifest,
    options,
    stop_after,
    write_jsonl,
)

pytestmark = pytest.mark.anyio
PARTIAL = ".next"


async def test_done_is_done(fake: FakeOllama, corpus: Path, tmp_path: Path) -> None:
    """Started again, it asks for no vector, and changes nothing."""
    await embed(fake, corpus, tmp_path / "out")
    before = contents(tmp_path / "out"), manifest(tmp_path / "out")
    fake.requests.clear()
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert (status, said.lines) == (0, [f"Done before: 50 rows in {tmp_path / 'out'}"])
    assert [request.path for request in fake.requests] == ["/api/tags"]
    assert (contents(tmp_path / "out"), manifest(tmp_path / "out")) == before


@pytest.mark.parametrize("format", ["jsonl", "lines", "parquet", "pipe"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_keeps_what_is_done(
    fake: FakeOllama,
    tmp_path: Path,
    format: str,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also of the shard at work; started again it asks only for the rest, with the same result."""
    keys: dict[str, Any] = {} if format in ("lines", "pipe") else {"key": "id"}
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 100)
    if format == "parquet":
        rows = [json.loads(line) for line in corpus.read_text().splitlines()]
        corpus = tmp_path / "corpus.parquet"
        pq.write_table(pa.Table.from_pylist(rows), corpus, row_group_size=30)
    if format == "lines":
        keys["input_format"] = "lines"
    await embed(fake, corpus, tmp_path / "straight", **keys)

    def source() -> Any:
        if format != "pipe":
            return corpus
        reading, writing = os.pipe()
        os.write(writing, corpus.read_bytes())
        os.close(writing)
        return f"/dev/fd/{reading}"

    if format == "pipe":
        keys["input_format"] = "jsonl"
    killed: list[tuple[int, int]] = []

    class Killing(Said):
        def update(self, done: int, failed: int) -> None:
            if done >= self.at and not killed:
                killed.append((done, failed))
                os.kill(os.getpid(), number)
            super().update(done, failed)

    # The signal arrives at the next checkpoint: a server that says nothing keeps the job there.
    for at in (32, 56):
        killed.clear()
        said = Killing()
        said.at = at
        job = options(source(), tmp_path / "out", [fake.url], batch_size=8, max_in_flight=1, **keys)
        status = await _job.run(job, said)
        assert status == 128 + number
        assert f"ollama-sc: stopped by {number.name}" in said.lines
        assert said.lines[-1] == "Go on with: ollama-sc embed ..."
        done = manifest(tmp_path / "out")["progress"]["rows"]
        assert done >= at
        assert f"{done} rows are done" in said.lines
        assert sorted(path.name for path in (tmp_path / "out").glob(".tmp*")) == []
    fake.requests.clear()
    status, said = await embed(fake, source(), tmp_path / "out", **keys)
    assert status == 0
    assert said.started is not None
    assert said.started[0] == done
    sent = [request.json["input"] for request in fake.requests if request.path == "/v1/embeddings"]
    assert sum(len(texts) for texts in sent) - 1 == 100 - done  # and one that warms up
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    assert not (tmp_path / "out" / PARTIAL).exists()


async def test_a_server_that_fails_keeps_what_is_done(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """As a signal does."""
    stop_after(fake, 3)
    status, said = await embed(fake, corpus, tmp_path / "out", max_in_flight=1)
    assert status == 3
    assert "gone" in said.text
    assert manifest(tmp_path / "out")["progress"]["rows"] == 24
    assert (await embed(fake, corpus, tmp_path / "out"))[0] == 0
    await embed(fake, corpus, tmp_path / "straight")
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


async def test_failures_are_listed_once(fake: FakeOllama, tmp_path: Path) -> None:
    """Also where a run that was killed had listed more of them than its manifest counts."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "good"}\n{"text": null}\n' * 40)
    await embed(fake, corpus, tmp_path / "straight")
    stop_after(fake, 3)
    assert (await embed(fake, corpus, tmp_path / "out", max_in_flight=1))[0] == 3
    with (tmp_path / "out" / "_failures.jsonl").open("a") as file:
        file.write('{"row": 77, "key"')
    assert (await embed(fake, corpus, tmp_path / "out"))[0] == 1
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


@pytest.mark.parametrize("listed", [0, 1])
async def test_failures_that_do_not_count_go(fake: FakeOllama, tmp_path: Path, listed: int) -> None:
    """Also where no other follows; a list of none is no file."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": null}\n' * listed + '{"text": "good"}\n' * 60)
    await embed(fake, corpus, tmp_path / "straight")
    stop_after(fake, 3)
    assert (await embed(fake, corpus, tmp_path / "out", max_in_flight=1))[0] == 3
    with (tmp_path / "out" / "_failures.jsonl").open("a") as file:
        file.write('{"row": 77, "key": 77}\n' * 9)
    assert (await embed(fake, corpus, tmp_path / "out"))[0] == listed
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    assert len(failures(tmp_path / "out")) == listed


def test_what_is_appended_is_the_end(tmp_path: Path) -> None:
    """Whatever stood behind that place."""
    folder = _folder.Folder(tmp_path)
    for start, data in ((0, b"abcdef"), (3, b"x"), (4, b"")):
        folder.append("list", start, data)
    assert (tmp_path / "list").read_bytes() == b"abcx"


async def test_a_pipe_may_grow(fake: FakeOllama, tmp_path: Path) -> None:
    """A pipe that ends after a row's end cannot be told from one that was cut: more may follow."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 50)
    await embed(fake, corpus, tmp_path / "straight")

    async def piped(data: bytes) -> tuple[int, Said]:
        reading, writing = os.pipe()
        os.write(writing, data)
        os.close(writing)
        try:
            return await embed(fake, f"/dev/fd/{reading}", tmp_path / "out", input_format="jsonl")
        finally:
            os.close(reading)

    data = corpus.read_bytes()
    lines = data.splitlines(keepends=True)
    status, said = await piped(b"".join(lines[:33]).rstrip(b"\n"))
    assert (status, said.started) == (0, (0, None))
    assert manifest(tmp_path / "out")["progress"]["done"] is True
    status, said = await piped(b"".join(lines[:32]))
    assert status == 2
    assert "does not begin with the 33 rows that are done" in said.text
    status, said = await piped(b"".join([*lines[:3], lines[0], *lines[4:]]))
    assert status == 2
    assert "does not begin with the 33 rows that are done" in said.text
    before = contents(tmp_path / "out")
    status, said = await piped(b"".join(lines[:33]))
    assert status == 0
    assert contents(tmp_path / "out") == before
    status, said = await piped(data)
    assert status == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


@pytest.mark.parametrize("format", ["jsonl", "parquet"])
async def test_a_name_that_is_not_utf8(fake: FakeOllama, tmp_path: Path, format: str) -> None:
    """Is written with its bytes escaped; the job goes on with it, also under another name."""
    corpus = Path(f"{tmp_path}/caf\udce9.{format}")
    out = Path(f"{tmp_path}/\udce9")
    pq.write_table(pa.table({"text": [None, *"abcdefghijklmnopqrstuvwxyz"]}), tmp_path / "made")
    (tmp_path / "made").rename(corpus)
    if format == "jsonl":
        corpus.write_text('{"text": null}\n' + '{"text": "good"}\n' * 26)
    stop_after(fake, 1)
    assert (await embed(fake, corpus, out, max_in_flight=1))[0] == 3
    assert manifest(out)["settings"]["input"]["files"][0]["name"] == f"caf\\xe9.{format}"
    assert (await embed(fake, corpus, out))[0] == 1
    assert [entry["where"] for entry in failures(out)] == [f"{tmp_path}/caf\\xe9.{format}:1"]
    moved = corpus.rename(tmp_path / f"cafe.{format}")
    status, said = await embed(fake, moved, out)
    assert (status, said.lines[0]) == (1, f"Done before: 27 rows in {tmp_path}/\\xe9")
