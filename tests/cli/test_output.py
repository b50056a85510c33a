"""What a job writes: shards of keys and vectors, by one server or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ollama_sc import AsyncClient
from ollama_sc.cli import _job
from ollama_sc.testing import FakeModel, FakeOllama, Reply
from tests.cli.support import (
    MODEL,
    Said,
    contents,
    embed,
    manifest,
    options,
    shards,
    table,
    write_jsonl,
)

pytestmark = pytest.mark.anyio


async def test_shards_hold_keys_and_vectors(fake: FakeOllama, corpus: Path, tmp_path: Path) -> None:
    """Each row's key and the vector that the server gives for its text, in order, in whole shards."""
    status, said = await embed(fake, corpus, tmp_path / "out", key="id")
    assert status == 0
    assert shards(tmp_path / "out") == [f"part-0000{n}.parquet" for n in range(3)]
    found = table(tmp_path / "out")
    assert found.schema.names == ["id", "embedding"]
    assert found.schema.field("id").type == pa.string()
    type_ = found.schema.field("embedding").type
    assert type_ == pa.list_(pa.float32())
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
    assert not (tmp_path / "out" / "_failures.jsonl").exists()
    assert said.lines[0] == f"Done: 50 rows in 3 shards in {tmp_path / 'out'}, vectors of 8 numbers"
    assert said.started == (0, 50)
    assert said.counts[-1] == (50, 0)


async def test_hashing_much_is_said(
    fake: FakeOllama, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody wonders why nothing happens."""
    monkeypatch.setattr(_job, "_LARGE_INPUT_BYTES", corpus.stat().st_size)
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
    assert {len(vector) for vector in table(tmp_path / "out")["embedding"].to_pylist()} == {4}
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


@pytest.mark.parametrize("status", [429, 502, 503, 504, 521])
async def test_a_server_behind_a_gateway_that_does_not_reach_it_is_left_out(
    fake: FakeOllama, corpus: Path, tmp_path: Path, status: int
) -> None:
    """As one that does not answer itself; the message says which it was."""
    async with FakeOllama() as other:
        other.always("/api/tags", Reply.error(status, "no backend"))
        said = Said()
        job = options(corpus, tmp_path / "out", [other.url, fake.url])
        assert await _job.run(job, said) == 0
        assert said.lines[0].startswith("Left out: GET /api/tags: no backend")
        assert said.lines[0].endswith(f"({other.url})")
        assert await _job.run(options(corpus, tmp_path / "no", [other.url]), Said()) == 3


@pytest.mark.parametrize("path", ["/api/tags", "/v1/embeddings"])
async def test_what_stops_a_job_of_several_servers_says_which_it_was(
    fake: FakeOllama, corpus: Path, tmp_path: Path, path: str
) -> None:
    """Before the job begins, and in it."""
    async with FakeOllama() as other:
        other.always(path, Reply.error(401, "who are you?"))
        other.always("/api/embed", Reply.error(401, "who are you?"))
        said = Said()
        job = options(corpus, tmp_path / "out", [fake.url, other.url])
        assert await _job.run(job, said) == 3
    (line,) = [line for line in said.lines if line.startswith("ollama-sc: stopped")]
    assert other.url in line
    assert fake.url not in line


async def test_a_model_without_a_digest_is_refused(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """Not as one that is not there: pulling it would not help."""
    fake.always("/api/tags", Reply.json({"models": [{"name": MODEL, "digest": ""}]}))
    said = Said()
    assert await _job.run(options(corpus, tmp_path / "out", [fake.url]), said) == 2
    assert said.text == (
        f"ollama-sc: the model {MODEL} at {fake.url} has no digest, which tells it from others"
    )


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
