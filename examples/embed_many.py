"""Many texts into vectors: batches as they come, one array, texts that fail, several servers."""

from collections.abc import AsyncIterator

import anyio

from ollama_sc import AsyncClient
from ollama_sc.embedding import Progress, embed_many

MODEL = "nomic-embed-text"


async def read_texts() -> AsyncIterator[str]:
    """What would come from a file or a database; it is read no faster than it is embedded."""
    for number in range(1000):
        await anyio.lowlevel.checkpoint()
        yield f"This is text number {number}."


def show(progress: Progress) -> None:
    if progress.batches % 5 == 0:
        print(f"{progress.texts} texts, {progress.rate:.0f} a second")


async def main() -> None:
    async with AsyncClient() as client:
        async with client.embed_many(MODEL, read_texts(), on_progress=show) as batches:
            print(f"vectors of {batches.dimensions} numbers")
            async for batch in batches:
                assert len(batch.vectors) == len(batch.inputs)  # write them somewhere

        # What fits into memory, as one array of numpy.
        texts = ["the sky", "the sea", "a red brick"]
        vectors = await client.embed_array(MODEL, texts)
        print("the sky is nearest to", texts[1 + int((vectors[1:] @ vectors[0]).argmax())])

        # A text that is too long is cut in silence, unless truncate=False makes that an error.
        texts.append("long " * 10_000)
        async with client.embed_many(MODEL, texts, truncate=False, on_error="skip") as batches:
            async for batch in batches:
                for index, reason in batch.failures.items():
                    print(f"text {index} failed: {reason}")

        # Two servers: each has a client of its own. (Here it is one server, twice.)
        async with (
            AsyncClient() as other,
            embed_many(
                clients=[client, other], model=MODEL, texts=texts * 50, ordered=False
            ) as batches,
        ):
            print(sum([len(batch) async for batch in batches]), "texts on two servers")


if __name__ == "__main__":
    anyio.run(main)
