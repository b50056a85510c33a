"""Rows of Parquet: texts and keys of every type, and files that are damaged."""

from __future__ import annotations

import io
import os
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sc.cli import _inputs, _parquet
from ollama_sc.cli._errors import JobError, Refused
from ollama_sc.cli._parquet_types import common_key_type, converter
from ollama_sc.cli._rows import Row
from ollama_sc.testing import FakeOllama
from tests.cli.support import (
    embed,
    failures,
    read,
    table,
    written,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What is read, written and said is no matter of the event loop."""
    return "asyncio"


TEXTS = ["a", None, "über", ""]


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
async def test_parquet_texts(tmp_path: Path, type_: pa.DataType) -> None:
    """Of every type that holds text; null is a problem of its row."""
    pq.write_table(pa.table({"text": pa.array(TEXTS, type_)}), tmp_path / "a.parquet")
    rows, key_type = await read(tmp_path / "a.parquet")
    assert [row.text for row in rows] == TEXTS
    assert [row.problem for row in rows] == [None, '"text" is null', None, None]
    assert rows[2] == Row(2, f"{tmp_path}/a.parquet:3", 2, "über")
    assert key_type == pa.int64()


@pytest.mark.parametrize(
    ("keys", "type_", "kept"),
    [
        ([1, None], pa.int32(), pa.int32()),
        ([1, 2**64 - 1], pa.uint64(), pa.uint64()),
        (["a", None], pa.large_string(), pa.large_string()),
        (["a", "b"], pa.dictionary(pa.int8(), pa.string()), pa.string()),
        ([b"\xff", None], pa.binary(), pa.binary()),
        ([b"\xff1", b"abc"[:2]], pa.binary(2), pa.binary(2)),
    ],
    ids=str,
)
async def test_parquet_keys_keep_their_type(
    tmp_path: Path, keys: list[Any], type_: pa.DataType, kept: pa.DataType
) -> None:
    """Integers, text and binary."""
    table = pa.table({"id": pa.array(keys, type_), "text": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows, key_type = await read(tmp_path / "a.parquet", key="id")
    assert [row.key for row in rows] == keys
    assert key_type == kept
    assert pa.array(keys, key_type).to_pylist() == keys


async def test_parquet_text_that_is_none(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are a problem of their row, in texts and in keys."""
    bad = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    good = ["x", "y", "z"]
    pq.write_table(pa.table({"text": bad, "id": good}), tmp_path / "a.parquet")
    rows, _ = await read(tmp_path / "a.parquet", key="id")
    assert [(row.key, row.text) for row in rows] == [("x", "a"), ("y", None), ("z", "c")]
    assert rows[1].problem == '"text" is not UTF-8'
    rows, _ = await read(tmp_path / "a.parquet", key="text", field="id")
    assert [(row.key, row.text) for row in rows] == [("a", "x"), (None, None), ("c", "z")]
    assert rows[1].problem == 'the key "text" is not UTF-8'


@pytest.mark.parametrize(
    ("field", "key", "text"),
    [
        ("body", None, 'has no column "body" but text, id, flag: see --field'),
        ("id", None, '"id" is not text but int64'),
        ("text", "no", 'has no column "no" but text, id, flag: see --key'),
        ("text", "flag", 'the key "flag" is bool, and neither a number, text, binary nor a UUID'),
    ],
)
async def test_parquet_columns_are_checked_before_the_job(
    tmp_path: Path, field: str, key: str | None, text: str
) -> None:
    """With the names of the columns that there are."""
    table = pa.table({"text": ["a"], "id": [1], "flag": [True]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(Refused) as caught:
        await read(tmp_path / "a.parquet", field=field, key=key)
    assert text in str(caught.value)


async def test_parquet_files_that_do_not_fit_together(tmp_path: Path) -> None:
    """Keys of two types that nothing holds, and a file that is no Parquet."""
    pq.write_table(pa.table({"text": ["a"], "id": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "id": [b"1"]}), tmp_path / "b.parquet")
    with pytest.raises(Refused, match='the key "id" is binary, and int64 in the files before'):
        await read(tmp_path / "a.parquet", tmp_path / "b.parquet", key="id")
    written(tmp_path / "c.parquet", b"PAR1 no PAR1")
    with pytest.raises(Refused, match=r"cannot read .*c\.parquet"):
        await read(tmp_path / "c.parquet")


async def test_parquet_that_is_damaged_behind_its_index_stops(tmp_path: Path) -> None:
    """With the file's name."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(1000)]}), path, compression="gzip")
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(JobError, match=r"cannot read .*a\.parquet"):
        await read(path)


async def test_parquet_with_views_of_text_is_text(fake: FakeOllama, tmp_path: Path) -> None:
    """Columns of the type string_view, as newer writers leave them, are read as text and keys."""
    views = pa.array([b"a", None, b"c", b"\xff"], pa.binary_view()).view(pa.string_view())
    keys = pa.array(["k", "l", None, "n"], pa.string_view())
    pq.write_table(pa.table({"text": views, "id": keys}), tmp_path / "a.parquet")
    status, _ = await embed(fake, tmp_path / "a.parquet", tmp_path / "out", key="id")
    assert status == 1
    assert table(tmp_path / "out")["id"].to_pylist() == ["k", "l", None, "n"]
    reasons = [failure["reason"] for failure in failures(tmp_path / "out")]
    assert reasons == ['"text" is null', '"text" is not UTF-8']


@pytest.mark.parametrize("text_bytes", [100, 20_000])
async def test_columns_are_read_a_piece_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text_bytes: int
) -> None:
    """No read, and no batch of rows, is much larger than a page, however large the row group is."""
    texts = [os.urandom(text_bytes // 2).hex() for _ in range(16_000_000 // text_bytes)]
    table = pa.table({"text": texts, "id": range(len(texts)), "more": texts})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, use_dictionary=False, write_batch_size=16)
    sizes: list[int] = []

    class Counting(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            sizes.append(len(data))
            return data

    monkeypatch.setattr(_parquet, "_open", lambda file: Counting(file.path))
    source = await _inputs.examine([path], "parquet")
    reader = _parquet.ParquetReader(source, 0, field="text", key="id", key_type=pa.int64())
    found = 0
    while rows := await reader.next_rows():
        found += len(rows)
        assert sum(len(row.text or "") for row in rows) < 6_000_000
    assert found == len(texts)
    assert max(sizes) <= 2_000_000
    assert sum(sizes) < 1.5 * 16_000_000  # the other column is not read


# -- types that differ, and those of other writers -------------------------------------------------

ONE, TWO = uuid.UUID(int=5), uuid.UUID(int=2**127)


@pytest.mark.parametrize(
    ("values", "type_", "keys", "kept"),
    [
        ([ONE.bytes, None], pa.uuid(), [ONE, None], pa.uuid()),
        (['{"a":1}', None], pa.json_(), ['{"a":1}', None], pa.string()),
        ([None, None], pa.null(), [None, None], pa.null()),
        ([1.5, None], pa.float64(), [1.5, None], pa.float64()),
        ([1.5, 2], pa.float32(), [1.5, 2.0], pa.float32()),
        ([Decimal(10**30), None], pa.decimal128(38), [Decimal(10**30), None], pa.decimal128(38)),
        ([b"a", None], pa.binary_view(), [b"a", None], pa.binary()),
    ],
    ids=str,
)
async def test_keys_of_other_types(
    fake: FakeOllama, tmp_path: Path, values: Any, type_: Any, keys: Any, kept: Any
) -> None:
    """They are copied, and pandas, polars and duckdb can read what is written."""
    pq.write_table(
        pa.table({"id": pa.array(values, type_), "text": ["a", None]}), tmp_path / "a.parquet"
    )
    status, _ = await embed(fake, tmp_path / "a.parquet", tmp_path / "out", key="id")
    assert status == 1
    found = table(tmp_path / "out")
    assert (found.schema.field("id").type, found["id"].to_pylist()) == (kept, keys)
    assert failures(tmp_path / "out")[0]["reason"] == '"text" is null'
    assert len(pd.read_parquet(tmp_path / "out")) == 2
    assert len(pl.read_parquet(f"{tmp_path}/out/*.parquet")) == 2
    with duckdb.connect() as connection:
        assert connection.sql(f"SELECT count(*) FROM '{tmp_path}/out/*.parquet'").fetchall() == [
            (2,)
        ]


@pytest.mark.parametrize(
    "type_", [pa.null(), pa.json_(), pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.large_string())], ids=str
)  # fmt: skip
async def test_texts_of_other_types(tmp_path: Path, type_: Any) -> None:
    """JSON is text, bytes are text where they are UTF-8, nothing but nulls is nothing but nulls."""
    values: list[Any] = [None, None] if type_ == pa.null() else ["über", None]
    if "binary" in str(type_):
        values = ["über".encode(), b"\xff"]
    pq.write_table(pa.table({"text": pa.array(values, type_)}), tmp_path / "a.parquet")
    rows, _ = await read(tmp_path / "a.parquet")
    assert [row.text for row in rows] == ["über" if type_ != pa.null() else None, None]
    assert rows[1].problem in ('"text" is null', '"text" is not UTF-8')


async def test_what_duckdb_writes(tmp_path: Path) -> None:
    """UUIDs, JSON and nulls by another writer than pyarrow."""
    query = f"SELECT '{ONE}'::UUID AS id, '[1]'::JSON AS text, NULL AS no"
    with duckdb.connect() as connection:
        connection.sql(f"COPY ({query}) TO '{tmp_path}/a.parquet'")
    rows, key_type = await read(tmp_path / "a.parquet", key="id")
    assert [(row.key, row.text) for row in rows] == [(ONE, "[1]")]
    assert key_type == pa.uuid()
    rows, _ = await read(tmp_path / "a.parquet", key="text", field="no")
    assert [(row.key, row.problem) for row in rows] == [("[1]", '"no" is null')]


@pytest.mark.parametrize(
    ("types", "values", "kept", "keys"),
    [
        ([pa.int32(), pa.int64()], [1, 2], pa.int64(), [1, 2]),
        ([pa.uint8(), pa.uint32()], [1, 2], pa.uint32(), [1, 2]),
        ([pa.int8(), pa.uint64()], [-1, 2**63], pa.int64(), [-1, None]),
        ([pa.int64(), pa.float64()], [2**53 + 1, 3.0], pa.int64(), [2**53 + 1, 3]),
        ([pa.float64(), pa.int8()], [0.5, 3], pa.int64(), [None, 3]),
        ([pa.float64(), pa.uint8()], [-1.0, 3], pa.uint64(), [None, 3]),
        ([pa.int64(), pa.string()], [1, "x"], pa.string(), ["1", "x"]),
        ([pa.string(), pa.float64()], ["x", 7.0], pa.string(), ["x", "7"]),
        ([pa.string(), pa.large_string()], ["x", "y"], pa.string(), ["x", "y"]),
        ([pa.string(), pa.dictionary(pa.int8(), pa.string())], ["x", "y"], pa.string(), ["x", "y"]),
        ([pa.string(), pa.uuid()], ["x", TWO.bytes], pa.string(), ["x", str(TWO)]),
        ([pa.string(), pa.binary()], ["x", b"\xff"], pa.binary(), [b"x", b"\xff"]),
        ([pa.binary(2), pa.binary(3)], [b"ab", b"abc"], pa.binary(), [b"ab", b"abc"]),
        ([pa.null(), pa.int32()], [None, 4], pa.int32(), [None, 4]),
        ([pa.json_(), pa.null()], ["{}", None], pa.string(), ["{}", None]),
    ],
    ids=str,
)
async def test_keys_whose_types_differ_between_files(
    fake: FakeOllama, tmp_path: Path, types: Any, values: Any, kept: Any, keys: Any
) -> None:
    """In one type that holds all of them; one that it does not hold fails its row alone."""
    texts = [pa.array(["a"], pa.string()), pa.array(["b"], pa.large_string())]
    for number in range(2):
        columns = {"id": pa.array([values[number]], types[number]), "text": texts[number]}
        pq.write_table(pa.table(columns), tmp_path / f"{number}.parquet")
    status, _ = await embed(fake, f"{tmp_path}/?.parquet", tmp_path / "out", key="id")
    bad = [number for number in range(2) if keys[number] is None and values[number] is not None]
    assert status == (1 if bad else 0)
    found = table(tmp_path / "out")
    assert (found.schema.field("id").type, found["id"].to_pylist()) == (kept, keys)
    assert [failure["row"] for failure in failures(tmp_path / "out")] == bad
    assert all(
        f'the key "id" is no {kept}' in each["reason"] for each in failures(tmp_path / "out")
    )


ALL_TYPES = [
    pa.null(), pa.int8(), pa.uint64(), pa.float32(), pa.float64(), pa.string(), pa.large_string(), pa.binary(),
    pa.binary(4), pa.uuid(), pa.json_(), pa.decimal128(9), pa.bool_(), pa.date32(), pa.list_(pa.int8()),
]  # fmt: skip


@given(st.lists(st.sampled_from(ALL_TYPES), min_size=1, max_size=4))
def test_a_common_type_is_whole(types: list[Any]) -> None:
    """In any order it is the same, or there is none; and adding it changes nothing."""
    common = common_key_type(types)
    assert common_key_type(types[::-1]) == common
    if common is not None:
        assert common_key_type([*types, common]) == common
        for type_ in types:
            converter(type_, common)
