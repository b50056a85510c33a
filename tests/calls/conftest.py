"""Tasks and cancellation are the subject here: asyncio runs in its debug mode."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import backends


@pytest.fixture(params=backends(debug=True))
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Every async test runs on both."""
    return request.param
