"""Vectors from bytes, with numpy and without."""

from __future__ import annotations

import struct
from array import array
from typing import Any

import pytest
from tests.jobs.support import MODEL, QUICK, quick_body, texts

from ollama_sc import AsyncClient, EmbedError, RequestError
from ollama_sc._jobs import vectors
from ollama_sc.testing import FakeOllama, Reply


@pytest.fixture
def no_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy is not installed."""
    monkeypatch.setattr(vectors, "has_numpy", lambda: False)


@pytest.mark.anyio
@pytest.mark.parametrize("truncate", [None, False])
async def test_without_numpy_rows_are_arrays_of_the_standard_library(
    fake: FakeOllama, no_numpy: None, truncate: bool | None
) -> None:
    """With the same values."""
    async with AsyncClient(fake.url) as client:
        expected = (await client.embed(MODEL, texts(5))).embeddings
        async with client.embed_many(MODEL, texts(5), truncate=truncate) as batches:
            (batch,) = [batch async for batch in batches]
    rows: Any = batch.vectors
    assert [type(row) for row in rows] == [array] * 5
    assert list(rows) == [array("f", row) for row in expected]


@pytest.mark.anyio
async def test_without_numpy_failures_are_found_too(fake: FakeOllama, no_numpy: None) -> None:
    """Rows are checked, and NaN where they failed."""
    row = struct.pack("<2f", float("inf"), 1)
    async with FakeOllama(dimensions=2) as server, AsyncClient(server.url) as client:
        reply = Reply.text(quick_body(row, row[4:] * 2).decode(), content_type="application/json")
        again = Reply.text(quick_body(row).decode(), content_type="application/json")
        server.script(QUICK, Reply.default(), reply, Reply.default(), again)
        async with client.embed_many(MODEL, texts(2), on_error="skip") as batches:
            batch = await anext(batches)
        assert list(batch.failures) == [0]
        rows: Any = batch.vectors
        assert rows[0][0] != rows[0][0]
        assert list(rows[1]) == [1.0, 1.0]
        server.script(QUICK, Reply.default(), reply, Reply.default(), again)
        with pytest.raises(EmbedError):
            async with client.embed_many(MODEL, texts(2)) as batches:
                await anext(batches)


@pytest.mark.anyio
async def test_one_array_needs_numpy(fake: FakeOllama, no_numpy: None) -> None:
    """The error names the extra, before anything is sent."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match=r"ollama-sc\[numpy\]"):
            await client.embed_array(MODEL, ["a"])
    assert not fake.requests


def test_bytes_are_little_endian_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of the other kind swaps them."""
    row = struct.pack("<2f", 1.5, -2)
    assert vectors.to_vectors([row], 2).tolist() == [[1.5, -2]]
    monkeypatch.setattr(vectors.sys, "byteorder", "big")
    assert vectors._array(struct.pack(">2f", 1.5, -2)) == array("f", [1.5, -2])
