"""Bytes become replies and errors here, without any I/O."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""
