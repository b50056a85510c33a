"""What an embedder takes texts from: lists, arrays, mappings and frames."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from tests.embedding.support import MODEL, Served, expected, texts

from ollama_sc import RequestError
from ollama_sc.embedding import Embedder
from ollama_sc._jobs.servers import PROBE


def test_a_mapping_comes_back_with_one_more_column(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """The other columns are as they were, and so is the mapping that was given."""
    embed = make(server, text_column="body", output_column="vector")
    batch = {"id": np.arange(5), "body": np.array(texts(5), dtype=object)}
    result = embed(batch)
    assert list(batch) == ["id", "body"]
    assert list(result) == ["id", "body", "vector"]
    assert result["id"] is batch["id"]
    assert np.array_equal(result["vector"], expected(server, texts(5)))


def test_a_frame_comes_back_with_one_more_column(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """It has an array in each row; index and other columns stay, and so does what was given."""
    embed = make(server)
    frame = pd.DataFrame({"id": [1, 2, 3], "text": texts(3)}, index=[7, 5, 5])
    result = embed(frame)
    assert list(frame.columns) == ["id", "text"]
    assert list(result.columns) == ["id", "text", "embedding"]
    assert list(result.index) == [7, 5, 5]
    assert [row.dtype for row in result["embedding"]] == [np.float32] * 3
    assert np.array_equal(np.stack(list(result["embedding"])), expected(server, texts(3)))


@pytest.mark.parametrize(
    "kind",
    [
        tuple,
        iter,
        np.array,
        partial(np.array, dtype=object),
        partial(np.array, dtype=np.dtypes.StringDType()),
        pd.Series,
        partial(pd.Series, dtype=object),
        partial(pd.Series, dtype="string[pyarrow]"),
        partial(pd.Series, dtype="category"),
        pd.Index,
        pa.array,
        lambda some: pa.chunked_array([some[:1], some[1:]]),
        lambda some: pa.array(some).dictionary_encode(),
        lambda some: pa.array(some, pa.large_string()),
        lambda some: dict.fromkeys(some).keys(),
    ],
)
def test_texts_come_in_all_kinds_of_arrays(server: Served, kind: Callable[[Any], Any]) -> None:
    """Whatever engines hold texts in."""
    with Embedder(MODEL, server.url) as embed:
        array = embed(kind(texts(3)))
        assert np.array_equal(array, embed(texts(3)))
        assert array.shape == (3, 8)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (["a", None], r"\['text'\]\[1\] is null \(None\): drop such rows"),
        (np.array(["a", np.nan], dtype=object), r"\[1\] is null \(nan\)"),
        (pd.Series(["a", None]), r"\[1\] is null"),
        (pd.Series(["a", pd.NA], dtype="string[pyarrow]"), r"\[1\] is null \(<NA>\)"),
        (pd.Series([pd.NaT]), r"\[0\] is null \(NaT\)"),
        (pa.array(["a", None]), r"\[1\] is null \(None\)"),
        (np.array([1.5]), r"\[0\] must be text, not float"),
        (np.array([b"a"]), r"\[0\] must be text, not bytes"),
        (np.array([["a", "b"]]), r"must have one dimension, not the shape \(1, 2\)"),
        (np.array("a"), "must have one dimension"),
        ("a text", "must be many texts, not one str"),
        (5, "must be texts, not int"),
    ],
)
def test_what_is_no_text_is_refused_before_anything_is_sent(
    server: Served, column: Any, problem: str
) -> None:
    """The error says which row it is and what to do."""
    with Embedder(MODEL, server.url) as embed, pytest.raises(RequestError, match=problem):
        embed({"text": column})
    assert not server.fake.requests


def test_columns_that_cannot_be_right_are_refused_before_anything_is_sent(server: Served) -> None:
    """A column that is missing, and one that would be lost."""
    with Embedder(MODEL, server.url) as embed:
        with pytest.raises(RequestError, match="no column 'text', only 'id', 'body'"):
            embed({"id": [1], "body": ["a"]})
        with pytest.raises(RequestError, match="no column 'text', only none"):
            embed(pd.DataFrame())
        with pytest.raises(RequestError, match="there is a column 'embedding' already"):
            embed(pd.DataFrame({"text": ["a"], "embedding": [5]}))
    assert not server.fake.requests


def test_an_empty_batch_is_one_of_0_by_d(server: Served, make: Callable[..., Embedder]) -> None:
    """The first call asks how long vectors are, and no other."""
    embed = make(server)
    for batch in ([], np.array([], dtype=object), pa.array([], pa.string()), iter(())):
        array = embed(batch)
        assert (array.shape, array.dtype) == ((0, 8), np.float32)
    assert embed({"text": []})["embedding"].shape == (0, 8)
    frame = embed(pd.DataFrame({"text": []}))
    assert list(frame.columns) == ["text", "embedding"]
    assert frame["embedding"].dtype == object
    assert server.inputs() == [[PROBE]]
