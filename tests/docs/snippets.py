"""What the tests of the documents share: blocks of Python in Markdown, and how they run.

A block that has `anyio.run(` is a program. Another one is a fragment: it runs in the middle of a
program that has a client and a stream open. A comment before it can say that it is otherwise:
`a module of tests` is run by pytest, `cells of a notebook` run in asyncio with nothing around them,
what is `compiled only` needs what is not there, and the name of an example says that it is that.
"""

from __future__ import annotations

import ast
import asyncio
import functools
import inspect
import re
import textwrap
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from ollama_sc import AsyncClient
from ollama_sc.blocking import _default
from ollama_sc.testing import FakeModel, FakeOllama
from tests.support import ROOT

KINDS = r"compiled only|a module of tests|cells of a notebook|examples/\w+\.py"
# Pages whose blocks are run with what they need, by tests of these folders.
HELD_ELSEWHERE = {
    "blocking.md": "tests/docs/test_blocking_chapter.py",
    "browser.md": "tests/browser/test_example.py",
    "embed.md": "tests/cli/test_runs.py",
    "services.md": "tests/services/support.py",
    "telemetry.md": "tests/telemetry/test_metrics.py",
    "testing.md": "tests/fake/test_fixture.py",
}
PAGES = sorted(
    path
    for path in (ROOT / "docs").rglob("*.md")
    if "_build" not in path.parts and "```python" in path.read_text()
)
# What a fragment finds around it, for type checkers; where it opens a stream itself, none is open.
AROUND = """
import anyio
from ollama_sc import AsyncClient, ChatResponse, MessageLike, Stream

messages: list[MessageLike] = []
texts: list[str] = []

async def fragment(client: AsyncClient, {stream}: Stream[ChatResponse]) -> None:
"""


def whole(code: str) -> str:
    """A program, or a fragment in the middle of one, for type checkers."""
    if "anyio.run(" in code:
        return code
    around = AROUND.format(stream="_" if " as stream:" in code else "stream")
    return around + textwrap.indent(code, "    ")


def blocks_of(path: Path) -> list[Any]:
    """The blocks of a page, with their kinds, as parameters of a test."""
    text = path.read_text()
    found = re.finditer(
        rf"(<!-- (?P<kind>{KINDS})[^\n]*-->\n)?```python\n(?P<code>.*?)```", text, re.DOTALL
    )
    blocks = [
        pytest.param(
            block["code"],
            block["kind"],
            id=f"{path.stem}-{text[: block.start()].count(chr(10)) + 1}",
        )
        for block in found
    ]
    assert len(blocks) == text.count("```python")  # the expression finds them all
    return blocks


def compiled(code: str) -> Any:
    return compile(code, "page.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)


async def run(
    code: str, kind: str | None, backend: str, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """Run a block as it stands, where there are a server and the files that it names."""
    program = compiled(code)
    if kind in ("compiled only", "a module of tests"):
        return
    if kind is not None and kind.startswith("examples/"):  # which a test runs as it wants to be
        assert (ROOT / kind).read_text().endswith(f'"""\n\n{code}')
        return
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (folder / "model.gguf").write_bytes(b"GGUF no model")
    monkeypatch.chdir(folder)
    with anyio.fail_after(30):
        async with FakeOllama(token_rate=1000) as fake:
            fake.models.add(FakeModel("gemma3", ("completion", "vision")))
            monkeypatch.setenv("OLLAMA_HOST", fake.url)
            if "anyio.run(" in code:
                with monkeypatch.context() as patched:
                    patched.setattr(anyio, "run", functools.partial(anyio.run, backend=backend))
                    await anyio.to_thread.run_sync(exec, program, {"__name__": "__main__"})
            elif "import Client" in code:  # it blocks, and the server is in this event loop
                await anyio.to_thread.run_sync(run_blocking, program)
            elif kind == "cells of a notebook":
                await anyio.to_thread.run_sync(run_cells, program)
            else:
                await run_fragment(program)
        assert fake.in_flight == 0


def run_blocking(program: Any) -> None:
    exec(program, {"messages": [{"role": "user", "content": "Hello"}]})
    _default._client.close()
    _default._client.__init__()  # type: ignore[misc]


def run_cells(program: Any) -> None:
    asyncio.run(eval(program, {}))


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
            "texts": (f"Text number {number}." for number in range(100)),
        }
        result = eval(program, names)
        if inspect.isawaitable(result):
            await result
