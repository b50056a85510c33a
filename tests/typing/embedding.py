"""Driven by type checkers alone: embedding jobs."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from typing_extensions import Unpack, assert_type

from ollama_sc import AsyncClient, EmbedManyFields, Group, Timeouts
from ollama_sc.embedding import (
    Batch,
    Batches,
    EmbeddedRows,
    Embedder,
    Progress,
    embed_array,
    embed_many,
    read_folder,
)

Matrix = NDArray[np.float32]


async def jobs(client: AsyncClient, group: Group, texts: list[str]) -> None:
    assert_type(client.embed_many("m", texts), Batches)
    assert_type(await client.embed_array("m", texts), Matrix)
    assert_type(embed_many(clients=[client, group], model="m", texts=texts), Batches)
    assert_type(await embed_array(clients=[client], model="m", texts=texts), Matrix)
    async with group.embed_many("m", texts, batch_size=8, truncate=False) as batches:
        assert_type(batches, Batches)
        assert_type(batches.dimensions, int)
        assert_type(batches.progress, Progress)
        assert_type(batches.abort("why"), bool)
        async for batch in batches:
            assert_type(batch, Batch)
            assert_type(batch.start, int)
            assert_type(batch.inputs, list[str])
            assert_type(batch.vectors, Matrix)
            assert_type(batch.failures, dict[int, str])


def sources(
    client: AsyncClient, some: Iterator[str], later: AsyncIterator[str], array: tuple[str, ...]
) -> None:
    client.embed_many("m", some)
    client.embed_many("m", later)
    client.embed_many("m", array)
    client.embed_many("m", (line.strip() for line in some))


def folder(path: str) -> None:
    assert_type(read_folder(path), EmbeddedRows)
    keys, vectors = read_folder(path)
    assert_type(keys, list[Any])
    assert_type(vectors, Matrix)


def tables(embed: Embedder, table: pa.Table, rows: pa.RecordBatch) -> None:
    assert_type(embed(table), pa.Table)
    assert_type(embed(rows), pa.RecordBatch)


def tell(progress: Progress) -> None:
    assert_type(progress.total, int | None)
    assert_type(progress.seconds_left, float | None)


def every_field(client: AsyncClient, **fields: Unpack[EmbedManyFields]) -> Batches:
    client.embed_many(
        "m",
        ["a"],
        batch_size=1,
        batch_chars=None,
        max_in_flight="auto",
        ordered=False,
        on_error="skip",
        attempts=1,
        retry_timeout=None,
        on_progress=tell,
        truncate=None,
        dimensions=5,
        options={"num_ctx": 1},
        keep_alive="5m",
        timeout=Timeouts(total=5),
    )
    client.embed_many("m", ["a"], max_in_flight=[4, "auto"], on_progress=print)
    return client.embed_many("m", ["a"], **fields)


class Frame:
    """As pandas has it."""

    columns: list[str]

    def assign(self, **columns: object) -> "Frame":
        raise NotImplementedError

    def __getitem__(self, name: str) -> object:
        raise NotImplementedError


def embedders(
    columns: Mapping[str, Any], frame: Frame, array: NDArray[Any], **fields: Unpack[EmbedManyFields]
) -> None:
    embed = Embedder("m", ["a", "b"], text_column="body", max_in_flight=[4, "auto"])
    assert_type(embed(columns), dict[str, Any])
    assert_type(embed(frame), Frame)
    assert_type(embed(["a"]), Matrix)
    assert_type(embed(array), Matrix)
    assert_type(embed(line.strip() for line in ("a", "b")), Matrix)
    assert_type(embed(pa.array(["a"])), Matrix)
    with Embedder("m", backend="trio", client_options={"timeout": 5}, **fields) as entered:
        assert_type(entered, Embedder)
    Embedder("m", "host", backend="curio")  # type: ignore[arg-type]
    Embedder("m", prompt="a")  # type: ignore[call-arg]
    embed(5)  # type: ignore[call-overload]


async def wrong(client: AsyncClient) -> None:
    client.embed_many("m", 5)  # type: ignore[arg-type]
    client.embed_many("m", [5])  # type: ignore[list-item]
    client.embed_many(5, ["a"])  # type: ignore[arg-type]
    client.embed_many("m", ["a"], batch_size="64")  # type: ignore[arg-type]
    client.embed_many("m", ["a"], max_in_flight="many")  # type: ignore[arg-type]
    client.embed_many("m", ["a"], on_error="ignore")  # type: ignore[arg-type]
    client.embed_many("m", ["a"], prompt="a")  # type: ignore[call-arg]
    client.embed_many("m", ["a"], on_progress=tell(Progress()))  # type: ignore[func-returns-value]
    embed_many([client], "m", ["a"])  # type: ignore[call-arg]
    async for batch in client.embed_many("m", ["a"]):
        batch.start = 5  # type: ignore[misc]
