"""The browser that all tests here share, and the places in it where Python runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from ollama_sc.testing import FakeOllama
from tests.browser import chromium, install
from tests.browser.site import HOST, Site
from tests.support import ROOT

SECONDS = 40
FOLDER = Path(os.environ.get("BROWSER_FOLDER", ROOT / ".browser")).resolve()
SCENARIOS = Path(__file__).with_name("scenarios.py").read_text()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The loop of the tests; the one that is tested is the browser's."""
    return "asyncio"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it is installed there."""
    folder = tmp_path_factory.mktemp("wheel")
    words = ["-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    subprocess.run(
        [sys.executable, *words, "--no-build-isolation", "--wheel-dir", folder, ROOT], check=True
    )
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def site(wheel: Path) -> Iterator[Site]:
    """What the browser loads."""
    pyodide = FOLDER / "node_modules" / "pyodide"
    wheels = sorted((FOLDER / "wheels").glob("*.whl"))
    assert wheels, "`make test-browser` installs what these tests need"
    with Site(pyodide, [*wheels, wheel]).serving() as site:
        yield site


@pytest.fixture(scope="session")
def browser(site: Site) -> Iterator[chromium.Chromium]:
    """A browser with the page that runs Python in itself and in a worker."""
    program = install.chromium()
    assert program is not None
    with chromium.running(program, HOST) as browser:
        browser.open(f"{site.origin}/tests/page.html")
        yield browser


class Place:
    """Where Python runs, in the browser."""

    def __init__(self, name: str, site: Site) -> None:
        self.name = name
        self.origin = site.origin
        self._site = site

    async def run(self, scenario: str, *args: Any, **values: Any) -> Any:
        """What a function of `scenarios.py` returns there."""
        given = json.dumps([args, values])
        code = (
            "import json, scenarios\n"
            f"args, values = json.loads({given!r})\n"
            f"json.dumps(await scenarios.{scenario}(*args, **values))"
        )
        return await self.run_code(code)

    @asynccontextmanager
    async def running(self, scenario: str, *args: Any) -> AsyncIterator[list[Any]]:
        """Run a function that waits for `going_on` in its middle; its value is in the list then."""
        found: list[Any] = []

        async def run() -> None:
            found.append(await self.run(scenario, *args))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            yield found
            await self.run("go_on")

    async def run_code(self, code: str) -> Any:
        """What code returns there, as JSON."""
        with anyio.fail_after(SECONDS):
            return await self._site.run(self.name, code)


@pytest.fixture(scope="session")
def installed(site: Site, browser: chromium.Chromium, wheel: Path) -> dict[str, Place]:
    """The places, with this package in them: micropip has read what it needs, and has found it."""
    places = {name: Place(name, site) for name in ("page", "worker")}
    code = (
        "import json, micropip\n"
        f"await micropip.install('ollama-sc[jobs] @ {site.origin}/pyodide/{wheel.name}')\n"
        f"open('scenarios.py', 'w').write({SCENARIOS!r})\n"
        "import sys; sys.path.insert(0, '.')\n"
        "json.dumps(sorted(micropip.list()))"
    )

    async def install_everywhere() -> None:
        async with anyio.create_task_group() as tasks:
            for place in places.values():
                tasks.start_soon(place.run_code, code)

    anyio.run(install_everywhere)
    return places


@pytest.fixture(params=["page", "worker"])
def place(installed: dict[str, Place], request: pytest.FixtureRequest) -> Place:
    """A page, and a worker."""
    return installed[request.param]


@pytest.fixture
def serve(site: Site) -> Any:
    """Makes a fake server that lets the page's origin read what it says."""
    return partial(FakeOllama, origins=[site.origin])


@pytest.fixture
async def fake(serve: Any) -> AsyncIterator[FakeOllama]:
    """Such a server, as it is."""
    async with serve() as fake:
        yield fake
