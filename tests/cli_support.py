"""What the tests of the command share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ollama_sc.cli._job import Options, run
from ollama_sc.testing import FakeOllama

MODEL = "nomic-embed-text"
COMMAND = [sys.executable, "-m", "ollama_sc.cli"]


class Said:
    """A `Reporter` that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.counts: list[tuple[int, int]] = []
        self.started: tuple[int, int | None] | None = None

    def say(self, text: str) -> None:
        self.lines.append(text)

    def start(self, done: int, total: int | None) -> None:
        self.started = done, total

    def update(self, done: int, failed: int) -> None:
        self.counts.append((done, failed))

    def end(self) -> None:
        pass

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def options(inputs: Any, output: Path, hosts: list[str], **changed: Any) -> Options:
    """Options with small numbers."""
    given = [inputs] if isinstance(inputs, str | Path) else inputs
    values: dict[str, Any] = {
        "inputs": [str(each) for each in given],
        "output": output,
        "model": MODEL,
        "field": None,
        "key": None,
        "input_format": None,
        "hosts": hosts,
        "max_in_flight": 4,
        "batch_size": 8,
        "dimensions": None,
        "truncate": None,
        "on_error": "skip",
        "shard_rows": 20,
        "command": "ollama-sc embed ...",
    }
    return Options(**(values | changed))


async def embed(fake: FakeOllama, inputs: Any, output: Path, **changed: Any) -> tuple[int, Said]:
    """Run a job in this loop; exit status, and what it said."""
    said = Said()
    status = await run(options(inputs, output, [fake.url], **changed), said)
    return status, said


def write_jsonl(path: Path, count: int, first: int = 0) -> Path:
    """A corpus with a text in each row, some of them not ASCII, and a key of its own."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(first, first + count):
            row = {"id": f"doc-{number}", "text": f"Text {number} über Katzen", "x": [number]}
            file.write(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n")
    return path


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("part-*.parquet"))


def table(folder: Path) -> pa.Table:
    """All shards, in order."""
    return pa.concat_tables([pq.read_table(folder / name) for name in shards(folder)])


def missing(folder: Path) -> list[int]:
    """The rows without a vector; the others have all of its numbers."""
    vectors = table(folder)["embedding"].to_pylist()
    nulls = [n for n, vector in enumerate(vectors) if vector == [None] * 8]
    assert all(None not in vector for n, vector in enumerate(vectors) if n not in nulls)
    return nulls


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is for the user, but for the manifest."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name != "manifest.json"
    }


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "manifest.json").read_text())


def failures(folder: Path) -> list[dict[str, Any]]:
    path = folder / "failures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def environment(**changed: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**kept, "COLUMNS": "80", "TERM": "xterm-256color", **changed}


SERVER = (sys.executable, "-m", "ollama_sc.testing", "--dimensions", "8")


@contextmanager
def process_server(*command: str) -> Iterator[str]:
    """A server as a process of its own, that prints its URL."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
