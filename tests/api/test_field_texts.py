"""What `help` shows of the fields that calls take: each with its own text, spelled once."""

from __future__ import annotations

import ast
import inspect
import pydoc
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, is_typeddict

import pytest

import ollama_sc.embedding
from ollama_sc import AsyncClient, Client, Group, blocking
from ollama_sc._api import fields as api_fields
from ollama_sc._api.field_texts import texts_of, with_field_texts
from ollama_sc._jobs import fields as job_fields
from ollama_sc._tools import fields as tool_fields

MODULES = (api_fields, job_fields, tool_fields)
_NAMES = {name for name, module in ollama_sc._LATER.items() if module == "blocking"}
FUNCTIONS = [getattr(ollama_sc, name) for name in sorted(_NAMES - {"Client"})]
FUNCTIONS += [ollama_sc.embedding.embed_many, ollama_sc.embedding.embed_array]
CLASSES = [ollama_sc.Conversation, blocking.Conversation, ollama_sc.embedding.Embedder]
FIELDS: set[str] = {
    name
    for module in MODULES
    for value in vars(module).values()
    if is_typeddict(value)
    for name in value.__annotations__
}


def calls() -> Iterator[Any]:
    """Every public method and function that takes fields."""
    for cls in (AsyncClient, Group, Client, blocking.Group):
        for name, method in inspect.getmembers(cls, inspect.isfunction):
            if not name.startswith("_") and "__signature__" in vars(method):
                yield pytest.param(method, id=f"{cls.__module__}.{cls.__name__}.{name}")
    for function in [*FUNCTIONS, *CLASSES]:
        yield pytest.param(function, id=f"{function.__module__}.{function.__name__}")


def entries(docstring: str) -> dict[str, str]:
    """The arguments that a docstring tells of."""
    section = re.split(r"\n\n(?=\w)", docstring.partition("Args:\n")[2])[0]
    found = re.findall(r"^    (\w+): (.*(?:\n     .*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


@pytest.mark.parametrize("call", [*calls()])
def test_help_tells_of_each_parameter(call: Any) -> None:
    """Its name and a text, once, in the order of the signature; none is left to be seen elsewhere."""
    shown = inspect.getdoc(call)
    assert shown is not None
    assert "**fields" not in shown
    keywords = [
        name
        for name, parameter in inspect.signature(call).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    told = entries(shown)
    assert [name for name in told if name in keywords] == [n for n in keywords if n in told]
    assert FIELDS.intersection(keywords) <= set(told)
    rendered = pydoc.plain(pydoc.render_doc(call)).replace("\n |", "\n")  # what classes have there
    assert all(text in " ".join(rendered.split()) for text in told.values())


def inherited() -> Iterator[Any]:
    for module in MODULES:
        for name, value in vars(module).items():
            if is_typeddict(value) and value.__module__ == module.__name__:
                yield pytest.param(value, id=name)


@pytest.mark.parametrize("fields", [*inherited()])
def test_each_field_has_the_text_of_the_class_it_comes_from(fields: type) -> None:
    """As the source derives them, which nobody can ask a TypedDict for at run time."""
    texts = {name: " ".join(text.split()) for name, text in texts_of(fields).items()}
    wanted = texts_by_source(fields.__name__)
    assert texts == {name: wanted[name] for name in texts}
    assert set(texts) == set(fields.__annotations__)


def texts_by_source(name: str) -> dict[str, str]:
    node = SOURCE[name]
    found: dict[str, str] = {}
    for base in reversed(node.bases):
        word = ast.unparse(base).partition("[")[0]
        if word in SOURCE:
            found.update(texts_by_source(word))
    section = (ast.get_docstring(node) or "").partition("Attributes:\n")[2]
    for names, text in re.findall(r"^    (\w[\w, ]*): (.*(?:\n     .*)*)", section, re.MULTILINE):
        found.update(dict.fromkeys(names.split(", "), " ".join(text.split())))
    if name in ("EmbeddingsFields", "LoadFields"):  # they say: see `ModelFields`
        found = {**texts_by_source("ModelFields"), **found}
    return found


def classes(module: ModuleType) -> Iterator[ast.ClassDef]:
    tree = ast.parse(Path(str(module.__file__)).read_text())
    return (node for node in tree.body if isinstance(node, ast.ClassDef))


SOURCE = {node.name: node for module in MODULES for node in classes(module)}


def test_docstrings_of_any_form() -> None:
    """Fields come in the place of `**fields`, behind the arguments, or as arguments of their own."""
    timeout = f"    timeout: {texts_of(api_fields.CallFields)['timeout']}"
    for given, wanted in (
        (None, None),
        ("One line.", f"One line.\n\nArgs:\n{timeout}"),
        (
            "A.\n\n    Args:\n        x: it.\n        **fields: see\n            there.\n    ",
            f"A.\n\nArgs:\n    x: it.\n{timeout}",
        ),
        ("A.\n\n    Args:\n        x: it.\n    ", f"A.\n\nArgs:\n    x: it.\n{timeout}"),
        ("A.\n\n    Raises:\n        E: e.\n    ", f"A.\n\nArgs:\n{timeout}\n\nRaises:\n    E: e."),
    ):
        assert with_field_texts(given, api_fields.CallFields) == wanted
