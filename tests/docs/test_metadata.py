"""What a package index gets to show: the built metadata, whose page has no folder beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

from tests.support import ROOT

BUILD = "import hatchling.build as build; print(build.prepare_metadata_for_build_wheel('.built'))"
WITHOUT_ADDRESS = """\
pattern = '!?\\[([^\\]]*)\\]\\(repository:[^)]*\\)'
replacement = '\\1'
"""


def built(folder: Path) -> Message:
    """The metadata that a wheel of this folder has."""
    (folder / ".built").mkdir()
    command = [sys.executable, "-c", BUILD]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    text = (folder / ".built" / done.stdout.strip() / "METADATA").read_text()
    return Parser().parsestr(text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the metadata is made of."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "ollama_sc/_version.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def targets(text: str) -> list[str]:
    """Where links and pictures lead, code left out."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return [
        found["markdown"] or found["html"]
        for found in re.finditer(
            r"\]\((?P<markdown>[^)]*)\)|(?:src|href)=\"(?P<html>[^\"]*)\"", prose
        )
    ]


def test_no_link_is_relative(folder: Path) -> None:
    """Links lead to other places or within the page, and what they said is still there."""
    metadata = built(folder)
    text = metadata.get_payload()
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert "repository:" not in text
    assert len(targets(text)) > 2
    assert [target for target in targets(text) if not re.match("https://|#", target)] == []
    named = re.findall(r"\[(docs/[\w/.-]+)\]\(", (ROOT / "README.md").read_text())
    assert len(named) > 5
    assert all(name in text for name in named)


def test_code_is_as_it_was(folder: Path) -> None:
    """What makes links absolute takes nothing else for one."""
    code = re.compile(r"```.*?```", re.DOTALL)
    readme = (ROOT / "README.md").read_text()
    assert code.findall(built(folder).get_payload()) == code.findall(readme)


def test_there_is_one_place_for_the_address(folder: Path) -> None:
    """The two lines that pyproject.toml gives as an example make every link absolute."""
    project = folder / "pyproject.toml"
    text = project.read_text()
    assert text.count(WITHOUT_ADDRESS) == 1
    example = re.findall(r"^#     ((?:pattern|replacement) = .*\n)", text, re.MULTILINE)
    assert len(example) == 2
    project.write_text(text.replace(WITHOUT_ADDRESS, "".join(example)))
    base = example[1].split("'")[1]
    found = targets(built(folder).get_payload())
    wanted = targets((ROOT / "README.md").read_text())
    assert found == [t if re.match("https://|#", t) else base + t for t in wanted]
    assert f"{base}docs/demo.svg" in found
