"""Many texts into vectors without an event loop, from a generator that waits for its lines."""

import sys
from collections.abc import Iterator

from ollama_sc import Client

MODEL = "nomic-embed-text"


def lines() -> Iterator[str]:
    # It is read in a thread, no further than the next batch needs.
    for line in sys.stdin:
        if line.strip():
            yield line.strip()


def main() -> None:
    with Client() as client, client.embed_many(MODEL, lines(), batch_size=16) as batches:
        for batch in batches:
            print(batch.start, len(batch), len(batch.vectors[0]))
        print(batches.progress.texts, "texts")


if __name__ == "__main__":
    main()
