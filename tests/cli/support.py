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

from ollama_sc.cli import _inputs, _job, _jsonl, _lines, _parquet
from ollama_sc.cli._job import CommandOptions as Options
from ollama_sc.cli._rows import Row, RowReader
from ollama_sc.cli._shown import Secrets
from ollama_sc.testing import FakeOllama, Reply
from tests import forking

MODEL = "nomic-embed-text"
COMMAND = ["-m", "ollama_sc.cli"]  # behind a `python`
SERVER = ["-m", "ollama_sc.testing", "--dimensions", "8"]
BACKENDS = ["trio", "asyncio"]


# -- a job in the test's own loop ------------------------------------------------------------------


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
        "headers": {},
        "api_key": None,
        "timeout": None,
        "command": "ollama-sc embed ...",
        "secrets": Secrets(),
    }
    return Options(**(values | changed))


async def embed(fake: FakeOllama, inputs: Any, output: Path, **changed: Any) -> tuple[int, Said]:
    """Run a job in this loop; exit status, and what it said."""
    said = Said()
    status = await _job.run(options(inputs, output, [fake.url], **changed), said)
    return status, said


def stop_after(fake: FakeOllama, batches: int) -> None:
    """Let the model be gone after so many batches."""
    gone = Reply.error(404, "gone")
    fake.script("/v1/embeddings", *[Reply()] * (1 + batches), gone)  # the first warms up
    fake.always("/api/embed", gone)


# -- what it reads ---------------------------------------------------------------------------------


def write_jsonl(path: Path, count: int, first: int = 0) -> Path:
    """A corpus with a text in each row, some of them not ASCII, and a key of its own."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(first, first + count):
            row = {"id": f"doc-{number}", "text": f"Text {number} über Katzen", "x": [number]}
            file.write(json.dumps(row, ensure_ascii=number % 2 == 0) + "\n")
    return path


async def rows_of(reader: RowReader) -> list[Row]:
    found: list[Row] = []
    try:
        while block := await reader.next_rows():
            found += block
    finally:
        await reader.aclose()
    return found


async def read(
    *paths: Path,
    skip: int = 0,
    field: str = "text",
    key: str | None = None,
    key_type: Any = None,
    mark: str | None = None,
    format: Any = None,
    learn_rows: int = 0,
) -> tuple[list[Row], Any]:
    """The rows of some files, and the type of their key."""
    found, format = _inputs.find([str(path) for path in paths], format)
    source = await _inputs.examine(found, format)
    reader: Any
    if format == "lines":
        reader = _lines.LinesReader(source, _lines.PlainLines(), skip, mark)
    elif format == "jsonl":
        lines = _jsonl.JsonLines(field, key, key_type, resuming=skip > 0, learn_rows=learn_rows)
        reader = _lines.LinesReader(source, lines, skip, mark)
    else:
        columns = _parquet.columns_of(source, field, key)
        reader = _parquet.ParquetReader(
            source, skip, field=field, key=key, key_type=columns.key_type
        )
    rows = await rows_of(reader)
    return rows, reader.key_type if rows else None


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# -- what it wrote ---------------------------------------------------------------------------------


def shards(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("part-*.parquet"))


def table(folder: Path) -> pa.Table:
    """All shards, in order."""
    return pa.concat_tables([pq.read_table(folder / name) for name in shards(folder)])


def missing(folder: Path) -> list[int]:
    """The rows without a vector; the others have all of its numbers."""
    vectors = table(folder)["embedding"].to_pylist()
    assert all(vector is None or len(vector) == 8 for vector in vectors)
    return [n for n, vector in enumerate(vectors) if vector is None]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that is for the user, but for the manifest."""
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.name != "_manifest.json"
    }


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "_manifest.json").read_text())


def failures(folder: Path) -> list[dict[str, Any]]:
    path = folder / "_failures.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# -- the command as a process ----------------------------------------------------------------------


def environment(**changed: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**kept, "COLUMNS": "80", "TERM": "xterm-256color", **changed}


def run(
    *arguments: str | Path,
    host: str = "127.0.0.1:9",
    input: bytes = b"",
    cwd: Path | None = None,
    real: bool = False,
) -> subprocess.CompletedProcess[str]:
    """The command, where neither stdout nor stderr is a terminal; every warning is an error.

    Where it is `real`, Python starts and imports the command; otherwise it is forked with all that.
    """
    env = environment(OLLAMA_HOST=host)
    if real:
        python = [sys.executable, "-W", "error", *COMMAND, *map(str, arguments)]
        done = subprocess.run(
            python, env=env, input=input.decode(), cwd=cwd,
            capture_output=True, check=False, timeout=50, encoding="utf-8",
        )  # fmt: skip
    else:
        done = forking.run([*COMMAND, *arguments], env=env, input=input, cwd=cwd)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def exists(tmp_path: Path) -> bool:
    return (tmp_path / "out" / "_manifest.json").exists()


@contextmanager
def process_server(*arguments: str) -> Iterator[str]:
    """A server as a process of its own, that prints its URL."""
    with forking.Process(arguments, stdout=forking.PIPE, env=environment()) as process:
        yield process.stdout.readline().strip()
