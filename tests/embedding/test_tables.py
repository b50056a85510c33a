"""Tables of pyarrow and frames of polars: copies with one more column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from tests.embedding.support import Served, expected, texts

from ollama_sc import RequestError
from ollama_sc.embedding import Embedder

COLUMNS = {"id": list(range(5)), "text": texts(5)}
TABLES: dict[str, Callable[[], Any]] = {
    "Table": lambda: pa.table(COLUMNS),
    "Table of pieces": lambda: pa.concat_tables([pa.table(COLUMNS).slice(0, 2), pa.table(COLUMNS).slice(2)]),
    "RecordBatch": lambda: pa.record_batch(COLUMNS),
    "Table of dictionaries": lambda: pa.table({**COLUMNS, "text": pa.array(texts(5)).dictionary_encode()}),
    "DataFrame": lambda: pl.DataFrame(COLUMNS),
    "DataFrame of categories": lambda: pl.DataFrame(COLUMNS).cast({"text": pl.Categorical}),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_gets_one_more_column(
    server: Served, make: Callable[..., Embedder], kind: str
) -> None:
    """Of vectors of a fixed size, as float32; what was given is as it was."""
    given = TABLES[kind]()
    found = make(server)(given)
    assert type(found) is type(given)
    names = found.columns if isinstance(given, pl.DataFrame) else found.column_names
    assert list(names) == ["id", "text", "embedding"]
    column = found["embedding"] if isinstance(given, pl.DataFrame) else found.column("embedding")
    vectors = np.array(column.to_list() if isinstance(given, pl.DataFrame) else column.to_pylist())
    assert vectors.astype(np.float32).tobytes() == expected(server, texts(5)).tobytes()
    if isinstance(given, pl.DataFrame):
        assert column.dtype == pl.Array(pl.Float32, 8)
    else:
        assert column.type == pa.list_(pa.float32(), 8)
    assert given.equals(TABLES[kind]())


def test_columns_alone(server: Served, make: Callable[..., Embedder]) -> None:
    """Arrays of pyarrow and a Series of polars are texts without columns; empty tables stay empty."""
    embed = make(server)
    for column in (pa.array(["a"]), pa.chunked_array([["a"], []]), pl.Series(["a"])):
        assert embed(column).shape == (1, 8)
    assert embed(pl.DataFrame(schema={"text": pl.String})).schema["embedding"] == pl.Array(
        pl.Float32, 8
    )
    assert embed(pa.table({"text": pa.array([], pa.string())})).num_rows == 0


@pytest.mark.parametrize(
    ("batch", "match"),
    [
        (pa.table({"body": ["a"]}), "there is no column 'text', only 'body'"),
        (pl.DataFrame({"body": ["a"]}), "there is no column 'text', only 'body'"),
        (pa.table([["a"], ["b"]], names=["text", "text"]), "there are 2 columns 'text'"),
        (pa.table({"text": ["a"], "embedding": [1]}), "there is a column 'embedding' already"),
        (pl.DataFrame({"text": ["a"], "embedding": [1]}), "there is a column 'embedding' already"),
        (pa.table({"text": ["a", None]}), r"batch\['text'\]\[1\] is null"),
        (pl.DataFrame({"text": ["a", None]}), r"batch\['text'\]\[1\] is null"),
        (pl.DataFrame({"text": [1]}), "must be text, not int"),
        (pl.LazyFrame({"text": ["a"]}), "a LazyFrame has no rows yet: collect it first"),
    ],
    ids=str,
)
def test_tables_that_are_wrong(
    server: Served, make: Callable[..., Embedder], batch: Any, match: str
) -> None:
    """A clear error, and nothing is sent."""
    with pytest.raises(RequestError, match=match):
        make(server)(batch)
    assert not server.fake.requests
