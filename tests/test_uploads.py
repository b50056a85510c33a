"""An upload of any size in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SIZE = 2 * 1024**3
CLIENT = """
import os, sys, time
import anyio
from ollama_sc import AsyncClient
from ollama_sc._blobs import digest_of

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

async def main(url, path):
    async with AsyncClient(url) as client:
        await client.create_blob(b"x" * 3_000_000)  # what the first upload needs once
        before = highest = resident()
        told = 0

        def progress(sent, size):
            nonlocal told, highest
            told, highest = sent, max(highest, resident())

        started = time.perf_counter()
        digest = await client.create_blob(path, progress=progress)
        seconds = time.perf_counter() - started
        assert await client.has_blob(digest)
        assert told == int(sys.argv[4]), told
        print(highest - before, seconds)

anyio.run(main, sys.argv[1], sys.argv[2], backend=sys.argv[3])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to see memory")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_gibibytes_in_twenty_mebibytes(tmp_path: Path, backend: str) -> None:
    """A sparse file of 2 GiB is uploaded while the client's memory grows by less than 20 MiB."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(SIZE)
    serve = [sys.executable, "-m", "ollama_sc.testing", "--port", "0"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[-1]
            command = [sys.executable, "-c", CLIENT, url, str(path), backend, str(SIZE)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        finally:
            server.terminate()
    grown, seconds = done.stdout.split()
    print(f"{backend}: grown by {int(grown) / 1024**2:.1f} MiB in {float(seconds):.1f} s")
    assert 0 <= int(grown) < 20 * 1024**2
