"""Make a model from a file: `python create_from_file.py model.gguf`.

The file is hashed and sent a piece at a time, whatever its size.
"""

import sys
from pathlib import Path

import anyio

from ollama_sc import AsyncClient

MODEL = "ollama-sc-from-file"


def tell(sent: int, total: int) -> None:
    print(f"sent {sent} of {total} bytes")


async def main(file: Path) -> None:
    async with AsyncClient() as client:
        # Where the server has the file already, nothing is sent.
        digest = await client.create_blob(file, progress=tell)
        print(f"the server has {digest}")
        async with await client.create(MODEL, files={file.name: digest}, stream=True) as progress:
            async for part in progress:
                print(part.status)
        shown = await client.show(MODEL)
        print(f"{MODEL}: {shown.details}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    anyio.run(main, Path(sys.argv[1]))
