"""One text into a vector, then several texts in one request, and which of them are alike."""

import anyio

from ollama_sc import AsyncClient

MODEL = "nomic-embed-text"
TEXTS = ["The cat sleeps.", "A kitten naps.", "Interest rates rose."]


async def main() -> None:
    async with AsyncClient() as client:
        one = await client.embed(MODEL, "The sky is blue.")
        print(f"one text: a vector of {len(one.embeddings[0])} numbers")

        # The vectors come in the order of the texts, each of length one.
        batch = await client.embed(MODEL, TEXTS)
        print(f"{len(TEXTS)} texts: {len(batch.embeddings)} vectors")
        first, *others = batch.embeddings
        for text, vector in zip(TEXTS[1:], others, strict=True):
            likeness = sum(a * b for a, b in zip(first, vector, strict=True))
            print(f"{TEXTS[0]!r} and {text!r}: {likeness:.2f}")


if __name__ == "__main__":
    anyio.run(main)
