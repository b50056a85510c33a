"""Threads that do everything to one blocking client, at random, until time is up.

`make soak` runs this for a minute on each event loop, `make test` for half a second. `SOAK_SECONDS`
and `SOAK_SEED` say it exactly.
"""

from __future__ import annotations

import gc
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.blocking.support import MESSAGES, MODEL, is_idle, threads
from tests.embedding.support import serving, wait_until
from tests.support import LONG, new_seed

from ollama_sc import OllamaError
from ollama_sc.blocking import Client

SECONDS = float(os.environ.get("SOAK_SECONDS", "60" if LONG else "0.5"))
SEED = new_seed()


def read_some(chance: random.Random, parts: Any, share: float) -> None:
    for _ in parts:
        if chance.random() < share:
            break


def leave_a_stream(client: Client, chance: random.Random) -> None:
    with client.chat(MODEL, MESSAGES, stream=True) as stream:
        read_some(chance, stream, 0.02)


def drop_a_stream(client: Client, chance: random.Random) -> None:
    next(client.chat(MODEL, MESSAGES, stream=True))


def abort_a_stream(client: Client, chance: random.Random) -> None:
    stream = client.chat(MODEL, MESSAGES, stream=True)
    timer = threading.Timer(chance.random() * 0.05, stream.abort)
    timer.start()
    try:
        list(stream)
    finally:
        timer.join()


def abort_a_group(client: Client, chance: random.Random) -> None:
    with client.group() as group:
        stream = group.generate(MODEL, "x", stream=True)
        group.abort()
        list(stream)


def leave_a_job(client: Client, chance: random.Random) -> None:
    texts = (str(number) for number in range(300))
    with client.embed_many("all-minilm", texts, batch_size=20) as batches:
        read_some(chance, batches, 0.1)


def ask(client: Client, chance: random.Random) -> None:
    client.version()
    client.embed("all-minilm", "x")


def abort_all(client: Client, chance: random.Random) -> None:
    if chance.random() < 0.2:
        client.abort()


WORKS = (leave_a_stream, drop_a_stream, abort_a_stream, abort_a_group, leave_a_job, ask, abort_all)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of those dropped
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.timeout(60 + SECONDS)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_nothing_is_left(backend: Any) -> None:
    """Whatever two dozen threads do: only the library's errors come, and in the end all is idle."""
    print("SOAK_SEED", SEED, "SOAK_SECONDS", SECONDS)
    with (
        serving(token_rate=2000, tokens=300) as server,
        Client(server.url, backend=backend, max_in_flight=8) as client,
    ):
        until = time.monotonic() + SECONDS

        def work(number: int) -> None:
            chance = random.Random(SEED + number)
            while time.monotonic() < until:
                try:
                    chance.choice(WORKS)(client, chance)
                except OllamaError:
                    pass

        with ThreadPoolExecutor(24) as pool:
            list(pool.map(work, range(24)))
        gc.collect()
        wait_until(lambda: is_idle(client))
        assert client.statistics().in_flight == 0
        assert not client._worker.client._calls._groups  # type: ignore[union-attr]
    assert not threads()
