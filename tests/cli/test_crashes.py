"""A disk that is full, a process that is killed, at every change of a file."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from anyio.lowlevel import checkpoint

from ollama_sc.cli import _folder, _shards
from ollama_sc.cli._rows import Row
from ollama_sc.testing import FakeOllama
from tests.cli.support import (
    contents,
    embed,
    write_jsonl,
)

pytestmark = pytest.mark.anyio


class Killed(BaseException):
    """Stands for a SIGKILL: nothing runs after it that changes a file."""


OPERATIONS = [
    (os, "fsync"),
    (os, "open"),
    (Path, "replace"),
    (Path, "unlink"),
    (pq, "write_table"),
]


def break_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> list[int]:
    """Let the n-th of all changes in files fail, and all after it too; counts them."""
    calls = [0]

    def breaking(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if original is OPEN and not args[1] & (os.O_WRONLY | os.O_RDWR):
                return original(*args, **kwargs)
            calls[0] += 1
            if calls[0] >= number:
                raise error
            return original(*args, **kwargs)

        return call

    for place, name in OPERATIONS:
        monkeypatch.setattr(place, name, breaking(getattr(place, name)))
    return calls


OPEN = os.open


@pytest.fixture
def rows() -> list[Any]:
    """54 rows of which some have no text."""
    return [
        Row(n, f"c:{n}", f"k{n}", None if n % 7 == 3 else "t", "bad" if n % 7 == 3 else None)
        for n in range(54)
    ]


async def write_all(folder: Path, rows: list[Any], stop_at: int | None = None) -> None:
    """What a job does with rows and vectors, from wherever it is."""
    from ollama_sc.cli._inputs import Fingerprint
    from ollama_sc.cli._manifest import FixedSettings as Settings, Manifest

    with _folder.open_folder(folder) as held:
        found = held.load()
        if found is None:
            settings = Settings(
                input=Fingerprint("files"), input_format="jsonl", field="text", key="id",
                model="m", digest="d", dimensions=None, truncate=None, shard_rows=20,
            )  # fmt: skip
            found = Manifest(settings=settings)
        else:
            held.roll_back(found)
        made = _shards.Shards(held, found, pa.string, checkpoint)
        await made.restore()
        made.allocate(3)
        place = made.rows
        while place < len(rows):
            if stop_at is not None and place >= stop_at:
                await made.save_partial()
                return
            some = rows[place : place + 6]
            place += len(some)
            texts = [row for row in some if row.text is not None]
            vectors = np.array([[row.number, 0.1, -row.number] for row in texts], np.float32)
            refused = {n: "refused" for n, row in enumerate(texts) if row.number % 5 == 0}
            await made.add(some, vectors.reshape(-1, 3), refused)
        await made.finish()


async def test_killed_at_every_change_of_a_file(
    tmp_path: Path, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever change is the last one that happens, going on gives what an undisturbed run does."""
    await write_all(tmp_path / "straight", rows)
    expected = contents(tmp_path / "straight")
    assert sorted(expected) == ["_failures.jsonl", *(f"part-0000{n}.parquet" for n in range(3))]
    for number in range(1, 200):
        folder = tmp_path / str(number)
        died = False
        with monkeypatch.context() as patched:
            calls = break_at(patched, number, Killed())
            try:
                await write_all(folder, rows, stop_at=30)
                await write_all(folder, rows, stop_at=36)
                await write_all(folder, rows)
            except Killed:
                died = True
        if died and number % 2:  # and once more, on the way from there
            with monkeypatch.context() as patched:
                break_at(patched, number // 2 + 1, Killed())
                with suppress(Killed):
                    await write_all(folder, rows)
        await write_all(folder, rows)
        assert contents(folder) == expected, number
        if not died:
            break
    assert number > 30
    assert calls[0] < number


async def test_the_disk_has_it_before_the_manifest_counts_it(
    tmp_path: Path, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is synced, then put in its place, then its name is synced; the manifest is last."""
    steps: list[str] = []

    def noting(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(first: Any, *rest: Any) -> Any:
            path = os.readlink(f"/proc/self/fd/{first}") if name == "sync" else str(first)
            steps.append(f"{name} {Path(path).name}")
            return original(first, *rest)

        return call

    monkeypatch.setattr(os, "fsync", noting("sync", os.fsync))
    monkeypatch.setattr(Path, "replace", noting("replace", Path.replace))
    await write_all(tmp_path / "out", rows[:10])
    written = [
        [f"sync .tmp-{name}", f"replace .tmp-{name}", "sync out"]
        for name in ("_manifest.json", "part-00000.parquet", "_manifest.json")
    ]
    assert steps == [*written[0], *written[1], "sync _failures.jsonl", "sync out", *written[2]]


async def test_a_full_disk_stops_it_and_breaks_nothing(
    fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every write: it says so, the manifest is true, and with room it goes on to the same end."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 50)
    with corpus.open("a") as file:
        file.write('{"text": null}\n')
    await embed(fake, corpus, tmp_path / "straight")
    for number in range(1, 100):
        folder = tmp_path / str(number)
        with monkeypatch.context() as patched:
            break_at(patched, number, OSError(errno.ENOSPC, "No space left on device"))
            status, said = await embed(fake, corpus, folder)
        if status == 1:
            break
        assert status in (2, 3)
        assert f"cannot write to {folder}: No space left on device" in said.text
        assert (await embed(fake, corpus, folder))[0] == 1
        assert contents(folder) == contents(tmp_path / "straight")
        assert not list(folder.glob(".tmp*"))
    assert number > 15
