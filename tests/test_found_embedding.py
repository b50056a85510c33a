"""What adversaries found in embedding jobs and their command, each held by a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_support import COMMAND, MODEL, embed, environment, failures, table
from conftest import is_quiet

from ollama_sc import AsyncClient, RequestError
from ollama_sc.embedding import _retries, embed_many
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio
QUICK = "/v1/embeddings"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try comes soon."""
    monkeypatch.setattr(_retries, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(_retries, "LONGEST_WAIT", 0.02)
    monkeypatch.setattr(_retries, "JITTER", 0.005)


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


# -- how a job ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["texts", "on_progress"])
async def test_what_ends_the_program_closes_the_client_at_once(
    fake: FakeOllama, where: str
) -> None:
    """A BaseException of the user's code in a job leaves the client, with its connections closed."""

    class Death(BaseException):
        pass

    def die(*_: object) -> None:
        raise Death

    def some() -> Any:
        yield from texts(35)
        if where == "texts":
            die()

    with anyio.fail_after(5):
        with pytest.raises(Death):
            async with AsyncClient(fake.url) as client:
                on_progress = die if where == "on_progress" else None
                async with client.embed_many(
                    MODEL, some(), batch_size=10, on_progress=on_progress
                ) as batches:
                    async for _ in batches:
                        pass
        await fake.wait_all_closed()


# -- arguments ---------------------------------------------------------------------------------------


async def test_clients_that_are_no_list_are_refused(fake: FakeOllama) -> None:
    """A single client, or an iterator of some, draws the same clear error as an empty list."""
    async with AsyncClient(fake.url) as client:
        for clients in (client, iter([client]), {client}, None, []):
            with pytest.raises(RequestError, match="clients must be a list"):
                embed_many(clients=clients, model=MODEL, texts=["a"])  # type: ignore[arg-type]


async def test_an_on_progress_that_would_have_to_be_awaited_is_refused(fake: FakeOllama) -> None:
    """A coroutine function draws an error before any I/O: its coroutines would be dropped."""

    async def on_progress(_: object) -> None: ...

    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="plain function"):
            client.embed_many(MODEL, ["a"], on_progress=on_progress)
    assert not fake.requests


# -- servers -----------------------------------------------------------------------------------------


async def both_at_work(fakes: list[FakeOllama]) -> None:
    """Wait until every server has had its warm-up and a batch."""
    for fake in fakes:
        await fake.wait_for_requests(2)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_server_that_can_take_nothing_leaves_its_batches_to_the_others(
    fake: FakeOllama, status: int
) -> None:
    """Batches that a server refuses for now go to one that takes them, within their tries."""
    async with (
        FakeOllama(embed_seconds=0.01) as other,
        AsyncClient(fake.url) as one,
        AsyncClient(other.url) as two,
    ):
        async with embed_many(
            clients=[one, two], model=MODEL, texts=texts(200), batch_size=2, attempts=3
        ) as batches:
            await both_at_work([fake, other])
            fake.always(QUICK, Reply.error(status, "not now"))
            count = sum([len(batch) async for batch in batches])
        assert is_quiet(one)
    assert count == 200


async def test_a_server_is_not_asked_before_the_time_that_it_said(fake: FakeOllama) -> None:
    """While others take the batches, nothing goes to a server in the time of its Retry-After."""
    busy = Reply.error(429, "slow down", headers={"Retry-After": "3600"})
    async with (
        FakeOllama() as other,
        AsyncClient(fake.url) as one,
        AsyncClient(other.url) as two,
        embed_many(
            clients=[one, two], model=MODEL, texts=texts(200), batch_size=2, max_in_flight=1
        ) as batches,
    ):
        await both_at_work([fake, other])
        fake.always(QUICK, busy)
        before = len(fake.requests)
        count = sum([len(batch) async for batch in batches])
    assert count == 200
    assert len(fake.requests) <= before + 1


# -- the command -------------------------------------------------------------------------------------


def test_a_closed_standard_input_is_refused(tmp_path: Path) -> None:
    """`-` without a standard input draws a message and status 2, not a traceback."""
    done = subprocess.run(
        [*COMMAND, "embed", "-", "-m", MODEL, "-o", str(tmp_path / "out")],
        env=environment(),
        preexec_fn=lambda: os.close(0),  # noqa: PLW1509
        stdin=None,
        capture_output=True,
        check=False,
        timeout=50,
        text=True,
    )
    assert (done.returncode, done.stderr) == (2, "ollama-sc: standard input is closed\n")


def test_a_mistake_of_the_command_is_not_taken_for_a_job_that_is_done() -> None:
    """A traceback comes with status 3: 1 says that the job is done."""
    code = (
        "import sys; from ollama_sc.cli import main, _app\n"
        "_app.run = lambda arguments: 1 / 0\n"
        "sys.exit(main([]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=50, text=True
    )
    assert done.returncode == 3
    assert "ZeroDivisionError" in done.stderr


async def test_the_command_says_why_it_tries_again(fake: FakeOllama, tmp_path: Path) -> None:
    """A request that is tried again is told of with its reason, and nothing else is printed."""
    fake.script(QUICK, Reply.busy(), Reply.busy())
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    arguments = [
        *COMMAND,
        "embed",
        str(tmp_path / "a.jsonl"),
        "-m",
        MODEL,
        "-o",
        str(tmp_path / "o"),
    ]
    done = await anyio.run_process(arguments, env=environment(OLLAMA_HOST=fake.url), check=False)
    first, *rest = done.stderr.decode().splitlines()
    assert done.returncode == 0
    assert first.startswith("Trying again: ")
    assert "503" in first
    assert [line.split(":")[0] for line in rest] == ["Done", "This run"]
    assert done.stdout == b""


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


async def test_parquet_with_views_of_text_is_text(fake: FakeOllama, tmp_path: Path) -> None:
    """Columns of the type string_view, as newer writers leave them, are read as text and keys."""
    views = pa.array([b"a", None, b"c", b"\xff"], pa.binary_view()).view(pa.string_view())
    keys = pa.array(["k", "l", None, "n"], pa.string_view())
    pq.write_table(pa.table({"text": views, "id": keys}), tmp_path / "a.parquet")
    status, _ = await embed(fake, tmp_path / "a.parquet", tmp_path / "out", key="id")
    assert status == 1
    assert table(tmp_path / "out")["id"].to_pylist() == ["k", "l", None, "n"]
    reasons = [failure["reason"] for failure in failures(tmp_path / "out")]
    assert reasons == ['"text" is null', '"text" is not UTF-8']
