"""Make a model from another one: with a system text and parameters of its own."""

import anyio

from ollama_sc import AsyncClient

BASE = "llama3.2"
MODEL = "ollama-sc-captain"


async def main() -> None:
    async with AsyncClient() as client:
        async with await client.create(
            MODEL,
            from_=BASE,
            system="You are the captain of a ship. Answer in one sentence.",
            parameters={"temperature": 0.5},
            stream=True,
        ) as progress:
            async for part in progress:
                print(part.status)

        reply = await client.chat(MODEL, [{"role": "user", "content": "Where are we going?"}])
        print(f"the captain says: {reply.message.content}")
        await client.delete(MODEL)


if __name__ == "__main__":
    anyio.run(main)
