"""The batches of a job, for a thread that waits for them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from ollama_sc._calls.call import abort_unclosed
from ollama_sc._errors import AbortError, ClientClosedError, RequestError
from ollama_sc._worker.thread import Worker

if TYPE_CHECKING:
    from ollama_sc._jobs.batches import Batches as AsyncBatches
    from ollama_sc._jobs.delivery import Batch
    from ollama_sc._jobs.progress import Progress

_NOT_ENTERED = "a job is used inside of `with client.embed_many(...)`"


class Batches:
    """The batches of a job: a context manager, and inside of it an iterator.

    ::

        with client.embed_many("nomic-embed-text", texts) as batches:
            for batch in batches:
                index.add(batch.start, batch.vectors)

    Entering starts the job and returns when the model is loaded; it raises what is wrong with the
    model or the server. The job runs in the background from then on, as far ahead of its consumer
    as `max_in_flight` allows. Leaving the block ends it: when that returns, nothing of it is
    running, and a generator that the texts came from is closed.

    Iterating raises, after the batches that were ready before:

    * `EmbedError`, where a text cannot be embedded (with ``on_error="raise"``);
    * `RequestError`, where something among the texts is no text;
    * what the texts or `on_progress` raise, as it is;
    * `AbortError` after an abort of its client, which discards the batches that are ready;
    * `ConnectError`, `RequestTimeout`, `RateLimitError`, `ServerBusyError`, where retries have not
      helped; other errors as every call raises them.

    An exception that interrupts the wait for a batch, such as KeyboardInterrupt, ends the job and
    then leaves as itself. One thread at a time can iterate; a second one gets a `RequestError`. A
    job is entered once. One that is garbage-collected before it was closed is aborted, with a
    `ResourceWarning`.
    """

    __slots__ = ("_job", "_open", "_owner", "_waiting", "_worker")

    def __init__(self, job: AsyncBatches, open: Callable[[], Worker], owner: object) -> None:
        self._job = job
        self._open = open
        self._owner = owner  # which would close its requests if it were collected
        self._worker: Worker | None = None
        self._waiting: dict[None, object] = {}  # the wait for a batch

    def __enter__(self) -> Self:
        worker = self._open()
        self._worker = worker
        worker.call(self._job.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        worker = self._entered()
        mine = object()
        if self._waiting.setdefault(None, mine) is not mine:
            raise RequestError("another thread is iterating over this job: one can at a time")
        try:
            batch: Batch | None = worker.call(partial(anext, self._job, None))
        except Exception:
            raise
        except BaseException:
            self.close()
            raise
        finally:
            self._waiting.clear()
        if batch is None:
            raise StopIteration
        return batch

    @property
    def dimensions(self) -> int:
        """How long the vectors are."""
        self._entered()
        return self._job.dimensions

    @property
    def progress(self) -> Progress:
        """How far the job is: the texts done, the rate, the time left."""
        worker, job = self._entered(), self._job
        found = worker.call_now(lambda: job.progress, None)
        return job.progress if found is None else found

    @property
    def max_in_flight(self) -> tuple[int, ...]:
        """The requests in flight that each server may have now; ``"auto"`` changes that."""
        self._entered()
        return self._job.max_in_flight

    def abort(self, reason: object = None) -> bool:
        """End the job now, whatever it is doing, and discard the batches that are ready.

        Any thread can call it, and a signal handler. The consumer gets `AbortError`. Returns
        whether there was anything to end: a job whose last vector has arrived is complete, and its
        batches are still delivered.
        """
        return self._entered().call_now(partial(self._job.abort, reason), otherwise=False)

    def close(self) -> None:
        """End the job, and wait until nothing of it is running.

        Iterating afterwards raises `AbortError`, unless all vectors had arrived.
        """
        worker = self._entered()
        if worker.ended:
            return
        if worker.is_current:  # which cannot wait for itself
            self._job.abort("the job was left")
            return
        with suppress(ClientClosedError, AbortError):  # then its client was closed
            worker.call(self._job.aclose)

    def _entered(self) -> Worker:
        if self._worker is None:
            raise RequestError(_NOT_ENTERED)
        return self._worker

    def __repr__(self) -> str:
        return repr(self._job)

    def __del__(self) -> None:
        worker: Worker | None = getattr(self, "_worker", None)
        if worker is None:
            return
        try:
            if not worker.ended:
                abort_unclosed(self, self._job._call, "job", "with")
        finally:
            self._job._call = None  # its own handle goes next, and has nothing to add
