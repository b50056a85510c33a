"""The pieces of work that contenders do: first what people have every day, last what is only fast."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, Self

# So many streams are opened at the same time: a listening socket does not queue thousands.
OPENING = 16


@dataclass(frozen=True)
class Work:
    """A fixed amount of work, done with a fixed number of requests in flight.

    Attributes:
        title: what it is, for readers.
        unit: what the figures are given for.
        kind: what each operation is.

            - stream: a chat stream, read to its end;
            - tokens: the same, all of them at the same time, counted from when each of them has its
              first part;
            - opening: the same, counted until each of them has its first part;
            - cancel: a chat stream that is cancelled after a random time;
            - embed: an embedding request;
            - job: a part of a whole embedding job by `embed_many`.
        model: what the server does, see `server`.
        operations: how many streams or requests.
        in_flight: how many at the same time.
        warm_up: how many operations come before the clock starts.
        units: how many parts a stream has.
        texts: how many texts a request carries.
        seconds: how long the server's service time makes it take at least.
    """

    name: str
    title: str
    unit: Literal["part", "request", "stream", "attempt", "vector"]
    kind: Literal["stream", "tokens", "opening", "cancel", "embed", "job"]
    model: str
    operations: int
    in_flight: int
    warm_up: int
    units: int = 1
    texts: int = 1
    seconds: float | None = None

    @property
    def count(self) -> int:
        """How many units are measured."""
        if self.kind == "tokens":
            return self.operations * (self.units - 1)
        return self.operations * (1 if self.kind == "opening" else self.units)

    @property
    def expected(self) -> int:
        """How many parts or vectors all operations bring."""
        if self.kind == "cancel":
            return self.operations
        return self.operations * (self.units if self.streams else self.texts)

    @property
    def streams(self) -> int:
        """How many streams are open at the same time; 0 where there are none."""
        if self.kind in {"tokens", "opening"}:
            return self.operations
        return self.in_flight if self.kind in {"stream", "cancel"} else 0

    @property
    def asked_model(self) -> str:
        """What the server is asked for: it waits until all streams are there."""
        return self.model.replace("gate-", f"gate-{self.operations}-")

    @property
    def warm_up_model(self) -> str:
        return "stream-500-0" if self.streams else "warm-up"

    def to_json(self) -> str:
        """For the process that does it."""
        told = {name: getattr(self, name) for name in ("expected", "asked_model", "warm_up_model")}
        return json.dumps(asdict(self) | told | {"opening": OPENING})

    @classmethod
    def from_json(cls, text: str) -> Self:
        told = json.loads(text)
        return cls(**{field.name: told[field.name] for field in fields(cls)})

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


def _tokens(streams: int, milliseconds: int, tokens: int) -> Work:
    many = "1 stream" if streams == 1 else f"{streams:,} streams"
    each = f"{1000 // milliseconds} tokens a second" + (" in each" if streams > 1 else "")
    return Work(
        name=f"tokens-{streams}",
        title=f"a token at a time: {many}, {each}",
        unit="part",
        kind="tokens",
        model=f"gate-{tokens}-{milliseconds}",
        operations=streams,
        in_flight=streams,
        warm_up=5,
        units=tokens + 1,
    )


def _embed(texts: int, in_flight: int, operations: int) -> Work:
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
    )


OPEN = Work(
    name="opening",
    title="opening a stream on a new connection, until its first part",
    unit="stream",
    kind="opening",
    model="gate-2-1",
    operations=400,
    in_flight=OPENING,
    warm_up=20,
    units=3,
)
CANCEL = Work(
    name="cancel",
    title="cancel and go on: 30 tasks, 10 places, each stream cancelled within 30 ms",
    unit="attempt",
    kind="cancel",
    model="stream-1000-4",
    operations=1500,
    in_flight=30,
    warm_up=60,
)
BACK_TO_BACK = Work(
    name="stream",
    title="back to back: streams as fast as they can be read, one after another",
    unit="part",
    kind="stream",
    model="stream-3000-0",
    operations=40,
    in_flight=1,
    warm_up=10,
    units=3001,
)
EMBED = _embed(1, 16, operations=2000)
# A thousand streams at twenty tokens a second each would be more than any client here can read.
COMPARED = [
    _tokens(1, 10, tokens=200),
    _tokens(100, 50, tokens=40),
    _tokens(1000, 500, tokens=10),
    OPEN,
    EMBED,
    _embed(1, 1000, operations=2000),
    _embed(32, 16, operations=300),
    CANCEL,
    BACK_TO_BACK,
]


def _blocking(work: Work, name: str, title: str) -> Work:
    return replace(work, name=f"blocking-{name}", title=f"blocking: {title}")


# By blocking clients, one thread for each stream or request in flight.
BLOCKED = [
    _blocking(_tokens(1, 10, 200), "token", "a token at a time, 1 stream, 100 tokens a second"),
    _blocking(_tokens(50, 50, 40), "threads", "a token at a time, 50 threads, 20 tokens a second"),
    _blocking(_embed(1, 1, 1000), "embed", "embed 1 × 768, one request after another"),
    _blocking(BACK_TO_BACK, "stream", "back to back: streams as fast as they can be read"),
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
FEW_IN_FLIGHT = replace(EMBED, name="in-flight-10", in_flight=10, operations=4000, warm_up=50)
MANY_IN_FLIGHT = replace(FEW_IN_FLIGHT, name="in-flight-2000", in_flight=2000, warm_up=2000)
