"""What the tests of embedders share: a server, embedders on each event loop, short waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.embedding.programs import Programs
from tests.embedding.support import MODEL, Served, serving, threads

from ollama_sc.embedding import Embedder
from ollama_sc._jobs import retries


@pytest.fixture
def server() -> Iterator[Served]:
    """A fake server in a thread of its own."""
    with serving() as served:
        yield served


@pytest.fixture(params=["asyncio", "trio"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Embedder]]:
    """Makes embedders on each event loop, and closes them."""
    made: list[Embedder] = []

    def make(hosts: Any, **settings: Any) -> Embedder:
        hosts = hosts.url if isinstance(hosts, Served) else hosts
        made.append(Embedder(MODEL, hosts, backend=request.param, **settings))
        return made[-1]

    yield make
    for embedder in made:
        embedder.close()
    assert not threads()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs programs in processes of their own."""
    with Programs(tmp_path_factory.mktemp("programs")) as programs:
        yield programs


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try comes soon."""
    monkeypatch.setattr(retries, "WAIT_INITIAL", 0.005)
    monkeypatch.setattr(retries, "WAIT_MAX", 0.02)
    monkeypatch.setattr(retries, "WAIT_JITTER", 0.005)
