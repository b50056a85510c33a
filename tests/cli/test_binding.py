"""What binds a folder to its job, and what may change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ollama_sc.cli import _bytes, _job
from ollama_sc.testing import FakeModel, FakeOllama
from tests.cli.support import (
    MODEL,
    contents,
    embed,
    manifest,
    stop_after,
    write_jsonl,
)

pytestmark = pytest.mark.anyio


def another_text(corpus: Path) -> dict[str, Any]:
    corpus.write_text(corpus.read_text().replace("Text 7 ", "Text x "))
    return {}


def a_row_more(corpus: Path) -> dict[str, Any]:
    write_jsonl(corpus, 51)
    return {}


@pytest.mark.parametrize(
    ("change", "label"),
    [
        (another_text, "input"),
        (a_row_more, "input"),
        ({"field": "id"}, "--field"),
        ({"key": "id"}, "--key"),
        ({"model": "all-minilm"}, "model"),
        ({"dimensions": 4}, "--dimensions"),
        ({"truncate": True}, "--truncate"),
        ({"truncate": False}, "--truncate"),
        ({"shard_rows": 30}, "--shard-rows"),
        ({"input_format": "lines"}, "input format"),
    ],
)
@pytest.mark.parametrize("done", [True, False])
async def test_what_binds_cannot_change(
    fake: FakeOllama,
    corpus: Path,
    tmp_path: Path,
    change: dict[str, Any] | Callable[[Path], dict[str, Any]],
    label: str,
    done: bool,
) -> None:
    """It is refused, says what differs, and changes nothing in the folder."""
    if not done:
        stop_after(fake, 3)
    await embed(fake, corpus, tmp_path / "out", max_in_flight=1)
    before = contents(tmp_path / "out"), manifest(tmp_path / "out")
    assert before[1]["progress"]["done"] is done
    changed = change(corpus) if callable(change) else change
    status, said = await embed(fake, corpus, tmp_path / "out", **changed)
    assert status == 2
    assert f"\n  {label}: " in said.text
    assert (contents(tmp_path / "out"), manifest(tmp_path / "out")) == before


async def test_what_does_not_bind_may_change(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """Hosts, requests in flight, the batch size, what a failure does, the file's name."""
    await embed(fake, corpus, tmp_path / "straight")
    stop_after(fake, 3)
    await embed(fake, corpus, tmp_path / "out", max_in_flight=1)
    moved = corpus.rename(tmp_path / "moved.ndjson")
    async with FakeOllama(dimensions=8) as other:
        status, _ = await embed(
            other, moved, tmp_path / "out", max_in_flight="auto", batch_size=3, on_error="raise"
        )
        assert status == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


async def test_a_model_that_was_changed_is_refused(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """Its digest binds, not its name."""
    await embed(fake, corpus, tmp_path / "out")
    async with FakeOllama(models=[FakeModel(MODEL, ("embedding",), system="other")]) as other:
        status, said = await embed(other, corpus, tmp_path / "out")
    assert status == 2
    assert f"\n  model: {MODEL} (" in said.text


async def test_an_input_that_changes_while_it_is_read_stops_it(
    fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was hashed is what is embedded, or the job does not say that it is done."""
    for corpus in (write_jsonl(tmp_path / "a.jsonl", 5), tmp_path / "a.parquet"):
        if corpus.suffix == ".parquet":
            pq.write_table(pa.table({"text": ["a", "b"]}), corpus)
        whole = corpus.read_bytes()
        examine = _job._inputs.examine

        async def examined(*args: Any, corpus: Path = corpus, whole: bytes = whole) -> Any:
            found = await examine(*args)
            corpus.write_bytes(whole)
            os.utime(corpus, ns=(1, 1))
            return found

        with monkeypatch.context() as patched:
            patched.setattr(_job._inputs, "examine", examined)
            status, said = await embed(fake, corpus, tmp_path / corpus.suffix)
        assert status == 3
        assert said.lines[0] == f"ollama-sc: stopped: {corpus} was changed while it was read"
        assert said.lines[-1] == "Go on with: ollama-sc embed ..."
        assert manifest(tmp_path / corpus.suffix)["progress"]["done"] is False


async def test_a_line_without_end_stops_what_has_begun(
    fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind rows that are done the job is stopped; where nothing was changed it is refused."""
    monkeypatch.setattr(_bytes, "_MAX_LINE_BYTES", 200)
    monkeypatch.setattr(_bytes, "_BLOCK_BYTES", 1000)
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 50)
    with corpus.open("a") as file:
        file.write("x" * 3000)
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert status == 3
    text = f"{corpus}:51: longer than 0 MiB"
    assert said.lines == [
        f"ollama-sc: stopped: {text}",
        "50 rows are done",
        "Go on with: ollama-sc embed ...",
    ]
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert (status, said.lines[-1]) == (2, f"ollama-sc: {text}")
    assert manifest(tmp_path / "out")["progress"]["rows"] == 50
    (tmp_path / "long.jsonl").write_text("x" * 3000)
    status, said = await embed(fake, tmp_path / "long.jsonl", tmp_path / "long")
    assert status == 2
    assert not (tmp_path / "long").exists()
