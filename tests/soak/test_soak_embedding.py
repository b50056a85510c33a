"""Millions of texts in the memory of a few batches.

`make soak` embeds five million on each event loop, `make test` a hundred thousand; `SOAK_TEXTS`
says it exactly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import LONG

TEXTS = int(os.environ.get("SOAK_TEXTS", "5_000_000" if LONG else "100_000"))
MIB = 1024**2
# It answers with as many vectors as there are texts, in bytes that it made before.
SERVER = """
import asyncio, base64, re, struct
import msgspec

class Asked(msgspec.Struct):
    input: str | list[str]

VECTOR = base64.b64encode(struct.pack("<8f", *(n / 8 for n in range(8)))).decode()
replies = {}

def reply(count):
    if count not in replies:
        data = [{"object": "embedding", "embedding": VECTOR, "index": n} for n in range(count)]
        body = msgspec.json.encode({"object": "list", "data": data, "model": "m"})
        head = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n"
        replies[count] = head % len(body) + body
    return replies[count]

async def serve(reader, writer):
    decode = msgspec.json.Decoder(Asked).decode
    try:
        while True:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
            body = await reader.readexactly(int(re.search(rb"(?i)content-length: *(\\d+)", head)[1]))
            asked = decode(body).input
            writer.write(reply(1 if isinstance(asked, str) else len(asked)))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""
CLIENT = """
import json, os, sys
import anyio
from ollama_sc import AsyncClient

url, backend, count = sys.argv[1], sys.argv[2], int(sys.argv[3])

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def main():
    done, early, highest = 0, 0, 0
    texts = (f"Text number {number} of very many." for number in range(count))
    async with AsyncClient(url) as client:
        async with client.embed_many("m", texts, batch_size=1000, max_in_flight=4) as batches:
            async for batch in batches:
                assert batch.start == done and batch.vectors.shape == (len(batch), 8)
                done += len(batch)
                if done >= count // 10:
                    early = early or resident()
                    highest = max(highest, resident())
    print(json.dumps({"done": done, "early": early, "grown": highest - early}))

anyio.run(main, backend=backend)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to see memory")
@pytest.mark.timeout(60 + TEXTS / 10_000)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_memory_stays_the_same_whatever_the_number_of_texts(backend: str) -> None:
    """From a tenth of the texts on, a job over a generator takes no more memory."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            command = [sys.executable, "-c", CLIENT, url, backend, str(TEXTS)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        finally:
            server.terminate()
    early, grown = found["early"] / MIB, found["grown"] / MIB
    print(f"{backend}: {TEXTS:,} texts, {early:.1f} MiB after a tenth, then {grown:.1f} MiB more")
    assert found["done"] == TEXTS
    assert grown < 8
