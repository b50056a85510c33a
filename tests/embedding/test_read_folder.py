"""Folders that `read_folder` reads in part, or refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ollama_sc import RequestError
from ollama_sc.cli._table import KeyedVectors, write_shard
from ollama_sc.embedding import EmbeddedRows, read_folder


def shard(path: Path, keys: list[Any], type_: Any = pa.string(), dimensions: int = 2) -> None:
    vectors = np.arange(len(keys) * dimensions, dtype=np.float32).reshape(len(keys), dimensions)
    with path.open("wb") as file:
        valid = [key is not None for key in keys]
        write_shard(file, "id", type_, KeyedVectors(keys, vectors, valid), format=2)


def counted(folder: Path, rows: int, *, done: bool, length: int | None = 2) -> None:
    progress = {"rows": rows, "vector_length": length, "done": done, "other": 1}
    saved = {"format": 2, "settings": {"shard_rows": 2, "x": 1}, "progress": progress}
    (folder / "_manifest.json").write_text(json.dumps(saved))


def test_whole_shards_alone(tmp_path: Path) -> None:
    """What the manifest does not count is not read, nor what is not full yet."""
    for number, keys in enumerate((["a", "b"], ["c", None], ["e"])):
        shard(tmp_path / f"part-0000{number}.parquet", keys)
    counted(tmp_path, 5, done=True)
    found = read_folder(tmp_path)
    assert found.keys == ["a", "b", "c", None, "e"]
    assert np.isnan(found.vectors).all(axis=1).tolist() == [False, False, False, True, False]
    counted(tmp_path, 3, done=False)
    assert read_folder(str(tmp_path)).keys == ["a", "b"]
    (tmp_path / "_manifest.json").unlink()
    assert read_folder(tmp_path).keys == ["a", "b", "c", None, "e"]


def test_a_job_without_rows(tmp_path: Path) -> None:
    """Nothing, of no length."""
    counted(tmp_path, 0, done=True, length=None)
    found = read_folder(tmp_path)
    assert isinstance(found, EmbeddedRows)
    assert (found.keys, found.vectors.shape, found.vectors.dtype) == ([], (0, 0), np.float32)


def test_rows_without_a_vector(tmp_path: Path) -> None:
    """All of them, or those of the first shard: the length is the manifest's, or another shard's."""
    shard(tmp_path / "part-00000.parquet", [None, None])
    counted(tmp_path, 2, done=True)
    assert np.isnan(read_folder(tmp_path).vectors).sum() == 4
    shard(tmp_path / "part-00001.parquet", [None, "b"])
    (tmp_path / "_manifest.json").unlink()
    assert np.isnan(read_folder(tmp_path).vectors[:, 0]).tolist() == [True, True, True, False]


@pytest.mark.parametrize("keys", [[1, -5], [b"x", b"\xff"], ["ü", ""]], ids=str)
def test_keys_of_every_kind(tmp_path: Path, keys: list[Any]) -> None:
    """As Python's own objects."""
    shard(tmp_path / "part-00000.parquet", keys, pa.array(keys).type)
    assert read_folder(tmp_path).keys == keys


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder, an empty one, a shard that is missing, cut or another file, a package that lacks."""
    for folder in (tmp_path, tmp_path / "no"):
        with pytest.raises(RequestError, match="has no shards"):
            read_folder(folder)
    counted(tmp_path, 3, done=True)
    shard(tmp_path / "part-00000.parquet", ["a", "b"])
    with pytest.raises(RequestError, match=r"cannot read .*part-00001\.parquet"):
        read_folder(tmp_path)
    whole = (tmp_path / "part-00000.parquet").read_bytes()
    for content in (b"", whole[:100], whole[:-1], whole[:-100] + bytes(100), b"PAR1 no PAR1"):
        (tmp_path / "part-00001.parquet").write_bytes(content)
        with pytest.raises(RequestError, match=r"cannot read .*part-00001\.parquet"):
            read_folder(tmp_path)
    shard(tmp_path / "part-00001.parquet", [])
    with pytest.raises(RequestError, match="is cut: it should have 1 rows"):
        read_folder(tmp_path)
    zero = '{"format":2,"settings":{"shard_rows":0},"progress":{"rows":1,"vector_length":1,"done":true}}'
    for content in ("{}", "no", zero, '{"format":2,"settings":{"shard_rows":"x"},"progress":{}}'):
        (tmp_path / "_manifest.json").write_text(content)
        with pytest.raises(RequestError, match="is no manifest"):
            read_folder(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RequestError, match=r"pip install 'ollama-sc\[cli\]'"):
        read_folder(tmp_path)
