"""What the tests of embedders share: servers in threads of their own, texts, what they become."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ollama_sc import AsyncClient
from ollama_sc.embedding import Embedder
from ollama_sc._jobs.servers import PROBE, Server
from ollama_sc.testing import FakeOllama

MODEL = "nomic-embed-text"
QUICK = "/v1/embeddings"
THREAD = "ollama_sc embedder"


class Served:
    """A fake server in a thread of its own."""

    def __init__(self, fake: FakeOllama, portal: BlockingPortal) -> None:
        self.fake = fake
        self.url = fake.url
        self._portal = portal

    def inputs(self) -> list[list[str]]:
        """The texts of each request so far."""
        return [request.json["input"] for request in self.fake.requests if request.body]

    def warm_ups(self) -> int:
        """How often it was asked for the text that jobs begin with."""
        return self.inputs().count([PROBE])

    def wait_for_requests(self, count: int) -> None:
        """Wait until so many requests in total have been received."""
        self._portal.call(self.fake.wait_for_requests, count)

    def wait_all_closed(self) -> None:
        """Wait until no connection is open."""
        self._portal.call(self.fake.wait_all_closed)


@contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    """A fake server in a thread of its own, with these settings."""
    with start_blocking_portal() as portal:
        fake = portal.call(partial(FakeOllama, **{"dimensions": 8, **settings}))
        with portal.wrap_async_context_manager(fake):
            yield Served(fake, portal)


class Gate:
    """Holds up a fake server, its whole thread, with a text to embed."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, text: str) -> None:
        assert self.open.wait(30)


def threads() -> list[threading.Thread]:
    """The threads of embedders."""
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that has no event."""
    while not condition():
        time.sleep(0.001)


@contextmanager
def handling(number: int, handle: Callable[..., object]) -> Iterator[Callable[[], None]]:
    """Handle a signal; yields a function that sends it to this process, for other threads.

    Where it comes just before the main thread begins to wait for a lock, Python does not see it
    until that wait ends: then it is sent again.
    """
    seen = threading.Event()

    def handler(*arguments: Any) -> None:
        seen.set()
        handle(*arguments)

    def send() -> None:
        os.kill(os.getpid(), number)
        while not seen.wait(2):
            os.kill(os.getpid(), number)

    before = signal.signal(number, handler)
    try:
        yield send
    finally:
        signal.signal(number, before)


def texts(count: int, start: int = 0) -> list[str]:
    """So many texts, each another one."""
    return [f"text {number}" for number in range(start, start + count)]


def expected(server: Served, wanted: list[str]) -> Any:
    """What a plain job makes of the same texts."""

    async def run() -> Any:
        async with AsyncClient(server.url) as client:
            return await client.embed_array(MODEL, wanted)

    return anyio.run(run)


def servers(embedder: Embedder) -> Sequence[Server]:
    """What it knows of its servers."""
    assert embedder._worker is not None
    assert embedder._worker._servers is not None
    return embedder._worker._servers.all


def in_flight(embedder: Embedder) -> list[int]:
    """The places that are taken, of each server."""
    return [each.in_flight for each in servers(embedder)]
