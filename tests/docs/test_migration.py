"""`docs/migration.md` holds what it says: each difference, before and after, prints the same.

What stands before runs with ollama-python, what stands after with this library, each against a fake
server of its own, and asks it the same.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from tests.embedding.support import Served, serving

import ollama_sc
from ollama_sc.blocking import _default
from ollama_sc.testing import FakeModel
from tests.support import ROOT

TEXT = (ROOT / "docs" / "migration.md").read_text()
BLOCKS = re.findall(r"```diff\n(.*?)```", TEXT, re.DOTALL)

NOTHING = ([], "", None, False)


def side(block: str, sign: str) -> str:
    """The program before, or after."""
    return "".join(line[1:] for line in block.splitlines(keepends=True) if line[:1] in (" ", sign))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Served]:
    """A server at OLLAMA_HOST, and the file that a program names."""
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff no photo")
    monkeypatch.chdir(tmp_path)
    with serving() as served:
        served.fake.models.add(FakeModel("llava", ("completion", "vision")))
        monkeypatch.setenv("OLLAMA_HOST", served.url)
        yield served


def asked(server: Served) -> list[Any]:
    """What the server was asked, in the order of the requests, but for what nobody said."""
    found = [
        (each.method, each.path, {} if not each.body else each.json)
        for each in server.fake.requests
    ]
    server.fake.requests.clear()
    return [(method, path, said(body)) for method, path, body in found]


def said(value: Any) -> Any:
    """Without what nobody said, at any depth."""
    if isinstance(value, list):
        return [said(one) for one in value]
    if isinstance(value, dict):
        return {key: said(one) for key, one in value.items() if one not in NOTHING}
    return value


def run(program: str) -> str:
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(program, "migration.md", "exec", dont_inherit=True), {"__name__": "__main__"})
    return output.getvalue()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[-1].strip())
@pytest.mark.filterwarnings("ignore:unclosed")  # theirs, where a loop is left
def test_both_sides_print_the_same(
    block: str, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ask the server the same; nothing of ours is left in what was theirs."""
    ollama = pytest.importorskip("ollama")
    before, after = side(block, "-"), side(block, "+")
    assert "ollama_sc" in after
    assert "ollama_sc" not in before
    theirs = ollama.Client()  # theirs is made by the import, with the environment of that time
    for name in ("chat", "generate", "embed", "list", "show", "create", "pull"):
        monkeypatch.setattr(ollama, name, getattr(theirs, name))
    printed = run(before)
    wanted = asked(server)
    _default._client.close()
    _default._client.__init__()  # type: ignore[misc]
    try:
        assert run(after) == printed
    finally:
        _default._client.close()
        _default._client.__init__()  # type: ignore[misc]
        theirs.close()
    assert printed.strip()
    assert asked(server) == wanted


@pytest.mark.parametrize(
    ("heading", "lines"),
    [("Functions of the module", 1), ("A client of your own", 1), ("Streams", 1), ("Tools", 1)],
)
def test_one_line_is_one_line(heading: str, lines: int) -> None:
    """Where it says so, the first difference below changes one line."""
    section = TEXT.partition(f"## {heading}\n\n")[2]
    assert section.startswith("One line")
    block = re.search(r"```diff\n(.*?)```", section, re.DOTALL)
    assert block is not None
    assert len(re.findall(r"^\+", block[1], re.MULTILINE)) == lines
    assert len(re.findall(r"^-", block[1], re.MULTILINE)) == lines


def test_it_names_what_there_is() -> None:
    """Each name of ours in the text exists."""
    for name in re.findall(r"`(ollama_sc\.\w+)`", TEXT):
        assert hasattr(ollama_sc, name.partition(".")[2])
