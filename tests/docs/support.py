"""What the tests of the examples share: how an example runs."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.to_thread

from ollama_sc.testing import FakeOllama
from tests import forking
from tests.support import ROOT

EXAMPLES = ROOT / "examples"
SECONDS = 40
# Plugins that are heavy, and that no user's tests here need.
UNUSED = ["-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:asyncio", "-p", "no:trio"]

# Runs a program that says `anyio.run(main)` on the backend that the test wants. Where the test says
# when a pause ends, that is a line of standard input.
RUNNER = """
import functools, os, runpy, sys
import anyio
_, backend, pause, path, *sys.argv[1:] = sys.argv
sys.argv[0] = path
async def line(seconds):
    await anyio.wait_readable(0)
    os.read(0, 1)
if pause:
    anyio.sleep = line
anyio.run = functools.partial(anyio.run, backend=backend)
runpy.run_path(path, run_name="__main__")
"""


@asynccontextmanager
async def server(**options: Any) -> AsyncIterator[FakeOllama]:
    """A fake server, and a limit for the test."""
    with anyio.fail_after(SECONDS):
        async with FakeOllama(**options) as fake:
            yield fake


def command(name: str, backend: str, pause: str = "") -> list[str]:
    """What stands behind `python`."""
    return ["-c", RUNNER, backend, pause, str(EXAMPLES / name)]


def environment(url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**kept, "OLLAMA_HOST": url}


async def run(
    name: str,
    backend: str,
    fake: FakeOllama,
    *arguments: str,
    pause: Callable[[], Awaitable[None]] | None = None,
) -> list[str]:
    """What an example prints; it ends well, and its server has no request of it any more.

    Args:
        pause: what the example's one pause waits for, in place of some seconds.
    """
    reading, writing = os.pipe()
    words = [*command(name, backend, "pause" if pause else ""), *arguments]
    work = partial(
        forking.run, words, stdin=reading, env=environment(fake.url), cwd=EXAMPLES, timeout=SECONDS
    )
    printed: list[str] = []

    async def example() -> None:
        done = await anyio.to_thread.run_sync(work)
        assert (done.returncode, done.stderr) == (0, "")
        printed.extend(done.stdout.splitlines())

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(example)
            if pause is not None:
                await pause()
                os.write(writing, b"\n")
    finally:
        os.close(reading)
        os.close(writing)
    await fake.wait_all_closed()
    assert fake.in_flight == 0
    return printed


def load(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
