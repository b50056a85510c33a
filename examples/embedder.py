"""Batches into vectors without an event loop, in workers: here threads, elsewhere an engine's.

Ray Data and Dask make or receive an `Embedder` in the same way; docs/jobs.md shows that.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ollama_sc.embedding import Embedder

MODEL = "nomic-embed-text"


def batches() -> Iterator[dict[str, Any]]:
    """What an engine would read from files: columns, some rows at a time."""
    for start in range(0, 2000, 250):
        rows = range(start, start + 250)
        yield {"id": list(rows), "text": [f"This is text number {row}." for row in rows]}


def main() -> None:
    # Several servers would be a list. The threads share the connections and the number in flight.
    with Embedder(MODEL, max_in_flight=8) as embed, ThreadPoolExecutor(2) as pool:

        def work(batch: dict[str, Any]) -> dict[str, Any]:
            return embed(batch)

        for batch in pool.map(work, batches()):
            print(batch["id"][0], *batch, batch["embedding"].shape)


if __name__ == "__main__":
    main()
