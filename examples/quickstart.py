"""One question, one answer."""

import anyio

from ollama_sc import AsyncClient

MODEL = "llama3.2"


async def main() -> None:
    async with AsyncClient() as client:
        reply = await client.chat(MODEL, [{"role": "user", "content": "Why is the sky blue?"}])
        print(reply.message.content)


if __name__ == "__main__":
    anyio.run(main)
