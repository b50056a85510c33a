"""What all tests share: both event loops, clean surroundings, a collected heap."""

from __future__ import annotations

import asyncio.constants
import gc
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trustme
from hypothesis import settings
from hypothesis.internal.entropy import deterministic_PRNG

from ollama_sc.testing import FakeOllama
from tests.support import LONG, backends

# Debug mode notes where each callback was scheduled: a frame is enough, ten take most of its time.
asyncio.constants.DEBUG_STACK_DEPTH = 1

# An example takes as long as the machine is busy: no time is a failure. The long form has new ones.
settings.register_profile("ours", deadline=None, derandomize=not LONG)
settings.load_profile("ours")


@pytest.fixture(params=backends(debug=False))
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Every async test runs on both; folders whose subject is tasks use asyncio's debug mode."""
    return request.param


def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: tests wait for half of their time."""
    return 2 * (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


@pytest.fixture(scope="session", autouse=True)
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """certifi knows of one: to read all that it has takes 20 ms for each client of httpx."""
    bundle = tmp_path_factory.mktemp("authorities") / "one.pem"
    trustme.CA().cert_pem.write_to_path(bundle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("certifi.where", lambda: str(bundle))
        yield


@pytest.fixture(scope="module", autouse=True)
def what_stays_is_frozen() -> Iterator[None]:
    """What a module leaves in the heap stays: collecting after each test need not look at it."""
    yield
    gc.collect()
    gc.freeze()


def pytest_collection_finish() -> None:
    """The same for what is imported."""
    with deterministic_PRNG():  # it asks at its first use who refers to what, which needs the heap
        pass
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> Any:
    """What a test leaves behind is collected in that test, so that its warnings fail it."""
    yield
    gc.collect()
    gc.freeze()  # the next one need not look at what stays


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that this machine's environment says changes a test."""
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def late_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers run in the tests' own loop, which on a busy machine sees a dead connection late."""
    for module in ("via_httpx", "connection"):
        monkeypatch.setattr(f"ollama_sc._http.{module}.DEAD_WITHIN", 5.0)


@pytest.fixture
async def fake(anyio_backend: Any) -> AsyncIterator[FakeOllama]:
    """A fake server in the test's own loop."""
    async with FakeOllama() as server:
        yield server


@pytest.fixture
async def slow(anyio_backend: Any) -> AsyncIterator[FakeOllama]:
    """A fake server whose replies take as long as a test wants."""
    async with FakeOllama(token_rate=20, tokens=100_000) as server:
        yield server
