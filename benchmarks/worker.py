"""One contender doing one piece of work, in a process of its own; prints what it took, as JSON."""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count

import anyio

from .contenders import BlockingSession, Session, contender
from .machine import ask, raise_file_limit
from .works import OPENING, Work

CANCEL_SECONDS = 0.03
CANCEL_LIMIT = 60.0  # some pools of connections lose their places to cancelled requests
PLACES = 10


class Clock:
    """What a piece of work takes: all of it, or what comes before or after all first parts.

    Attributes:
        taken: seconds of CPU and of wall time.
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self.taken: dict[str, float] = {}
        self._firsts = count(1)  # in any thread
        self._began = self._opened = (0.0, 0.0)

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.process_time(), time.perf_counter()

    def first(self) -> None:
        """A stream has its first part."""
        if next(self._firsts) == self.work.operations:
            self._opened = self._now()

    @contextmanager
    def running(self, url: str) -> Iterator[None]:
        """Around the work."""
        gc.collect()
        server = ask(url, "/bench/usage")["cpu"]
        began = self._now()
        yield
        ended = self._now()
        server = ask(url, "/bench/usage")["cpu"] - server
        first = self._opened if self.work.kind == "tokens" else began
        last = self._opened if self.work.kind == "opening" else ended
        self.taken = {
            "cpu": last[0] - first[0],
            "wall": last[1] - first[1],
            "server": server / (ended[1] - began[1]),
        }


def texts_of(number: int, count: int) -> list[str]:
    return [f"Text number {number} of many, part {part}." for part in range(count)]


async def one(session: Session, work: Work, model: str, number: int) -> int:
    """One stream or request; how many parts or vectors it brought."""
    if work.kind == "embed":
        return await session.embed(model, texts_of(number, work.texts))
    return await session.stream(model)


async def cancelled(session: Session, work: Work, model: str, number: int) -> int:
    """One stream, cancelled wherever it is; counts as one."""
    with anyio.move_on_after(random.Random(number).uniform(0, CANCEL_SECONDS)) as scope:
        await session.stream(model)
    return int(scope.cancelled_caught)


async def several(session: Session, work: Work, model: str, operations: int) -> int:
    """So many operations, so many at a time; what they brought."""
    numbers = iter(range(operations))
    brought = 0
    do = cancelled if work.kind == "cancel" and model == work.model else one

    async def take_turns() -> None:
        nonlocal brought
        for number in numbers:
            units = await do(session, work, model, number)
            brought += units

    async with anyio.create_task_group() as tasks:
        for _ in range(min(work.in_flight, operations)):
            tasks.start_soon(take_turns)
    return brought


async def together(session: Session, work: Work, clock: Clock) -> int:
    """All streams at the same time, each opened when one before it has its first part."""
    places = anyio.Semaphore(OPENING, fast_acquire=True)
    brought = 0

    def first() -> None:
        places.release()
        clock.first()

    async def read() -> None:
        nonlocal brought
        units = await session.stream(work.asked_model, first)
        brought += units

    async with anyio.create_task_group() as tasks:
        for _ in range(work.operations):
            await places.acquire()
            tasks.start_soon(read)
    return brought


async def job(session: Session, work: Work, model: str, operations: int) -> int:
    """One embedding job of so many batches."""
    texts = (text for number in range(operations) for text in texts_of(number, work.texts))
    return await session.embed_many(model, texts, work.texts, work.in_flight)


async def measure(label: str, work: Work, url: str) -> dict[str, float]:
    do = job if work.kind == "job" else several
    places = PLACES if work.kind == "cancel" else None
    clock = Clock(work)
    open_session = contender(label).open
    assert open_session is not None
    async with open_session(url, work.streams, places) as session:
        await do(session, work, work.warm_up_model, work.warm_up)
        with clock.running(url), anyio.fail_after(CANCEL_LIMIT if places else None):
            if work.kind in {"tokens", "opening"}:
                brought = await together(session, work, clock)
            else:
                brought = await do(session, work, work.model, work.operations)
    return found(label, work, brought, clock)


def found(label: str, work: Work, brought: int, clock: Clock) -> dict[str, float]:
    if brought != work.expected:
        raise SystemExit(f"{label}, {work.name}: {brought} of {work.expected}")
    return clock.taken


def in_threads(
    session: BlockingSession, work: Work, model: str, operations: int, clock: Clock | None = None
) -> int:
    """So many operations, a thread for each that is in flight; what they brought."""

    def one(number: int) -> int:
        if work.kind == "embed":
            return session.embed(model, texts_of(number, work.texts))
        return session.stream(model, None if clock is None else clock.first)

    if work.in_flight == 1:
        return sum(map(one, range(operations)))
    with ThreadPoolExecutor(min(work.in_flight, operations)) as pool:
        return sum(pool.map(one, range(operations)))


def measure_blocking(label: str, work: Work, url: str) -> dict[str, float]:
    open_session = contender(label).blocks
    assert open_session is not None
    clock = Clock(work)
    with open_session(url, work.streams) as session:
        in_threads(session, work, work.warm_up_model, work.warm_up)
        with clock.running(url):
            brought = in_threads(session, work, work.asked_model, work.operations, clock)
    return found(label, work, brought, clock)


def main() -> None:
    label, described, url = sys.argv[1:]
    raise_file_limit()
    work = Work.from_json(described)
    if contender(label).blocks is not None:
        print(json.dumps(measure_blocking(label, work, url)))
        return
    loop = contender(label).loop
    options = {"use_uvloop": True} if loop == "uvloop" else {}
    if loop == "uvloop":
        loop = "asyncio"
    run = partial(measure, label, work, url)
    print(json.dumps(anyio.run(run, backend=loop, backend_options=options)))


if __name__ == "__main__":
    main()
