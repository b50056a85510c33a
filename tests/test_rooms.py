"""The rooms of the library: imports point downwards, in no circle, type-only ones included.

Every import counts that stands anywhere in a module: at its top, in a function, under `TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

# From the top to the bottom; what stands on one line knows nothing of its neighbours.
ROOMS: list[list[str]] = [
    ["ollama_sc.cli", "ollama_sc.demo", "ollama_sc.starlette", "ollama_sc.telemetry"],
    ["ollama_sc.embedding"],
    ["ollama_sc"],  # the public names alone
    ["ollama_sc.blocking"],
    ["ollama_sc._client"],
    ["ollama_sc._jobs", "ollama_sc._tools"],
    ["ollama_sc._api"],
    ["ollama_sc._http"],
    ["ollama_sc._calls", "ollama_sc._replies", "ollama_sc._worker"],
    ["ollama_sc._loop"],
    ["ollama_sc.types"],
    ["ollama_sc._wire_object", "ollama_sc._timeouts", "ollama_sc._schemas"],
    ["ollama_sc._errors", "ollama_sc._version", "ollama_sc._platform"],
]
# The fake server is apart: it imports none of the client's rooms, and only who tests imports it.
FAKE: list[list[str]] = [
    ["ollama_sc.testing.__main__", "ollama_sc.testing.pytest_plugin"],
    ["ollama_sc.testing"],
    ["ollama_sc.testing._fake", "ollama_sc.testing._record"],
    ["ollama_sc.testing._serving", "ollama_sc.testing._cassette"],
    ["ollama_sc.testing._endpoints"],
    ["ollama_sc.testing._http"],
    ["ollama_sc.testing._model"],
    ["ollama_sc.testing._state"],
    ["ollama_sc.testing._replies"],
    ["ollama_sc.testing._go", "ollama_sc.testing._masking"],
    ["ollama_sc.testing._version"],
]
# What stands above has to be looked up by its longest name: `ollama_sc` is a room of one module.
LEAVES = {"ollama_sc", "ollama_sc.testing"}


def modules(package: str) -> dict[str, Path]:
    """The modules of a package by their dotted names."""
    found: dict[str, Path] = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules among the known ones that a module imports, wherever in it."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base]).rstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                if inner in known:
                    yield inner
                elif base in known:
                    yield base


def graph(package: str) -> dict[str, set[str]]:
    known = modules(package)
    return {
        name: {other for other in imports(name, path, known) if other != name}
        for name, path in known.items()
    }


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Some circle of imports; empty where there is none."""
    done: set[str] = set()

    def follow(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for other in sorted(edges[name]):
            if found := follow(other, [*way, name]):
                return found
        done.add(name)
        return []

    for name in sorted(edges):
        if found := follow(name, []):
            return found
    return []


def room_of(name: str, rooms: list[list[str]]) -> tuple[int, str] | None:
    """The level of a module's room, counted from the top, and the room."""
    best: tuple[int, str] | None = None
    for level, row in enumerate(rooms):
        for room in row:
            inside = name == room or (room not in LEAVES and name.startswith(f"{room}."))
            if inside and (best is None or len(room) > len(best[1])):
                best = level, room
    return best


def not_downwards(edges: dict[str, set[str]], rooms: list[list[str]]) -> list[str]:
    """The imports between rooms that do not point downwards."""
    wrong: list[str] = []
    for name, others in edges.items():
        for other in others:
            here, there = room_of(name, rooms), room_of(other, rooms)
            if here is None or there is None:
                continue
            if here[1] != there[1] and here[0] >= there[0]:
                wrong.append(f"{name} -> {other}")
    return sorted(wrong)


def own_modules(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The library without the fake server."""
    return {name: others for name, others in edges.items() if ".testing" not in name}


def test_every_module_is_in_a_room() -> None:
    """A new module has its room in the list above."""
    for name in modules("ollama_sc"):
        assert room_of(name, FAKE if ".testing" in name else ROOMS), name


def test_imports_point_downwards() -> None:
    """A room imports only what is below it."""
    assert not_downwards(own_modules(graph("ollama_sc")), ROOMS) == []


def test_imports_of_the_fake_point_downwards() -> None:
    """The same inside the fake server."""
    edges = {name: others for name, others in graph("ollama_sc").items() if ".testing" in name}
    assert not_downwards(edges, FAKE) == []


def test_the_client_and_the_fake_are_apart() -> None:
    """The fake imports nothing of the client; of the client only the demo runs the fake."""
    for name, others in graph("ollama_sc").items():
        fake = {other for other in others if other.startswith("ollama_sc.testing")}
        if ".testing" in name:
            assert others == fake, name
        elif not name.startswith("ollama_sc.demo"):
            assert not fake, name


@pytest.mark.parametrize("package", ["ollama_sc", "benchmarks"])
def test_there_is_no_circle(package: str) -> None:
    """No module imports itself by way of others, inside a room either."""
    assert circle(graph(package)) == []


def test_each_room_says_what_it_is_for() -> None:
    """The `__init__` of each folder has a few lines on its subject, and a private one imports nothing."""
    for path in sorted((ROOT / "ollama_sc").rglob("__init__.py")):
        tree = ast.parse(path.read_text())
        text = ast.get_docstring(tree) or ""
        assert len(text) > 100, path
        if path.parent.name.startswith("_"):
            assert len(tree.body) == 1, path


def test_threads_live_in_one_room() -> None:
    """No module outside of the workers' room starts threads of its own."""
    # A lookup in the system's resolver cannot be stopped: it has a thread that outlives its call.
    allowed = {"ollama_sc._worker.thread", "ollama_sc._http.lookup"}
    for name, path in modules("ollama_sc").items():
        if name.startswith(("ollama_sc.cli", "ollama_sc.testing", "ollama_sc.demo")):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
                called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
                assert called != "Thread" or name in allowed, name


def test_these_tests_can_fail(tmp_path: Path) -> None:
    """An import upwards and a circle are found, in functions and under `TYPE_CHECKING` too."""
    edges = graph("ollama_sc")
    edges["ollama_sc._loop.shielding"].add("ollama_sc._http.sender")
    edges["ollama_sc._calls.call"].add("ollama_sc._replies.ndjson")
    assert not_downwards(own_modules(edges), ROOMS) == [
        "ollama_sc._calls.call -> ollama_sc._replies.ndjson",
        "ollama_sc._loop.shielding -> ollama_sc._http.sender",
    ]
    edges = graph("ollama_sc")
    edges["ollama_sc._http.messages"].add("ollama_sc._http.sender")
    assert circle(edges)
    module = tmp_path / "m.py"
    module.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from p.below import x\n"
        "def f():\n    from .other import y\n    import p.third\n"
    )
    known = dict.fromkeys(["p.below", "p.other", "p.third", "p.m"], module)
    assert set(imports("p.m", module, known)) == {"p.below", "p.other", "p.third"}
