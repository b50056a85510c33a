"""The work of a job: reads batches, sends them, isolates texts that fail; all below one task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import ExitStack
from functools import partial

import anyio
from anyio.abc import TaskGroup

from ollama_sc._errors import (
    AbortError,
    ConnectError,
    EmbedError,
    ProtocolError,
    ResponseError,
)

from . import retries
from .batcher import Batcher, TextBatch
from .delivery import Batch, JobCall
from .endpoints import VectorBytes
from .partial_batch import PartialBatch
from .progress import Meter
from .retries import SERVER_ERROR, RetryingCaller, RetryPolicy, is_transient
from .served_model import CHECK_SECONDS
from .servers import PROBE, Server, Servers, Slot
from .settings import JobSettings
from .vectors import nan_row, not_finite, to_vectors

# The statuses of requests that may have failed for one of their texts; 413 is a proxy's, for size,
# and 422 is what servers that only resemble Ollama say of a text that they do not take.
_REFUSAL_STATUSES = {400, 413, 422, SERVER_ERROR}
# Connection errors before any server has answered: rather a wrong address than a restart.
_FIRST_CONNECT_ATTEMPTS = 3
# How often a server that answered is asked again, where it refuses a text that it has embedded: a
# runner that has crashed starts again within seconds.
_PROBE_RETRIES = 5
# How often a text that a runner's crash may have struck is asked for alone at most, before it is
# blamed: a runner can also fail by itself, for longer than a retry waits.
_TRIALS = 3
_NOT_FINITE = "its vector is not finite"
_NO_VECTOR = "the server gives no vector for it"


class Job:
    """The work of one job.

    Args:
        call: the job's call, which delivers the batches.
        servers: where requests are sent.
        batcher: reads the texts; closed in the end.
        settings: of the job.
        meter: counts the batches that are done.
    """

    def __init__(
        self, call: JobCall, servers: Servers, batcher: Batcher, settings: JobSettings, meter: Meter
    ) -> None:
        self._call = call
        self._servers = servers
        self._batcher = batcher
        self._settings = settings
        self._meter = meter
        self._retry = RetryingCaller(settings.attempts, settings.retry_timeout, self._on_retry)
        self._started_batches = self._done_batches = 0
        self._all_read = False
        self._failure: Exception | None = None
        self._failed_servers: set[Server] = set()  # whose retries have failed
        self._scope: anyio.CancelScope | None = None

    @property
    def max_in_flight(self) -> tuple[int, ...]:
        """The requests in flight that each server may have now."""
        return tuple(server.max_in_flight for server in self._servers.all)

    async def work(self) -> None:
        """Run the job until all batches are delivered; the work of the job's call.

        Cancelling it cancels all of its tasks and closes the texts.

        Raises:
            AbortError: a task was cancelled by other means than this job's.
            Exception: the first error of any of its tasks.
        """
        try:
            async with anyio.create_task_group() as monitors:
                self._scope = monitors.cancel_scope
                for server in self._servers.all:
                    monitors.start_soon(self._fail_job_on_error, partial(self._monitor, server))
                async with anyio.create_task_group() as batch_tasks:
                    await self._fail_job_on_error(partial(self._start_batches, batch_tasks))
                label = self._call.label
                await self._fail_job_on_error(partial(self._servers.check_models, label))
                monitors.cancel_scope.cancel()
        finally:
            await self._batcher.aclose()
        failure, self._failure = self._failure, None
        if failure is None and not (self._all_read and self._done_batches == self._started_batches):
            # Something else has cancelled a task: a missing batch must not go unnoticed.
            failure = AbortError("a task of the job was cancelled", request=self._call.label)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    def _on_retry(self) -> None:
        if self._call.observer is not None:
            self._call.observer.retried()

    async def _fail_job_on_error(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run a task of the job. Its error cancels the job, and is the job's if it is the first."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the consumer gets it
            if self._failure is None:
                self._failure = error
            assert self._scope is not None
            self._scope.cancel()

    def __repr__(self) -> str:
        batches = f"{self._done_batches} of {self._started_batches} started batches done"
        return f"<Job {self._call.label}: {batches}, {self._servers!r}>"

    # -- servers -----------------------------------------------------------------------------

    async def _monitor(self, server: Server) -> None:
        """Keep a server available while it answers, and warm it up again when it does not.

        A warm-up, its retries included, can end in four ways:

        * With a vector as long as those of the job, or the first one of all: the server is
          available until a request marks it unavailable. Then it is warmed up again, after its
          back-off.
        * With a vector of another length, or another model: the job fails.
        * With a transient error, before all servers have failed: it is warmed up again later.
        * With any other error: the job fails.
        """
        warm_up = partial(self._servers.warm_up, server)
        while True:
            policy = RetryPolicy(
                timeout=self._settings.retry_timeout,
                refusal_retries=_PROBE_RETRIES,
                connect_attempts=lambda: (
                    float("inf") if self._servers.any_answered else _FIRST_CONNECT_ATTEMPTS
                ),
            )
            try:
                dimensions = await self._retry(warm_up, policy)
            except Exception as error:
                self._servers.annotate(server, error)
                self._failed_servers.add(server)
                if not is_transient(error) or len(self._failed_servers) == len(self._servers.all):
                    raise
                await anyio.sleep(retries.WAIT_MAX)
                continue
            self._failed_servers.discard(server)
            await self._check_model(server)
            # No await from here until the model is ready: another server may be as far as this one.
            if self._model_is_ready and dimensions != self._call.dimensions:
                mismatch = ProtocolError(
                    f"a server's vectors have {dimensions} dimensions, "
                    f"those of another one {self._call.dimensions}",
                    request=self._call.label,
                )
                self._servers.annotate(server, mismatch)
                raise mismatch
            self._meter.start()
            self._call.set_model_ready(dimensions)
            self._servers.mark_available(server)
            while not server.unavailable.is_set():
                with anyio.move_on_after(CHECK_SECONDS):
                    await server.unavailable.wait()
                    break
                await self._check_model(server)
            await self._back_off(server)

    async def _check_model(self, server: Server) -> None:
        try:
            await self._servers.check_model(server, self._call.label)
        except ProtocolError as error:
            self._servers.annotate(server, error)
            raise

    async def _back_off(self, server: Server) -> None:
        """Wait as long as a busy server asks for; it counts as failed if that is too long."""
        remaining = server.backoff_until - anyio.current_time()
        timeout = self._settings.retry_timeout
        if timeout is not None and remaining > timeout:
            self._failed_servers.add(server)
        await anyio.sleep(max(0.0, remaining))

    @property
    def _model_is_ready(self) -> bool:
        return bool(self._call.dimensions)

    # -- batches -----------------------------------------------------------------------------

    async def _start_batches(self, batch_tasks: TaskGroup) -> None:
        """Read the batches, and start a task for each when the queue has room and a slot is free.

        A batch is read before that, so memory holds one more than the queue may.
        """
        await self._call.model_ready.wait()
        while (batch := await self._batcher.next_batch()) is not None:
            if await self._call.wait_until_not_full(lambda: self._servers.capacity):
                self._servers.restart_tuners()
            slot = await self._servers.acquire()
            self._started_batches += 1
            self._call.batch_started()
            batch_tasks.start_soon(self._fail_job_on_error, partial(self._embed_batch, batch, slot))
        self._all_read = True

    async def _embed_batch(self, batch: TextBatch, slot: Slot) -> None:
        """Embed one batch and deliver it; the function of its task. Releases the slot.

        A server may answer with vectors that are not finite, or with none. The texts are to blame
        for that only if all servers that were tried give a vector for another text, and if it
        happens again after that.
        """
        partial_batch = PartialBatch(batch)
        await self._fill_rows(partial_batch, range(len(batch.texts)), slot)
        vectors, bad = partial_batch.vectors(self._call.dimensions)
        if bad:
            for server in dict.fromkeys(partial_batch.servers_tried):
                await self._probe(server)
            await self._fill_rows(partial_batch, bad)
            _, bad = partial_batch.vectors(self._call.dimensions)
            for position in bad:
                reason = _NOT_FINITE if partial_batch.rows[position] else _NO_VECTOR
                self._fail_text(partial_batch, position, reason)
            vectors, _ = partial_batch.vectors(self._call.dimensions)
        failures = partial_batch.failures
        self._call.deliver(
            batch.number,
            Batch(start=batch.start, inputs=batch.texts, vectors=vectors, failures=failures),
        )
        self._done_batches += 1
        self._meter.add(len(batch.texts), len(failures))
        if self._call.observer is not None:
            self._call.observer.batch_done(len(batch.texts), len(failures))
        if self._settings.on_progress is not None:
            self._settings.on_progress(self._meter.snapshot())

    async def _fill_rows(
        self, partial_batch: PartialBatch, positions: Sequence[int], slot: Slot | None = None
    ) -> None:
        """Embed the texts at some positions: in one request, or in halves where it is refused.

        There are five cases:

        * The request succeeds: its vectors are filled in.
        * A text cannot be encoded: that text fails, and the others are sent without it.
        * The server refuses a single text: the text fails, if the server still embeds another one,
          and then refuses this one again.
        * The server refuses several texts: their halves are sent, one after the other.
        * Any other error fails the job.

        A 500 is retried once for a whole batch and for a single text, but not for the halves.
        """
        single = len(positions) == 1
        texts = [partial_batch.batch.texts[position] for position in positions]
        policy = self._policy(refusal_retries=1 if single or slot is not None else 0)
        try:
            rows = await self._embed_texts(texts, policy, partial_batch.servers_tried, slot)
        except UnicodeEncodeError:
            await self._fill_encodable_rows(partial_batch, positions)
        except ResponseError as error:
            if error.status_code not in _REFUSAL_STATUSES:
                raise
            if single:
                await self._fill_refused_row(partial_batch, positions[0])
                return
            middle = len(positions) // 2
            await self._fill_rows(partial_batch, positions[:middle])
            await self._fill_rows(partial_batch, positions[middle:])
        else:
            for position, row in zip(positions, rows, strict=True):
                partial_batch.rows[position] = row

    async def _fill_refused_row(self, partial_batch: PartialBatch, position: int) -> None:
        """Embed a text that was refused alone once more, after its server has proved to be well.

        Meanwhile the server has no other request of the job: one that takes the runner down takes
        those beside it with it, and this text is not to be blamed for another one. Where the server
        was not well right after a 500, it may be failing by itself, and the text is asked for once
        more.
        """
        server = partial_batch.servers_tried[-1]
        async with self._servers.keep_for_one(server):
            await self._probe(server, keeps=True)
            for trial in range(_TRIALS):
                try:
                    (partial_batch.rows[position],) = await self._embed_texts(
                        [partial_batch.batch.texts[position]],
                        self._policy(refusal_retries=1),
                        partial_batch.servers_tried,
                        preferred=server,
                        keeps=True,
                    )
                except ResponseError as error:
                    if error.status_code not in _REFUSAL_STATUSES:
                        raise
                    is_last = trial == _TRIALS - 1 or error.status_code != SERVER_ERROR
                    if is_last or await self._probe(server, keeps=True) == 1:
                        self._fail_text(partial_batch, position, _reason(error), error)
                        return
                else:
                    return

    async def _fill_encodable_rows(
        self, partial_batch: PartialBatch, positions: Sequence[int]
    ) -> None:
        """The same, without the texts that UTF-8 cannot encode: those with lone surrogates."""
        encodable: list[int] = []
        for position in positions:
            try:
                partial_batch.batch.texts[position].encode()
            except UnicodeEncodeError as error:
                self._fail_text(partial_batch, position, f"it is not Unicode: {error}", error)
            else:
                encodable.append(position)
        if encodable:
            await self._fill_rows(partial_batch, encodable)

    def _fail_text(
        self,
        partial_batch: PartialBatch,
        position: int,
        reason: str,
        cause: Exception | None = None,
    ) -> None:
        """Record that a text cannot be embedded; its vector becomes NaNs.

        Raises:
            EmbedError: the job has ``on_error="raise"``.
        """
        index = partial_batch.batch.start + position
        if self._settings.on_error == "raise":
            raise EmbedError(
                f"text {index} cannot be embedded: {reason}",
                index=index,
                reason=reason,
                request=self._call.label,
            ) from cause
        partial_batch.rows[position] = nan_row(self._call.dimensions)
        partial_batch.failures[index] = reason

    async def _probe(self, server: Server, *, keeps: bool = False) -> int:
        """Send a server the text of the warm-up; if that fails too, its error is the job's.

        A text is to blame for an error only while the server embeds that one. Returns how many
        attempts that took.
        """
        servers_tried: list[Server] = []
        policy = self._policy(refusals=_REFUSAL_STATUSES, refusal_retries=_PROBE_RETRIES)
        (row,) = await self._embed_texts(
            [PROBE], policy, servers_tried, preferred=server, keeps=keeps
        )
        if not row or not_finite(to_vectors([row], self._call.dimensions)):
            raise ProtocolError("the vectors are not finite", request=self._call.label)
        return len(servers_tried)

    def _policy(
        self, *, refusal_retries: int, refusals: Collection[int] = (SERVER_ERROR,)
    ) -> RetryPolicy:
        return RetryPolicy(
            timeout=self._settings.retry_timeout,
            refusals=refusals,
            refusal_retries=refusal_retries,
        )

    async def _embed_texts(
        self,
        texts: list[str],
        policy: RetryPolicy,
        servers_tried: list[Server],
        slot: Slot | None = None,
        *,
        preferred: Server | None = None,
        keeps: bool = False,
    ) -> list[VectorBytes]:
        """The vectors of some texts, from one request that is retried.

        Args:
            texts: of the request.
            policy: decides about retries.
            servers_tried: gets the server of each attempt.
            slot: for the first attempt; each further one acquires its own, and so does the first
                where it is ``None``. Each is released after its attempt.
            preferred: the server to take while it is available.
            keeps: whether that one is kept for these texts.

        Raises:
            UnicodeEncodeError: a text cannot be encoded in UTF-8.
            OllamaError: what the last attempt failed with.
        """
        failed_server: Server | None = None

        async def attempt() -> list[VectorBytes]:
            nonlocal slot, failed_server
            is_first = slot is not None
            used, slot = (
                slot
                or await self._servers.acquire(priority=True, preferred=preferred, keeps=keeps),
                None,
            )
            servers_tried.append(used.server)
            measured = False
            try:
                rows = await used.server.embed(texts, self._call.dimensions)
                measured = is_first
            except Exception as error:
                failed_server = used.server
                self._servers.annotate(used.server, error)
                if is_transient(error):
                    if isinstance(error, ResponseError) and len(self._servers.all) == 1:
                        # Or those that begin take each place that it has, and some of those that it
                        # has turned away never get one.
                        held.enter_context(self._servers.hold_new_batches())
                    self._servers.mark_unavailable(
                        used.server,
                        error,
                        # A slow or busy server is only passed over where there is another one.
                        only_if_others=not isinstance(error, ConnectError),
                    )
                raise
            else:
                return rows
            finally:
                self._servers.release(used, measured=measured)

        policy.has_other = lambda: self._servers.any_available(other_than=failed_server)
        with ExitStack() as held:
            return await self._retry(attempt, policy)


def _reason(error: ResponseError) -> str:
    """What the server said, without the request."""
    return str(error.args[0])
