"""What `ollama-sc embed` reads: files by name and by pattern, pipes, and their fingerprints."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ollama_sc.cli import _bytes, _inputs
from ollama_sc.cli._errors import Refused, Stopped
from ollama_sc.cli._rows import Row
from tests.cli.support import (
    read,
    write_jsonl,
    written,
)

pytestmark = pytest.mark.anyio


# -- which files -----------------------------------------------------------------------------------


async def test_files_and_globs(tmp_path: Path) -> None:
    """Globs are sorted, files are in the order in which they are named, a name is no pattern."""
    for name in ("b.jsonl", "a.jsonl", "c.txt", "[x].jsonl", "sub/d.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    pattern = f"{tmp_path}/?.jsonl"
    assert _inputs.find([pattern], None) == ([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], "jsonl")
    several = [f"{tmp_path}/b.jsonl", f"{tmp_path}/a.jsonl"]
    assert _inputs.find(several, None)[0] == [Path(name) for name in several]
    assert _inputs.find([f"{tmp_path}/[x].jsonl"], None)[0] == [tmp_path / "[x].jsonl"]
    deep = _inputs.find([f"{tmp_path}/**/d.jsonl"], None)[0]
    assert deep == [tmp_path / "sub" / "d.jsonl"]
    assert _inputs.find(["-"], None) == ([None], "jsonl")
    assert _inputs.find(["-"], "lines") == ([None], "lines")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["no.jsonl"], "there is no file no.jsonl"),
        (["no*.jsonl"], "no file is like no*.jsonl"),
        (["-", "a.jsonl"], "standard input (-) cannot be read together with other inputs"),
        (["-", "-"], "standard input (-) cannot be read together with other inputs"),
        (["."], "is a folder: name its files"),
        (["a.jsonl", "a.txt"], "the inputs are jsonl and lines"),
        (["a.csv"], "a.csv: say its format, --input-format jsonl, lines or parquet"),
        (["a.jsonl/b.jsonl"], "cannot read a.jsonl/b.jsonl: Not a directory"),
        (["dangling.jsonl"], "there is no file dangling.jsonl"),
        (["*gling.jsonl"], "there is no file dangling.jsonl"),
        (["loop.jsonl"], "cannot read loop.jsonl: Too many levels of symbolic links"),
        ([f"{'n' * 300}.jsonl"], ".jsonl: File name too long"),
        ([f"{'n' * 300}*.jsonl"], "no file is like n"),
        (["caf\udce9.jsonl"], "there is no file caf\\xe9.jsonl"),
    ],
)
async def test_what_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], text: str
) -> None:
    """With a message that says what to write."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "a.txt", "a.csv"):
        Path(name).touch()
    Path("dangling.jsonl").symlink_to("nowhere")
    Path("loop.jsonl").symlink_to("loop.jsonl")
    with pytest.raises(Refused) as caught:
        _inputs.find(names, None)
    assert text in str(caught.value)


async def test_a_file_in_a_closed_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system does not even say whether it is there."""

    def closed(path: Path, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "stat", closed)
    with pytest.raises(Refused, match=r"^cannot read secret/a\.jsonl: Permission denied$"):
        _inputs.find(["secret/a.jsonl"], None)


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.jsonl", "jsonl"), ("a.NDJSON", "jsonl"), ("a.json", "jsonl"), ("a.txt", "lines"),
     ("a.parquet", "parquet"), ("a.pq", "parquet")],
)  # fmt: skip
async def test_formats_by_name(tmp_path: Path, name: str, format: str) -> None:
    """The extension says it, and an option overrides that."""
    (tmp_path / name).touch()
    assert _inputs.find([f"{tmp_path}/{name}"], None)[1] == format
    assert _inputs.find([f"{tmp_path}/{name}"], "lines")[1] == "lines"


async def test_a_file_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    """Before the job begins."""
    for format in ("jsonl", "parquet"):
        with pytest.raises(Refused, match="cannot read"):
            await _inputs.examine([Path("/proc/self/mem")], format)


# -- fingerprints ----------------------------------------------------------------------------------


async def test_a_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    """Another name is the same, another byte or another order is not."""

    async def print_of(*contents: bytes, name: str = "a") -> _inputs.Fingerprint:
        paths: list[Path | None] = []
        for number, content in enumerate(contents):
            paths.append(written(tmp_path / f"{name}{number}", content))
        return (await _inputs.examine(paths, "lines")).fingerprint

    first = await print_of(b"one\n", b"two\n")
    assert first.same(await print_of(b"one\n", b"two\n", name="b"))
    assert not first.same(await print_of(b"two\n", b"one\n"))
    assert not first.same(await print_of(b"one\n", b"twO\n"))
    assert not first.same(await print_of(b"one\ntwo\n"))
    assert not first.same(_inputs.Fingerprint("pipe"))
    assert re.fullmatch(
        r"a0 \(4 bytes, sha256 \w{12}\) and a1 \(4 bytes, sha256 \w{12}\)", str(first)
    )
    assert str(await print_of(*[b"one\n"] * 4)) == "4 files, 16 bytes"
    assert str(await print_of(b"one\n")).startswith("a0 (4 bytes, sha256 2c8b08da5ce6")
    assert str(_inputs.Fingerprint("pipe")) == "a pipe"


@pytest.mark.parametrize(
    ("before", "now", "there", "here"),
    [
        ("abc", "axc", "1", "1"), ("abc", "ab", "2", ""), ("ab", "abc", "", "2"), ("abc", "xyz", "012", "012"),
        ("abcd", "wxyz", "4 files, 4 bytes", "4 files, 4 bytes"), ("aab", "abb", "1", "2"),
        ("abc", "cba", "012", "012"), ("abcdefgh", "abcdefgx", "7", "7"),
    ],
)  # fmt: skip
async def test_files_that_differ_are_named(
    tmp_path: Path, before: str, now: str, there: str, here: str
) -> None:
    """Those of several that are the same are not; where only the order differs, all are."""

    async def print_of(contents: str) -> _inputs.Fingerprint:
        paths: list[Path | None] = [
            written(tmp_path / f"{number}\x1b\n", content)
            for number, content in enumerate(contents)
        ]
        return (await _inputs.examine(paths, "lines")).fingerprint

    first, second = await print_of(before), await print_of(now)
    for part, expected in zip(first.differences(second), (there, here), strict=True):
        shown = str(part)
        assert shown.isprintable()
        names = "".join(re.findall(r"(\d)\\x1b\\n \(1 bytes, sha256 ", shown))
        assert names == (expected if expected.isdigit() else "")
        if not expected.isdigit():
            assert shown == (expected or "none more")


@pytest.mark.parametrize(
    ("content", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2)]
)
async def test_the_total_is_the_number_of_lines(
    tmp_path: Path, content: bytes, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted while the file is hashed, whatever the size of the pieces."""
    path = written(tmp_path / "a", content)
    for piece in (1, 2, 100):
        monkeypatch.setattr(_inputs, "_BLOCK_BYTES", piece)
        assert (await _inputs.examine([path], "lines")).total == lines


async def test_what_cannot_be_a_pipe(tmp_path: Path) -> None:
    """Parquet, and a pipe among other files."""
    path = write_jsonl(tmp_path / "a.jsonl", 1)
    with pytest.raises(Refused, match="Parquet cannot be read from a pipe"):
        await _inputs.examine([None], "parquet")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Refused, match="a pipe cannot be read together with other inputs"):
        await _inputs.examine([path, tmp_path / "fifo"], "jsonl")


async def test_several_files_are_one_input(tmp_path: Path) -> None:
    """Rows are numbered through all of them, and any number can be skipped."""
    sizes = (3, 0, 1, 4)
    jsonl = [write_jsonl(tmp_path / f"{n}.jsonl", size, 10 * n) for n, size in enumerate(sizes)]
    parquet: list[Path] = []
    for path in jsonl:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        table = pa.table({"id": [row["id"] for row in rows], "text": [row["text"] for row in rows]},
                         schema=pa.schema({"id": pa.string(), "text": pa.string()}))  # fmt: skip
        parquet.append(path.with_suffix(".parquet"))
        pq.write_table(table, parquet[-1], row_group_size=2)
    for files in (jsonl, parquet):
        rows, _ = await read(*files, key="id")
        assert [row.number for row in rows] == list(range(8))
        assert [row.key for row in rows] == [
            f"doc-{10 * n + m}" for n, size in enumerate(sizes) for m in range(size)
        ]
        assert rows[4].where == f"{files[3]}:1"
        for skip in range(10):
            assert (await read(*files, key="id", skip=skip))[0] == rows[skip:]


# -- pipes -----------------------------------------------------------------------------------------


async def test_a_pipe_is_known_by_its_rows(tmp_path: Path) -> None:
    """Each row has the hash of all up to it; where they differ, or are missing, it is refused."""
    content = write_jsonl(tmp_path / "a.jsonl", 6).read_bytes()

    async def piped(data: bytes, **options: Any) -> list[Row]:
        reading, writing = os.pipe()
        os.write(writing, data)
        os.close(writing)
        try:
            return (await read(Path(f"/dev/fd/{reading}"), format="jsonl", **options))[0]
        finally:
            os.close(reading)

    whole = await piped(content)
    assert len({row.mark for row in whole}) == 6
    assert await piped(b"\n\n" + content.rstrip()) == [
        row._replace(where=f"{row.where.rpartition(':')[0]}:{n + 3}") for n, row in enumerate(whole)
    ]
    for skip in range(1, 7):
        mark = whole[skip - 1].mark
        assert await piped(content, skip=skip, mark=mark) == whole[skip:]
        with pytest.raises(Refused, match=f"does not begin with the {skip} rows that are done"):
            await piped(content.replace(b"doc-0", b"doc-x"), skip=skip, mark=mark)
        with pytest.raises(Refused, match=f"does not begin with the {skip} rows that are done"):
            await piped(
                b"".join(content.splitlines(keepends=True)[: skip - 1]), skip=skip, mark=mark
            )


async def test_a_named_pipe_waits_for_its_writer(tmp_path: Path) -> None:
    """What it writes is read; one that comes only after the reading was ended finds no reader."""
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    content = write_jsonl(tmp_path / "a.jsonl", 3).read_bytes()

    def write() -> None:
        path.write_bytes(content)

    found: list[Row] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, write)
        found += (await read(path))[0]
    assert len(found) == 3
    before = set(os.listdir("/proc/self/fd"))
    threads = set(threading.enumerate())
    with anyio.move_on_after(0.1) as scope:
        await read(path)
    assert scope.cancelled_caught
    (waiting,) = set(threading.enumerate()) - threads
    writing = await anyio.to_thread.run_sync(os.open, path, os.O_WRONLY)
    await anyio.to_thread.run_sync(waiting.join)
    os.close(writing)
    assert set(os.listdir("/proc/self/fd")) == before


async def test_a_named_pipe_that_cannot_be_opened_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a file does."""
    os.mkfifo(tmp_path / "pipe")

    def refuse(*args: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    lines = _bytes.ByteLines(_inputs.InputFile(tmp_path / "pipe"))
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Stopped, match="cannot read .*pipe: Permission denied"):
        await lines.next_lines()


async def test_standard_input_can_be_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe, a file, /dev/null."""
    path = write_jsonl(tmp_path / "a.jsonl", 3)
    expected, _ = await read(path)
    for name, count in ((path, 3), ("/dev/null", 0)):
        with open(name, "rb") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            rows, _ = await read(Path("-"))
        assert [row.text for row in rows] == [row.text for row in expected][:count]
        assert all(row.where == f"standard input:{row.number + 1}" for row in rows)
