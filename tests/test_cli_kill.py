"""`ollama-sc embed` as a process that is killed at any moment."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from contextlib import suppress
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import (
    COMMAND,
    MODEL,
    contents,
    environment,
    manifest,
    process_server,
    shards,
    write_jsonl,
)

KILLS = 50
WORKERS = 2
ROWS = 1500
SHARD_ROWS = 60


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
    with process_server(sys.executable, "-c", SERVER) as found:
        yield found


def start(url: str, corpus: Path, out: Path, backend: str, *, pipe: bool) -> subprocess.Popen[str]:
    arguments = ["embed", "-" if pipe else str(corpus), "--key", "id", "--model", MODEL]
    arguments += ["--output", str(out), "--shard-rows", str(SHARD_ROWS), "--batch-size", "16"]
    arguments += ["--backend", backend, "--host", url]
    with corpus.open() as stdin:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=stdin if pipe else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
            text=True,
        )


def wait_for_changes(process: subprocess.Popen[str], path: Path, count: int) -> None:
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


@pytest.mark.timeout(240)
def test_killed_at_50_moments(url: str, tmp_path: Path) -> None:
    """Started again, it goes on; keys, order, shards and bits are those of an undisturbed run.

    The moments are spread over the whole run: some over its start-up, most over the time in which
    shards are written. Files and pipes, on both event loops. A run that is done before its moment
    comes is followed by one in a new folder.
    """
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    corpus = write_jsonl(tmp_path / "corpus.jsonl", ROWS)
    with corpus.open("a") as file:
        file.write('{"id": "bad", "text": null}\n' * 7)
    before = time.monotonic()
    undisturbed = start(url, corpus, tmp_path / "straight", "asyncio", pipe=False)
    _, said = undisturbed.communicate(timeout=60)
    duration = time.monotonic() - before
    assert undisturbed.returncode == 1, said
    expected = contents(tmp_path / "straight")
    assert len(shards(tmp_path / "straight")) == -(-(ROWS + 7) // SHARD_ROWS)

    def one_worker(number: int) -> None:
        try:
            moments = random.Random(seed + number)
            backend, pipe = (("trio", False), ("asyncio", True))[number]
            kills = folders = 0
            while kills < KILLS / WORKERS:
                out = tmp_path / f"{number}-{folders}"
                folders += 1
                done = False
                while not done:
                    process = start(url, corpus, out, backend, pipe=pipe)
                    if kills < KILLS / WORKERS:
                        if moments.random() < 0.3:
                            pause = moments.uniform(0, duration)  # while it starts, mostly
                        else:
                            wait_for_changes(process, out / "manifest.json", moments.randint(1, 8))
                            pause = moments.uniform(0, 0.05)
                        with suppress(subprocess.TimeoutExpired):
                            process.wait(pause)
                        process.kill()
                    _, said = process.communicate(timeout=60)
                    assert process.returncode in (1, -9), said
                    assert "Traceback" not in said
                    killed.append(process.returncode == -9)
                    kills += killed[-1]
                    if (out / "manifest.json").exists():
                        counted.add(manifest(out)["progress"]["rows"])
                    done = process.returncode == 1
                found = contents(out)
                named = found["failures.jsonl"].replace(b"standard input:", f"{corpus}:".encode())
                assert {**found, "failures.jsonl": named} == expected
                finished.append(out)
        except BaseException as error:
            errors.append(error)

    killed: list[bool] = []
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
    assert sum(killed) == KILLS
    print(
        f"{len(killed)} runs, {len(finished)} folders, {len(counted)} states, {duration:.1f} s each"
    )
    assert len(finished) >= WORKERS
    assert len(counted) > 10, "the kills came before anything was done"
