"""Client CPU for streams and embeddings, beside ollama-python's, in one run: `make bench`.

The server is a process of its own. Each contender runs in a fresh process for each round, the
rounds in turn, so that a machine that slows down slows all of them. What counts is the CPU time of
the client process; the medians are given, and the ratio to ollama-python.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anyio

MESSAGES = [{"role": "user", "content": "Hello"}]
TOKENS = 3000
STREAMS = 4
REQUESTS = 400
IN_FLIGHT = 16
CONTENDERS = ["ollama-python asyncio", "ollama-sc asyncio", "ollama-sc trio"]


async def ours(url: str, work: str) -> float:
    from ollama_sc import AsyncClient

    async with AsyncClient(url) as client:
        await client.version()
        if work == "stream":
            return await timed(partial(_stream_ours, client), STREAMS * (TOKENS + 1))
        return await timed(partial(_embed, client.embed), REQUESTS)


async def _stream_ours(client: Any) -> None:
    for _ in range(STREAMS):
        async with await client.chat(
            "llama3.2", MESSAGES, stream=True, options={"num_predict": TOKENS}
        ) as stream:
            async for part in stream:
                part.message.content


async def theirs(url: str, work: str) -> float:
    import ollama

    client = ollama.AsyncClient(url)
    await client.list()
    if work == "stream":
        result = await timed(partial(_stream_theirs, client), STREAMS * (TOKENS + 1))
    else:
        result = await timed(partial(_embed, client.embed), REQUESTS)
    await client._client.aclose()
    return result


async def _stream_theirs(client: Any) -> None:
    for _ in range(STREAMS):
        async for part in await client.chat(
            "llama3.2", MESSAGES, stream=True, options={"num_predict": TOKENS}
        ):
            part.message.content


async def _embed(embed: Callable[..., Awaitable[Any]]) -> None:
    """A fixed number of requests, so many in flight."""
    numbers = iter(range(REQUESTS))

    async def worker() -> None:
        for number in numbers:
            await embed("nomic-embed-text", f"text {number}")

    async with anyio.create_task_group() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.start_soon(worker)


async def timed(work: Callable[[], Awaitable[None]], count: int) -> float:
    """CPU microseconds of this process for each of `count`."""
    started = time.process_time()
    await work()
    return (time.process_time() - started) / count * 1e6


def worker(contender: str, url: str, work: str) -> None:
    name, backend = contender.split()
    print(anyio.run(theirs if name == "ollama-python" else ours, url, work, backend=backend))


def main(rounds: int) -> None:
    serve = [sys.executable, "-m", "ollama_sc.testing", "--port", "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        try:
            for work, unit in (
                ("stream", "a chunk, streams back to back"),
                ("embed", f"a request, 1 x 768, {IN_FLIGHT} in flight"),
            ):
                figures: dict[str, list[float]] = {contender: [] for contender in CONTENDERS}
                for _ in range(rounds):
                    for contender in CONTENDERS:
                        command = [sys.executable, __file__, "--worker", contender, url, work]
                        done = subprocess.run(command, check=True, capture_output=True, text=True)
                        figures[contender].append(float(done.stdout))
                base = statistics.median(figures[CONTENDERS[0]])
                print(f"\nclient CPU for {unit}; median of {rounds} rounds")
                for contender, values in figures.items():
                    median = statistics.median(values)
                    print(f"  {contender:24} {median:8.1f} us   {base / median:4.1f} times less")
        finally:
            server.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", nargs=3, metavar=("NAME", "URL", "WORK"))
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker)
    else:
        main(options.rounds)
