"""The consumer's handle on a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from ollama_sc._base import Calls
from ollama_sc._calls import CallGroup, drop
from ollama_sc._errors import RequestError
from ollama_sc._owner import leave

from ._delivery import Batch, Companion, JobCall
from ._job import Job
from ._progress import Meter, Progress


class Batches:
    """The batches of a job: an async context manager, and inside of it an async iterator.

    ::

        async with client.embed_many("nomic-embed-text", texts) as batches:
            async for batch in batches:
                index.add(batch.start, batch.vectors)

    Entering starts the job and returns when the model is loaded; it raises what is wrong with the
    model or the server. The job runs on its own from then on, as far ahead of its consumer as
    `max_in_flight` allows. Leaving ends it: when that returns, nothing of it is running, and an
    async generator that the texts came from is closed.

    Iterating raises, after the batches that were ready before:

    * `EmbedError`, where a text cannot be embedded (with ``on_error="raise"``);
    * `RequestError`, where something among the texts is no text;
    * what the texts or `on_progress` raise, as it is;
    * `AbortError` after an abort of any of its clients, which discards the batches that wait;
    * `ConnectError`, `RequestTimeout`, `RateLimitError`, `ServerBusyError`, where trying again has
      not helped; other errors as every call raises them.

    A cancelled iteration loses no batch, and the job goes on. One task at a time can iterate; a
    second gets `anyio.BusyResourceError`. A job is entered once. One that is dropped without being
    left is aborted, with a `ResourceWarning`.
    """

    __slots__ = ("_call", "_clients", "_companions", "_job", "_make", "_meter")

    def __init__(
        self,
        clients: Sequence[Calls],
        meter: Meter,
        make: Callable[[CallGroup], tuple[JobCall, Job]],
    ) -> None:
        self._clients = clients
        self._meter = meter
        self._make = make
        self._call: JobCall | None = None
        self._job: Job | None = None
        self._companions: list[Companion] = []

    async def __aenter__(self) -> Self:
        if self._call is not None:
            raise RequestError("a job can be entered only once: call embed_many again")
        groups = [client._calls for client in self._clients]
        call, job = self._make(groups[0])
        groups[0].start_operation(call, job.work)
        self._call, self._job = call, job
        try:
            for group in groups[1:]:
                companion = Companion(group, call)
                group.start_operation(companion, companion.work)
                self._companions.append(companion)
            await call.wait(call.opened)
        except BaseException:
            await self._end()
            raise
        if not call.dimensions:
            await self._end()
            call.raise_error()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await leave(self.aclose, exc)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        try:
            batch = await self._opened().next_batch()
        except Exception:
            raise
        except BaseException:
            self._opened().interrupted = True
            raise
        if batch is None:
            raise StopAsyncIteration
        return batch

    @property
    def dimensions(self) -> int:
        """How long the vectors are."""
        return self._opened().dimensions

    @property
    def progress(self) -> Progress:
        """How far the job is."""
        self._opened()
        return self._meter.now()

    @property
    def max_in_flight(self) -> tuple[int, ...]:
        """How many requests each server may have at this time; ``"auto"`` changes that."""
        self._opened()
        return () if self._job is None else self._job.limits

    def abort(self, reason: object = None) -> bool:
        """End the job now, wherever it is, and discard the batches that wait.

        Whoever iterates gets `AbortError`. Returns whether there was anything to end: a job whose
        last vector has arrived is finished, and its batches are still delivered.
        """
        return self._opened().abort(reason)

    async def aclose(self) -> None:
        """End the job, and wait until nothing of it is running.

        Iterating afterwards raises `AbortError`, unless all vectors had arrived. A cancelled
        `aclose` does its work all the same.
        """
        self._opened().abort("the job was left")
        await self._end()

    async def _end(self) -> None:
        call = self._opened()
        call.abort("the job could not be started")  # nothing, where it has ended
        await call.gone()
        for companion in self._companions:
            await companion.gone()

    def _opened(self) -> JobCall:
        if self._call is None:
            raise RequestError("a job is used inside of `async with client.embed_many(...)`")
        return self._call

    def __repr__(self) -> str:
        call = self._call
        if call is None:
            return "<Batches of a job that was not entered>"
        return f"<Batches: {call.label}, {'ended' if call.ended.is_set() else 'running'}>"

    def __del__(self) -> None:
        drop(self, getattr(self, "_call", None), "job")
