"""The consumer's handle on a job."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from ollama_sc._api.base import BaseClient
from ollama_sc._calls.call import abort_unclosed
from ollama_sc._calls.group import CallGroup
from ollama_sc._calls.outcome import JOB_LEFT
from ollama_sc._errors import RequestError
from ollama_sc._loop.shielding import aclose_on_exit

from .delivery import Batch, JobCall, LinkedCall
from .job import Job
from .progress import Meter, Progress


class Batches:
    """The batches of a job: an async context manager, and inside of it an async iterator.

    ::

        async with client.embed_many("nomic-embed-text", texts) as batches:
            async for batch in batches:
                index.add(batch.start, batch.vectors)

    Entering starts the job and returns when the model is loaded; it raises what is wrong with the
    model or the server. The job runs in the background from then on, as far ahead of its consumer
    as `max_in_flight` allows. Leaving the block ends it: when that returns, none of its tasks is
    running, and a generator that the texts came from is closed.

    Iterating raises, after the batches that were ready before:

    * `EmbedError`, where a text cannot be embedded (with ``on_error="raise"``);
    * `RequestError`, where something among the texts is no text;
    * what the texts or `on_progress` raise, as it is;
    * `AbortError` after an abort of any of its clients, which discards the batches that are ready;
    * `ProtocolError`, where a server's model was replaced meanwhile, or its replies are no vectors;
    * `ConnectError`, `RequestTimeout`, `RateLimitError`, `ServerBusyError`, where retries have not
      helped; other errors as every call raises them.

    A cancelled iteration loses no batch, and the job goes on. One task at a time can iterate; a
    second gets `anyio.BusyResourceError`. A job is entered once. One that is garbage-collected
    before it was closed is aborted, with a `ResourceWarning`.
    """

    __slots__ = ("_call", "_clients", "_job", "_linked_calls", "_make_call", "_meter")

    def __init__(
        self,
        clients: Sequence[BaseClient],
        meter: Meter,
        make_call: Callable[[CallGroup], tuple[JobCall, Job]],
    ) -> None:
        self._clients = clients
        self._meter = meter
        self._make_call = make_call
        self._call: JobCall | None = None
        self._job: Job | None = None
        self._linked_calls: list[LinkedCall] = []

    async def __aenter__(self) -> Self:
        if self._call is not None:
            raise RequestError("a job can be entered only once: call embed_many again")
        groups = [client._calls for client in self._clients]
        call, job = self._make_call(groups[0])
        groups[0].start_operation(call, job.work, subject=call.model)
        self._call, self._job = call, job
        try:
            for group in groups[1:]:
                linked = LinkedCall(group.runtime, call)
                group.start_operation(linked, linked.work)
                self._linked_calls.append(linked)
            call.links = self._linked_calls
            await call.wait(call.model_ready)
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
        await aclose_on_exit(self.aclose, exc)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch:
        try:
            batch = await self._entered_call().next_batch()
        except Exception:
            raise
        except BaseException:
            self._entered_call().interrupted = True
            raise
        if batch is None:
            raise StopAsyncIteration
        return batch

    @property
    def dimensions(self) -> int:
        """How long the vectors are."""
        return self._entered_call().dimensions

    @property
    def progress(self) -> Progress:
        """How far the job is: the texts done, the rate, the time left."""
        self._entered_call()
        return self._meter.snapshot()

    @property
    def max_in_flight(self) -> tuple[int, ...]:
        """The requests in flight that each server may have now; ``"auto"`` changes that."""
        self._entered_call()
        return () if self._job is None else self._job.max_in_flight

    def abort(self, reason: object = None) -> bool:
        """End the job now, whatever it is doing, and discard the batches that are ready.

        The consumer gets `AbortError`. Returns whether there was anything to end: a job whose last
        vector has arrived is complete, and its batches are still delivered.
        """
        return self._entered_call().abort(reason)

    async def aclose(self) -> None:
        """End the job, and wait until none of its tasks is running.

        Iterating afterwards raises `AbortError`, unless all vectors had arrived. The wait is
        shielded: a cancelled `aclose` still ends the job before it raises the cancellation.
        """
        self._entered_call().abort(JOB_LEFT)
        await self._end()

    async def _end(self) -> None:
        call = self._entered_call()
        call.abort("the job could not be started")  # does nothing where it has ended
        await call.wait_ended()
        for linked in self._linked_calls:
            await linked.wait_ended()

    def _entered_call(self) -> JobCall:
        if self._call is None:
            raise RequestError("a job is used inside of `async with client.embed_many(...)`")
        return self._call

    def __repr__(self) -> str:
        call = self._call
        if call is None:
            return "<Batches of a job that was not entered>"
        return f"<Batches: {call.label}, {'ended' if call.ended.is_set() else 'running'}>"

    def __del__(self) -> None:
        abort_unclosed(self, getattr(self, "_call", None), "job")
