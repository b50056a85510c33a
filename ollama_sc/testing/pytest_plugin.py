"""The pytest fixture `fake_ollama`; imports the server only when a test asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ollama_sc.testing import FakeOllama


@pytest.fixture
async def fake_ollama(
    anyio_backend: object, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FakeOllama]:
    """A running `FakeOllama`, with OLLAMA_HOST set to its URL.

    Asks for anyio's `anyio_backend`, so that it runs in the event loop of the test.
    """
    from ollama_sc.testing import FakeOllama  # noqa: PLC0415 - nothing heavy at pytest's start

    del anyio_backend
    async with FakeOllama() as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        yield fake
