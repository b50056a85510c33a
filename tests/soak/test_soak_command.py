"""The memory of `ollama-sc embed` over large inputs of every form.

`make soak` reads 512 MiB of each, `make test` 16 of Parquet; `SOAK_MIB` says it exactly.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.support import environment
from tests.soak.test_soak_embedding import SERVER
from tests.support import LONG

FORMS = ["parquet", "jsonl", "gzip", "array"] if LONG or "SOAK_MIB" in os.environ else ["parquet"]
MIB = int(os.environ.get("SOAK_MIB", "512" if LONG else "16"))
TEXT_BYTES = 4096
# What it may take more than for a small input of the same form.
ALLOWED_MIB = 64
# The model of that server has a digest.
TAGGED = SERVER.replace(
    "            body = await reader.readexactly(",
    '            if head.startswith(b"GET"):\n'
    '                tags = b\'{"models":[{"name":"m:latest","digest":"d"}]}\'\n'
    '                start = b"HTTP/1.1 200 OK\\r\\nContent-Type: application/json\\r\\nContent-Length: %d\\r\\n\\r\\n"\n'
    "                writer.write(start % len(tags) + tags)\n"
    "                continue\n"
    "            body = await reader.readexactly(",
)
PROGRAM = """
import re, sys
from ollama_sc.cli import main
status = main()
# What getrusage says begins with the peak of the process that started this one.
print(int(re.search(r"VmHWM: *(\\d+) kB", open("/proc/self/status").read().replace("\\t", " "))[1]) // 1024)
sys.exit(status)
"""


def texts(mib: int) -> Iterator[str]:
    """Texts that no dictionary and no compression makes much smaller."""
    for _ in range(mib * 2**20 // TEXT_BYTES):
        yield os.urandom(TEXT_BYTES // 2).hex()


def write(path: Path, form: str, mib: int) -> Path:
    if form == "parquet":  # one row group: all of a column in one piece
        schema = pa.schema({"text": pa.string()})
        with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
            writer.write_table(pa.table({"text": list(texts(mib))}), row_group_size=1 << 30)
        return path
    with gzip.open(path, "wb", 1) if form == "gzip" else path.open("wb") as file:
        separator = b"[" if form == "array" else b""
        for text in texts(mib):
            file.write(separator + json.dumps({"text": text}).encode())
            separator = b",\n" if form == "array" else b"\n"
        file.write(b"]" if form == "array" else b"\n")
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to see memory")
@pytest.mark.timeout(120 + 2 * MIB)
@pytest.mark.parametrize("form", FORMS)
def test_memory_is_flat(tmp_path: Path, form: str) -> None:
    """The peak over a large input is that over a small one, whatever the form."""
    suffix = {"gzip": "jsonl", "array": "json"}.get(form, form)
    peaks: list[int] = []
    with subprocess.Popen(
        [sys.executable, "-c", TAGGED], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().strip()
            for mib in (4, MIB):
                path = write(tmp_path / f"{mib}.{suffix}", form, mib)
                arguments = ["embed", str(path), "-m", "m", "-o", str(tmp_path / f"out-{mib}")]
                arguments += ["--host", url, "--shard-rows", "1000"]
                done = subprocess.run(
                    [sys.executable, "-c", PROGRAM, *arguments], env=environment(),
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert done.returncode == 0, done.stderr
                peaks.append(int(done.stdout))
                path.unlink()
        finally:
            server.terminate()
    print(f"{form}: {MIB} MiB of texts, a peak of {peaks[1]} MiB; with 4 MiB it is {peaks[0]} MiB")
    assert peaks[1] - peaks[0] < ALLOWED_MIB
