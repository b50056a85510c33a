"""Print an answer while the model writes it; then use it as a whole."""

import anyio

from ollama_sc import AsyncClient

MODEL = "llama3.2"


async def main() -> None:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    async with AsyncClient() as client:
        # Leaving this block ends the request: after its last part, by `break` or by an exception.
        async with await client.chat(MODEL, messages, stream=True) as stream:
            async for part in stream:
                print(part.message.content, end="", flush=True)
        whole = stream.result()  # all parts, joined into one response
        print(f"\n\n{whole.eval_count} tokens, {whole.done_reason=}, {whole.complete=}")


if __name__ == "__main__":
    anyio.run(main)
