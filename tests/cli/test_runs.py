"""A job by the command `ollama-sc embed`: what it prints where, and its exit statuses."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests import forking
from tests.cli.support import (
    BACKENDS,
    MODEL,
    contents,
    environment,
    failures,
    run,
    shards,
    table,
    write_jsonl,
)
from tests.support import ROOT


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_job(url: str, tmp_path: Path, backend: str) -> None:
    """As the README shows it: shards in a folder, words on stderr, nothing on stdout."""
    write_jsonl(tmp_path / "corpus.jsonl", 300)
    arguments = ["embed", "corpus.jsonl", "--field", "text", "--model", MODEL, "-o", "vectors/"]
    arguments += ["--backend", backend]
    done = run(*arguments, host=url, cwd=tmp_path, real=True)
    assert (done.returncode, done.stdout) == (0, "")
    first, second = done.stderr.splitlines()
    assert first == "Done: 300 rows in 1 shard in vectors, vectors of 8 numbers"
    assert re.fullmatch(r"This run: 300 rows in [\d.]+ s, [\d,]+/s", second)
    assert table(tmp_path / "vectors").num_rows == 300
    done = run(*arguments, host=url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "Done before: 300 rows in vectors\n"


@pytest.mark.parametrize("format", ["jsonl", "lines", "parquet"])
def test_formats_give_the_same_vectors(url: str, tmp_path: Path, format: str) -> None:
    """JSONL by a glob of several files, plain lines by standard input, Parquet."""
    texts = [f"text {number}" for number in range(100)]
    arguments: list[str | Path] = []
    data = b""
    if format == "jsonl":
        for part in range(4):
            rows = [json.dumps({"text": text}) for text in texts[25 * part : 25 * part + 25]]
            (tmp_path / f"part{part}.jsonl").write_text("\n".join(rows))
        arguments = [tmp_path / "part?.jsonl"]
    elif format == "lines":
        data = "\n".join(texts).encode()
        arguments = ["-", "--input-format", "lines"]
    else:
        pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
        arguments = [tmp_path / "a.parquet"]
    write_jsonl(tmp_path / "expected.jsonl", 0)
    for name, given in (("out", arguments), ("one", ["-"])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
        done = run(
            "embed", *given, "-m", MODEL, "-o", tmp_path / name, "--shard-rows", "40", host=url,
            input=data if given is arguments else lines,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert len(shards(tmp_path / "out")) == 3


def test_the_document_is_right(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code reads what its command writes, it names every option, its links lead somewhere."""
    text = (ROOT / "docs" / "embed.md").read_text()
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "corpus.jsonl", 5)
    command = re.search(r"^ollama-sc (embed corpus.jsonl --field .*)$", text, re.MULTILINE)
    assert command is not None
    assert command[0] in (ROOT / "README.md").read_text()
    assert run(*command[1].split(), host=url, cwd=tmp_path).returncode == 0
    names: dict[str, Any] = {}
    codes = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for code, name in zip(codes, ["frame", "frame", "rows", "keys"], strict=True):
        assert len(code.splitlines()) <= 3
        exec(code, names)
        assert len(names.pop(name)) == 5
    assert names["vectors"].shape == (5, 8)
    options = set(re.findall(r"--[a-z][a-z-]+", run("embed", "--help").stdout))
    assert options - {"--help", "--output", "--model", "--truncate"} <= set(
        re.findall(r"--[a-z][a-z-]+", text)
    )


def test_some_rows_that_failed_are_status_1(url: str, tmp_path: Path) -> None:
    """With the name of their list."""
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    done = run("embed", tmp_path / "a.jsonl", "-m", MODEL, "-o", tmp_path / "out", host=url)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"1 row has no vector: {tmp_path}/out/_failures.jsonl says why\n" in done.stderr
    assert failures(tmp_path / "out") == [
        {"row": 1, "key": 1, "where": f"{tmp_path}/a.jsonl:2", "reason": '"text" is null'}
    ]


def test_no_server_is_status_3(tmp_path: Path) -> None:
    """It says whom it asked, and the exact command that goes on, without a password."""
    write_jsonl(tmp_path / "a b.jsonl", 3)
    arguments = ["embed", "a b.jsonl", "-m", MODEL, "-o", "out"]
    done = run(*arguments, "--host", "http://me:secret@127.0.0.1:9", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert "stopped: GET /api/tags: cannot connect to http://127.0.0.1:9" in done.stderr
    assert "secret" not in done.stderr
    assert done.stderr.endswith(
        f"Go on with: ollama-sc embed 'a b.jsonl' -m {MODEL} -o out --host http://...@127.0.0.1:9\n"
    )


@pytest.mark.parametrize(
    "given",
    [
        ["--host", "me:s3cret@127.0.0.1:9"],
        ["--host=me:s3cret@127.0.0.1:9"],
        ["--host", "s3cret:@127.0.0.1:9"],
        ["--host", "http://me:s3 cret@127.0.0.1:9"],
        ["--host", "http://127.0.0.1:9", "--host", "me:s3cret@127.0.0.1:9"],
        ["--hots=me:s3cret@127.0.0.1:9"],
        ["--shard-rows", "me:s3cret@127.0.0.1:9"],
        ["--shard-rows=http://me:s3cret@127.0.0.1:9"],
    ],
)
def test_the_command_shows_no_password(tmp_path: Path, given: list[str]) -> None:
    """However a server is written on the command line, and wherever by mistake."""
    write_jsonl(tmp_path / "a@b.jsonl", 3)
    done = run("embed", "a@b.jsonl", "-m", MODEL, "-o", "out", *given, cwd=tmp_path)
    assert done.returncode in (2, 3)
    assert "s3" not in done.stderr + done.stdout
    if done.returncode == 3:
        assert "Go on with: ollama-sc embed a@b.jsonl " in done.stderr
        assert "...@127.0.0.1:9" in done.stderr


def test_a_full_disk(url: str, tmp_path: Path) -> None:
    """A real limit on the size of files, in the middle of a shard; with room it goes on."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 3000)
    limited = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, -1)); "
        "from ollama_sc.cli import main; sys.exit(main())"
    )
    arguments = ["embed", str(corpus), "-m", MODEL, "-o", str(tmp_path / "out"), "--host", url]
    done = forking.run(["-c", limited, *arguments])
    assert done.returncode == 3
    assert f"stopped: cannot write to {tmp_path}/out: File too large" in done.stderr
    assert shards(tmp_path / "out") == []
    assert not list((tmp_path / "out").glob(".tmp*"))
    assert run(*arguments).returncode == 0
    assert table(tmp_path / "out").num_rows == 3000


@pytest.mark.anyio
async def test_the_command_says_why_it_tries_again(fake: FakeOllama, tmp_path: Path) -> None:
    """A request that is tried again is told of with its reason, and nothing else is printed."""
    fake.script("/v1/embeddings", Reply.busy(), Reply.busy())
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    soon = (
        "from ollama_sc._jobs import retries; retries.WAIT_INITIAL = retries.WAIT_JITTER = 0.005; "
    )
    soon += "import sys; from ollama_sc.cli import main; sys.exit(main())"
    arguments = ["-c", soon, "embed", tmp_path / "a.jsonl", "-m", MODEL, "-o", tmp_path / "o"]
    env = environment(OLLAMA_HOST=fake.url)
    done = await anyio.to_thread.run_sync(partial(forking.run, arguments, env=env))
    first, *rest = done.stderr.splitlines()
    assert done.returncode == 0
    assert first.startswith("Trying again in 0.0 s (attempt 2 of 8): POST /v1/embeddings, model ")
    assert "503" in first
    assert [line.split(":")[0] for line in rest] == ["Done", "This run"]
    assert done.stdout == ""


def test_memory_does_not_grow_with_the_corpus(url: str, tmp_path: Path) -> None:
    """Ten times the rows take no more than a little more memory."""
    peaks: list[int] = []
    measure = (
        "import resource, sys; from ollama_sc.cli import main; status = main(); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(status)"
    )
    for count in (5_000, 50_000):
        corpus = tmp_path / f"{count}.jsonl"
        with corpus.open("w") as file:
            file.writelines(f'{{"text": "text {n} {"x" * 100}"}}\n' for n in range(count))
        arguments = ["embed", corpus, "-m", MODEL, "-o", tmp_path / corpus.stem, "--host", url]
        arguments += ["--shard-rows", "1000"]
        done = forking.run(["-c", measure, *arguments])
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    print(f"peaks in KiB: {peaks}")
    assert peaks[1] - peaks[0] < 20_000, f"KiB: {peaks}"
