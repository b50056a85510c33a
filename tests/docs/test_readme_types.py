"""The code of the README and of the site is what type checkers accept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import snippets
from tests.docs.test_chapters import BLOCKS as CHAPTERS
from tests.docs.test_readme import BLOCKS as README
from tests.support import ROOT

# Other pages are checked by what they are: services.md by its tests, differences by their programs.
BLOCKS = [*README, *CHAPTERS]


@pytest.fixture
def blocks(tmp_path: Path) -> list[str]:
    """The files: programs as they stand, fragments inside of an async function."""
    files: list[str] = []
    for number, block in enumerate(BLOCKS):
        code, kind = block.values
        assert isinstance(code, str)
        if kind == "compiled only":  # it needs what is not installed, or is no whole program
            continue
        if kind != "a module of tests":
            code = snippets.whole(code)
        path = tmp_path / f"block{number}.py"
        path.write_text(code)
        files.append(str(path))
    return files


@pytest.mark.timeout(120)
def test_each_block_passes_mypy(blocks: list[str], tmp_path: Path) -> None:
    """In one run, with this project's strictness."""
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path), *blocks]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.timeout(120)
def test_each_block_passes_basedpyright(blocks: list[str], tmp_path: Path) -> None:
    """In one run, as strictly, but for names that a fragment leaves to whoever takes it."""
    settings = {
        "include": blocks,
        "extraPaths": [str(ROOT)],
        "typeCheckingMode": "strict",
        "reportUnusedFunction": False,
        "reportUnusedImport": False,
        "reportUnusedVariable": False,
    }
    project = tmp_path / "pyrightconfig.json"
    project.write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--project", str(project)]
    command += ["--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
