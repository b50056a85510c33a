"""Pull a model, with a progress bar: `python pull.py [MODEL]`.

Ended half-way, such as by Ctrl+C, the next pull goes on from there.
"""

import sys

import anyio

from ollama_sc import AsyncClient, ProgressResponse

MODEL = "llama3.2:1b"
WIDTH = 30


def bar(part: ProgressResponse) -> str:
    """What one part says, as a line."""
    if not part.total:
        return part.status
    done = min((part.completed or 0) / part.total, 1.0)
    full = round(done * WIDTH)
    return f"{part.status} [{'#' * full}{'.' * (WIDTH - full)}] {done:4.0%}"


async def main(model: str) -> None:
    status, line = "", f"pulling {model}"
    print(line, end="")
    async with AsyncClient() as client, await client.pull(model, stream=True) as progress:
        async for part in progress:
            if bar(part) == line:
                continue
            # On a terminal, the bar of one layer is drawn again and again in the same place.
            again = part.status == status and sys.stdout.isatty()
            status, line = part.status, bar(part)
            print("\r" if again else "\n", line, sep="", end="", flush=True)
    whole = progress.result()  # the bytes of all layers together
    print(f"\n{model} is there: {(whole.total or 0) / 1e6:.0f} MB")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1] if len(sys.argv) > 1 else MODEL)
