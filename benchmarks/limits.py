"""What is no comparison of contenders: many in flight, many live streams, the first request, the import.

Run as a program, it is the process that measures one of them once: it prints what it found, as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from .contenders import AIOHTTP, CONTENDERS, FLOOR, OURS, PYTHON, Contender, contender
from .decoding import MESSAGES
from .machine import ROOT, ask, raise_file_limit, resident_bytes
from .rounds import Failed, measure, run
from .works import FEW_IN_FLIGHT, MANY_IN_FLIGHT

COMPILED = Path(tempfile.gettempdir()) / "ollama-sc-bench-bytecode"
LOOPS = ("trio", "asyncio")
STREAMS = 10_000
OPENING = 200  # at a time: a listening socket does not queue thousands
IMPORTS = {
    "nothing": "pass",
    "parts": "import anyio, httpx, msgspec",
    # anyio loads most of itself when a name is first used, as every program that runs it does.
    "used": "import anyio.abc, anyio.lowlevel, httpx, msgspec; anyio.create_task_group; anyio.Event",
    "ours": "import ollama_sc",
}


@dataclass(frozen=True)
class Line:
    """A figure that has a line of its own.

    Attributes:
        digits: how many decimals are shown.
    """

    title: str
    value: float
    unit: str
    digits: int = 2

    @property
    def shown(self) -> str:
        return f"{self.value:,.{self.digits}f} {self.unit}"


# -- in a process of its own ---------------------------------------------------------------------


async def live(label: str, url: str, count: int) -> dict[str, float]:
    """Open so many streams that stay open, then abort them all at once."""
    from ollama_sc import AbortError, AsyncClient

    opening = anyio.Semaphore(OPENING)
    aborted = 0

    async with AsyncClient(url) as client, anyio.create_task_group() as tasks:

        async def hold() -> None:
            nonlocal aborted
            try:
                async with await client.chat("hold", MESSAGES, stream=True) as stream:
                    await anext(stream)
                    opening.release()
                    await anext(stream)
            except AbortError:
                aborted += 1

        async def open_streams(number: int) -> None:
            for _ in range(number):
                await opening.acquire()
                tasks.start_soon(hold)
            for _ in range(OPENING):  # all of them have their first part
                await opening.acquire()
            for _ in range(OPENING):
                opening.release()

        await open_streams(50)
        gc.collect()
        before = resident_bytes()
        started = time.monotonic()
        await open_streams(count)
        opened = time.monotonic() - started
        gc.collect()
        memory = (resident_bytes() - before) / count

        found: dict[str, float] = {}

        async def watch() -> None:
            found.update(await anyio.to_thread.run_sync(ask, url, "/bench/quiet"))

        tasks.start_soon(watch)
        await anyio.sleep(0.5)  # the question is at the server before it is quiet
        started = time.monotonic()
        client.abort("enough")
    if aborted != count + 50:
        raise SystemExit(f"{aborted} of {count + 50} streams were aborted")
    return {"memory": memory, "opened": opened, "closed": found["at"] - started}


async def first(label: str, url: str) -> list[float]:
    """A client's first request with its construction, and the same for a second client."""
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        async with contender(label).open(url, 0, None) as session:
            await session.embed("nomic-embed-text", ["Hello"])
            taken.append(time.perf_counter() - started)
    return taken


def worker() -> None:
    what, label, url, *numbers = sys.argv[1:]
    raise_file_limit()
    import httptools  # noqa: F401 - what a client needs is imported before the clock starts
    import httpx  # noqa: F401

    import ollama_sc  # noqa: F401

    who = contender(label)
    for needed in who.needs:
        __import__(needed)
    do = {"live": live, "first": first}[what]
    found = anyio.run(partial(do, label, url, *map(int, numbers)), backend=who.loop)
    print(json.dumps(found))


# -- from outside --------------------------------------------------------------------------------


def ask_worker(what: str, label: str, url: str, *numbers: int) -> Any:
    command = [sys.executable, "-m", "benchmarks.limits", what, label, url, *map(str, numbers)]
    return run(f"{what}, {label}", command)


def ours_on(loops: Sequence[str] = LOOPS) -> list[Contender]:
    return [each for loop in loops if not (each := contender(f"{OURS}, {loop}")).missing()]


def in_flight(url: str, *, rounds: int, hurry: bool, say: Callable[[str], None]) -> list[Line]:
    """What a request costs with thousands in flight, and how much more that is than with ten."""
    lines = []
    few, many = FEW_IN_FLIGHT.sized(hurry=hurry), MANY_IN_FLIGHT.sized(hurry=hurry)
    for who in CONTENDERS:
        if who.name not in {OURS, AIOHTTP, FLOOR} or who.missing():
            continue
        results = measure([(few, who), (many, who)], url, rounds=rounds, say=say)
        of_few, of_many = results[few][who].cpu_us, results[many][who].cpu_us
        title = (
            f"CPU of a request with {many.in_flight:,} in flight, {who.label};"
            f" with {few.in_flight} in flight {of_few:.0f} µs"
        )
        lines.append(Line(title, of_many, "µs", digits=0))
    return lines


def live_streams(url: str, *, streams: int, say: Callable[[str], None]) -> list[Line]:
    """Memory for each of many streams, and how soon all of them are closed."""
    lines = []
    for who in ours_on():
        found = ask_worker("live", who.label, url, streams)
        say(f"live, {who.label}: {found}")
        many = f"{streams:,} live streams, {who.loop}"
        lines += [
            Line(f"{many}: client memory for each", found["memory"] / 1024, "KiB", digits=1),
            Line(f"{many}: from abort() until the server has seen all close", found["closed"], "s"),
            Line(f"{many}: opening them, {OPENING} at a time", found["opened"], "s"),
        ]
    return lines


def first_requests(url: str, *, rounds: int, say: Callable[[str], None]) -> list[Line]:
    """What a new client's first request takes."""
    contenders = [*ours_on(), contender(f"{PYTHON}, asyncio")]
    contenders = [who for who in contenders if not who.missing()]
    taken: dict[str, list[list[float]]] = {who.label: [] for who in contenders}
    for _ in range(rounds):
        for who in contenders:
            taken[who.label].append(ask_worker("first", who.label, url))
    lines = []
    for who in contenders:
        for number, which in enumerate(("first", "second")):
            value = statistics.median(each[number] for each in taken[who.label]) * 1000
            title = f"a process's {which} client, until its first reply, {who.label}"
            lines.append(Line(title, value, "ms", digits=1))
            say(f"first, {title}: {value:.1f} ms")
    return lines


def cpu_of(code: str) -> float:
    """CPU seconds of a fresh interpreter that runs that."""
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(COMPILED)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiling is no part of an import
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(code, f"exit status {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def imports(*, rounds: int) -> list[Line]:
    """What the import costs, beside what it is made of."""
    taken: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for number in range(rounds + 1):
        for name, code in IMPORTS.items():
            used = cpu_of(code)
            if number:  # the first round may have compiled
                taken[name].append(used)
    nothing, parts, used, ours = (statistics.median(taken[name]) for name in IMPORTS)
    lines = []
    for base, what in (
        (parts, "anyio, httpx and msgspec together"),
        (used, "the same with what a program uses of anyio"),
    ):
        title = (
            f"CPU of import ollama_sc ({(ours - nothing) * 1000:.0f} ms), beside {what}"
            f" ({(base - nothing) * 1000:.0f} ms)"
        )
        lines.append(Line(title, (ours - nothing) / (base - nothing), "times"))
    return lines


if __name__ == "__main__":
    worker()
