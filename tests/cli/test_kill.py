"""`ollama-sc embed` as a process that is killed, or told to end, at any moment."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import forking
from tests.cli.support import (
    BACKENDS,
    COMMAND,
    MODEL,
    contents,
    environment,
    manifest,
    process_server,
    shards,
    write_jsonl,
)
from tests.support import LONG, new_seed

KILLS = 200 if LONG else 10
WORKERS = 2
ROWS = 1500
SHARD_ROWS = 60
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here leaves any in this process."""


# A fake server that takes its time: most of a run is then no start-up.
SERVER = """
import anyio
from ollama_sc.testing import FakeOllama, Reply
async def serve():
    async with FakeOllama(dimensions=8) as fake:
        fake.always("/v1/embeddings", Reply(delay=0.03))
        print(fake.url, flush=True)
        await anyio.sleep_forever()
anyio.run(serve)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with process_server("-c", SERVER) as found:
        yield found


def inputs(folder: Path) -> dict[str, Path]:
    """The same rows in several forms; the last ones have no text."""
    plain = write_jsonl(folder / "plain.jsonl", ROWS)
    with plain.open("a") as file:
        file.write('{"id": "bad", "text": null}\n' * 7)
    packed = folder / "gzip.jsonl"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    rows = [json.loads(line) for line in plain.read_text().splitlines()]
    columns = {name: [row[name] for row in rows] for name in ("id", "text")}
    parquet = folder / "parquet.parquet"
    pq.write_table(pa.table(columns), parquet, row_group_size=400)
    return {"plain": plain, "gzip": packed, "parquet": parquet, "pipe": plain, "gzip pipe": packed}


def start(url: str, corpus: Path, out: Path, backend: str, *, pipe: bool) -> Any:
    arguments = ["embed", "-" if pipe else str(corpus), "--key", "id", "--model", MODEL]
    arguments += ["--output", str(out), "--shard-rows", str(SHARD_ROWS), "--batch-size", "16"]
    arguments += ["--backend", backend, "--host", url]
    with corpus.open("rb") as file:
        stdin = file if pipe else subprocess.DEVNULL
        if LONG:
            command = [sys.executable, *COMMAND, *arguments]
            return subprocess.Popen(command, stdin=stdin, stderr=PIPE, env=environment(), text=True)
        return forking.Process([*COMMAND, *arguments], stdin=stdin, stderr=PIPE, env=environment())


def files(folder: Path) -> dict[str, bytes]:
    """What was written, but for the names of the inputs in the list of failures."""
    found = contents(folder)
    listed = found["_failures.jsonl"]
    found["_failures.jsonl"] = re.sub(rb'"where":"[^"]*:(\d+)"', rb"\1", listed)
    return found


def wait_for_changes(process: Any, path: Path, count: int) -> None:
    """Wait until a file was replaced so often, or the process is done."""

    def inode() -> int:
        try:
            return path.stat().st_ino
        except FileNotFoundError:
            return 0

    last = inode()
    while count and process.poll() is None:
        time.sleep(0.002)  # the system tells of no rename
        if inode() != last:
            last = inode()
            count -= 1


@pytest.mark.timeout(1200 if LONG else 240)
def test_stopped_at_any_moment(url: str, tmp_path: Path) -> None:
    """Started again, it goes on; keys, order, shards and bits are those of an undisturbed run.

    The moments are spread over the whole run: some over its start-up, most over the time in which
    shards are written. SIGKILL, SIGTERM and SIGINT; plain, gzip and Parquet, files and pipes; both
    event loops. A run that is done before its moment comes is followed by one in a new folder. In
    `make soak` there are many times as many, and each process is a Python that starts.
    """
    seed = new_seed()
    print(f"seed {seed}")
    corpora = inputs(tmp_path)
    before = time.monotonic()
    with start(url, corpora["plain"], tmp_path / "straight", "asyncio", pipe=False) as undisturbed:
        said = undisturbed.stderr.read()
        status = undisturbed.wait(60)
    duration = time.monotonic() - before
    assert status == 1, said
    expected = files(tmp_path / "straight")
    assert len(shards(tmp_path / "straight")) == -(-(ROWS + 7) // SHARD_ROWS)

    def one_worker(number: int) -> None:
        try:
            moments = random.Random(seed + number)
            kinds = itertools.cycle(moments.sample(sorted(corpora), len(corpora)))
            stops = folders = 0
            while stops < KILLS / WORKERS:
                out = tmp_path / f"{number}-{folders}"
                folders += 1
                kind = next(kinds)
                backend = moments.choice(BACKENDS)
                done = False
                left = moments.randint(1, 4)  # stops of this folder
                while not done:
                    signal_number = moments.choice(SIGNALS)
                    with start(url, corpora[kind], out, backend, pipe="pipe" in kind) as process:
                        if left and stops < KILLS / WORKERS:
                            if moments.random() < 0.3:
                                pause = moments.uniform(0, duration)  # maybe while it starts
                            else:
                                changes = moments.randint(1, 8)
                                wait_for_changes(process, out / "_manifest.json", changes)
                                pause = moments.uniform(0, 0.05)
                            with suppress(subprocess.TimeoutExpired):
                                process.wait(pause)
                            process.send_signal(signal_number)
                        said = process.stderr.read()
                        process.wait(60)
                    done = process.returncode == 1 and "no vector" in said
                    if not done:
                        # By Python's own means, where it came before those of the command.
                        expected_ends = (-signal_number, 128 + signal_number)
                        early = "KeyboardInterrupt" in said
                        assert process.returncode in expected_ends or early, said
                        assert "Traceback" not in said or early, said
                        stopped.append(f"{kind} {signal_number.name}")
                        stops += 1
                        left -= 1
                    if (out / "_manifest.json").exists():
                        counted.add(manifest(out)["progress"]["rows"])
                assert files(out) == expected
                finished.append(out)
        except BaseException as error:
            errors.append(error)

    stopped: list[str] = []
    counted: set[int] = set()
    finished: list[Path] = []
    errors: list[BaseException] = []
    workers = [threading.Thread(target=one_worker, args=(number,)) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    assert len(stopped) >= KILLS
    print(
        f"{len(stopped)} stops, {len(finished)} folders, {len(counted)} states, {duration:.1f} s each"
    )
    print(dict(sorted(Counter(stopped).items())))
    assert len(finished) >= WORKERS
    assert len(counted) > KILLS / 5, "the stops came before anything was done"
