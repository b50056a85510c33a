"""Rows of plain lines and of JSONL: texts, keys, and what is wrong with the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sc.cli import _bytes, _inputs, _keys, _lines, _parquet
from ollama_sc.cli._errors import Refused, Stopped
from tests.cli.support import (
    read,
    rows_of,
    written,
)

pytestmark = pytest.mark.anyio


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
    monkeypatch.setattr(_bytes, "_BLOCK_BYTES", piece)
    monkeypatch.setattr(_inputs, "_BLOCK_BYTES", piece)
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
    monkeypatch.setattr(_bytes, "_BLOCK_BYTES", piece)
    texts = ["über", "", "🐈 cat", "x" * 30, ""]
    rows, _ = await read(written(tmp_path / "a.txt", "\n".join([*texts, "end"]) + end))
    assert [row.text for row in rows] == [*texts, "end"]


async def test_a_line_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is bounded: a file that has no lines is none of lines."""
    monkeypatch.setattr(_bytes, "_MAX_LINE_BYTES", 100)
    monkeypatch.setattr(_bytes, "_BLOCK_BYTES", 10)
    path = written(tmp_path / "a.txt", "short\n" + "x" * 99 + "\n" + "x" * 200)
    with pytest.raises(Refused, match=r"a\.txt:3: longer than"):
        await read(path)


async def test_a_file_that_is_gone_stops_it(tmp_path: Path) -> None:
    """With its name and the system's reason."""
    for name in ("a.txt", "a.parquet"):
        source = _inputs.Input(
            "lines", (_inputs.InputFile(tmp_path / name),), _inputs.Fingerprint("files"), None
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
        (b'{"id": 1e30, "text": "a"}', None, 'the key "id" is not an integer of 64 bits but 1e30'),
        (b'{"id": 1e999999999999999999, "text": "a"}', None, 'the key "id" is not an integer of'),
        (b'{"id": 2, "text": "\xff"}', 2, "not UTF-8: invalid start byte (byte 0xff)"),
        (b'{"id": 2, "text": "a"} x', None, "not JSON: JSON is malformed: trailing characters"),
        (b'{"id": 2, "text": "\\ud800"}', 2, "it is not Unicode: half of a surrogate pair"),
        (b'{"id": 2, "text": "cut \\ud83d"}', 2, "it is not Unicode: half of a surrogate pair"),
        (b'{"id": 2, "text": "a \\udc00 b"}', 2, "it is not Unicode: half of a surrogate pair"),
        (b'{"id": 2, "text": "a \\ud83"}', 2, "not JSON: "),
        (b"null", None, "not an object"),
        (b'{"id": 2, "text": 5, "x": "\xff"}', 2, '"text" is not text but 5'),
        (b'{"id": 2, "text": 5, "x": nul}', 2, '"text" is not text but 5'),
        (b'{"id": 2, "text": 1e400}', 2, '"text" is not text but 1e400'),
        (b'{"id": 2, "text": "a"', None, "not JSON: "),
        (b'{"id": 2, "text": "a"]}', None, "not JSON: "),
        (b"[" * 100_000, None, "not an object"),
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
    for first, kept in (('"a"', "a"), ("null", None), ("1.5", "1.5")):
        content = f'{{"id": {first}, "text": "x"}}\n{{"id": 7, "text": "x"}}\n'
        rows, key_type = await read(written(tmp_path / "a.jsonl", content), key="id")
        assert key_type == pa.string()
        assert [row.key for row in rows] == [kept, "7"]
    # A job that goes on knows it from its manifest.
    rows, key_type = await read(tmp_path / "a.jsonl", key="id", skip=1, key_type=pa.int64())
    assert (key_type, [row.key for row in rows]) == (pa.int64(), [7])


@pytest.mark.parametrize("first", ["null", "true", "[1]", "{}"])
async def test_a_first_row_without_a_key_says_nothing(tmp_path: Path, first: str) -> None:
    """The first key does, as far as it is in the first shard; a whole shard without one is text."""
    content = f'{{"id": {first}, "text": "x"}}\n' + '{"text": "x"}\n{"id": 7, "text": "x"}\n'
    for learn_rows, kept in ((3, 7), (2, "7")):
        rows, key_type = await read(
            written(tmp_path / "a.jsonl", content), key="id", learn_rows=learn_rows
        )
        assert key_type == (pa.int64() if kept == 7 else pa.string())
        assert [row.key for row in rows] == [None, None, kept]


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


NO_PARSER_LIKES = [
    "1e400", "-1e999", "NaN", "Infinity", "-Infinity", "9" * 5000, "01", "+1", ".5", "1.", "'x'", "nul",
    "undefined", '"\\ud800"', '"\\x"', '"\t"', "[" * 9000 + "]" * 9000, '{"a":' * 9000 + "1" + "}" * 9000,
    '"\\"}],{"', "/* no */ 1", '{"id": 7, "text": "no"}',
]  # fmt: skip


@pytest.mark.parametrize("value", NO_PARSER_LIKES, ids=lambda value: value[:12])
@pytest.mark.parametrize(
    "where", ['{"x": %s, "id": 5, "text": "a"}', '{"id": 5, "text": "a", "x":%s}']
)
async def test_fields_that_no_parser_likes(tmp_path: Path, value: str, where: str) -> None:
    """They cost nothing: only the text and the key are decoded. Bytes that are no text neither."""
    for line in (
        (where % value).encode(),
        (where % value).replace('"x"', '"\udcff"').encode("utf-8", "surrogateescape"),
    ):
        content = b'{"id": 1, "text": "good"}\n' + line
        rows, _ = await read(written(tmp_path / "a.jsonl", content), key="id")
        assert [(row.key, row.text) for row in rows] == [(1, "good"), (5, "a")]


# -- keys ------------------------------------------------------------------------------------------


async def keys_of(tmp_path: Path, *values: str, learn: int = 100) -> tuple[list[Any], Any]:
    """The keys of rows, and the type of their column, where the first rows may decide that."""
    path = tmp_path / "keys.jsonl"
    path.write_text("".join(f'{{"id": {value}, "text": "x"}}\n' for value in values))
    rows, key_type = await read(path, key="id", learn_rows=learn)
    return [row.key for row in rows], key_type


@pytest.mark.parametrize(
    ("values", "keys", "type_"),
    [
        (["7", "9223372036854775807"], [7, 2**63 - 1], pa.int64()),
        (["7", "9223372036854775808"], [7, 2**63], pa.uint64()),
        (["18446744073709551615", "0"], [2**64 - 1, 0], pa.uint64()),
        (["18446744073709551616", "1"], [None, 1], pa.int64()),
        (["-1", "9223372036854775808", "5"], [-1, None, 5], pa.int64()),
        (["9223372036854775808", "-1", "5"], [2**63, None, 5], pa.uint64()),
        (["1.0", "2", "-3e0", "4e2", "0.5"], [1, 2, -3, 400, None], pa.int64()),
        (["12345678901234567890.0", "1e19"], [12345678901234567890, 10**19], pa.uint64()),
        (["9007199254740993.0"], [9007199254740993], pa.int64()),
        (["1.5", "2.0", "3", '"x"', "true"], ["1.5", "2", "3", "x", None], pa.string()),
        (['"x"', "12345678901234567890123456789"], ["x", "12345678901234567890123456789"], pa.string()),
        (["1e400", "3"], ["1e400", "3"], pa.string()),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
async def test_integers_beyond_2_63_and_floats(
    tmp_path: Path, values: list[str], keys: list[Any], type_: pa.DataType
) -> None:
    """Whole numbers stay what they are, to the last digit, in the column that has room for them."""
    assert await keys_of(tmp_path, *values) == (keys, type_)


async def test_a_key_without_room_beside_those_without_a_sign(tmp_path: Path) -> None:
    """What it says of a negative one is not that it is no integer of 64 bits."""
    content = b'{"id": 9223372036854775808, "text": "a"}\n{"id": -1, "text": "b"}\n'
    rows, _ = await read(written(tmp_path / "a.jsonl", content), key="id", learn_rows=100)
    assert rows[1].problem == 'the key "id" is not an integer of 64 bits without a sign but -1'


async def test_the_first_shard_decides(tmp_path: Path) -> None:
    """What comes later fits or fails, also where the job goes on behind it."""
    values = ["1", "2", "3", "9223372036854775808", "5"]
    assert await keys_of(tmp_path, *values, learn=4) == ([1, 2, 3, 2**63, 5], pa.uint64())
    assert await keys_of(tmp_path, *values, learn=3) == ([1, 2, 3, None, 5], pa.int64())
    path = tmp_path / "keys.jsonl"
    for skip in range(1, 5):
        rows, key_type = await read(path, key="id", skip=skip, learn_rows=4)
        assert ([row.key for row in rows], key_type) == ([1, 2, 3, 2**63, 5][skip:], pa.uint64())


@given(st.lists(st.integers(-(2**64), 2**65), min_size=1, max_size=6))
def test_every_key_fits_the_type_or_has_none(values: list[int]) -> None:
    """Whatever comes in whatever order: the column of the first shard can be written."""
    column = _keys.KeyColumn("id", None, 100)
    keys = [column.convert(str(value).encode(), row)[0] for row, value in enumerate(values)]
    assert pa.array(keys, column.type).to_pylist() == keys
    if column.type != pa.string():
        assert all(key in (None, value) for key, value in zip(keys, values, strict=True))
