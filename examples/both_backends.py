"""The same code on trio and on asyncio: `python both_backends.py --backend trio`."""

import argparse

import anyio

from ollama_sc import AsyncClient

MODEL = "llama3.2"


async def main(backend: str) -> None:
    async with AsyncClient() as client:
        reply = await client.generate(MODEL, "Say hello in one sentence.")
        print(f"{backend}: {reply.response}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--backend", choices=("trio", "asyncio"), default="asyncio")
    options = parser.parse_args()
    # trio.run(main, "trio") and asyncio.run(main("asyncio")) do the same.
    anyio.run(main, options.backend, backend=options.backend)
