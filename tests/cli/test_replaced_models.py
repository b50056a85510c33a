"""A model that is replaced while the command runs: no shard has vectors of both."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ollama_sc.cli import _job
from ollama_sc.testing import FakeOllama, Reply
from tests.cli.support import (
    MODEL,
    Said,
    contents,
    embed,
    exists,
    manifest,
    options,
    shards,
    stop_after,
    table,
    write_jsonl,
)

pytestmark = pytest.mark.anyio
REPLACED = Reply.json({"models": [{"name": f"{MODEL}:latest", "digest": "b" * 64}]})


class Swapping(Said):
    """Replaces the model once so many rows are done; then a signal may come."""

    def __init__(self, fake: FakeOllama, at: int, number: signal.Signals | None = None) -> None:
        super().__init__()
        self.fake, self.at, self.number = fake, at, number

    def update(self, done: int, failed: int) -> None:
        if done >= self.at:
            self.fake.always("/api/tags", REPLACED)
            if self.number is not None:
                os.kill(os.getpid(), self.number)
        super().update(done, failed)


@pytest.mark.parametrize(("rows", "at"), [*((50, at) for at in (8, 16, 24, 40, 48)), (40, 24)])
async def test_no_shard_is_mixed(fake: FakeOllama, tmp_path: Path, rows: int, at: int) -> None:
    """Wherever it happens: the shards before are whole, no row after the last look is kept."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", rows)
    await embed(fake, corpus, tmp_path / "straight")
    said = Swapping(fake, at)
    out = tmp_path / "out"
    status = await _job.run(options(corpus, out, [fake.url], max_in_flight=1), said)
    assert status == 3
    assert "the server has another model of this name now: bbbbbbbbbbbb" in said.text
    done = manifest(out)["progress"]["rows"] if exists(tmp_path) else 0
    assert done == at - at % 20
    if done:
        assert table(out).equals(table(tmp_path / "straight").slice(0, done))
        status, again = await embed(fake, corpus, out)
        assert (status, "belongs to another job" in again.text) == (2, True)
    fake.always("/api/tags", None)
    assert (await embed(fake, corpus, out))[0] == 0
    assert contents(out) == contents(tmp_path / "straight")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_after_it(fake: FakeOllama, tmp_path: Path, number: signal.Signals) -> None:
    """What a stopped job keeps of the next shard is compared first, too."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 100)
    said = Swapping(fake, 50, number)
    status = await _job.run(options(corpus, tmp_path / "out", [fake.url], max_in_flight=1), said)
    assert status in (3, 128 + number)
    assert manifest(tmp_path / "out")["progress"]["rows"] == 40
    assert len(shards(tmp_path / "out")) == 2


async def test_what_an_earlier_run_kept_stays(fake: FakeOllama, tmp_path: Path) -> None:
    """Rows that were compared when they were written are not lost by a later replacement."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 100)
    stop_after(fake, 3)
    await embed(fake, corpus, tmp_path / "out", max_in_flight=1)
    assert manifest(tmp_path / "out")["progress"]["rows"] == 24
    fake.always("/v1/embeddings", None)
    fake.always("/api/embed", None)
    status = await _job.run(
        options(corpus, tmp_path / "out", [fake.url], max_in_flight=1), Swapping(fake, 32)
    )
    assert status == 3
    assert manifest(tmp_path / "out")["progress"]["rows"] == 24
    fake.always("/api/tags", None)
    assert (await embed(fake, corpus, tmp_path / "out"))[0] == 0
    await embed(fake, corpus, tmp_path / "straight")
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


async def test_a_server_that_tells_nothing_then(fake: FakeOllama, tmp_path: Path) -> None:
    """What cannot be compared is no reason to lose rows."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 50)
    fake.script("/api/tags", Reply.default())
    fake.always("/api/tags", Reply.busy())
    assert (await embed(fake, corpus, tmp_path / "out"))[0] == 0
    assert table(tmp_path / "out").num_rows == 50
