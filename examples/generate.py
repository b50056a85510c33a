"""Continue a text, with a system message and options; then the same, piece by piece."""

import anyio

from ollama_sc import AsyncClient, Options

MODEL = "llama3.2"


async def main() -> None:
    options = Options(temperature=0, seed=1, num_predict=60)  # or a dict of the same names
    async with AsyncClient() as client:
        reply = await client.generate(
            MODEL,
            "Why is the sky blue?",
            system="Answer in one short sentence.",
            options=options,
            keep_alive="10m",  # how long the model stays loaded
        )
        print(reply.response)
        print(f"{reply.prompt_eval_count} tokens read, {reply.eval_count} written")

        async with await client.generate(MODEL, "And at night?", stream=True) as stream:
            async for text in stream.iter_text():
                print(text, end="", flush=True)
        print()


if __name__ == "__main__":
    anyio.run(main)
