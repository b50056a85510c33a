"""What the tests of blocking clients share: servers in threads, clients on each event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.blocking.support import threads
from tests.embedding.programs import Programs
from tests.embedding.support import Served, serving

from ollama_sc.blocking import Client


@pytest.fixture
def server() -> Iterator[Served]:
    """A fake server in a thread of its own."""
    with serving() as served:
        yield served


@pytest.fixture
def slow() -> Iterator[Served]:
    """One whose streams last as long as a test wants."""
    with serving(token_rate=100, tokens=100_000) as served:
        yield served


@pytest.fixture(params=["asyncio", "trio"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Client]]:
    """Makes clients with each event loop behind them, and closes them."""
    made: list[Client] = []

    def make(where: Any, **settings: Any) -> Client:
        url = where.url if isinstance(where, Served) else where
        made.append(Client(url, backend=request.param, **settings))
        return made[-1]

    yield make
    for client in made:
        client.close()
    assert not threads()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs programs in processes of their own."""
    with Programs(tmp_path_factory.mktemp("programs")) as programs:
        yield programs
