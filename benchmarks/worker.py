"""One contender doing one piece of work, in a process of its own; prints what it took, as JSON."""

from __future__ import annotations

import gc
import json
import sys
import time
from functools import partial

import anyio

from .contenders import Session, contender
from .machine import ask, raise_file_limit
from .works import Work


def texts_of(number: int, count: int) -> list[str]:
    return [f"Text number {number} of many, part {part}." for part in range(count)]


async def several(session: Session, work: Work, model: str, operations: int) -> int:
    """So many streams or requests, so many at a time; how many units that brought."""
    numbers = iter(range(operations))
    count = 0

    async def take_turns() -> None:
        nonlocal count
        for number in numbers:
            if work.kind == "stream":
                brought = await session.stream(model)
            else:
                brought = await session.embed(model, texts_of(number, work.texts))
            count += brought

    async with anyio.create_task_group() as tasks:
        for _ in range(min(work.in_flight, operations)):
            tasks.start_soon(take_turns)
    return count


async def job(session: Session, work: Work, model: str, operations: int) -> int:
    """One embedding job of so many batches."""
    texts = (text for number in range(operations) for text in texts_of(number, work.texts))
    return await session.embed_many(model, texts, work.texts, work.in_flight)


async def measure(label: str, work: Work, url: str) -> dict[str, float]:
    do = job if work.kind == "job" else several
    streams = work.in_flight if work.kind == "stream" else 0
    async with contender(label).open(url, streams) as session:
        await do(session, work, work.warm_up_model, work.warm_up)
        gc.collect()
        server = ask(url, "/bench/usage")["cpu"]
        cpu, wall = time.process_time(), time.perf_counter()
        count = await do(session, work, work.model, work.operations)
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        server = ask(url, "/bench/usage")["cpu"] - server
        # A request of one text brings one vector, and counts as one; a batch may count its texts.
        expected = work.count if work.kind == "stream" else work.operations * work.texts
        if count != expected:
            raise SystemExit(f"{label}, {work.name}: {count} of {expected}")
    return {"cpu": cpu, "wall": wall, "server": server}


def main() -> None:
    label, described, url = sys.argv[1:]
    raise_file_limit()
    work = Work.from_json(described)
    loop = contender(label).loop
    options = {"use_uvloop": True} if loop == "uvloop" else {}
    if loop == "uvloop":
        loop = "asyncio"
    run = partial(measure, label, work, url)
    print(json.dumps(anyio.run(run, backend=loop, backend_options=options)))


if __name__ == "__main__":
    main()
