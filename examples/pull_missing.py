"""Use a model that may not be there: pull it where the server does not have it, and try again."""

import anyio

from ollama_sc import AsyncClient, ChatResponse, ModelNotFoundError

MODEL = "gemma3"


async def chat(client: AsyncClient, model: str, text: str) -> ChatResponse:
    messages = [{"role": "user", "content": text}]
    try:
        return await client.chat(model, messages)
    except ModelNotFoundError as error:
        print(f"{error.status_code}: {error.error}")
        print(f"pulling {model}: {(await client.pull(model)).status}")
        return await client.chat(model, messages)


async def main() -> None:
    async with AsyncClient() as client:
        reply = await chat(client, MODEL, "Why is the sky blue?")
        print(reply.message.content)


if __name__ == "__main__":
    anyio.run(main)
