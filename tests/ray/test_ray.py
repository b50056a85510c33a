"""`Embedder` in the actors of Ray Data, for real: `make test-ray`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before it is imported

import anyio
import numpy as np
import pytest
import ray
import ray.data

from ollama_sc import AsyncClient
from ollama_sc.embedding import Embedder

MODEL = "nomic-embed-text"
COUNT = 20_000
TEXTS = [f"Text {number} of the corpus." for number in range(COUNT)]

# Ray's own warnings, of which there are many, are not this library's.
pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]


class Server:
    """A fake server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.url = self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def counts(self) -> tuple[int, int]:
        """Requests so far, and open connections."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        requests, connections = self._read().split()
        return int(requests), int(connections)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def serving() -> Iterator[Server]:
    command = [sys.executable, str(Path(__file__).with_name("server.py"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Four logical CPUs on this machine, and nothing listening that the test does not need."""
    ray.init(num_cpus=4, include_dashboard=False, logging_level="warning")
    yield
    ray.shutdown()


def plain(server: Server, texts: list[str]) -> Any:
    """What a plain job makes of the same texts."""

    async def run() -> Any:
        async with AsyncClient(server.url) as client:
            return await client.embed_array(MODEL, texts, max_in_flight=16)

    return anyio.run(run)


@pytest.mark.parametrize("batch_format", ["numpy", "pandas"])
def test_two_actors_embed_a_corpus_although_a_server_is_killed(batch_format: str) -> None:
    """Each row has the vector that a plain job gives it, bit for bit."""
    with ExitStack() as stack:
        stays, goes = (stack.enter_context(serving()) for _ in range(2))
        rows = ray.data.from_items(
            [{"id": number, "text": text} for number, text in enumerate(TEXTS)],
            override_num_blocks=16,
        )
        embedded = rows.map_batches(
            Embedder,
            fn_constructor_kwargs={"model": MODEL, "hosts": [goes.url, stays.url]},
            batch_format=batch_format,
            batch_size=1024,
            concurrency=2,
            num_cpus=1,
        )

        def kill_on_the_way() -> tuple[int, int]:
            while goes.counts()[0] < 40:
                time.sleep(0.01)
            requests = goes.counts()[0], stays.counts()[0]
            goes.kill()
            return requests

        whole = np.full((COUNT, 32), np.nan, np.float32)
        with ThreadPoolExecutor(1) as pool:
            killed = pool.submit(kill_on_the_way)
            for batch in embedded.iter_batches(batch_format="numpy", batch_size=2000):
                whole[batch["id"]] = np.stack(list(batch["embedding"]))
            before = killed.result()
        # Both were in use, and there was much to do still.
        assert min(before) > 10
        assert sum(before) * 64 < COUNT / 2
        assert np.array_equal(whole, plain(stays, TEXTS))


def test_errors_arrive_as_what_they_are() -> None:
    """Ray wraps what its workers raise; the library's error is in there, with all that it says."""
    with serving() as server:
        rows = ray.data.from_items([{"text": "a"}])
        embedded = rows.map_batches(
            Embedder,
            fn_constructor_kwargs={"model": "no-such-model", "hosts": server.url},
            concurrency=1,
        )
        with pytest.raises(Exception, match="ModelNotFoundError.*no-such-model"):
            embedded.take_all()
