"""The pictures of the site: what draws them, and that they can be read on any screen."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from ollama_sc.testing import FakeOllama
from tests.support import ROOT
from tests.test_rooms import ROOMS

DOCS = ROOT / "docs"
PICTURES = sorted(DOCS.glob("*.svg"))
TERMINALS = {"demo.svg", "embed.svg"}  # dark as they are


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What imports a script of the folder."""
    monkeypatch.syspath_prepend(DOCS)

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def test_the_rooms_are_drawn_by_their_script(scripts: Any) -> None:
    """`python docs/rooms_svg.py` writes what is there."""
    assert scripts("rooms_svg").drawn() == (DOCS / "architecture.svg").read_text()


def test_every_room_is_in_the_picture() -> None:
    """None is left out but for the version, the public names and what an object of the wire is."""
    text = (DOCS / "architecture.svg").read_text()
    rooms = {room.rpartition(".")[2] for row in ROOMS for room in row}
    for room in rooms - {"ollama_sc", "_version", "_wire_object"}:
        assert re.search(rf"\b{room}\b", text), room


@pytest.mark.anyio
async def test_an_abort_is_drawn_as_it_was_measured(scripts: Any) -> None:
    """Each reader and each connection has its mark, behind that of the call."""
    script = scripts("abort_svg")
    with FakeOllama(token_rate=50, tokens=10_000, parallel=script.STREAMS) as fake:
        returned, heard, closed, count = await script.measure(fake)
        assert not fake.requests
    assert count == script.STREAMS == len(heard) == len(closed)
    assert min(*heard, *closed) > 0
    picture = ElementTree.fromstring(script.drawn(returned, heard, closed, count))
    (call,) = (line for line in picture.iter() if line.get("class") == "red-line")
    marks = [float(mark.attrib["cx"]) for mark in picture.iter() if mark.get("cx")]
    assert len(marks) == count + 1  # the last one is the legend's
    assert min(marks[:-1]) >= float(call.attrib["x1"])


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_each_picture_is_light_or_dark_as_the_screen_is(path: Path) -> None:
    """It has its own ground, a form for dark screens, and says in words what it shows."""
    text = path.read_text()
    if path.name in TERMINALS:
        return
    assert "@media (prefers-color-scheme: dark)" in text
    assert '<title id="title">' in text
    assert 'class="paper"' in text


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.name)
def test_each_picture_is_shown_and_made_by_a_command(path: Path) -> None:
    """A page shows it with a text in its place, and CONTRIBUTING.md says what makes it."""
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    assert re.search(rf"!\[[^\]]{{20,}}\]\({path.name}\)", pages)
    assert path.name in (ROOT / "CONTRIBUTING.md").read_text()
