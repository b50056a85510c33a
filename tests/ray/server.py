"""A fake server as a process that tells, on each line it gets, how many requests there have been."""

import sys

import anyio

from ollama_sc.testing import FakeOllama


async def main() -> None:
    async with FakeOllama(dimensions=32, embed_seconds=0.1) as fake:
        print(fake.url, flush=True)
        async for _ in anyio.wrap_file(sys.stdin):
            print(len(fake.requests), fake.open_connections, flush=True)


if __name__ == "__main__":
    anyio.run(main)
