"""The pieces of work that contenders do, and how far we want to be ahead in each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Literal, Self


@dataclass(frozen=True)
class Work:
    """A fixed amount of work, done with a fixed number of requests in flight.

    Attributes:
        title: what it is, for readers.
        unit: what the figures are given for.
        kind: one chat stream for each operation, one embedding request for each, or a whole
            embedding job by `embed_many`.
        model: what the server does, see `server`.
        operations: how many streams or requests.
        in_flight: how many at the same time.
        warm_up: how many operations come before the clock starts.
        units: how many chunks an operation of a stream has.
        texts: how many texts a request carries.
        less_than_python: the factor we want to ollama-python.
        of_aiohttp: the share of aiohttp + msgspec that we want at most, on trio and on asyncio.
        seconds: how long the server's service time makes it take at least.
    """

    name: str
    title: str
    unit: Literal["chunk", "request", "vector"]
    kind: Literal["stream", "embed", "job"]
    model: str
    operations: int
    in_flight: int
    warm_up: int
    units: int = 1
    texts: int = 1
    less_than_python: float | None = None
    of_aiohttp: tuple[float, float] | None = None
    seconds: float | None = None

    @property
    def count(self) -> int:
        """How many units the work has."""
        return self.operations * self.units

    @property
    def warm_up_model(self) -> str:
        return "stream-500-0" if self.kind == "stream" else "warm-up"

    def to_json(self) -> str:
        """For the process that does it."""
        return json.dumps(asdict(self) | {"warm_up_model": self.warm_up_model})

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        del fields["warm_up_model"]
        return cls(**fields)

    def sized(self, *, hurry: bool) -> Work:
        """The same, or a small part of it that shows that all works."""
        if not hurry:
            return self
        operations = max(self.operations // 10, min(self.operations, self.in_flight))
        seconds = self.seconds and self.seconds * operations / self.operations
        return replace(
            self,
            operations=operations,
            warm_up=max(1, self.warm_up // 10),
            seconds=seconds,
        )


def _paced(
    streams: int, milliseconds: int, tokens: int, less: float, trio: float, asyncio: float
) -> Work:
    return Work(
        name=f"streams-{streams}",
        title=f"{streams:,} streams, a chunk every {milliseconds} ms in each",
        unit="chunk",
        kind="stream",
        model=f"stream-{tokens}-{milliseconds}",
        operations=streams,
        in_flight=streams,
        warm_up=5,
        units=tokens + 1,
        less_than_python=less,
        of_aiohttp=(trio, asyncio),
    )


def _embed(texts: int, in_flight: int, operations: int, less: float, of_aiohttp: float) -> Work:
    return Work(
        name=f"embed-{texts}-{in_flight}",
        title=f"embed {texts} × 768, {in_flight:,} requests in flight",
        unit="request",
        kind="embed",
        model="nomic-embed-text",
        operations=operations,
        in_flight=in_flight,
        warm_up=max(in_flight, 50),
        texts=texts,
        less_than_python=less,
        of_aiohttp=(of_aiohttp, of_aiohttp),
    )


COMPARED = [
    Work(
        name="stream",
        title="streams back to back, one after another",
        unit="chunk",
        kind="stream",
        model="stream-3000-0",
        operations=40,
        in_flight=1,
        warm_up=10,
        units=3001,
        less_than_python=12,
        of_aiohttp=(0.8, 0.8),
    ),
    _paced(100, 50, tokens=80, less=2.5, trio=1.1, asyncio=1.3),
    _paced(1000, 500, tokens=20, less=10, trio=1.2, asyncio=1.2),
    _embed(1, 16, operations=2000, less=9, of_aiohttp=0.85),
    _embed(1, 1000, operations=2000, less=9, of_aiohttp=1.1),
    _embed(32, 16, operations=300, less=3.5, of_aiohttp=1.0),
]

# What it costs to have many texts embedded, in batches or not, eight requests in flight.
JOB_SINGLE = Work(
    name="job-single",
    title="a request for each text",
    unit="vector",
    kind="embed",
    model="nomic-embed-text",
    operations=2048,
    in_flight=8,
    warm_up=50,
)
JOB_BATCHES = Work(
    name="job-batches",
    title="batches of 64 by hand",
    unit="vector",
    kind="embed",
    model="nomic-embed-text",
    operations=96,
    in_flight=8,
    warm_up=8,
    units=64,
    texts=64,
)
JOB_MANY = replace(JOB_BATCHES, name="job-many", title="embed_many", kind="job")

# The same on a server that takes 100 ms for each batch and does eight at a time; long enough that the
# one request by which embed_many warms a model up is less than a hundredth.
_SERVED_BATCHES = 800
SERVED_BATCHES, SERVED_MANY = (
    replace(
        work,
        name=work.name.replace("job", "served"),
        model="served-100-8",
        operations=_SERVED_BATCHES,
        seconds=_SERVED_BATCHES / 8 * 0.1,
    )
    for work in (JOB_BATCHES, JOB_MANY)
)

# What a request costs when thousands are in flight beside it.
FEW_IN_FLIGHT = replace(COMPARED[3], name="in-flight-10", in_flight=10, operations=4000, warm_up=50)
MANY_IN_FLIGHT = replace(FEW_IN_FLIGHT, name="in-flight-2000", in_flight=2000, warm_up=2000)
