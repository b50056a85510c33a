"""The Python of every page of the site runs, as that of the README does; see `snippets`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs import snippets
from tests.docs.snippets import HELD_ELSEWHERE, PAGES
from tests.docs.support import UNUSED
from tests.support import ROOT

BLOCKS = [
    block for path in PAGES if path.name not in HELD_ELSEWHERE for block in snippets.blocks_of(path)
]


@pytest.mark.anyio
@pytest.mark.parametrize(("code", "kind"), BLOCKS)
async def test_each_block_of_python_runs(
    code: str,
    kind: str | None,
    anyio_backend: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Programs and fragments, on both backends."""
    await snippets.run(code, kind, anyio_backend[0], monkeypatch, tmp_path)


@pytest.mark.parametrize("page", HELD_ELSEWHERE)
def test_each_other_page_is_run_elsewhere(page: str) -> None:
    """By a test that reads it."""
    assert ROOT / "docs" / page in PAGES
    assert page in (ROOT / HELD_ELSEWHERE[page]).read_text()


@pytest.mark.parametrize(
    "code", [block.values[0] for block in BLOCKS if block.values[1] == "a module of tests"]
)
def test_each_module_of_tests_passes(code: Any, tmp_path: Path) -> None:
    """Each test in it, on both backends."""
    (tmp_path / "test_it.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *UNUSED, "test_it.py"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.returncode == 0, done.stdout
    assert f"{2 * code.count('async def test_')} passed" in done.stdout
