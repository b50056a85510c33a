"""What the README shows works: its programs and fragments run, its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.docs import snippets
from tests.support import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = snippets.blocks_of(ROOT / "README.md")


@pytest.mark.anyio
@pytest.mark.parametrize(("code", "kind"), BLOCKS)
async def test_each_block_of_python_runs(
    code: str,
    kind: str | None,
    anyio_backend: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """As it stands, on both backends, where there are the files that it names."""
    await snippets.run(code, kind, anyio_backend[0], monkeypatch, tmp_path)


def test_each_link_leads_somewhere() -> None:
    """Files and headings that it points to exist."""
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in README.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (ROOT / target).is_file(), target


def test_it_is_short() -> None:
    """The manual is the site in `docs`; this is what one reads first."""
    assert README.count("\n") <= 220
