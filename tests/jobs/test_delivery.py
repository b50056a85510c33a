"""The pace of a job: requests in flight, what waits for its consumer, and in which order."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from tests.jobs.support import MODEL, QUICK, Watched, texts, until_still
from tests.support import LONG

from ollama_sc import AsyncClient, ProtocolError, Timeouts
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio


async def test_the_model_is_warmed_up_by_one_request(fake: FakeOllama) -> None:
    """One text goes first, alone; entering returns when it is answered, and no text was read."""
    fake.script(QUICK, Reply.default(delay=0.1))
    source = Watched(20)
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, source, batch_size=5) as batches:
            assert len(fake.requests) == 1
            assert len(fake.requests[0].json["input"]) == 1
            assert source.read == 0
            assert len([batch async for batch in batches]) == 4
        assert len(fake.requests) == 5


@pytest.mark.parametrize("in_flight", [1, 3])
async def test_so_many_requests_are_in_flight(anyio_backend: Any, in_flight: int) -> None:
    """All places are used, and no more."""
    async with FakeOllama(embed_seconds=0.02) as fake, AsyncClient(fake.url) as client:
        async with client.embed_many(
            MODEL, texts(60), batch_size=4, max_in_flight=in_flight
        ) as batches:
            async for _ in batches:
                assert client.statistics().in_flight <= in_flight
        assert fake.peak_in_flight == in_flight


async def test_the_clients_own_limit_counts(anyio_backend: Any) -> None:
    """A client that lets through one request at a time does so for a job too."""
    async with FakeOllama(embed_seconds=0.01) as fake:
        async with AsyncClient(fake.url, max_in_flight=1) as client:
            assert len(await client.embed_array(MODEL, texts(20), batch_size=2)) == 20
        assert fake.peak_in_flight == 1


async def test_a_time_limit_is_each_requests(anyio_backend: Any) -> None:
    """The job may take longer than one request may (in the long form, twice as long)."""
    async with FakeOllama(embed_seconds=0.05) as fake, AsyncClient(fake.url) as client:
        limits = Timeouts(total=0.25)
        given = texts(10 if LONG else 6)
        found = await client.embed_array(
            MODEL, given, batch_size=1, max_in_flight=1, timeout=limits
        )
        assert len(found) == len(given)


async def test_batches_as_they_are_done(fake: FakeOllama) -> None:
    """With ordered=False a batch that takes long does not hold up the others."""
    fake.script(QUICK, Reply.default(), Reply.default(delay=0.3))
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(40), batch_size=10, ordered=False) as batches:
            starts = [batch.start async for batch in batches]
    assert starts[-1] == 0
    assert sorted(starts) == [0, 10, 20, 30]


async def test_a_batch_that_takes_longer_is_waited_for(fake: FakeOllama) -> None:
    """In order, whatever is done first."""
    fake.script(QUICK, Reply.default(), Reply.default(delay=0.1))
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(40), batch_size=10) as batches:
            assert [batch.start async for batch in batches] == [0, 10, 20, 30]


async def test_the_batches_before_a_failure_are_delivered(fake: FakeOllama) -> None:
    """What was ready is there, then the error."""
    fake.script(QUICK, *[Reply.default()] * 3, Reply.html(200))
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(9), batch_size=1, max_in_flight=2) as batches:
            with anyio.fail_after(10):
                while any(client._calls.calls()):
                    await anyio.sleep(0.001)
            starts: list[int] = []
            with pytest.raises(ProtocolError):
                async for batch in batches:
                    starts.append(batch.start)
    assert starts == [0, 1]


async def test_a_slow_consumer_stops_the_reading_and_the_sending(fake: FakeOllama) -> None:
    """What is read and not taken is bounded by the number in flight; taking goes on with it."""
    source = Watched(100_000)
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, source, batch_size=4, max_in_flight=3) as batches:
            await until_still(fake)
            most = (2 * 3 + 1) * 4
            assert source.read == most
            assert len(fake.requests) == 1 + 2 * 3
            assert fake.in_flight == 0
            for _ in range(5):
                await anext(batches)
            await until_still(fake)
            assert source.read == most + 5 * 4
        assert source.closed


async def test_memory_stays_the_same(anyio_backend: Any) -> None:
    """However many texts there were, those that are alive are the few that are on their way."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    arrays: list[Any] = []

    class Text(str):
        __slots__ = ("__weakref__",)
        __hash__ = object.__hash__

    def generated() -> Iterator[str]:
        for number in range(2000):
            text = Text(f"text {number}")
            alive.add(text)
            yield text

    async with FakeOllama(dimensions=8) as fake, AsyncClient(fake.url) as client:
        async with client.embed_many(
            MODEL, generated(), batch_size=10, max_in_flight=3, ordered=False
        ) as batches:
            most = 0
            async for batch in batches:
                arrays.append(weakref.ref(batch.vectors))
                most = max(most, len(alive))
                assert sum(array() is not None for array in arrays[-20:]) <= 2
    assert most <= (2 * 3 + 2) * 10  # the consumer's own, too
