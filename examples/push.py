"""Push a model to ollama.com: `python push.py you/your-model`.

The name begins with your own there, and the server is signed in (`ollama signin`).
"""

import sys

import anyio

from ollama_sc import AsyncClient, ResponseError

SOURCE = "llama3.2"


async def main(model: str) -> None:
    async with AsyncClient() as client:
        await client.copy(SOURCE, model)
        try:
            async with await client.push(model, stream=True) as progress:
                async for part in progress:
                    done = f", {part.completed or 0} of {part.total} bytes" if part.total else ""
                    print(f"{part.status}{done}")
        except ResponseError as error:
            # The progress has begun by then, so the refusal comes in the middle of it.
            print(f"refused: {error.error}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    anyio.run(main, sys.argv[1])
