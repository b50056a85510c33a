"""What the README shows works: its programs and fragments run, its links lead somewhere.

A block of Python that has `anyio.run(` is a program. Another one is a fragment: it runs in the
middle of a program that has a client and a stream open. One with a comment `a module of tests` before
it is run by pytest; one with `compiled only` is compiled.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

import ollama_sc
from ollama_sc import AsyncClient
from ollama_sc.testing import FakeModel, FakeOllama

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = [
    pytest.param(
        found["code"],
        found["kind"],
        id=f"line {README[: found.start()].count(chr(10)) + 1}",
    )
    for found in re.finditer(
        r"(<!-- (?P<kind>compiled only|a module of tests)[^\n]*-->\n)?```python\n(?P<code>.*?)```",
        README,
        re.DOTALL,
    )
]


def compiled(code: str) -> Any:
    return compile(code, "README.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


def test_it_has_blocks() -> None:
    """The expression above finds them all."""
    assert len(BLOCKS) == README.count("```python") > 8


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
    program = compiled(code)
    if kind is not None:
        return
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (tmp_path / "model.gguf").write_bytes(b"GGUF no model")
    monkeypatch.chdir(tmp_path)
    sees = FakeModel("gemma3", ("completion", "vision"))
    with anyio.fail_after(30):
        async with FakeOllama(token_rate=100) as fake:
            fake.models.add(sees)
            monkeypatch.setenv("OLLAMA_HOST", fake.url)
            if "anyio.run(" in code:
                with monkeypatch.context() as patched:
                    run = functools.partial(anyio.run, backend=anyio_backend[0])
                    patched.setattr(anyio, "run", run)
                    await anyio.to_thread.run_sync(exec, program, {"__name__": "__main__"})
            else:
                await run_fragment(program)
        assert fake.in_flight == 0


async def run_fragment(program: Any) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    async with (
        AsyncClient() as client,
        await client.chat("llama3.2", messages, stream=True) as stream,
    ):
        names = {
            "AsyncClient": AsyncClient,
            "anyio": anyio,
            "client": client,
            "messages": messages,
            "stream": stream,
        }
        result = eval(program, names)
        if inspect.isawaitable(result):
            await result


@pytest.mark.parametrize(
    "code", [block.values[0] for block in BLOCKS if block.values[1] == "a module of tests"]
)
def test_each_module_of_tests_passes(code: Any, tmp_path: Path) -> None:
    """Each test in it, on both backends."""
    (tmp_path / "test_it.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.returncode == 0, done.stdout
    assert f"{2 * code.count('async def test_')} passed" in done.stdout


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


def test_every_example_is_listed() -> None:
    """None is left out of the table."""
    for path in (ROOT / "examples").glob("*.py"):
        assert f"(examples/{path.name})" in README


def test_every_call_is_in_the_table() -> None:
    """None of the calls that reach the server is left out."""
    table = README.partition("## All calls")[2].partition("## ")[0]
    others = {"abort", "shutdown", "statistics", "group"}
    calls = {name for name in dir(AsyncClient) if not name.startswith("_")} - others
    assert calls == set(re.findall(r"`(\w+)\(", table.partition("\n\nWhat streams")[0]))


def test_every_error_is_in_the_table() -> None:
    """None is left out."""
    errors = [
        name
        for name in ollama_sc.__all__
        if isinstance(value := getattr(ollama_sc, name), type) and issubclass(value, Exception)
    ]
    table = README.partition("## Errors")[2].partition("## ")[0]
    for name in set(errors) - {"OllamaError"}:
        assert f"`{name}`" in table


def test_the_limits_are_as_it_says() -> None:
    """The table names every limit with its default."""
    for name in ollama_sc.Timeouts.__struct_fields__:
        default = getattr(ollama_sc.Timeouts(), name)
        shown = "none" if default is None else f"{default:g} s"
        assert f"| `{name}` | {shown} |" in README
