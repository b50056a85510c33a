"""What a job hands to its consumer: batches, in order or as they are done, and not too many.

`JobCall` is the job's call. Its task puts batches in; the consumer takes them out, and makes room
by that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from ollama_sc._calls import Call
from ollama_sc._groups import CallGroup
from ollama_sc._timeouts import Timeouts

from ._vectors import Vectors

# For each request that may be in flight, as many batches may be in flight or wait: with one more
# done than taken for each, a batch that takes longer does not hold up the ones behind it.
_WINDOW = 2


class Batch(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Some of a job's texts, and their vectors.

    Attributes:
        start: the place of the first text in the job, from zero.
        inputs: the texts.
        vectors: a row for each text: a ``float32`` array of n by d, or where numpy is not installed
            a list of ``array.array("f")``. The row of a text that failed is NaN.
        failures: with ``on_error="skip"``, why which texts failed, by their places in the job.
    """

    start: int
    inputs: list[str]
    vectors: Vectors
    failures: dict[int, str]

    def __len__(self) -> int:
        return len(self.inputs)

    def __repr__(self) -> str:
        stop = self.start + len(self)
        return f"<Batch of texts {self.start} to {stop - 1}, {len(self.failures)} failed>"


class JobCall(Call[None]):
    """The call of a job."""

    def __init__(self, group: CallGroup, label: str, *, ordered: bool) -> None:
        super().__init__(group, label, Timeouts(connect=None))  # its requests have limits
        self.opened = anyio.Event()  # a model is ready, or the call has ended
        self.dimensions = 0  # which of the two; and of what length vectors are
        self._ordered = ordered
        self._ready: deque[Batch] = deque()
        self._early: dict[int, Batch] = {}  # done before those in front of them
        self._next = 0  # the number of the batch that is to be ready next
        self._begun = 0  # batches that were started and that the consumer has not taken
        self._consuming = False
        self._news: anyio.Event | None = None  # the consumer waits for it
        self._room: anyio.Event | None = None  # the job waits for it

    # -- the job's side ----------------------------------------------------------------------

    def open(self, dimensions: int) -> None:
        """A model is ready."""
        self.dimensions = dimensions
        self.opened.set()

    async def wait_for_room(self, in_flight: Callable[[], int]) -> bool:
        """Wait until the consumer has taken so much that one more batch may begin; if it must."""
        waited = False
        while self._begun >= _WINDOW * in_flight():
            waited = True
            self._room = anyio.Event()
            await self._room.wait()
        return waited

    def begin(self) -> None:
        """A batch begins."""
        self._begun += 1

    def deliver(self, number: int, batch: Batch) -> None:
        """A batch is done."""
        if self.aborted:  # an abort discards, also what comes before it is noticed
            return
        self._early[number] = batch
        if not self._ordered:
            self._ready.append(self._early.pop(number))
        while self._ordered and self._next in self._early:
            self._ready.append(self._early.pop(self._next))
            self._next += 1
        if self._ready:
            self._wake()

    # -- the consumer's side -----------------------------------------------------------------

    async def next_batch(self) -> Batch | None:
        """The next batch; none at the end. A consumer that is cancelled loses none."""
        if self._consuming:
            raise anyio.BusyResourceError("iterating over")
        self._consuming = True
        try:
            await checkpoint()
            while not self._ready and not self.ended.is_set():
                self._news = anyio.Event()
                await self._news.wait()
        finally:
            self._news = None
            self._consuming = False
        if not self._ready:
            self.raise_error()
            return None
        self._begun -= 1
        if self._room is not None:
            self._room.set()
        return self._ready.popleft()

    def _on_abort(self) -> None:
        self._ready.clear()
        self._early.clear()
        self._wake()

    def _on_end(self) -> None:
        self._early.clear()
        self.opened.set()
        self._wake()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()


class Companion(Call[None]):
    """A job's presence at a further client: what ends it there ends the job."""

    def __init__(self, group: CallGroup, job: JobCall) -> None:
        super().__init__(group, job.label, job.timeouts)
        self._job = job

    async def work(self) -> None:
        """Be there as long as the job is."""
        await self._job.ended.wait()

    def _on_abort(self) -> None:
        self._job.abort(self._reason)

    def _on_end(self) -> None:
        self._job.abort("one of its clients ended it")  # nothing, where the job has ended
