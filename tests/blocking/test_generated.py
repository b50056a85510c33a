"""The calls of blocking clients are those of asynchronous ones, and say so in blocking words."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from types import FunctionType, ModuleType
from typing import Any

import pytest

import ollama_sc
from ollama_sc import AsyncClient, blocking
from ollama_sc import Group as AsyncGroup
from ollama_sc.embedding import Batches as AsyncBatches
from tests.support import ROOT

PAIRS = [
    (blocking.Client, AsyncClient),
    (blocking.Group, AsyncGroup),
    (blocking.Stream, ollama_sc.Stream),
    (blocking.ToolStream, ollama_sc.ToolStream),
    (blocking.Batches, AsyncBatches),
]
TYPES = {"Texts": "Iterable[str]", "AsyncIterator": "Iterator"}


def script() -> Any:
    spec = importlib.util.spec_from_file_location("script", ROOT / "scripts" / "blocking_calls.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shape(source: str) -> list[str]:
    """A module's statements, however they are formatted: imports in any order, docstrings clean."""
    tree = ast.parse(source)
    imports: set[str] = set()
    for node in list(ast.walk(tree)):
        for child in list(getattr(node, "body", []) if not isinstance(node, ast.Lambda) else []):
            if isinstance(child, ast.Import | ast.ImportFrom):
                imports.update(
                    f"{ast.unparse(child).partition(' import ')[0]} {a.name}" for a in child.names
                )
                node.body.remove(child)  # type: ignore[attr-defined]
            elif isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                child.value.value = inspect.cleandoc(str(child.value.value)).strip()
    return [*sorted(imports), *(ast.dump(one) for one in tree.body)]


def absolute(lines: list[str]) -> list[str]:
    return [line.replace("from .", "from ollama_sc.blocking.") for line in lines]


def test_they_are_what_the_script_writes() -> None:
    """`_calls.py` is what `python scripts/blocking_calls.py` makes of the asynchronous calls now."""
    module = script()
    written = module.WRITTEN.read_text(encoding="utf-8")
    assert absolute(shape(module.generate())) == absolute(shape(written)), (
        "python scripts/blocking_calls.py"
    )


def test_the_comparison_can_fail() -> None:
    """Another default, another word, another import are seen; another format is not."""
    one = 'from a import b\ndef f(x=1):\n    """Does\n\n    it."""\n'
    assert shape(one) == shape('from a import (b)\ndef f(x = 1):\n  """Does\n\n  it.\n  """')
    for other in (one.replace("1", "2"), one.replace("it", "that"), one.replace("b", "c")):
        assert shape(one) != shape(other)


def test_a_call_that_has_no_blocking_form_stops_the_script() -> None:
    """Nothing asynchronous slips through, in a signature or in a docstring."""
    module = script()
    for code in (
        "async def f(self) -> AsyncIterator[int]: ...",
        "async def f(self, x: Awaitable[int]) -> int: ...",
        "async def f(self) -> int:\n    'Wait for it in a cancel scope.'",
        "async def f(self) -> int:\n    'It is not a coroutine.'",
    ):
        with pytest.raises(SystemExit):
            module.blocking(ast.parse(code).body[0])
    new = module.blocking(
        ast.parse("async def f(self, x: int, *, y: int = 1) -> str:\n    'Does.'").body[0]
    )
    assert ast.unparse(new) == (
        'def f(self, x: int, *, y: int=1) -> str:\n    """Does."""\n'
        "    return self._ask(AsyncRequests.f, x, y=y)"
    )


# -- names and signatures --------------------------------------------------------------------------


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda cls: cls.__module__)
def test_the_names_are_the_same(ours: type, theirs: type) -> None:
    """`close` is the blocking form of `aclose`; opening and signals are for event loops alone."""
    alone = {"aclose", "close", "open", "shutdown_on_signals"}
    assert public(ours) - {"close"} == public(theirs) - alone
    assert "close" in public(ours)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda cls: cls.__module__)
def test_the_parameters_are_the_same(ours: type, theirs: type) -> None:
    """Names, kinds, defaults and annotations, in order."""
    for name in sorted(public(ours) & public(theirs)):
        mine, other = getattr(ours, name), getattr(theirs, name)
        if not isinstance(mine, FunctionType) or name == "close":
            continue
        mine, other = inspect.signature(mine), inspect.signature(other)
        wanted = str(other)
        for there, here in TYPES.items():
            wanted = re.sub(rf"\b{there}\b", here, wanted)
        assert str(mine) == wanted, name


def test_the_constructor_is_the_same() -> None:
    """With one more argument: the event loop of the background thread."""
    mine = dict(inspect.signature(blocking.Client).parameters)
    assert mine.pop("backend").default == "asyncio"
    assert mine == dict(inspect.signature(AsyncClient).parameters)


# -- docstrings ------------------------------------------------------------------------------------


def docstrings() -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for name in blocking.__all__:
        value = getattr(blocking, name)
        found[name] = inspect.getdoc(value) or ""
        for member in public(value) if isinstance(value, type) else ():
            found[f"{name}.{member}"] = inspect.getdoc(getattr(value, member)) or ""
    return sorted(found.items())


def test_docstrings_speak_of_blocking_calls() -> None:
    """No `await`, `async`, coroutine or event loop's thread in any of them; each says something."""
    for name, text in docstrings():
        assert len(text) > 15, name
        found = re.search(r"\bawait|\basync\b|[Cc]oroutine|event loop's thread|cancel scope", text)
        assert found is None, (name, found)


def test_the_way_out_of_blocking_is_named() -> None:
    """Who reads `help(Client)` in an asynchronous program finds `AsyncClient`."""
    assert "use `AsyncClient`" in (inspect.getdoc(blocking.Client) or "")
    assert "default client" in (inspect.getdoc(ollama_sc.abort) or "")


def test_modules_are_no_members() -> None:
    """`blocking` shows what it lists, and nothing else."""
    shown = {
        name
        for name, value in vars(blocking).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert shown == set(blocking.__all__)
    assert sorted(blocking.__all__) == list(blocking.__all__)
