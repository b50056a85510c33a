"""What the tests of jobs share: a server with short vectors, and short waits before another try."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ollama_sc._jobs import retries
from ollama_sc.testing import FakeOllama


@pytest.fixture
async def fake(anyio_backend: Any, request: pytest.FixtureRequest) -> AsyncIterator[FakeOllama]:
    """A fake server in the test's own loop.

    Making vectors as long as the model's takes most of the time: a module says where it matters.
    """
    dimensions = getattr(request.module, "DIMENSIONS", 64)
    async with FakeOllama(dimensions=dimensions) as server:
        yield server


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try comes at once."""
    monkeypatch.setattr(retries, "WAIT_INITIAL", 0.0)
    monkeypatch.setattr(retries, "WAIT_MAX", 0.0)
    monkeypatch.setattr(retries, "WAIT_JITTER", 0.0)


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try comes soon."""
    monkeypatch.setattr(retries, "WAIT_INITIAL", 0.005)
    monkeypatch.setattr(retries, "WAIT_MAX", 0.02)
    monkeypatch.setattr(retries, "WAIT_JITTER", 0.005)
