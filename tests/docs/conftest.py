"""What the tests of the documents share."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def backend(anyio_backend: Any) -> str:
    """The name of the backend that both the test and what it starts run on."""
    return anyio_backend[0]
