"""What `ollama-sc embed` reads: files, formats, rows, keys, fingerprints."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_support import write_jsonl

from ollama_sc.cli import _bytes, _inputs, _jsonl, _lines, _parquet
from ollama_sc.cli._errors import JobError, Refused, Stopped
from ollama_sc.cli._rows import Reader, Row

pytestmark = pytest.mark.anyio


async def rows_of(reader: Reader) -> list[Row]:
    found: list[Row] = []
    try:
        while block := await reader.block():
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
) -> tuple[list[Row], Any]:
    """The rows of some files, and the type of their key."""
    found, format = _inputs.find([str(path) for path in paths], format)
    source = await _inputs.examine(found, format)
    reader: Any
    if format == "lines":
        reader = _lines.LinesReader(source, _lines.PlainLines(), skip, mark)
    elif format == "jsonl":
        lines = _jsonl.JsonLines(field, key, key_type, going_on=skip > 0)
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
    assert str(first) == "2 files, 8 bytes"
    assert str(await print_of(b"one\n")).startswith("a0 (4 bytes, sha256 2c8b08da5ce6")
    assert str(_inputs.Fingerprint("pipe")) == "a pipe"


@pytest.mark.parametrize(
    ("content", "lines"), [(b"", 0), (b"a", 1), (b"a\n", 1), (b"a\nb", 2), (b"\n\n", 2)]
)
async def test_the_total_is_the_number_of_lines(
    tmp_path: Path, content: bytes, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted while the file is hashed, whatever the size of the pieces."""
    path = written(tmp_path / "a", content)
    for piece in (1, 2, 100):
        monkeypatch.setattr(_inputs, "_PIECE", piece)
        assert (await _inputs.examine([path], "lines")).total == lines


async def test_what_cannot_be_a_pipe(tmp_path: Path) -> None:
    """Parquet, and a pipe among other files."""
    path = write_jsonl(tmp_path / "a.jsonl", 1)
    with pytest.raises(Refused, match="Parquet cannot be read from a pipe"):
        await _inputs.examine([None], "parquet")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(Refused, match="a pipe cannot be read together with other inputs"):
        await _inputs.examine([path, tmp_path / "fifo"], "jsonl")


# -- lines -----------------------------------------------------------------------------------------


async def test_plain_lines(tmp_path: Path) -> None:
    """Each line is a text, an empty one too; CR LF is one end; a byte-order mark is none of it."""
    content = b"\xef\xbb\xbffirst\n\nthird\r\n  fourth \n\xff\xfe\nlast"
    rows, key_type = await read(written(tmp_path / "a.txt", content))
    assert [row.text for row in rows] == ["first", "", "third", "  fourth ", None, "last"]
    assert rows[4].problem == "not UTF-8: invalid start byte (byte 0xff)"
    assert [row.key for row in rows] == [row.number for row in rows] == list(range(6))
    assert rows[5].where == f"{tmp_path}/a.txt:6"
    assert key_type == pa.int64()


@pytest.mark.parametrize("piece", [1, 2, 3, 7])
@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", []),
        (b"\xef\xbb\xbf", []),
        (b"\xef\xbb\xbf\n", [""]),
        (b"\xef\xbb\xbfa", ["a"]),
        (b"\xef\xbb", [None]),
    ],
)
async def test_a_byte_order_mark_is_no_text(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    piece: int,
    content: bytes,
    texts: list[str | None],
) -> None:
    """A file of nothing else has no line, as an empty one; what is counted is what is read."""
    monkeypatch.setattr(_bytes, "_PIECE", piece)
    monkeypatch.setattr(_inputs, "_PIECE", piece)
    path = written(tmp_path / "a.txt", content)
    rows, _ = await read(path)
    assert [row.text for row in rows] == texts
    assert (await _inputs.examine([path], "lines")).total == len(texts)


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("end", ["", "\n"])
async def test_lines_are_the_same_in_any_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, end: str
) -> None:
    """Also where a piece ends within a character."""
    monkeypatch.setattr(_bytes, "_PIECE", piece)
    texts = ["über", "", "🐈 cat", "x" * 30, ""]
    rows, _ = await read(written(tmp_path / "a.txt", "\n".join([*texts, "end"]) + end))
    assert [row.text for row in rows] == [*texts, "end"]


async def test_a_line_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded: a file that has no lines is none of lines."""
    monkeypatch.setattr(_bytes, "_LONGEST", 100)
    monkeypatch.setattr(_bytes, "_PIECE", 10)
    path = written(tmp_path / "a.txt", "short\n" + "x" * 99 + "\n" + "x" * 200)
    with pytest.raises(Refused, match=r"a\.txt:3: longer than"):
        await read(path)


async def test_a_file_that_is_gone_stops_it(tmp_path: Path) -> None:
    """With its name and the system's reason."""
    for name in ("a.txt", "a.parquet"):
        source = _inputs.Input(
            "lines", (_inputs.Source(tmp_path / name),), _inputs.Fingerprint("files"), None
        )
        reader: Any = _lines.LinesReader(source, _lines.PlainLines(), 0, None)
        if name == "a.parquet":
            reader = _parquet.ParquetReader(source, 0, field="text", key=None, key_type=pa.int64())
        with pytest.raises(Stopped, match=f"cannot read .*{name}: .*No such file"):
            await rows_of(reader)


# -- JSONL -----------------------------------------------------------------------------------------


async def test_jsonl(tmp_path: Path) -> None:
    """Blank lines are none; other fields, and strange ones, do no harm."""
    content = (
        '\ufeff{"text": "a", "x": {"text": "no"}}\r\n'
        "\n  \t\n"
        '{"x": [1, 2], "text": "\\u00fcber\\n"}\n'
        '{"text": "", "text ": 1, "key": [2]}'
    )
    rows, _ = await read(written(tmp_path / "a.jsonl", content))
    assert [row.text for row in rows] == ["a", "über\n", ""]
    assert [row.where for row in rows] == [f"{tmp_path}/a.jsonl:{n}" for n in (1, 4, 5)]
    assert [row.number for row in rows] == [0, 1, 2]


@pytest.mark.parametrize(
    ("line", "key", "problem"),
    [
        (b'{"id": 2, "text": null}', 2, '"text" is null'),
        (b'{"id": 2}', 2, 'no field "text"'),
        (b'{"id": 2, "text": true}', 2, '"text" is not text but true'),
        (b'{"id": 2, "text": ["a"]}', 2, '"text" is not text but an array'),
        (b'{"id": 2, "text": {"a": 1}}', 2, '"text" is not text but an object'),
        (b'{"id": 2, "text": 12345678901234567890123456789012345678901234567890}', 2,
         '"text" is not text but 1234567890123456789012345678901234567...'),
        (b'{"text": "a"}', None, 'no key "id"'),
        (b'{"id": null, "text": "a"}', None, 'the key "id" is not an integer of 64 bits but null'),
        (b'{"id": "x", "text": "a"}', None, 'the key "id" is not an integer of 64 bits but "x"'),
        (b'{"id": true, "text": "a"}', None, 'the key "id" is not an integer of 64 bits but true'),
        (b'{"id": 1.5, "text": "a"}', None, 'the key "id" is not an integer of 64 bits but 1.5'),
        (b'{"id": 9223372036854775808, "text": "a"}', None,
         'the key "id" is not an integer of 64 bits but 9223372036854775808'),
        (b'{"id": 2, "text": "\xff"}', None, "not UTF-8: invalid start byte (byte 0xff)"),
        (b'{"id": 2, "text": "a"} x', None, "not JSON: JSON is malformed: trailing characters"),
        (b'{"id": 2, "text": "\\ud800"}', None, "not JSON: "),
        (b"null", None, "not an object"),
        (b'{"id": 2, "text": 5, "x": "\xff"}', None, "not UTF-8: "),
        (b'{"id": 2, "text": 5, "x": nul}', None, "not JSON: "),
        (b"[" * 100_000, None, "nested too deeply"),
        (b'"text"', None, "not an object"),
        (b"\x00", None, "not JSON: "),
    ],
)  # fmt: skip
async def test_bad_rows(tmp_path: Path, line: bytes, key: Any, problem: str) -> None:
    """Each says what is wrong with it, has its key where that can be read, and no text."""
    content = b'{"id": 1, "text": "good"}\n' + line + b'\n{"id": -3, "text": "good"}\n'
    rows, key_type = await read(written(tmp_path / "a.jsonl", content), key="id")
    assert key_type == pa.int64()
    assert [(row.key, row.text) for row in rows] == [(1, "good"), (key, None), (-3, "good")]
    assert rows[1].problem is not None
    assert rows[1].problem.startswith(problem)
    assert rows[1].where.endswith("a.jsonl:2")


async def test_the_first_row_says_what_keys_are(tmp_path: Path) -> None:
    """Text, if it is not an integer; integers are then written as text."""
    for first, kept in (('"a"', "a"), ("null", None), ("1.5", None)):
        content = f'{{"id": {first}, "text": "x"}}\n{{"id": 7, "text": "x"}}\n'
        rows, key_type = await read(written(tmp_path / "a.jsonl", content), key="id")
        assert key_type == pa.string()
        assert [row.key for row in rows] == [kept, "7"]
    # A job that goes on knows it from its manifest.
    rows, key_type = await read(tmp_path / "a.jsonl", key="id", skip=1, key_type=pa.int64())
    assert (key_type, [row.key for row in rows]) == (pa.int64(), [7])


@pytest.mark.parametrize("name", ["a-b.c ü", 'a "b" \\', "\n", "class"])
async def test_names_of_fields_can_be_anything(tmp_path: Path, name: str) -> None:
    """Also names that are none in Python, and one for both."""
    rows = [{name: f"text {n}", "": n, "key": [], "text": 5} for n in range(3)]
    path = written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    found, _ = await read(path, field=name, key="")
    assert [(row.key, row.text) for row in found] == [(n, f"text {n}") for n in range(3)]
    found, key_type = await read(path, field=name, key=name)
    assert key_type == pa.string()
    assert [(row.key, row.text) for row in found] == [(f"text {n}", f"text {n}") for n in range(3)]


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

    lines = _bytes.Lines(_inputs.Source(tmp_path / "pipe"))
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(Stopped, match="cannot read .*pipe: Permission denied"):
        await lines.next()


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


# -- Parquet ---------------------------------------------------------------------------------------

TEXTS = ["a", None, "über", ""]


@pytest.mark.parametrize(
    "type_", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
async def test_parquet_texts(tmp_path: Path, type_: pa.DataType) -> None:
    """Of every type that holds text; null is a problem of its row."""
    pq.write_table(pa.table({"text": pa.array(TEXTS, type_)}), tmp_path / "a.parquet")
    rows, key_type = await read(tmp_path / "a.parquet")
    assert [row.text for row in rows] == TEXTS
    assert [row.problem for row in rows] == [None, '"text" is null', None, None]
    assert rows[2] == Row(2, f"{tmp_path}/a.parquet:3", 2, "über")
    assert key_type == pa.int64()


@pytest.mark.parametrize(
    ("keys", "type_", "kept"),
    [
        ([1, None], pa.int32(), pa.int32()),
        ([1, 2**64 - 1], pa.uint64(), pa.uint64()),
        (["a", None], pa.large_string(), pa.large_string()),
        (["a", "b"], pa.dictionary(pa.int8(), pa.string()), pa.string()),
        ([b"\xff", None], pa.binary(), pa.binary()),
        ([b"\xff1", b"abc"[:2]], pa.binary(2), pa.binary(2)),
    ],
    ids=str,
)
async def test_parquet_keys_keep_their_type(
    tmp_path: Path, keys: list[Any], type_: pa.DataType, kept: pa.DataType
) -> None:
    """Integers, text and binary."""
    table = pa.table({"id": pa.array(keys, type_), "text": ["a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    rows, key_type = await read(tmp_path / "a.parquet", key="id")
    assert [row.key for row in rows] == keys
    assert key_type == kept
    assert pa.array(keys, key_type).to_pylist() == keys


async def test_parquet_text_that_is_none(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 are a problem of their row, in texts and in keys."""
    bad = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    good = ["x", "y", "z"]
    pq.write_table(pa.table({"text": bad, "id": good}), tmp_path / "a.parquet")
    rows, _ = await read(tmp_path / "a.parquet", key="id")
    assert [(row.key, row.text) for row in rows] == [("x", "a"), ("y", None), ("z", "c")]
    assert rows[1].problem == '"text" is not UTF-8'
    rows, _ = await read(tmp_path / "a.parquet", key="text", field="id")
    assert [(row.key, row.text) for row in rows] == [("a", "x"), (None, None), ("c", "z")]
    assert rows[1].problem == 'the key "text" is not UTF-8'


@pytest.mark.parametrize(
    ("field", "key", "text"),
    [
        ("body", None, 'has no column "body" but text, id, price: see --field'),
        ("id", None, '"id" is not text but int64'),
        ("text", "no", 'has no column "no" but text, id, price: see --key'),
        ("text", "price", 'the key "price" is neither integer, text nor binary'),
    ],
)
async def test_parquet_columns_are_checked_before_the_job(
    tmp_path: Path, field: str, key: str | None, text: str
) -> None:
    """With the names of the columns that there are."""
    table = pa.table({"text": ["a"], "id": [1], "price": [1.5]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(Refused) as caught:
        await read(tmp_path / "a.parquet", field=field, key=key)
    assert text in str(caught.value)


async def test_parquet_files_that_do_not_fit_together(tmp_path: Path) -> None:
    """Keys of two types, and a file that is no Parquet."""
    pq.write_table(pa.table({"text": ["a"], "id": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "id": ["1"]}), tmp_path / "b.parquet")
    with pytest.raises(Refused, match='the key "id" is string, and int64 in the files before'):
        await read(tmp_path / "a.parquet", tmp_path / "b.parquet", key="id")
    written(tmp_path / "c.parquet", b"PAR1 no PAR1")
    with pytest.raises(Refused, match=r"cannot read .*c\.parquet"):
        await read(tmp_path / "c.parquet")


async def test_parquet_that_is_damaged_behind_its_index_stops(tmp_path: Path) -> None:
    """With the file's name."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {n}" for n in range(1000)]}), path, compression="gzip")
    data = bytearray(path.read_bytes())
    data[200:400] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(JobError, match=r"cannot read .*a\.parquet"):
        await read(path)
