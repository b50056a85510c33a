"""An upload of any size in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import LONG

SIZE = (2048 if LONG else 256) * 1024**2
# It counts what it gets, and has each blob after its upload.
SERVER = """
import re, socket
have, buffer = set(), bytearray(1 << 20)
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    while True:
        connection, _ = listener.accept()
        with connection:
            data = b""
            while True:
                while b"\\r\\n\\r\\n" not in data:
                    more = connection.recv(65536)
                    if not more:
                        break
                    data += more
                else:
                    head, _, data = data.partition(b"\\r\\n\\r\\n")
                    method, path = head.split()[:2]
                    status = b"200 OK" if path in have else b"404 Not Found"
                    if method == b"POST":
                        left = int(re.search(rb"(?i)content-length: *(\\d+)", head)[1]) - len(data)
                        while left:
                            left -= connection.recv_into(buffer, min(left, len(buffer)))
                        data, status = b"", b"201 Created"
                        have.add(path)
                    connection.sendall(b"HTTP/1.1 %s\\r\\nContent-Length: 0\\r\\n\\r\\n" % status)
                    continue
                break
"""
CLIENT = """
import os, sys, time
import anyio
from ollama_sc import AsyncClient
from ollama_sc._api.files import digest_of

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
def test_a_large_upload_in_twenty_mebibytes(tmp_path: Path, backend: str) -> None:
    """A sparse file is uploaded while the client's memory grows by less than 20 MiB.

    It has 2 GiB in the long form, 256 MiB in the ordinary run.
    """
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(SIZE)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            command = [sys.executable, "-c", CLIENT, url, str(path), backend, str(SIZE)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        finally:
            server.terminate()
    grown, seconds = done.stdout.split()
    print(f"{backend}: grown by {int(grown) / 1024**2:.1f} MiB in {float(seconds):.1f} s")
    assert 0 <= int(grown) < 20 * 1024**2
