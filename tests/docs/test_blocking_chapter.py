"""The Python of `docs/blocking.md` runs, and its links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import re
from typing import Any

import pytest
from tests.embedding.support import serving

import ollama_sc
from ollama_sc import Client
from ollama_sc.blocking import _default
from tests.support import ROOT

TEXT = (ROOT / "docs" / "blocking.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_each_block_runs(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands, with a client and what it names."""
    code = compile(
        BLOCKS[number],
        "blocking.md",
        "exec",
        ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
        dont_inherit=True,
    )
    with serving() as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        with Client() as client:
            names = {"client": client, "messages": [{"role": "user", "content": "Hi"}]}
            names["texts"] = (f"text {n}" for n in range(100))  # type: ignore[assignment]
            result = eval(code, names)  # type: ignore[arg-type]
            if result is not None:
                asyncio.run(result)
        _default._client.close()
        _default._client.__init__()  # type: ignore[misc]
        server.wait_all_closed()


def test_it_names_every_function() -> None:
    """None of the default client's is left out, and each link leads somewhere."""
    listed = TEXT.partition("The functions ")[2].partition(" are the methods")[0]
    functions = {
        name
        for name in ollama_sc.blocking.__all__
        if hasattr(getattr(ollama_sc.blocking, name), "__self__")
    }
    assert set(re.findall(r"`(\w+)`", listed)) == functions
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / "docs" / target).is_file()
