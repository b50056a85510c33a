"""`max_in_flight="auto"`: the smallest number in flight with which a server is busy."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from heapq import heappop, heappush
from math import ceil, inf
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from tests.jobs.support import MODEL, QUICK
from tests.support import LONG

from ollama_sc import AsyncClient
from ollama_sc.embedding import Progress, embed_many
from ollama_sc._jobs import tuner
from ollama_sc.testing import FakeOllama, Reply

# By how many requests a server answers at once: the smallest level within a tenth of the best.
EXACT = {1: 1, 4: 4, 16: 15}


@asynccontextmanager
async def passing(
    clock: trio.testing.MockClock, *servers: tuple[FakeOllama, AsyncClient]
) -> AsyncIterator[None]:
    """Let time go on where every request is at its server, which works on it: then at once.

    (A clock that jumps by itself waits each time for what may be on its way.)
    """

    async def drive() -> None:
        while True:
            await trio.testing.wait_all_tasks_blocked()
            if all(fake.in_flight == client.statistics().in_flight for fake, client in servers):
                left = trio.lowlevel.current_statistics().seconds_to_next_deadline
                if left < inf:
                    clock.jump(left)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drive)
        yield
        nursery.cancel_scope.cancel()


async def find(
    slots: int,
    seconds: float,
    batches: int,
    *,
    clock: trio.testing.MockClock | None = None,
    stays: int | None = None,
) -> tuple[int, int, int]:
    """The number that a job settles on, after how many batches, and the most in flight.

    The clock is moved on. The job can end so many batches after its number was found.
    """
    async with (
        FakeOllama(parallel=slots, embed_seconds=seconds, dimensions=4) as fake,
        AsyncClient(fake.url) as client,
    ):
        levels: list[int] = []

        def note(progress: Progress) -> None:
            levels.extend(job.max_in_flight)

        job = client.embed_many(
            MODEL,
            (f"text {number}" for number in range(2 * batches)),
            batch_size=2,
            max_in_flight="auto",
            on_progress=note,
        )
        async with job, passing(clock, (fake, client)) if clock else nullcontext():
            assert job._job is not None
            (server,) = job._job._servers.all
            assert server.tuner is not None
            async for _ in job:
                if server.tuner.found and stays is not None:
                    stays -= 1
                    if stays < 0:
                        break
        settled = next(n for n in range(len(levels)) if len(set(levels[n:])) == 1)
        return levels[-1], settled + 1, fake.peak_in_flight


@pytest.mark.parametrize("slots", EXACT)
def test_the_smallest_number_that_is_good_is_found_within_200_batches(slots: int) -> None:
    """On servers that work on so many requests at once, and queue the others; exactly."""
    clock = trio.testing.MockClock(autojump_threshold=0.01)
    level, after, peak = trio.run(partial(find, slots, 10.0, 260, clock=clock), clock=clock)
    assert level == EXACT[slots]
    assert after <= 200
    assert peak <= 4 * slots


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("slots", "seconds", "bounds"), [(1, 0.02, (1, 4)), (4, 0.04, (2, 16)), (16, 0.12, (2, 64))]
)
async def test_on_a_real_clock(
    anyio_backend: Any, slots: int, seconds: float, bounds: tuple[int, int]
) -> None:
    """The same, as near as a busy machine lets it, which shares its time with the server.

    The long form goes on to the end of the job; that the number stays, the clock above shows too.
    """
    level, after, _ = await find(slots, seconds, 240, stays=None if LONG else 10)
    assert bounds[0] <= level <= bounds[1]
    assert after <= 230


def test_each_server_finds_its_own() -> None:
    """Servers of different kinds in one job, each its number."""

    async def main() -> tuple[int, ...]:
        async with (
            FakeOllama(parallel=1, embed_seconds=10, dimensions=4) as small,
            FakeOllama(parallel=8, embed_seconds=10, dimensions=4) as large,
            AsyncClient(small.url) as first,
            AsyncClient(large.url) as second,
        ):
            async with (
                embed_many(
                    clients=[first, second],
                    model=MODEL,
                    texts=(f"text {number}" for number in range(400)),
                    batch_size=2,
                    max_in_flight="auto",
                    ordered=False,
                ) as batches,
                passing(clock, (small, first), (large, second)),
            ):
                assert batches.max_in_flight == (1, 1)
                assert len([batch async for batch in batches]) == 200
                return batches.max_in_flight

    clock = trio.testing.MockClock(autojump_threshold=0.01)
    assert trio.run(main, clock=clock) == (1, 8)


@pytest.mark.anyio
async def test_numbers_stay_as_they_are_given(fake: FakeOllama) -> None:
    """Without "auto" nothing is looked for; both can be mixed."""
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, ["a"], max_in_flight=7) as batches:
            assert batches.max_in_flight == (7,)
        async with embed_many(
            clients=[client, client], model=MODEL, texts=["a"], max_in_flight=[7, "auto"]
        ) as batches:
            assert batches.max_in_flight == (7, 1)


@pytest.mark.anyio
async def test_failures_do_not_count(fake: FakeOllama) -> None:
    """A server that refuses is not a quick one."""
    fake.script(QUICK, Reply.default(), *[Reply.error(400, "odd")] * 4)
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(
            MODEL, [f"text {n}" for n in range(8)], max_in_flight="auto", on_error="skip"
        ) as batches:
            assert len([batch async for batch in batches]) == 1
            assert batches.max_in_flight == (1,)
    with anyio.fail_after(5):
        await fake.wait_all_closed()


# -- the search by itself --------------------------------------------------------------------------


def search(slots: int, seed: int, spread: float) -> tuple[int, int]:
    """What the search finds on a server whose requests take a random time, and after how many."""
    chance = random.Random(seed)
    auto = tuner.ConcurrencyTuner()
    now, in_flight, ended = 0.0, 0, 0
    waiting: list[Any] = []
    busy: list[Any] = []
    while not auto.found and ended < 1000:
        while in_flight < auto.level:
            waiting.append(auto.begin(now))
            in_flight += 1
        while waiting and len(busy) < slots:
            seconds = chance.uniform(1 - spread, 1 + spread)
            heappush(busy, (now + seconds, ended + len(busy), waiting.pop(0)))
        now, _, token = heappop(busy)
        in_flight -= 1
        ended += 1
        auto.end(token, now)
    return auto.level, ended


@pytest.mark.parametrize("slots", range(1, 17))
def test_any_number_of_places(slots: int) -> None:
    """Where all requests take as long: the smallest good number, or the next one."""
    level, after = search(slots, 0, 0.0)
    assert ceil(0.9 * slots) <= level <= slots
    assert after <= 200


@pytest.mark.parametrize("slots", [1, 2, 4, 8, 16])
def test_times_that_differ(slots: int) -> None:
    """Where they take 20 % more or less, mostly near to it, and always after some 200 requests."""
    found = [search(slots, seed, 0.2) for seed in range(100)]
    near = [level for level, _ in found if 0.8 * slots <= level <= 1.25 * slots + 1]
    assert len(near) >= 85, sorted(found)
    assert max(after for _, after in found) <= 230


def test_a_search_that_was_disturbed_goes_on() -> None:
    """What was in flight then does not count, and what begins later does."""
    auto = tuner.ConcurrencyTuner()
    for now in range(100):
        token = auto.begin(float(now))
        auto.restart()
        auto.end(token, now + 0.5)
    assert not auto.found
    assert auto.level == 1
    for now in range(100, 140):
        auto.end(auto.begin(float(now)), now + 0.5)
    assert auto.found
    assert auto.level == 1  # there never was a second one
