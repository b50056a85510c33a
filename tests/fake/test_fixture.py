"""The fixture `fake_ollama` in the tests of users: each plugin, and none."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from typing import Any

import pytest

from tests import forking
from tests.support import ROOT

pytest_plugins = ["pytester"]

# Plugins that have no part in it, and take most of the time to start.
FEW = ["-W", "error", "-p", "no:hypothesispytest", "-p", "no:xdist", "-p", "no:cacheprovider"]
FEW += ["-W", "ignore:Using `httpx` with"]  # Starlette's TestClient wants another one
# A forked process has imported most, and the collector knows nothing of what it had before.
FEW += ["-W", "ignore:Module already imported", "-W", "ignore:It looks like `register_random`"]
# As an installation of this checkout has it, whatever is installed here.
FEW += ["-p", "no:ollama_sc", "-p", "ollama_sc_pytest"]
FEW += ["-o", "asyncio_default_fixture_loop_scope=function", "--timeout", "20"]

# What docs/testing.md says to write.
WRITTEN = re.findall(
    r"<!-- a module of tests -->\n```python\n(.*?)```",
    (ROOT / "docs/testing.md").read_text(),
    re.DOTALL,
)

PROGRAM = """
import os
from ollama_sc import AsyncClient

async def ask(fake):
    assert os.environ["OLLAMA_HOST"] == fake.url
    async with AsyncClient() as client:
        reply = await client.generate("llama3.2", "Hello", stream=False)
        assert reply.response
    await fake.wait_for_requests(1)
    await fake.requests[0].wait_finished()
    await fake.wait_all_closed()
    assert [loaded.name for loaded in fake.loaded] == ["llama3.2:latest"]
    assert fake.requests[0].json["prompt"] == "Hello"
"""

ANYIO = """
import pytest
from program import ask

pytestmark = pytest.mark.anyio

@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

async def test_first(fake_ollama):
    await ask(fake_ollama)

async def test_a_second_one_has_its_own(fake_ollama):
    await ask(fake_ollama)
"""

STRICT = """
import pytest, pytest_asyncio
from program import ask
from ollama_sc import AsyncClient

@pytest_asyncio.fixture
async def client(fake_ollama):
    async with AsyncClient() as client:
        yield client

@pytest.mark.asyncio
async def test_first(fake_ollama):
    await ask(fake_ollama)

@pytest.mark.asyncio
async def test_a_client_of_a_fixture(client, fake_ollama):
    await client.generate("llama3.2", "Hello")
    await fake_ollama.wait_for_requests(1)
"""

AUTO = """
from program import ask

async def test_first(fake_ollama):
    await ask(fake_ollama)

async def test_second(fake_ollama):
    await ask(fake_ollama)

def test_plain(fake_ollama):
    fake_ollama.call(ask, fake_ollama)
"""

TRIO = """
import pytest
from program import ask

@pytest.mark.trio
async def test_first(fake_ollama, nursery):
    nursery.start_soon(ask, fake_ollama)
"""

PLAIN = """
import contextlib, unittest
import anyio, pytest
from program import ask
from ollama_sc import AsyncClient
from ollama_sc.starlette import stream_response
from ollama_sc.testing import FakeOllama, Reply
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.testclient import TestClient

def test_plain(fake_ollama):
    anyio.run(ask, fake_ollama)
    fake_ollama.call(fake_ollama.wait_for_requests, 1, timeout=10)

@pytest.mark.parametrize("number", [1, 2])
def test_the_functions_of_the_module(fake_ollama, number):
    import ollama_sc
    fake_ollama.script("/api/generate", Reply.chat_text(f"Test {number}"))
    assert ollama_sc.generate("llama3.2", "Hi").response == f"Test {number}"
    assert len(fake_ollama.requests) == 1

@contextlib.asynccontextmanager
async def lifespan(app):
    async with AsyncClient() as client, client.shutdown_on_signals():
        yield {"ollama": client}

async def answer(request):
    return stream_response(request.state.ollama.generate("llama3.2", "Hi", stream=True), "sse")

def test_an_application(fake_ollama):
    fake_ollama.script("/api/generate", Reply.busy(), Reply.chat_text("All is well."))
    with TestClient(Starlette(routes=[Route("/", answer)], lifespan=lifespan)) as browser:
        assert browser.get("/").status_code == 503
        assert '"response":" well."' in browser.get("/").text
    fake_ollama.call(fake_ollama.wait_all_closed)
    assert len(fake_ollama.requests) == 2

@pytest.mark.usefixtures("fake_ollama")
class TestByEnvironment(unittest.TestCase):
    def test_it(self):
        async def main():
            async with AsyncClient() as client:
                assert await client.version()
        anyio.run(main)

class TestWithTheFake(unittest.IsolatedAsyncioTestCase):
    @pytest.fixture(autouse=True)
    def _fake(self, fake_ollama):
        self.fake = fake_ollama

    async def test_it(self):
        await ask(self.fake)

class TestWithoutPytest(unittest.TestCase):
    def test_it(self):
        fake = self.enterContext(FakeOllama())
        async def main():
            async with AsyncClient(fake.url) as client:
                assert await client.version()
        anyio.run(main)
        fake.call(fake.wait_for_requests, 1)
"""

CLOCK = """
import pytest, trio, trio.testing
from ollama_sc.testing import FakeOllama

@pytest.fixture(params=[("trio", {"clock": trio.testing.MockClock(autojump_threshold=0)})])
def anyio_backend(request):
    return request.param

@pytest.mark.anyio
async def test_refused(fake_ollama):
    pass

@pytest.mark.anyio
async def test_in_the_loop(anyio_backend):
    async with FakeOllama() as fake:
        await fake.wait_for_requests(0)

@pytest.mark.anyio
async def test_waits_are_refused(anyio_backend):
    with FakeOllama() as fake:
        with pytest.raises(RuntimeError, match="async with FakeOllama"):
            await fake.wait_all_closed()

@pytest.mark.trio
async def test_refused_too(fake_ollama, autojump_clock):
    pass
"""


def run(pytester: Any, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder in a process of their own."""
    return forking.run(["-m", "pytest", *FEW, *options], cwd=pytester.path)


def test_every_plugin(pytester: Any) -> None:
    """anyio's, pytest-asyncio in strict mode, pytest-trio, unittest and nothing at all, side by side."""
    pytester.makepyfile(
        program=PROGRAM, test_anyio=ANYIO, test_strict=STRICT, test_trio=TRIO, test_plain=PLAIN,
        test_clock=CLOCK, **{f"test_docs{number}": code for number, code in enumerate(WRITTEN)},
    )  # fmt: skip
    assert len(WRITTEN) == 6
    shutil.copytree(ROOT / "tests" / "recordings" / "0.33", pytester.path / "cassette")
    done = run(pytester)
    assert f" {4 + 2 + 1 + 7 + 2 + 8} passed, 2 errors" in f" {done.stdout}", done
    # Where CI is set, pytest's summary has these lines too, behind the names of the tests.
    refused = re.findall(
        r"^this fake .*use `async with FakeOllama\(\) as fake:` inside of the test$",
        done.stdout,
        re.M,
    )
    assert len(refused) == 2, done.stdout


def test_auto_mode(pytester: Any) -> None:
    """pytest-asyncio takes every async test and fixture for itself; the fixture is none."""
    pytester.makepyfile(program=PROGRAM, test_auto=AUTO)
    done = run(pytester, "-o", "asyncio_mode=auto", "-p", "no:trio")
    assert "3 passed" in done.stdout, done.stdout


def test_without_other_plugins(pytester: Any) -> None:
    """Not even anyio's: plain tests have the fixture."""
    pytester.makepyfile(program=PROGRAM, test_plain=PLAIN)
    few = [word for word in FEW if "asyncio_default" not in word and word != "-o"]
    without = [word for name in ("anyio", "asyncio", "trio") for word in ("-p", f"no:{name}")]
    done = forking.run(["-m", "pytest", *few, *without], cwd=pytester.path)
    assert "7 passed" in done.stdout, done.stdout


def test_pytest_starts_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plugin is loaded in every project of an environment; the library only where it is used."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"ollama_sc": "ollama_sc_pytest"}
    for name in ("ollama_sc", "anyio", "httpx", "msgspec"):
        monkeypatch.setitem(sys.modules, name, None)  # an import fails
    assert "fake_ollama" in runpy.run_path(str(ROOT / "ollama_sc_pytest.py"))
