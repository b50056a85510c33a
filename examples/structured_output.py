"""Replies that are values of a type: a whole one, and one that is shown while it grows."""

from dataclasses import dataclass

import anyio

from ollama_sc import AsyncClient, OutputError

MODEL = "llama3.2"


@dataclass
class City:
    """A city and what to see there."""

    name: str
    country: str
    sights: list[str]


async def main() -> None:
    messages = [{"role": "user", "content": "Describe a city in Norway."}]
    async with AsyncClient() as client:
        try:
            reply = await client.chat(MODEL, messages, format=City, attempts=2)
            print(reply.parsed.name, "has", len(reply.parsed.sights), "sights")
        except OutputError as error:
            print(error.reason, "at", error.path)

        async with await client.chat(MODEL, messages, format=City, stream=True) as stream:
            async for value in stream.partials():
                print(value)  # what is complete of it
            print(stream.parsed())


if __name__ == "__main__":
    anyio.run(main)
