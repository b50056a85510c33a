"""What files hold, whatever their names: compressed, an array of JSON, another encoding."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sc.cli import _bytes, _compression, _inputs, _job, _json_scan
from ollama_sc.cli._errors import Refused, Stopped
from ollama_sc.testing import FakeOllama
from tests.cli.support import (
    Said,
    contents,
    embed,
    failures,
    manifest,
    options,
    read,
    stop_after,
    table,
    write_jsonl,
    written,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What is read, written and said is no matter of the event loop."""
    return "asyncio"


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}
LINES = b"".join(b'{"text": "row %d"}\n' % number for number in range(1000))
TEXTS = [f"row {number}" for number in range(1000)]


# -- compressed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json.zst", "A.JSONL.BZ2", "a.gz", "a"]
)
@pytest.mark.parametrize("kind", PACKED)
async def test_compressed_under_any_name(tmp_path: Path, kind: str, name: str) -> None:
    """The content says that it is, and by what; the name says no more than the format."""
    path = written(tmp_path / name, PACKED[kind](LINES))
    rows, _ = await read(path)
    assert [row.text for row in rows] == TEXTS
    assert rows[7].where == f"{path}:8"
    assert (await _inputs.examine([path], "jsonl")).total is None


@pytest.mark.parametrize("piece", [3, 100_000])
@pytest.mark.parametrize("kind", PACKED)
async def test_several_streams_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, piece: int
) -> None:
    """As `cat` makes them, with zeros behind, in reads of any size, and out in pieces of any size."""
    monkeypatch.setattr(_bytes, "_BLOCK_BYTES", piece)
    monkeypatch.setattr(_compression, "PIECE_BYTES", 50 * piece)
    pack = PACKED[kind]
    lines = LINES[:1000]
    data = pack(lines[:377]) + pack(b"") + pack(lines[377:]) + bytes(512)
    rows, _ = await read(written(tmp_path / "a.txt", data))
    assert [row.text for row in rows] == lines.decode().splitlines()


@pytest.mark.parametrize("kind", PACKED)
async def test_compressed_pipes(
    fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Standard input is told by its content too; the rows are those of the plain file."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 50)
    await embed(fake, corpus, tmp_path / "straight")
    packed = written(tmp_path / "packed", PACKED[kind](corpus.read_bytes()))
    reading, writing = os.pipe()
    os.write(writing, packed.read_bytes())
    os.close(writing)
    with open(reading, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert (await embed(fake, "-", tmp_path / "out"))[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


@pytest.mark.parametrize("kind", PACKED)
async def test_a_compressed_file_that_is_cut_stops_the_job(
    fake: FakeOllama, tmp_path: Path, kind: str
) -> None:
    """With its name, at any byte; the rows before are kept."""
    data = PACKED[kind](LINES)
    for cut in (12, len(data) // 2, len(data) - 9, len(data) - 1):
        path = written(tmp_path / f"{cut}.jsonl", data[:cut])
        status, said = await embed(fake, path, tmp_path / f"out-{cut}")
        assert status == 3
        assert f"stopped: cannot read {path}: its {kind} data ends too early" in said.text
    if kind != "zstd":  # which has no check sum, unless it is told to
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 0xFF
        with pytest.raises(Stopped, match=f"its {kind} data"):
            await read(written(tmp_path / "damaged.jsonl", bytes(damaged)))
    with pytest.raises(Stopped, match=f"its {kind} data"):
        await read(written(tmp_path / "more.jsonl", data + b"more"))


@pytest.mark.parametrize("kind", PACKED)
def test_little_that_unpacks_to_much(kind: str) -> None:
    """Comes out in small pieces, one at a time."""
    unpacker = _compression.Unpacker(kind)
    unpacker.feed(PACKED[kind](bytes(16 << 20)))
    count = 0
    while piece := unpacker.next_piece():
        assert len(piece) <= _compression.PIECE_BYTES
        count += len(piece)
    assert count == 16 << 20
    unpacker.finish()


@given(st.binary(max_size=40))
def test_what_is_not_compressed(data: bytes) -> None:
    """Is taken as it is, or is an error that says what it seemed to be."""
    for magic in (b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"BZh91AY&SY", b"\xfd7zXZ\x00"):
        kind = _compression.compression_of(magic + data)
        assert magic == b"" or kind is not None
        if kind is not None:
            unpacker = _compression.Unpacker(kind)
            unpacker.feed(magic + data)
            try:
                while unpacker.next_piece():
                    pass
                unpacker.finish()
            except _compression.BadStreamError as error:
                assert kind in str(error)


@pytest.mark.parametrize("kind", PACKED)
async def test_a_compressed_job_goes_on(fake: FakeOllama, tmp_path: Path, kind: str) -> None:
    """Behind what is done, to the same result; another content is another input."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 50)
    await embed(fake, corpus, tmp_path / "straight", key="id")
    packed = written(tmp_path / "corpus.jsonl.x", PACKED[kind](corpus.read_bytes()))
    stop_after(fake, 3)
    changed: Any = {"key": "id", "input_format": "jsonl"}
    assert (await embed(fake, packed, tmp_path / "out", max_in_flight=1, **changed))[0] == 3
    assert manifest(tmp_path / "out")["progress"]["rows"] == 24
    assert (await embed(fake, packed, tmp_path / "out", **changed))[0] == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    assert (await embed(fake, corpus, tmp_path / "out", **changed))[0] == 2


async def test_compressed_parquet_is_refused(tmp_path: Path) -> None:
    """With a word, and so is Parquet under a name of JSONL."""
    data = io.BytesIO()
    pq.write_table(pa.table({"text": ["a"]}), data)
    path = written(tmp_path / "a.parquet", gzip.compress(data.getvalue()))
    with pytest.raises(
        Refused, match=r"a\.parquet is compressed by gzip: Parquet is read unpacked"
    ):
        await read(path)
    with pytest.raises(Refused, match=r"a\.jsonl is Parquet: say --input-format parquet"):
        await read(written(tmp_path / "a.jsonl", data.getvalue()))
    rows, _ = await read(written(tmp_path / "without-a-name", data.getvalue()))
    assert rows[0].text == "a"
    rows, _ = await read(written(tmp_path / "a.txt", b"PAR1 is text"))
    assert rows[0].text == "PAR1 is text"


# -- arrays of JSON --------------------------------------------------------------------------------


ROWS: list[dict[str, Any]] = [
    {"id": number, "text": f'te"xt\\ {number} ]}},[ü'} for number in range(12)
]


@pytest.mark.parametrize(
    ("piece", "indent", "before"),
    [
        (1, 2, b""),
        (2, None, b"\xef\xbb\xbf"),
        (3, 2, b" \n\t"),
        (64, None, b""),
        (100_000, 2, b"\n"),
    ],
)
async def test_an_array_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, indent: int | None, before: bytes
) -> None:
    """Its elements are the rows, in whatever form and pieces it comes."""
    monkeypatch.setattr(_bytes, "_BLOCK_BYTES", piece)
    data = before + json.dumps(ROWS, indent=indent, ensure_ascii=False).encode() + b"\n"
    path = written(tmp_path / "a.json", data)
    rows, _ = await read(path, key="id")
    assert [(row.key, row.text) for row in rows] == [(row["id"], row["text"]) for row in ROWS]
    assert rows[4].where == f"{path}:5"
    assert (await read(path, key="id", skip=7))[0] == rows[7:]
    assert (await _inputs.examine([path], "jsonl")).total is None


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"[]", []), (b"[ ]\n\n", []), (b'[{"text":"a"},]', ["a"]), (b'[{"text":"a"},,{"text":"b"}]', ["a", "b"]),
        (b'[1,"x",{"text":"a"},null,[{"text":"b"}]]', [None, None, "a", None, None]),
        (b'[{"text":"a","x":NaN,"y":1e400}]', ["a"]),
    ],
)  # fmt: skip
async def test_odd_arrays(tmp_path: Path, data: bytes, texts: list[Any]) -> None:
    """What is no object in one is a row without a text."""
    rows, _ = await read(written(tmp_path / "a.json", data))
    assert [row.text for row in rows] == texts


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'[{"text":"a"},{"text":"b"', "it ends inside of its array"),
        (b'[{"text":"a"}', "it ends inside of its array"),
        (b"[", "it ends inside of its array"),
        (b'[{"text":"a"}]{"text":"b"}', "there is more behind the end of its array"),
        (b'[{"text":"a"}] x', "there is more behind the end of its array"),
        (b'[{"text":"a"}]]', "there is more behind the end of its array"),
    ],
)
async def test_arrays_that_are_damaged(tmp_path: Path, data: bytes, why: str) -> None:
    """Stop the job, with the name of the file."""
    with pytest.raises(Stopped, match=f"cannot read .*a.json: (?:{why})"):
        await read(written(tmp_path / "a.json", data))


async def test_a_job_over_an_array(fake: FakeOllama, tmp_path: Path) -> None:
    """The same result as over lines; a bad element is named by its place. A pipe of one, too."""
    rows: list[Any] = [
        json.loads(line) for line in write_jsonl(tmp_path / "a.jsonl", 50).read_text().splitlines()
    ]
    rows[33] = {"id": "x"}
    lines = written(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    array = written(tmp_path / "a.json", json.dumps(rows))
    await embed(fake, lines, tmp_path / "lines", key="id")
    await embed(fake, array, tmp_path / "array", key="id")
    assert table(tmp_path / "lines").equals(table(tmp_path / "array"))
    assert failures(tmp_path / "array")[0]["where"] == f"{array}:34"
    reading, writing = os.pipe()
    os.write(writing, array.read_bytes())
    os.close(writing)
    piped = options(
        f"/dev/fd/{reading}", tmp_path / "pipe", [fake.url], key="id", input_format="jsonl"
    )
    assert await _job.run(piped, Said()) == 1
    os.close(reading)
    assert table(tmp_path / "lines").equals(table(tmp_path / "pipe"))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
        max_leaves=12,
    ),
    st.integers(1, 9),
)  # fmt: skip
def test_whatever_an_array_has(value: Any, piece: int) -> None:
    """Its elements come out as they are; so do the fields of an object."""
    data = json.dumps([value, value], indent=piece % 3 or None).encode()
    scanner = _json_scan.ArrayScanner()
    found = [
        each for at in range(0, len(data), piece) for each in scanner.feed(data[at : at + piece])
    ]
    assert [json.loads(each) for each in found + scanner.finish()] == [value, value]
    data = json.dumps({"a": value, "b": value}, ensure_ascii=False).encode()
    assert {k: json.loads(v) for k, v in _json_scan.top_level(data).items()} == {
        "a": value,
        "b": value,
    }


async def test_an_element_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded, as it is for lines."""
    monkeypatch.setattr(_bytes, "_MAX_LINE_BYTES", 100)
    monkeypatch.setattr(_bytes, "_BLOCK_BYTES", 10)
    with pytest.raises(Refused, match=r"a\.json:2: longer than"):
        await read(written(tmp_path / "a.json", '[{"text":"a"},{"text":"' + "x" * 200))


# -- encodings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.json"])
async def test_utf_16_is_refused_with_a_word(
    fake: FakeOllama, tmp_path: Path, encoding: str, name: str
) -> None:
    """With a byte-order mark and without, compressed and piped, before anything is asked or written."""
    data = '{"text": "über"}\n'.encode(encoding)
    for number, content in enumerate((data, gzip.compress(data), codec_mark(encoding) + data)):
        path = written(tmp_path / f"{number}{name}", content)
        status, said = await embed(fake, path, tmp_path / "out")
        assert (status, not fake.requests, (tmp_path / "out").exists()) == (2, True, False)
        assert "is UTF-16 or UTF-32, not UTF-8: convert it, such as by iconv" in said.text
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    with pytest.raises(Refused, match="is UTF-16"):
        await read(Path(f"/dev/fd/{reading}"), format="jsonl")
    os.close(reading)


def codec_mark(encoding: str) -> bytes:
    return {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff", "utf-32-le": b"\xff\xfe\0\0"}.get(
        encoding, b""
    )


def test_gzip_of_zlib_is_whole() -> None:
    """A gzip stream with a name and a comment in its head, as programs write it."""
    data = io.BytesIO()
    with gzip.GzipFile("name.jsonl", "wb", fileobj=data, mtime=random.random()) as file:
        file.write(LINES)
    assert zlib.decompress(data.getvalue(), 31) == LINES
    unpacker = _compression.Unpacker("gzip")
    unpacker.feed(data.getvalue())
    assert b"".join(iter(unpacker.next_piece, b"")) == LINES


@pytest.mark.parametrize("content", [b"a\0b\nc\n", b"\0\0\0\0\0\0\n", b"ab\0\0cd\n", b"\0"])
async def test_zeros_alone_are_no_encoding(tmp_path: Path, content: bytes) -> None:
    """A text can have some."""
    rows, _ = await read(written(tmp_path / "a.txt", content))
    assert [row.text for row in rows] == content.decode().splitlines()
