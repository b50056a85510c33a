"""The pytest fixture `fake_ollama`, which comes with the installation.

pytest imports this at each start, in every project whose environment has the library. So it stands
beside the package, whose import takes a while: that is imported when a test asks for the fixture.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ollama_sc.testing import FakeOllama


@pytest.fixture
def fake_ollama(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeOllama]:
    """A running `FakeOllama`, with OLLAMA_HOST set to its URL.

    It runs in a thread with an event loop of its own, so that it serves every kind of test:
    asynchronous ones with whatever plugin and loop, and plain ones.
    """
    from ollama_sc.testing import FakeOllama  # noqa: PLC0415 - keeps pytest's start fast

    _refuse_mock_clock(request)
    _close_default_client()
    with FakeOllama() as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        try:
            yield fake
        finally:
            _close_default_client()


def _close_default_client() -> None:
    """Close the client of the module's functions, which would keep an earlier test's address."""
    module = sys.modules.get("ollama_sc.blocking._default")  # where none of them was used, none
    if module is not None:
        module._client._start_over()


def _refuse_mock_clock(request: pytest.FixtureRequest) -> None:
    """Fail a test whose clock does not wait for other threads."""
    from ollama_sc.testing._fake import MOCK_CLOCK  # noqa: PLC0415

    clock: object = None
    if "anyio_backend" in request.fixturenames:
        backend: Any = request.getfixturevalue("anyio_backend")
        clock = None if isinstance(backend, str) else backend[1].get("clock")
    if clock is not None or {"mock_clock", "autojump_clock"}.intersection(request.fixturenames):
        pytest.fail(MOCK_CLOCK, pytrace=False)
