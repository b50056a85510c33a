"""The reference has a page for every public name, and no page names what is gone."""

from __future__ import annotations

import importlib
import inspect
import re
from functools import cache
from types import FunctionType
from typing import Any

import pytest

import ollama_sc
from ollama_sc import AsyncClient
from tests.support import ROOT
from tests.test_signatures import PACKAGES

DOCS = ROOT / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
REFERENCE = [page for page in PAGES if page.parent.name == "reference"]
NAMES = [
    f"{package.__name__}.{name}"
    for package in (*PACKAGES, importlib.import_module("ollama_sc.types"))
    for name in package.__all__
    if name != "__version__"
]
DIRECTIVE = re.compile(r"^\.\. auto(\w+):: ([\w.]+)$", re.MULTILINE)
# What the differences and tables of these pages name is other libraries'.
OF_OTHERS = {"migration.md", "compatibility.md", "changelog.md"}


def found(name: str) -> Any:
    """What a dotted name stands for; AttributeError where there is none."""
    words = name.split(".")
    value: Any = ollama_sc
    for number, word in enumerate(words[1:], 2):
        try:
            value = getattr(value, word)
        except AttributeError:
            if inspect.isclass(value) and word in fields_of(value):
                return None
            if not inspect.ismodule(value):
                raise
            try:
                value = importlib.import_module(".".join(words[:number]))
            except ModuleNotFoundError:
                raise AttributeError(name) from None
    return value


def is_there(name: str) -> bool:
    try:
        found(name)
    except AttributeError:
        return False
    return True


def fields_of(cls: type) -> set[str]:
    annotated = {name for base in cls.__mro__ for name in vars(base).get("__annotations__", {})}
    told = re.findall(r"^\s+(\w[\w, ]*): ", cls.__doc__ or "", re.MULTILINE)
    return annotated | {name for names in told for name in names.split(", ")}


@cache
def documented() -> dict[str, str]:
    """The names of the directives that document something, and the kinds of these."""
    text = "\n".join(page.read_text() for page in REFERENCE)
    return {name: kind for kind, name in DIRECTIVE.findall(text)}


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_has_its_place(name: str) -> None:
    """By the name itself, or by another public one of the same thing."""
    value = found(name)
    same = [other for other in documented() if other == name or found(other) == value]
    assert name in same or (same and not isinstance(value, str | int)), name


def test_each_place_is_of_a_public_name() -> None:
    """None is left of what is gone, and none stands there twice."""
    assert set(documented()) <= set(NAMES) | {"ollama_sc.blocking.list"}
    text = "\n".join(page.read_text() for page in REFERENCE)
    names = [name for _, name in DIRECTIVE.findall(text)]
    assert len(names) == len(set(names))


def test_each_method_and_property_has_its_place() -> None:
    """In its class, in a base that has a place of its own, or among what a class shows of its bases."""
    text = "\n".join(page.read_text() for page in REFERENCE)
    inheriting = set(re.findall(r"auto\w+:: ([\w.]+)\n   :members:\n   :inherited-members:", text))
    classes = {found(name): name for name in documented() if inspect.isclass(found(name))}
    # A group has the calls of its client, as its page says.
    inheriting |= {"ollama_sc.Group", "ollama_sc.blocking.Group"}
    for cls, name in classes.items():
        for attribute in (each for each in dir(cls) if not each.startswith("_")):
            value = inspect.getattr_static(cls, attribute)
            owner = next((each for each in cls.__mro__ if attribute in vars(each)), object)
            if not isinstance(value, property | classmethod | staticmethod | FunctionType):
                continue  # a field, which the text of its class tells of
            if owner.__module__.startswith("ollama_sc") and name not in inheriting:
                assert owner in classes, f"{name}.{attribute}"
            assert inspect.getdoc(getattr(cls, attribute)), f"{name}.{attribute}"


def test_each_place_is_of_the_right_kind() -> None:
    """Classes, errors and functions are shown as such."""
    for name, kind in documented().items():
        value = found(name)
        wanted = "data"
        if isinstance(value, type) and value.__module__ != "builtins":  # an alias, at run time
            wanted = "exception" if issubclass(value, BaseException) else "class"
        elif inspect.isfunction(value) or inspect.ismethod(value):
            wanted = "function"
        assert kind == wanted, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_name_that_a_page_says_is_there(page: Any) -> None:
    """Dotted names, calls of clients, and classes of this library in code spans and snippets."""
    text = page.read_text()
    if page.name in OF_OTHERS:
        return
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for span in spans:
        for name in re.findall(r"\bollama_sc(?:\.\w+)+(?!\*)", span):
            assert is_there(name) or page.name == "telemetry.md", name  # which names attributes
        for call in re.findall(r"^(?:await )?client\.(\w+)", span):
            assert hasattr(AsyncClient, call), span
        for owner, name in re.findall(r"^([A-Z]\w+)\.(\w+)", span):
            owners = [p.__name__ for p in PACKAGES if owner in p.__all__]
            assert not owners or any(is_there(f"{place}.{owner}.{name}") for place in owners), span
    for line in re.findall(r"^from (ollama_sc[\w.]*) import ([\w, ]+)$", text, re.MULTILINE):
        for name in line[1].split(", "):
            found(f"{line[0]}.{name}")


def test_every_call_is_in_the_table_of_endpoints() -> None:
    """None of the calls that reach the server is left out."""
    others = {"abort", "shutdown", "shutdown_on_signals", "statistics", "group", "open"}
    others |= {"aclose", "close"}
    calls = {name for name in dir(AsyncClient) if not name.startswith("_")} - others
    table = (DOCS / "reference" / "endpoints.md").read_text().partition("\n\nThose with")[0]
    assert calls == set(re.findall(r"`(\w+)\(", table))


def test_every_error_is_in_the_table() -> None:
    """None is left out."""
    errors = [
        name
        for name in ollama_sc.__all__
        if isinstance(value := getattr(ollama_sc, name), type) and issubclass(value, Exception)
    ]
    table = (DOCS / "reference" / "errors.md").read_text().partition("## Each error")[0]
    for name in set(errors) - {"OllamaError"}:
        assert f"`{name}`" in table


def test_the_limits_are_as_they_are_said_to_be() -> None:
    """The table names every limit with its default."""
    text = (DOCS / "timeouts.md").read_text()
    for name in ollama_sc.Timeouts.__struct_fields__:
        default = getattr(ollama_sc.Timeouts(), name)
        shown = "none" if default is None else f"{default:g} s"
        assert f"| `{name}` | {shown} |" in text


def test_every_example_is_listed() -> None:
    """None is left out of the table."""
    listed = (DOCS / "examples.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"(../examples/{path.name})" in listed


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_link_leads_somewhere(page: Any) -> None:
    """Files that a page points to exist."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path = target.partition("#")[0]
        assert target.startswith(("https://", "#")) or (page.parent / path).is_file(), target


def test_each_page_is_in_the_index() -> None:
    """None is left out of the site's list."""
    listed = (DOCS / "index.md").read_text() + (DOCS / "reference" / "index.md").read_text()
    for page in PAGES:
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        assert re.search(rf"^(reference/)?{page.stem}$", listed, re.MULTILINE) or name == "index"
