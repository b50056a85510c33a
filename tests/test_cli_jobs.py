"""`ollama-sc embed` against the fake server in the same loop: what it writes, keeps and refuses."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_support import (
    MODEL,
    Said,
    contents,
    embed,
    failures,
    manifest,
    missing,
    options,
    shards,
    table,
    write_jsonl,
)

from ollama_sc import AsyncClient
from ollama_sc.cli import _bytes, _feed, _folder, _job, _shards
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._rows import Row
from ollama_sc.testing import FakeModel, FakeOllama, Reply

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fake(anyio_backend: Any) -> Any:
    """A fake server with short vectors."""
    async with FakeOllama(dimensions=8) as server:
        yield server


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "corpus.jsonl", 50)


def stop_after(fake: FakeOllama, batches: int) -> None:
    """Let the model be gone after so many batches."""
    gone = Reply.error(404, "gone")
    fake.script("/v1/embeddings", *[Reply()] * (1 + batches), gone)  # the first warms up
    fake.always("/api/embed", gone)


# -- what it writes --------------------------------------------------------------------------------


async def test_shards_hold_keys_and_vectors(fake: FakeOllama, corpus: Path, tmp_path: Path) -> None:
    """Each row's key and the vector that the server gives for its text, in order, in whole shards."""
    status, said = await embed(fake, corpus, tmp_path / "out", key="id")
    assert status == 0
    assert shards(tmp_path / "out") == [f"part-0000{n}.parquet" for n in range(3)]
    found = table(tmp_path / "out")
    assert found.schema.names == ["id", "embedding"]
    assert found.schema.field("id").type == pa.string()
    type_ = found.schema.field("embedding").type
    assert pa.types.is_fixed_size_list(type_)
    assert (type_.list_size, type_.value_type) == (8, pa.float32())
    assert found["id"].to_pylist() == [f"doc-{n}" for n in range(50)]
    async with AsyncClient(fake.url) as client:
        reply = await client.embed(MODEL, [f"Text {n} über Katzen" for n in range(50)])
    expected = np.array(reply.embeddings, np.float32)
    vectors = np.array(found["embedding"].to_pylist(), np.float32)
    assert vectors.tobytes() == expected.tobytes()
    assert [
        pq.read_metadata(tmp_path / "out" / name).num_rows for name in shards(tmp_path / "out")
    ] == [
        20,
        20,
        10,
    ]
    assert not (tmp_path / "out" / "failures.jsonl").exists()
    assert said.lines[0] == f"Done: 50 rows in 3 shards in {tmp_path / 'out'}, vectors of 8 numbers"
    assert said.started == (0, 50)
    assert said.counts[-1] == (50, 0)


async def test_hashing_much_is_said(
    fake: FakeOllama, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody wonders why nothing happens."""
    monkeypatch.setattr(_job, "_MUCH", corpus.stat().st_size)
    _, said = await embed(fake, corpus, tmp_path / "out")
    assert said.lines[0] == "Reading the input once, 0.0 GB, to know it again"


async def test_without_a_key_it_is_the_row_number(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """The key column is then `row`, an int64 from 0."""
    await embed(fake, corpus, tmp_path / "out")
    found = table(tmp_path / "out")
    assert found.schema.field("row").type == pa.int64()
    assert found["row"].to_pylist() == list(range(50))


async def test_an_empty_input_is_done(fake: FakeOllama, tmp_path: Path) -> None:
    """No shards, a manifest that says done, status 0, no request for vectors; and so again."""
    (tmp_path / "empty.jsonl").write_bytes(b"")
    for _ in range(2):
        status, _ = await embed(fake, tmp_path / "empty.jsonl", tmp_path / "out")
        assert status == 0
        assert shards(tmp_path / "out") == []
        assert manifest(tmp_path / "out")["progress"]["done"] is True
    assert {request.path for request in fake.requests} == {"/api/tags"}


@pytest.mark.parametrize("count", [19, 20, 21, 40])
async def test_the_last_shard_has_what_is_left(
    fake: FakeOllama, tmp_path: Path, count: int
) -> None:
    """Also where nothing is left."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", count)
    await embed(fake, corpus, tmp_path / "out")
    rows = [pq.read_metadata(tmp_path / "out" / name).num_rows for name in shards(tmp_path / "out")]
    assert sum(rows) == count
    assert all(number == 20 for number in rows[:-1])
    assert manifest(tmp_path / "out")["progress"]["rows"] == count


async def test_dimensions_and_truncate_reach_the_server(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """What is asked for is in each request, and vectors are as long."""
    await embed(fake, corpus, tmp_path / "out", dimensions=4, truncate=False)
    assert table(tmp_path / "out").schema.field("embedding").type.list_size == 4
    sent = [
        request.json for request in fake.requests if request.path.endswith(("embed", "embeddings"))
    ]
    assert sent
    assert all((body["dimensions"], body["truncate"]) == (4, False) for body in sent)


async def test_several_servers_share_the_work(fake: FakeOllama, tmp_path: Path) -> None:
    """Each gets some of the texts; the result is that of one."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 400)
    await embed(fake, corpus, tmp_path / "one")
    async with FakeOllama(dimensions=8) as other:
        for server in (fake, other):
            server.requests.clear()
            server.always("/v1/embeddings", Reply(delay=0.005))
        said = Said()
        hosts = [fake.url, other.url, fake.url]
        status = await _job.run(options(corpus, tmp_path / "two", hosts), said)
        assert status == 0
        assert all(len(server.requests) > 5 for server in (fake, other))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


async def test_a_server_that_does_not_answer_is_left_out(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """The job runs on the others, and says so; where none answers it stops."""
    said = Said()
    job = options(corpus, tmp_path / "out", ["127.0.0.1:9", fake.url])
    assert await _job.run(job, said) == 0
    assert said.lines[0].startswith("Left out: GET /api/tags: cannot connect to http://127.0.0.1:9")
    said = Said()
    assert await _job.run(options(corpus, tmp_path / "no", ["127.0.0.1:9"]), said) == 3
    assert "Go on with: ollama-sc embed ..." in said.text


async def test_servers_with_different_models_are_refused(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """Vectors of two models are never mixed, and no name is trusted."""
    async with FakeOllama(models=[FakeModel(MODEL, ("embedding",), system="other")]) as other:
        said = Said()
        job = options(corpus, tmp_path / "out", [fake.url, other.url])
        assert await _job.run(job, said) == 2
    assert f"the servers have different models {MODEL}" in said.text
    assert shards(tmp_path / "out") == []


async def test_a_model_that_is_not_there_is_refused(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """The message says how to get it, and shows no password."""
    host = fake.url.replace("http://", "http://me:secret@")
    said = Said()
    assert await _job.run(options(corpus, tmp_path / "out", [host], model="no-such"), said) == 2
    assert said.text == f"ollama-sc: there is no model no-such at {fake.url}: ollama pull no-such"


@pytest.mark.parametrize(
    "name",
    [f"{MODEL}:latest", MODEL.upper(), f"library/{MODEL}", f"registry.ollama.ai/library/{MODEL}"],
)
async def test_models_are_known_by_any_spelling(
    fake: FakeOllama, corpus: Path, tmp_path: Path, name: str
) -> None:
    """A job can go on under another name of the same model."""
    await embed(fake, corpus, tmp_path / "out")
    status, said = await embed(fake, corpus, tmp_path / "out", model=name)
    assert (status, said.lines) == (0, [f"Done before: 50 rows in {tmp_path / 'out'}"])


# -- rows and texts that fail ----------------------------------------------------------------------


BAD = [
    '{"id": 0, "text": "good"}',
    '{"id": 1, "text": null}',
    '{"id": 2, "body": "x"}',
    '{"id": 3, "text": 7}',
    "",
    '{"id": 4, "text": "cut',
    "[5]",
    '{"id": "six", "text": "good"}',
    '{"id": 7, "text": "good"}',
    '{"text": "good"}',
]
REASONS = [
    (1, 1, 2, '"text" is null'),
    (2, 2, 3, 'no field "text"'),
    (3, 3, 4, '"text" is not text but 7'),
    (4, None, 6, "not JSON: Input data was truncated"),
    (5, None, 7, "not an object"),
    (6, None, 8, 'the key "id" is not an integer of 64 bits but "six"'),
    (8, None, 10, 'no key "id"'),
]


async def test_rows_without_a_text_are_listed(fake: FakeOllama, tmp_path: Path) -> None:
    """They have a vector of nulls and a line in failures.jsonl; the status is 1, also afterwards."""
    corpus = tmp_path / "bad.jsonl"
    corpus.write_text("\n".join(BAD))
    for number in range(2):
        status, said = await embed(fake, corpus, tmp_path / "out", key="id", shard_rows=4)
        assert status == 1
        assert (
            f"7 rows have no vector: {tmp_path / 'out' / 'failures.jsonl'} says why" in said.lines
        )
        assert (said.started is None) == (number == 1)
    found = table(tmp_path / "out")
    assert found["id"].to_pylist() == [0, 1, 2, 3, None, None, None, 7, None]
    assert missing(tmp_path / "out") == [reason[0] for reason in REASONS]
    assert failures(tmp_path / "out") == [
        {"row": row, "key": key, "where": f"{corpus}:{line}", "reason": reason}
        for row, key, line, reason in REASONS
    ]


async def test_a_text_that_the_server_refuses_is_listed(fake: FakeOllama, tmp_path: Path) -> None:
    """Its neighbours keep their vectors."""
    corpus = tmp_path / "long.txt"
    corpus.write_text("".join(f"{'word ' * 3000 if n in (3, 11) else n}\n" for n in range(20)))
    status, _ = await embed(fake, corpus, tmp_path / "out", truncate=False)
    assert status == 1
    assert missing(tmp_path / "out") == [3, 11]
    listed = failures(tmp_path / "out")
    assert [entry["row"] for entry in listed] == [3, 11]
    assert all("the input length exceeds the context length" in entry["reason"] for entry in listed)


async def test_raise_ends_at_the_first_bad_row(fake: FakeOllama, tmp_path: Path) -> None:
    """The message names file and line; what is in front of it is kept, and skip goes on."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 50)
    lines = corpus.read_text().splitlines()
    lines[33] = '{"id": "doc-33"}'
    corpus.write_text("\n".join(lines))
    status, said = await embed(fake, corpus, tmp_path / "out", key="id", on_error="raise")
    assert status == 3
    assert said.lines == [
        f'ollama-sc: stopped: {corpus}:34: no field "text"\n'
        "--on-error skip goes on without such rows",
        "33 rows are done",
        "Go on with: ollama-sc embed ...",
    ]
    assert manifest(tmp_path / "out")["progress"]["rows"] == 33
    status, said = await embed(fake, corpus, tmp_path / "out", key="id")
    assert (status, said.lines[0]) == (1, "Going on after 33 rows that are done")
    await embed(fake, corpus, tmp_path / "straight", key="id")
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


async def test_raise_ends_at_the_first_text_that_the_server_refuses(
    fake: FakeOllama, tmp_path: Path
) -> None:
    """As at a bad row, in the middle of a batch too."""
    corpus = tmp_path / "long.txt"
    corpus.write_text("".join(f"{'word ' * 3000 if n == 12 else n}\n" for n in range(30)))
    status, said = await embed(fake, corpus, tmp_path / "out", truncate=False, on_error="raise")
    assert status == 3
    assert said.lines[0].startswith(f"ollama-sc: stopped: {corpus}:13: the input length exceeds")
    assert manifest(tmp_path / "out")["progress"]["rows"] == 12


async def test_raise_says_a_row_that_stands_behind_usable_ones_in_its_batch(
    fake: FakeOllama, tmp_path: Path
) -> None:
    """Of a refused text and a later row without one, the first counts."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        '{"text": "a"}\n' + json.dumps({"text": "word " * 3000}) + '\n{"text": null}\n'
    )
    status, said = await embed(fake, corpus, tmp_path / "out", truncate=False, on_error="raise")
    assert status == 3
    assert said.lines[0].startswith(f"ollama-sc: stopped: {corpus}:2: ")


async def test_a_field_that_no_row_has_is_refused(fake: FakeOllama, tmp_path: Path) -> None:
    """It says which fields there are; nothing was written, so another field can be said."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 1200)
    status, said = await embed(fake, corpus, tmp_path / "out", field="body", shard_rows=5)
    assert status == 2
    assert said.text == (
        'ollama-sc: none of the first 1,000 rows has a field "body": see --field\n'
        f'{corpus}:1: no field "body" (it has: id, text, x)'
    )
    assert shards(tmp_path / "out") == []
    short = tmp_path / "short.jsonl"
    short.write_text("nonsense\n{}\n")
    status, said = await embed(fake, short, tmp_path / "short")
    assert status == 2
    assert f"{short}:1: not JSON" in said.text
    assert "none of the first 2 rows" in said.text


async def test_long_stretches_without_a_text_are_not_held(
    fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, no more than a fixed number of them waits for vectors."""
    monkeypatch.setattr(_feed, "_UNUSABLE", 30)
    corpus = tmp_path / "corpus.jsonl"
    good, bad = '{"text": "good"}\n', '{"text": null}\n'
    corpus.write_text(good + bad * 200 + good * 3 + bad * 100)
    status, _ = await embed(fake, corpus, tmp_path / "out")
    assert status == 1
    assert set(range(304)) - set(missing(tmp_path / "out")) == {0, 201, 202, 203}
    assert table(tmp_path / "out").num_rows == 304
    assert len(failures(tmp_path / "out")) == 300


async def test_a_whole_shard_without_a_vector(fake: FakeOllama, tmp_path: Path) -> None:
    """It has nulls of the right number, the first shard too."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": null}\n' * 25 + '{"text": "good"}\n')
    assert (await embed(fake, corpus, tmp_path / "out"))[0] == 1
    assert missing(tmp_path / "out") == list(range(25))


async def test_a_job_that_all_texts_fail_stops(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """What no text explains is not listed as the texts' fault."""
    fake.always("/v1/embeddings", Reply.error(400, "no such thing"))
    fake.always("/api/embed", Reply.error(400, "no such thing"))
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert status == 3
    assert "no such thing" in said.text
    assert failures(tmp_path / "out") == []


# -- going on --------------------------------------------------------------------------------------


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
    assert not (tmp_path / "out" / _shards.KEPT).exists()


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
    with (tmp_path / "out" / "failures.jsonl").open("a") as file:
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
    with (tmp_path / "out" / "failures.jsonl").open("a") as file:
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
    assert (status, said.lines[0]) == (1, f"Done before: 27 rows in {out}")


# -- what binds ------------------------------------------------------------------------------------


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
    monkeypatch.setattr(_bytes, "_LONGEST", 200)
    monkeypatch.setattr(_bytes, "_PIECE", 1000)
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


# -- the folder ------------------------------------------------------------------------------------


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
    with _folder.opened(out), pytest.raises(Refused, match="at work"), _folder.opened(out):
        pass
    assert not removals
    assert not out.exists()
    removals += [1] * 100
    with pytest.raises(Refused, match="cannot write to"), _folder.opened(out):
        pass
    assert not out.exists()


def test_many_at_the_door(tmp_path: Path) -> None:
    """Of jobs that make and remove one folder all the time, no two are ever in it."""
    program = """
import pathlib, sys
from contextlib import suppress
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._folder import opened
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
    assert "is there without a manifest.json" in said.text
    for text in ("{}", "no JSON", '{"format": 2}', "\udcff"):
        (tmp_path / "out" / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        status, said = await embed(fake, corpus, tmp_path / "out")
        assert status == 2
        assert "is no manifest of this version" in said.text
    assert (tmp_path / "out" / "part-00000.parquet").read_bytes() == b"mine"


@pytest.mark.parametrize("lost", ["part-00001.parquet", "failures.jsonl", _shards.KEPT])
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
    kept = tmp_path / "out" / _shards.KEPT
    pq.write_table(pq.read_table(kept).slice(0, 3), kept)
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert status == 2
    assert f"{kept} is cut: the manifest counts 12 rows in it" in said.text


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
    (tmp_path / "out" / "manifest.json").mkdir(parents=True)
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert status == 2
    assert f"cannot read {tmp_path}/out/manifest.json: Is a directory" in said.text

    def no_locks(*args: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert (status, said.text) == (2, f"ollama-sc: cannot lock {tmp_path}/out: No locks available")


# -- a disk that is full, a process that is killed -------------------------------------------------


class Killed(BaseException):
    """Stands for a SIGKILL: nothing runs after it that changes a file."""


OPERATIONS = [
    (os, "fsync"),
    (os, "truncate"),
    (Path, "replace"),
    (Path, "unlink"),
    (Path, "open"),
    (pq, "write_table"),
]


def break_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> list[int]:
    """Let the n-th of all changes in files fail, and all after it too; counts them."""
    calls = [0]

    def breaking(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            mode = kwargs.get("mode", [*args, "r"][1])
            if original is OPEN and mode in ("r", "rb"):
                return original(*args, **kwargs)
            calls[0] += 1
            if calls[0] >= number:
                raise error
            return original(*args, **kwargs)

        return call

    for place, name in OPERATIONS:
        monkeypatch.setattr(place, name, breaking(getattr(place, name)))
    return calls


OPEN = Path.open


@pytest.fixture
def rows() -> list[Any]:
    """54 rows of which some have no text."""
    return [
        Row(n, f"c:{n}", f"k{n}", None if n % 7 == 3 else "t", "bad" if n % 7 == 3 else None)
        for n in range(54)
    ]


async def write_all(folder: Path, rows: list[Any], stop_at: int | None = None) -> None:
    """What a job does with rows and vectors, from wherever it is."""
    from ollama_sc.cli._inputs import Fingerprint
    from ollama_sc.cli._manifest import Manifest, Settings

    with _folder.opened(folder) as held:
        found = held.load()
        if found is None:
            settings = Settings(
                input=Fingerprint("files"), input_format="jsonl", field="text", key="id",
                model="m", digest="d", dimensions=None, truncate=None, shard_rows=20,
            )  # fmt: skip
            found = Manifest(settings=settings)
        else:
            held.clear(found)
        made = _shards.Shards(held, found, pa.string)
        await made.restore()
        made.expect(3)
        place = made.rows
        while place < len(rows):
            if stop_at is not None and place >= stop_at:
                await made.keep()
                return
            some = rows[place : place + 6]
            place += len(some)
            texts = [row for row in some if row.text is not None]
            vectors = np.array([[row.number, 0.1, -row.number] for row in texts], np.float32)
            refused = {n: "refused" for n, row in enumerate(texts) if row.number % 5 == 0}
            await made.add(some, vectors.reshape(-1, 3), refused)
        await made.finish()


async def test_killed_at_every_change_of_a_file(
    tmp_path: Path, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever change is the last one that happens, going on gives what an undisturbed run does."""
    await write_all(tmp_path / "straight", rows)
    expected = contents(tmp_path / "straight")
    assert sorted(expected) == ["failures.jsonl", *(f"part-0000{n}.parquet" for n in range(3))]
    for number in range(1, 200):
        folder = tmp_path / str(number)
        died = False
        with monkeypatch.context() as patched:
            calls = break_at(patched, number, Killed())
            try:
                await write_all(folder, rows, stop_at=30)
                await write_all(folder, rows, stop_at=36)
                await write_all(folder, rows)
            except Killed:
                died = True
        if died and number % 2:  # and once more, on the way from there
            with monkeypatch.context() as patched:
                break_at(patched, number // 2 + 1, Killed())
                with suppress(Killed):
                    await write_all(folder, rows)
        await write_all(folder, rows)
        assert contents(folder) == expected, number
        if not died:
            break
    assert number > 30
    assert calls[0] < number


async def test_the_disk_has_it_before_the_manifest_counts_it(
    tmp_path: Path, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is synced, then put in its place, then its name is synced; the manifest is last."""
    steps: list[str] = []

    def noting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{first}") if name == "sync" else str(first)
            steps.append(f"{name} {Path(path).name}")
            return original(first, *rest)

        return call

    monkeypatch.setattr(os, "fsync", noting("sync", os.fsync))
    monkeypatch.setattr(Path, "replace", noting("replace", Path.replace))
    await write_all(tmp_path / "out", rows[:10])
    written = [
        [f"sync .tmp-{name}", f"replace .tmp-{name}", "sync out"]
        for name in ("manifest.json", "part-00000.parquet", "manifest.json")
    ]
    assert steps == [*written[0], *written[1], "sync failures.jsonl", "sync out", *written[2]]


async def test_a_full_disk_stops_it_and_breaks_nothing(
    fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every write: it says so, the manifest is true, and with room it goes on to the same end."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 50)
    with corpus.open("a") as file:
        file.write('{"text": null}\n')
    await embed(fake, corpus, tmp_path / "straight")
    for number in range(1, 100):
        folder = tmp_path / str(number)
        with monkeypatch.context() as patched:
            break_at(patched, number, OSError(errno.ENOSPC, "No space left on device"))
            status, said = await embed(fake, corpus, folder)
        if status == 1:
            break
        assert status in (2, 3)
        assert f"cannot write to {folder}: No space left on device" in said.text
        assert (await embed(fake, corpus, folder))[0] == 1
        assert contents(folder) == contents(tmp_path / "straight")
        assert not list(folder.glob(".tmp*"))
    assert number > 15
