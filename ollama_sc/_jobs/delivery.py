"""The bounded queue between a job and its consumer: batches, in order or as they complete.

`JobCall` is the job's call. Its task puts batches in and waits while the queue is full; the
consumer takes them out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import anyio
import msgspec
from anyio.lowlevel import checkpoint

from ollama_sc._calls.call import Call
from ollama_sc._loop.primitives import Runtime
from ollama_sc._timeouts import Timeouts

from .vectors import Vectors

# For each request that may be in flight, this many batches may be in flight or ready: with one more
# for each, a batch that takes longer does not block those behind it.
_BATCHES_PER_REQUEST = 2


class Batch(msgspec.Struct, frozen=True, eq=False, kw_only=True):
    """Some of a job's texts, and their vectors.

    Attributes:
        start: the index of the first text in the job, from zero.
        inputs: the texts.
        vectors: a row for each text: a ``float32`` array of n by d, or where numpy is not installed
            a list of ``array.array("f")``. The row of a text that failed is NaN.
        failures: with ``on_error="skip"``, the reasons of the texts that failed, by their index in
            the job.
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
    """The call of a job, and the queue of its batches.

    Attributes:
        model_ready: set when a model is ready, or the call has ended.
        dimensions: the length of vectors; zero where no model was ready.
        model: its name.
    """

    observed_as_one = True

    def __init__(self, runtime: Runtime, label: str, *, ordered: bool, model: str = "") -> None:
        super().__init__(runtime, label, Timeouts(connect=None))  # its requests have timeouts
        self.model = model
        self.model_ready = anyio.Event()
        self.dimensions = 0
        self._ordered = ordered
        self._ready: deque[Batch] = deque()
        self._out_of_order: dict[int, Batch] = {}  # complete before those in front of them
        self._next_number = 0  # the number of the batch to be ready next
        self._outstanding = 0  # batches that have started and that the consumer has not taken
        self._consuming = False
        self._not_empty: anyio.Event | None = None  # while the consumer waits
        self._not_full: anyio.Event | None = None  # while the job waits

    # -- the job's side ----------------------------------------------------------------------

    def set_model_ready(self, dimensions: int) -> None:
        """Set `model_ready`, and how long the vectors are."""
        self.dimensions = dimensions
        self.model_ready.set()

    async def wait_until_not_full(self, capacity: Callable[[], int]) -> bool:
        """Wait until one more batch may start; whether there was a wait.

        `capacity` gives the number of requests that may be in flight, which can change meanwhile.
        A cancelled wait changes nothing.
        """
        waited = False
        while self._outstanding >= _BATCHES_PER_REQUEST * capacity():
            waited = True
            self._not_full = anyio.Event()
            await self._not_full.wait()
        return waited

    def batch_started(self) -> None:
        """Count a batch that starts: it has its place in the queue from now on."""
        self._outstanding += 1

    def deliver(self, number: int, batch: Batch) -> None:
        """Put a complete batch in; in order, it is ready once those in front of it are.

        There are three cases. The call was aborted: the batch is discarded, even if the job has not
        noticed yet. Batches are not ordered: it is ready. They are ordered: it is ready once those
        in front of it are, and then so are those behind it that are complete.
        """
        if self.aborted:
            return
        self._out_of_order[number] = batch
        if not self._ordered:
            self._ready.append(self._out_of_order.pop(number))
        while self._ordered and self._next_number in self._out_of_order:
            self._ready.append(self._out_of_order.pop(self._next_number))
            self._next_number += 1
        if self._ready:
            self._wake_consumer()

    # -- the consumer's side -----------------------------------------------------------------

    async def next_batch(self) -> Batch | None:
        """Wait for the next batch and take it; ``None`` at the end. Cancelling it loses none.

        Raises:
            anyio.BusyResourceError: another task is waiting here.
            Exception: what the job failed with, once the batches before that are taken.
        """
        if self._consuming:
            raise anyio.BusyResourceError("iterating over")
        self._consuming = True
        try:
            await checkpoint()
            while not self._ready and not self.ended.is_set():
                self._not_empty = anyio.Event()
                await self._not_empty.wait()
        finally:
            self._not_empty = None
            self._consuming = False
        if not self._ready:
            self.raise_error()
            return None
        self._outstanding -= 1
        if self._not_full is not None:
            self._not_full.set()
        return self._ready.popleft()

    def _notify_abort(self) -> None:
        self._ready.clear()
        self._out_of_order.clear()
        self._wake_consumer()

    def _notify_end(self) -> None:
        self._out_of_order.clear()
        self.model_ready.set()
        self._wake_consumer()

    def _wake_consumer(self) -> None:
        if self._not_empty is not None:
            self._not_empty.set()


class LinkedCall(Call[None]):
    """A job's call at a further client: what ends this call ends the job."""

    observed_as_one = True

    def __init__(self, runtime: Runtime, job: JobCall) -> None:
        super().__init__(runtime, job.label, job.timeouts)
        self._job = job

    async def work(self) -> None:
        """Wait until the job has ended; the work of this call."""
        await self._job.ended.wait()

    def _notify_abort(self) -> None:
        self._job.abort(self._reason)

    def _notify_end(self) -> None:
        self._job.abort("one of its clients ended it")  # does nothing where the job has ended
