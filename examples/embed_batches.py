"""Many texts into vectors, with several requests in flight and the texts in order."""

from collections.abc import Iterator, Sequence

import anyio

from ollama_sc import AsyncClient

MODEL = "nomic-embed-text"
BATCH = 32  # texts in one request
IN_FLIGHT = 8  # requests at the same time


async def embed_all(client: AsyncClient, texts: Sequence[str]) -> list[list[float]]:
    """One vector for each text, in the same order."""
    vectors: dict[int, list[list[float]]] = {}
    starts = iter(range(0, len(texts), BATCH))

    async def work(starts: Iterator[int]) -> None:
        for start in starts:  # the workers share one iterator: each takes what comes next
            reply = await client.embed(MODEL, texts[start : start + BATCH])
            vectors[start] = reply.embeddings

    async with anyio.create_task_group() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.start_soon(work, starts)
    return [vector for start in sorted(vectors) for vector in vectors[start]]


async def main() -> None:
    texts = [f"This is text number {number}." for number in range(1000)]
    async with AsyncClient() as client:
        vectors = await embed_all(client, texts)
    print(f"{len(vectors)} vectors of {len(vectors[0])} numbers")


if __name__ == "__main__":
    anyio.run(main)
