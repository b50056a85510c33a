"""Rows without a text, texts that the server refuses: listed, or the end of the job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ollama_sc.cli import _feed
from ollama_sc.testing import FakeOllama, Reply
from tests.cli.support import (
    contents,
    embed,
    failures,
    manifest,
    missing,
    shards,
    table,
    write_jsonl,
)

pytestmark = pytest.mark.anyio


BAD = [
    '{"id": 0, "text": "good"}',
    '{"id": 1, "text": null}',
    '{"id": 2, "body": "x"}',
    '{"id": 3, "text": 7}',
    "",
    '{"id": 4, "text": "cut',
    "[5]",
    '{"id": "six", "text": "good"}',
    '{"id": 7, "text": "good"}',
    '{"text": "good"}',
]
REASONS = [
    (1, 1, 2, '"text" is null'),
    (2, 2, 3, 'no field "text"'),
    (3, 3, 4, '"text" is not text but 7'),
    (4, None, 6, "not JSON: Input data was truncated"),
    (5, None, 7, "not an object"),
    (6, None, 8, 'the key "id" is not an integer of 64 bits but "six"'),
    (8, None, 10, 'no key "id"'),
]


async def test_rows_without_a_text_are_listed(fake: FakeOllama, tmp_path: Path) -> None:
    """They have a vector of nulls and a line in _failures.jsonl; the status is 1, also afterwards."""
    corpus = tmp_path / "bad.jsonl"
    corpus.write_text("\n".join(BAD))
    for number in range(2):
        status, said = await embed(fake, corpus, tmp_path / "out", key="id", shard_rows=4)
        assert status == 1
        assert (
            f"7 rows have no vector: {tmp_path / 'out' / '_failures.jsonl'} says why" in said.lines
        )
        assert (said.started is None) == (number == 1)
    found = table(tmp_path / "out")
    assert found["id"].to_pylist() == [0, 1, 2, 3, None, None, None, 7, None]
    assert missing(tmp_path / "out") == [reason[0] for reason in REASONS]
    assert failures(tmp_path / "out") == [
        {"row": row, "key": key, "where": f"{corpus}:{line}", "reason": reason}
        for row, key, line, reason in REASONS
    ]


async def test_a_text_that_the_server_refuses_is_listed(fake: FakeOllama, tmp_path: Path) -> None:
    """Its neighbours keep their vectors."""
    corpus = tmp_path / "long.txt"
    corpus.write_text("".join(f"{'word ' * 3000 if n in (3, 11) else n}\n" for n in range(20)))
    status, _ = await embed(fake, corpus, tmp_path / "out", truncate=False)
    assert status == 1
    assert missing(tmp_path / "out") == [3, 11]
    listed = failures(tmp_path / "out")
    assert [entry["row"] for entry in listed] == [3, 11]
    assert all("the input length exceeds the context length" in entry["reason"] for entry in listed)


async def test_raise_ends_at_the_first_bad_row(fake: FakeOllama, tmp_path: Path) -> None:
    """The message names file and line; what is in front of it is kept, and skip goes on."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 50)
    lines = corpus.read_text().splitlines()
    lines[33] = '{"id": "doc-33"}'
    corpus.write_text("\n".join(lines))
    status, said = await embed(fake, corpus, tmp_path / "out", key="id", on_error="raise")
    assert status == 3
    assert said.lines == [
        f'ollama-sc: stopped: {corpus}:34: no field "text"\n'
        "--on-error skip goes on without such rows",
        "33 rows are done",
        "Go on with: ollama-sc embed ...",
    ]
    assert manifest(tmp_path / "out")["progress"]["rows"] == 33
    status, said = await embed(fake, corpus, tmp_path / "out", key="id")
    assert (status, said.lines[0]) == (1, "Going on after 33 rows that are done")
    await embed(fake, corpus, tmp_path / "straight", key="id")
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")


async def test_raise_ends_at_the_first_text_that_the_server_refuses(
    fake: FakeOllama, tmp_path: Path
) -> None:
    """As at a bad row, in the middle of a batch too."""
    corpus = tmp_path / "long.txt"
    corpus.write_text("".join(f"{'word ' * 3000 if n == 12 else n}\n" for n in range(30)))
    status, said = await embed(fake, corpus, tmp_path / "out", truncate=False, on_error="raise")
    assert status == 3
    assert said.lines[0].startswith(f"ollama-sc: stopped: {corpus}:13: the input length exceeds")
    assert manifest(tmp_path / "out")["progress"]["rows"] == 12


async def test_raise_says_a_row_that_stands_behind_usable_ones_in_its_batch(
    fake: FakeOllama, tmp_path: Path
) -> None:
    """Of a refused text and a later row without one, the first counts."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(
        '{"text": "a"}\n' + json.dumps({"text": "word " * 3000}) + '\n{"text": null}\n'
    )
    status, said = await embed(fake, corpus, tmp_path / "out", truncate=False, on_error="raise")
    assert status == 3
    assert said.lines[0].startswith(f"ollama-sc: stopped: {corpus}:2: ")


async def test_a_field_that_no_row_has_is_refused(fake: FakeOllama, tmp_path: Path) -> None:
    """It says which fields there are; nothing was written, so another field can be said."""
    corpus = write_jsonl(tmp_path / "corpus.jsonl", 1200)
    status, said = await embed(fake, corpus, tmp_path / "out", field="body", shard_rows=5)
    assert status == 2
    assert said.text == (
        'ollama-sc: none of the first 1,000 rows has a field "body": see --field\n'
        f'{corpus}:1: no field "body" (it has: id, text, x)'
    )
    assert shards(tmp_path / "out") == []
    short = tmp_path / "short.jsonl"
    short.write_text("nonsense\n{}\n")
    status, said = await embed(fake, short, tmp_path / "short")
    assert status == 2
    assert f"{short}:1: not JSON" in said.text
    assert "none of the first 2 rows" in said.text


async def test_long_stretches_without_a_text_are_not_held(
    fake: FakeOllama, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are, no more than a fixed number of them waits for vectors."""
    monkeypatch.setattr(_feed, "_MAX_UNUSABLE_ROWS", 30)
    corpus = tmp_path / "corpus.jsonl"
    good, bad = '{"text": "good"}\n', '{"text": null}\n'
    corpus.write_text(good + bad * 200 + good * 3 + bad * 100)
    status, _ = await embed(fake, corpus, tmp_path / "out")
    assert status == 1
    assert set(range(304)) - set(missing(tmp_path / "out")) == {0, 201, 202, 203}
    assert table(tmp_path / "out").num_rows == 304
    assert len(failures(tmp_path / "out")) == 300


async def test_a_whole_shard_without_a_vector(fake: FakeOllama, tmp_path: Path) -> None:
    """It has nulls of the right number, the first shard too."""
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": null}\n' * 25 + '{"text": "good"}\n')
    assert (await embed(fake, corpus, tmp_path / "out"))[0] == 1
    assert missing(tmp_path / "out") == list(range(25))


async def test_a_job_that_all_texts_fail_stops(
    fake: FakeOllama, corpus: Path, tmp_path: Path
) -> None:
    """What no text explains is not listed as the texts' fault."""
    fake.always("/v1/embeddings", Reply.error(400, "no such thing"))
    fake.always("/api/embed", Reply.error(400, "no such thing"))
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert status == 3
    assert "no such thing" in said.text
    assert failures(tmp_path / "out") == []


async def test_a_key_that_no_row_has_is_refused(fake: FakeOllama, tmp_path: Path) -> None:
    """A wrong `--key` ends the job as a wrong `--field` does, before every row has failed for it."""
    corpus = tmp_path / "a.jsonl"
    corpus.write_text("".join(json.dumps({"id": n, "text": "x"}) + "\n" for n in range(1500)))
    status, said = await embed(fake, corpus, tmp_path / "long", key="idd")
    assert status == 2
    assert 'none of the first 1,000 rows has a field "idd": see --key' in said.text
    corpus.write_text('{"id": 1, "text": "x"}\n')
    status, said = await embed(fake, corpus, tmp_path / "short", key="idd")
    assert status == 2
    assert 'no key "idd" (it has: id, text)' in said.text
