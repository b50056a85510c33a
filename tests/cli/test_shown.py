"""What the command prints: nothing foreign steers a terminal, nothing secret is shown."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio.to_thread
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_sc import cli
from ollama_sc.cli import _job
from ollama_sc.cli._shown import CleanReporter, Secrets, printable, shown, shown_names, shown_path
from ollama_sc.testing import FakeOllama, Reply
from tests import forking
from tests.cli.support import (
    MODEL,
    Said,
    embed,
    environment,
    failures,
    options,
    run,
    stop_after,
    write_jsonl,
    written,
)


@pytest.fixture
def anyio_backend() -> str:
    """What is read, written and said is no matter of the event loop."""
    return "asyncio"


EVIL = "\x1b]0;owned\x07\x1b[2J\r\x9b31m\u202e\u2066\x7f\x00\u200f\u2028"
# Names of files cannot hold a zero.
EVIL_NAME = EVIL.replace("\x00", "")


def harmless(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


@given(st.text(), st.text())
def test_nothing_steers_a_terminal(one: str, two: str) -> None:
    """Whatever text comes in; what is to be seen is as it was."""
    said = Said()
    CleanReporter(said, Secrets()).say(one + EVIL + two)
    assert harmless(said.text)
    for function in (shown, shown_path):
        try:
            assert function(one + EVIL).isprintable()
        except UnicodeEncodeError:  # no path of this system
            assert function is shown_path
    assert shown_names([one] * 100).endswith("and 80 more")
    visible = "".join(character for character in one if character.isprintable())
    assert printable(visible) == visible


# -- where foreign text comes from -----------------------------------------------------------------


@pytest.mark.anyio
async def test_digests_of_servers(fake: FakeOllama, corpus: Path, tmp_path: Path) -> None:
    """Other ones than the folder's, and ones that differ between servers."""
    await embed(fake, corpus, tmp_path / "out")
    listed = {"models": [{"name": f"{MODEL}:latest", "digest": EVIL}]}
    fake.always("/api/tags", Reply.json(listed))
    status, said = await embed(fake, corpus, tmp_path / "out")
    assert (status, harmless(said.text)) == (2, True)
    async with FakeOllama(dimensions=8) as other:
        said = Said()
        both = options(corpus, tmp_path / "two", [fake.url, other.url])
        status = await _job.run(both, said)
    assert (status, harmless(said.text), "different models" in said.text) == (2, True, True)


@pytest.mark.anyio
async def test_errors_of_servers(fake: FakeOllama, corpus: Path, tmp_path: Path) -> None:
    """In JSON, in text, in a page; and no line of theirs looks like one of the command's."""
    error = f"{EVIL}\nDone: 50 rows in 3 shards"
    for reply in (Reply.error(404, error), Reply.text(error, 404), Reply.html(404)):
        for path in ("/v1/embeddings", "/api/embed"):
            fake.always(path, reply)
        status, said = await embed(fake, corpus, tmp_path / "out")
        assert (status, harmless(said.text)) == (3, True)
        assert not any(line.startswith("Done") for line in said.text.splitlines())


@pytest.mark.anyio
async def test_names_of_fields_columns_and_files(fake: FakeOllama, tmp_path: Path) -> None:
    """In rows that lack the field, in the list of what there is, in options, in files' names."""
    evil = {EVIL: 1, "\nDone: 3 rows": 2, **{f"field {n}": n for n in range(50)}}
    for name in ("a.jsonl", f"{EVIL_NAME}\n.jsonl"):
        path = written(tmp_path / name, json.dumps(evil))
        for field in ("no", f"no{EVIL}\n"):
            status, said = await embed(fake, path, tmp_path / "out", field=field, key=field)
            assert (status, harmless(said.text)) == (2, True)
            assert "and 32 more" in said.text
            assert len(said.text.splitlines()) == 2
    pq.write_table(pa.table({EVIL: [1], "text": [2]}), tmp_path / "a.parquet")
    for field in ("no", "text", EVIL):
        status, said = await embed(fake, tmp_path / "a.parquet", tmp_path / "out", field=field)
        assert (status, harmless(said.text), len(said.text.splitlines())) == (2, True, 1)
    status, said = await embed(fake, f"no-{EVIL_NAME}", tmp_path / "out")
    assert (status, harmless(said.text)) == (2, True)


@pytest.mark.anyio
async def test_a_folder_and_a_model_of_any_name(fake: FakeOllama, tmp_path: Path) -> None:
    """Where it is done, where it stopped, where it is refused."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 20)
    with corpus.open("a") as file:
        file.write('{"text": "\\u001b", "id": null}\n{"text": [1], "id": "\\u001b"}\n')
    out = tmp_path / f"{EVIL_NAME}\nDone: 7 rows"
    for changed in ({}, {"key": "id"}, {"model": f"x{EVIL}"}):
        status, said = await embed(fake, corpus, out, **changed)
        assert (status in (1, 2), harmless(said.text)) == (True, True)
        assert not any("Done: 7" in line[:8] for line in said.text.splitlines())
    assert failures(out)
    stop_after(fake, 0)
    status, said = await embed(fake, corpus, tmp_path / "two", on_error="raise")
    assert (status, harmless(said.text)) == (3, True)


def test_what_the_command_repeats(tmp_path: Path) -> None:
    """Wrong arguments, and the command that goes on."""
    write_jsonl(tmp_path / "a.jsonl", 2)
    for arguments in (
        [EVIL_NAME], ["embed", f"--{EVIL_NAME}"], ["embed", "a.jsonl", "-m", EVIL_NAME, "-o", "out"],
        ["embed", "a.jsonl", "-m", "x", "-o", EVIL_NAME], ["embed", "a.jsonl", "-m", "x", "-o", "out", "--on-error", EVIL_NAME],
        ["embed", "a.jsonl", "-m", "x", "-o", "out", "--host", EVIL_NAME],
    ):  # fmt: skip
        done = run(*arguments, cwd=tmp_path)
        assert (done.returncode in (2, 3), harmless(done.stderr)) == (True, True), done.stderr


# -- secrets ---------------------------------------------------------------------------------------


@given(
    st.text(min_size=4, max_size=12).filter(
        lambda text: text.strip() == text and text.isprintable()
    )
)
def test_a_secret_in_any_form(secret: str) -> None:
    """As it is, in an address, in JSON, in Python, in base64."""
    secrets = Secrets(others=[secret])
    data = secret.encode("utf-8", "surrogateescape") if secret.isprintable() else b""
    for form in (
        secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1], ascii(secret)[1:-1],
        base64.b64encode(data).decode(),
    ):  # fmt: skip
        if "..." not in form and form not in "xy a  b...":
            assert form not in secrets.hide(f"xy {form} a {form} b")


@pytest.mark.parametrize(
    ("header", "hidden"),
    [("X-Team: corpus", False), ("Authorization: corpus", True), ("X-Api-Key: corpus", True), ("Cookie: a=corpus", False),
     ("X-Session-Token: Bearer corpus", True), ("X-Long: corpus-and-very-much-more", False)],
)  # fmt: skip
def test_a_word_in_a_header_is_no_secret(header: str, hidden: bool) -> None:
    """The command that goes on has to name the file; what can be a secret is one anyway."""
    assert ("corpus" not in Secrets(headers=[header]).hide("embed corpus.jsonl")) is hidden
    value = header.partition(": ")[2]
    assert (value in Secrets(headers=[header]).hide(f"he said {value}")) is (
        value == "corpus" and not hidden
    )


@pytest.mark.anyio
async def test_no_secret_is_shown(fake: FakeOllama, tmp_path: Path) -> None:
    """Neither in the command that goes on nor where a server repeats it, in whatever form."""
    write_jsonl(tmp_path / "a.jsonl", 3)
    user, password, key, header = "me", "p@ss wo/rd", "sk-k3y-of-mine", "Bearer h34der-value"
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    echoed = f"{password} {quote(password, safe='')} {key} {header} {header[7:]} {basic} {user}:{password}"
    for path in ("/v1/embeddings", "/api/embed"):
        fake.always(path, Reply.error(403, echoed))
    host = fake.url.replace("//", f"//{user}:{quote(password, safe='')}@")
    arguments = [
        "-m", "ollama_sc.cli", "embed", "a.jsonl", "-m", MODEL, "-o", "out", "--host", host, "--header",
        f"X-Auth: {header}", f"--header=X-More: {header}x", "--api-key-env", "MY_KEY", "--timeout", "7",
    ]  # fmt: skip
    env = environment(MY_KEY=key)
    done = await anyio.to_thread.run_sync(lambda: forking.run(arguments, env=env, cwd=tmp_path))
    assert done.returncode == 3
    for secret in (password, quote(password, safe=""), key, header, header[7:], basic, "ss wo"):
        assert secret not in done.stderr, done.stderr
    assert re.search(r"--header 'X-Auth: \.\.\.' '--header=X-More: \.\.\.'", done.stderr), (
        done.stderr
    )
    assert "--api-key-env MY_KEY --timeout 7" in done.stderr
    sent = fake.requests[-1].headers
    assert (sent["x-auth"], sent["x-more"]) == (header, f"{header}x")
    assert sent["authorization"] in (f"Bearer {key}", f"Basic {basic}")


@pytest.mark.anyio
async def test_headers_key_and_timeout_reach_the_servers(fake: FakeOllama, tmp_path: Path) -> None:
    """Each request has them; one that takes too long is tried again."""
    corpus = write_jsonl(tmp_path / "a.jsonl", 30)
    fake.script("/v1/embeddings", Reply.default(), Reply.silence())
    changed: dict[str, Any] = {"headers": {"X-Team": "search"}, "api_key": "sesame", "timeout": 0.3}
    status, _ = await embed(fake, corpus, tmp_path / "out", max_in_flight=1, **changed)
    assert status == 0
    assert {request.headers["x-team"] for request in fake.requests} == {"search"}
    assert {request.headers["authorization"] for request in fake.requests} == {"Bearer sesame"}


def test_a_mistake_of_the_command_shows_no_secret(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its traceback goes the way of all that is printed."""
    from ollama_sc.cli import _app

    def fail(arguments: Any) -> int:
        raise ZeroDivisionError(f"{EVIL} {arguments}")

    monkeypatch.setattr(_app, "run", fail)
    assert cli.main(["embed", "--host=me:s3cret@box", "--header", "X-K: s3cret"]) == 3
    said = capfd.readouterr().err
    assert "ZeroDivisionError" in said
    assert "s3cret" not in said
    assert harmless(said)


# -- options ---------------------------------------------------------------------------------------


GIVEN = ["embed", "a.jsonl", "-m", "x", "-o", "out"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([*GIVEN, "--modle", "x"], "there is no option --modle: did you mean --model?"),
        (["embed", "a.jsonl", "--modle", "x", "-o", "out"], "did you mean --model?"),
        ([*GIVEN, "--hots=me:s3cret@box"], "there is no option --hots: did you mean --host?"),
        ([*GIVEN, "--feild", "x"], "did you mean --field?"),
        ([*GIVEN, "--batchsize", "3"], "did you mean --batch-size?"),
        ([*GIVEN, "--no-trucate"], "did you mean --no-truncate?"),
        ([*GIVEN, "--headers", "X-K: s3cret"], "did you mean --header?"),
        ([*GIVEN, "--api-key", "s3cret"], "did you mean --api-key-env?"),
        ([*GIVEN, "--api-key=s3cret"], "did you mean --api-key-env?"),
        ([*GIVEN, "--zzz"], "there is no option --zzz\n"),
        ([*GIVEN, "--on-error", "skp"], 'Did you mean "skip"?'),
        (["embd"], 'Did you mean "embed"?'),
        (["embed", "", "-m", "x", "-o", "out"], "an input is empty"),
        (["embed", "a.jsonl", "-m", "", "-o", "out"], "--model is empty"),
        (["embed", "a.jsonl", "-m", "x", "-o", ""], "--output is empty"),
        (["embed", "a.jsonl", "-m", "x", "--output="], "--output is empty"),
        ([*GIVEN, "--field", ""], "--field is empty"),
        ([*GIVEN, "--field="], "--field is empty"),
        ([*GIVEN, "--key", " "], "--key is empty"),
        ([*GIVEN, "--host", ""], "--host is empty"),
        ([*GIVEN, "--host", "box", "--host="], "--host is empty"),
        ([*GIVEN, "--header", ""], "--header is empty"),
        ([*GIVEN, "--api-key-env", ""], "--api-key-env is empty"),
        ([*GIVEN, "--timeout="], "--timeout"),
        ([*GIVEN, "--shard-rows", ""], "--shard-rows"),
        ([*GIVEN, "--shard-rows", "1.5"], "--shard-rows: It must be a whole number, not '1.5'"),
        ([*GIVEN, "--shard-rows", "9" * 20], "--shard-rows: It can be 2147483647 at most"),
        ([*GIVEN, "--max-in-flight", "2.5"], "--max-in-flight: It must be a whole number"),
        ([*GIVEN, "--batch-size", "1e2"], "--batch-size: It must be a whole number"),
        ([*GIVEN, "--dimensions", "0"], "--dimensions: It must be above zero"),
        ([*GIVEN, "--on-error="], "--on-error"),
        ([*GIVEN, "--header", "s3cret"], "--header is a name, a colon and a value"),
        ([*GIVEN, "--header", ": s3cret"], "--header is a name, a colon and a value"),
        ([*GIVEN, "--header", "X-K:"], "--header is a name, a colon and a value"),
        ([*GIVEN, "--header", "bad name: s3cret"], "header"),
        ([*GIVEN, "--header", "X-K: s3cret\r\nX-More: s3cret"], "header"),
        ([*GIVEN, "--header", "X-K: s3crét\u20ac"], "header"),
        ([*GIVEN, "--api-key-env", "NOT_THERE"], "there is no NOT_THERE in the environment, or it is empty"),
        ([*GIVEN, "--timeout", "0"], "above zero seconds"),
        ([*GIVEN, "--timeout", "-1"], "above zero seconds"),
        ([*GIVEN, "--timeout", "nan"], "above zero seconds"),
        ([*GIVEN, "--timeout", "inf"], "above zero seconds"),
        ([*GIVEN, "--timeout", "soon"], "soon"),
    ],
)  # fmt: skip
def test_options_that_are_wrong(
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    text: str,
) -> None:
    """Are refused with a word that helps, before anything is asked, written or shown that is secret."""
    write_jsonl(tmp_path / "a.jsonl", 2)
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    said = capfd.readouterr().err
    assert text in said
    assert "s3cr" not in said
    assert said.startswith("ollama-sc: ")
    assert not (tmp_path / "out").exists()
