"""Embedders in the workers of Dask."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import dask
import dask.bag
import dask.dataframe
import dask.multiprocessing
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.embedding.support import Served, expected, texts
from tests.support import LONG

from ollama_sc.embedding import Embedder


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_dask_maps_the_partitions_of_a_frame(
    server: Served, make: Callable[..., Embedder], scheduler: str
) -> None:
    """The result is that of a plain job; its partitions share one client and one warm-up."""
    embed = make(server, batch_size=8)
    frame = pd.DataFrame({"id": range(200), "text": texts(200)})
    parts = dask.dataframe.from_pandas(frame, npartitions=10)
    mapped = parts.map_partitions(embed, meta={**parts.dtypes, "embedding": object})
    assert not server.fake.requests  # building the graph asks for nothing
    result = mapped.compute(scheduler=scheduler)
    assert list(result["id"]) == list(range(200))
    assert server.warm_ups() == 1
    assert np.array_equal(np.stack(list(result["embedding"])), expected(server, texts(200)))


# Dask's own way of writing Parquet, which pandas 3.1 warns of.
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.set_index")
def test_dask_writes_what_comes_out(
    server: Served, make: Callable[..., Embedder], tmp_path: Path
) -> None:
    """Vectors become lists of float32 in Parquet, as docs/jobs.md has it."""
    pd.DataFrame({"body": texts(20)}).to_parquet(tmp_path / "corpus.parquet")
    rows = dask.dataframe.read_parquet(tmp_path / "corpus.parquet")
    embed = make(server, text_column="body")
    embedded = rows.map_partitions(embed, meta={**rows.dtypes, "embedding": object})
    embedded.to_parquet(tmp_path / "vectors", schema=None)
    written = pq.read_table(tmp_path / "vectors")["embedding"]
    assert written.type == pa.list_(pa.float32())
    assert np.array_equal(np.stack(written.to_numpy()), expected(server, texts(20)))


def test_dask_maps_the_partitions_of_a_bag(server: Served, make: Callable[..., Embedder]) -> None:
    """Texts without columns: a partition becomes an array."""
    embed = make(server)
    bag = dask.bag.from_sequence(texts(30), npartitions=3)
    arrays = bag.map(str.upper).map_partitions(lambda part: [embed(part)])
    whole = np.concatenate(arrays.compute(scheduler="threads"))
    assert np.array_equal(whole, expected(server, [text.upper() for text in texts(30)]))


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor | None]:
    """Two processes, started as Dask does it; in the long form, Dask does it for each test."""
    if LONG:
        yield None
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        2, mp_context=spawn, initializer=dask.multiprocessing.initialize_worker_process
    ) as pool:
        yield pool


def test_dask_sends_it_to_processes(
    server: Served, make: Callable[..., Embedder], pool: ProcessPoolExecutor | None
) -> None:
    """It is pickled for each task, and each process has one."""
    embed = make(server)
    bag = dask.bag.from_sequence(texts(60), npartitions=12)
    parts = bag.map_partitions(embed).to_delayed()
    whole = np.concatenate(dask.compute(*parts, scheduler="processes", num_workers=2, pool=pool))
    assert 1 <= server.warm_ups() <= 2
    assert np.array_equal(whole, expected(server, texts(60)))
