"""The folder of a job as a data set: what pandas, polars, duckdb and pyarrow show of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from ollama_sc.cli._table import KeyedVectors, write_shard
from ollama_sc.embedding import read_folder
from ollama_sc.embedding.folder import LAYOUTS
from ollama_sc.testing import FakeOllama
from tests.cli.support import embed, failures, manifest, shards, stop_after

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What is read, written and said is no matter of the event loop."""
    return "asyncio"


FAILED = [3, 4, 21, 49]


def corpus_of(path: Path, rows: int = 50) -> Path:
    """Rows with integers as keys, of which some lack the text, the key, or both."""
    lines: list[str] = []
    for number in range(rows):
        row: dict[str, Any] = {"id": 2**60 + number, "text": f"text {number}"}
        if number in FAILED:
            row["text"] = None
        if number in (4, 21):
            del row["id"]
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines))
    return path


KEYS = [None if number in (4, 21) else 2**60 + number for number in range(50)]


@pytest.fixture
async def out(fake: FakeOllama, tmp_path: Path) -> Path:
    """What a job over these rows has written."""
    corpus = corpus_of(tmp_path / "corpus.jsonl")
    assert (await embed(fake, corpus, tmp_path / "out", key="id"))[0] == 1
    assert len(shards(tmp_path / "out")) == 3
    return tmp_path / "out"


def check(keys: list[Any], vectors: list[Any]) -> None:
    """Keys and vectors as Python's own objects."""
    assert keys == KEYS
    assert [number for number, vector in enumerate(vectors) if vector is None] == FAILED
    assert all(len(vector) == 8 for vector in vectors if vector is not None)


async def test_pandas(out: Path) -> None:
    """The folder is a frame; integers are integers though some are missing; count() counts vectors."""
    frame = pd.read_parquet(out)
    assert str(frame["id"].dtype) == "Int64"
    check(
        [None if key is pd.NA else key for key in frame["id"].tolist()],
        frame["embedding"].tolist(),
    )
    assert frame["embedding"].count() == 46
    assert frame["embedding"].isna().sum() == 4
    assert np.stack(list(frame["embedding"].dropna())).shape == (46, 8)
    some = pd.read_parquet(out, columns=["id"])
    assert str(some["id"].dtype) == "Int64"


async def test_polars(out: Path) -> None:
    """A glob of the folder, eager and lazy."""
    frame = pl.read_parquet(f"{out}/*.parquet")
    assert frame.schema == {"id": pl.Int64, "embedding": pl.List(pl.Float32)}
    check(frame["id"].to_list(), frame["embedding"].to_list())
    assert frame["embedding"].count() == 46
    assert len(pl.scan_parquet(f"{out}/*.parquet").drop_nulls("embedding").collect()) == 46


async def test_duckdb(out: Path) -> None:
    """A glob of the folder."""
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT id, embedding FROM '{out}/*.parquet'")
        check(*map(list, zip(*found.fetchall(), strict=True)))
        counts = connection.sql(f"SELECT count(*), count(embedding) FROM '{out}/*.parquet'")
        assert counts.fetchall() == [(50, 46)]


async def test_pyarrow(out: Path) -> None:
    """The folder is a table, and a dataset."""
    for found in (pq.read_table(out), pyarrow.dataset.dataset(out).to_table()):
        assert found.schema.types == [pa.int64(), pa.list_(pa.float32())]
        check(found["id"].to_pylist(), found["embedding"].to_pylist())
        assert found["embedding"].null_count == 4


async def test_read_folder(out: Path) -> None:
    """Keys and one array, in order; NaN where there is no vector."""
    keys, vectors = read_folder(out)
    assert keys == KEYS
    assert (vectors.dtype, vectors.shape) == (np.float32, (50, 8))
    assert np.isnan(vectors).any(axis=1).nonzero()[0].tolist() == FAILED
    expected = pq.read_table(out)["embedding"].to_pylist()
    good = [number for number in range(50) if number not in FAILED]
    assert vectors[good].tolist() == [expected[number] for number in good]


async def test_while_a_job_is_stopped(fake: FakeOllama, tmp_path: Path) -> None:
    """What it keeps of the next shard is no part of the data set."""
    corpus = corpus_of(tmp_path / "corpus.jsonl")
    stop_after(fake, 3)
    assert (await embed(fake, corpus, tmp_path / "out", key="id", max_in_flight=1))[0] == 3
    out = tmp_path / "out"
    assert manifest(out)["progress"]["rows"] > 20
    with duckdb.connect() as connection:
        counted = connection.sql(f"SELECT count(*) FROM '{out}/*.parquet'").fetchall()
    assert counted == [(20,)]
    assert len(pd.read_parquet(out)) == len(pl.read_parquet(f"{out}/*.parquet")) == 20
    assert len(read_folder(out).keys) == 20


@pytest.mark.parametrize(
    "type_", [pa.int8(), pa.int32(), pa.uint8(), pa.uint64(), pa.int64()], ids=str
)
async def test_integers_of_every_size(fake: FakeOllama, tmp_path: Path, type_: pa.DataType) -> None:
    """In pandas they are nullable integers of their size."""
    keys = [1, None, 100]
    table = pa.table({"id": pa.array(keys, type_), "text": ["a", "b", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert (await embed(fake, tmp_path / "a.parquet", tmp_path / "out", key="id"))[0] == 1
    found = pd.read_parquet(tmp_path / "out")["id"]
    assert str(found.dtype).lower() == str(type_)
    assert found.isna().tolist() == [False, True, False]
    assert pq.read_table(tmp_path / "out").schema.field("id").type == type_


async def test_row_numbers_are_plain(fake: FakeOllama, tmp_path: Path) -> None:
    """They are never missing."""
    corpus = corpus_of(tmp_path / "corpus.jsonl")
    await embed(fake, corpus, tmp_path / "out")
    assert str(pd.read_parquet(tmp_path / "out")["row"].dtype) == "int64"


# -- order -----------------------------------------------------------------------------------------


async def test_more_than_100_000_shards_are_in_order(tmp_path: Path) -> None:
    """By the names, for every reader; and none of the first 100,000 has another name than before."""
    layout = LAYOUTS[2]
    numbers = [0, 1, 99_998, 99_999, 100_000, 100_001, 999_999, 1_000_000, 12_345_678, 10**9]
    names = [layout.shard(number) for number in numbers]
    assert sorted(names) == names
    assert names[:4] == [LAYOUTS[1].shard(number) for number in numbers[:4]]
    for number, name in reversed(list(zip(numbers, names, strict=True))):
        rows = KeyedVectors([number], np.full((1, 2), number, np.float32), [True])
        with (tmp_path / name).open("wb") as file:
            write_shard(file, "id", pa.int64(), rows, format=2)
    assert pd.read_parquet(tmp_path)["id"].tolist() == numbers
    assert pl.read_parquet(f"{tmp_path}/*.parquet")["id"].to_list() == numbers
    assert pq.read_table(tmp_path)["id"].to_pylist() == numbers
    with duckdb.connect() as connection:
        found = connection.sql(f"SELECT id FROM '{tmp_path}/*.parquet'").fetchall()
    assert [number for (number,) in found] == numbers
    assert read_folder(tmp_path).keys == numbers


# -- folders of the first format -------------------------------------------------------------------


def write_old(path: Path, keys: list[Any], vectors: Any) -> None:
    """A shard as it was then: lists of a fixed size, of nulls where there is no vector."""
    values = pa.array(vectors.reshape(-1), mask=np.isnan(vectors.reshape(-1)))
    lists = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
    table = pa.table({"id": pa.array(keys, pa.int64()), "embedding": lists})
    pq.write_table(table, path, compression="none", use_dictionary=False)


async def test_a_folder_of_the_first_format_goes_on(fake: FakeOllama, tmp_path: Path) -> None:
    """With its own names and types, to the same vectors."""
    corpus = corpus_of(tmp_path / "corpus.jsonl")
    new, old = tmp_path / "new", tmp_path / "old"
    await embed(fake, corpus, new, key="id")
    keys, vectors = read_folder(new)
    old.mkdir()
    write_old(old / "part-00000.parquet", keys[:20], vectors[:20])
    write_old(old / ".next.parquet", keys[20:24], vectors[20:24])
    saved = manifest(new)
    counted = "".join(json.dumps(entry) + "\n" for entry in failures(new) if entry["row"] < 24)
    (old / "failures.jsonl").write_text(f"{counted}more that does not count\n")
    saved["format"] = 1
    saved["progress"] |= {
        "rows": 24, "failures": 3, "failures_bytes": len(counted), "done": False,
    }  # fmt: skip
    (old / "manifest.json").write_text(json.dumps(saved))
    fake.requests.clear()
    status, said = await embed(fake, corpus, old, key="id")
    assert (status, said.lines[0]) == (1, "Going on after 24 rows that are done")
    assert "4 rows have no vector: " + str(old / "failures.jsonl") + " says why" in said.lines
    assert sorted(path.name for path in old.iterdir()) == [
        ".lock", "failures.jsonl", "manifest.json", *(f"part-0000{n}.parquet" for n in range(3)),
    ]  # fmt: skip
    types = {str(pq.read_schema(path).field("embedding").type) for path in old.glob("part-*")}
    assert types == {"fixed_size_list<element: float>[8]"}
    found = read_folder(old)
    assert found.keys == keys
    assert found.vectors.tobytes() == vectors.tobytes()
    assert (await embed(fake, corpus, old, key="id"))[1].lines[0].startswith("Done before: 50 rows")
