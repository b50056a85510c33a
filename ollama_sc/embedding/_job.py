"""The work of a job: reading, sending, isolating what fails; all of it below one task."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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

from . import _retries
from ._delivery import Batch, JobCall
from ._progress import Meter
from ._retries import Policy, Retries, can_pass
from ._servers import PROBE, Place, Server, Servers
from ._settings import Settings
from ._source import Chunk, Source
from ._vectors import nan_row, not_finite, vectors
from ._wire import Row

# What a server answers where one text spoils a request: 413 is a proxy's, for its length.
_REFUSALS = {400, 413, 500}
# Broken connections before the first answer of all: rather a wrong address than a restart.
_FIRST_ATTEMPTS = 3
_NOT_FINITE = "its vector is not finite"


class _Filling:
    """A batch that gets its vectors."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.rows: list[Row] = [b""] * len(chunk.texts)
        self.failures: dict[int, str] = {}  # by index
        self.asked: list[Server] = []  # for it, in turn


class Job:
    """The work of one job."""

    def __init__(
        self, call: JobCall, servers: Servers, source: Source, settings: Settings, meter: Meter
    ) -> None:
        self._call = call
        self._servers = servers
        self._source = source
        self._settings = settings
        self._meter = meter
        self._retries = Retries(settings.attempts, settings.retry_timeout)
        self._begun = self._done = 0  # batches
        self._read_all = False
        self._failure: Exception | None = None
        self._given_up: set[Server] = set()  # they have failed for longer than they may
        self._scope: anyio.CancelScope | None = None

    @property
    def limits(self) -> tuple[int, ...]:
        """How many requests each server may have."""
        return tuple(server.limit for server in self._servers.all)

    async def work(self) -> None:
        """All of it; the work of the job's call."""
        try:
            async with anyio.create_task_group() as keepers:
                self._scope = keepers.cancel_scope
                for server in self._servers.all:
                    keepers.start_soon(self._guarded, partial(self._keep, server))
                async with anyio.create_task_group() as batches:
                    await self._guarded(partial(self._read, batches))
                keepers.cancel_scope.cancel()
        finally:
            await self._source.close()
        failure, self._failure = self._failure, None
        if failure is None and not (self._read_all and self._done == self._begun):
            # A task ended that nobody here ended: no batch may be missing in silence.
            failure = AbortError("a task of the job was cancelled", request=self._call.label)
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Let the first failure be the job's, and the end of all of its tasks."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - the consumer gets it
            if self._failure is None:
                self._failure = error
            assert self._scope is not None
            self._scope.cancel()

    # -- servers -----------------------------------------------------------------------------

    async def _keep(self, server: Server) -> None:
        """See to it that requests go to a server while it answers, and only then."""
        warm_up = partial(self._servers.warm_up, server)
        while True:
            policy = Policy(
                timeout=self._settings.retry_timeout,
                again_on_500=True,
                connect_attempts=lambda: float("inf") if self._servers.known else _FIRST_ATTEMPTS,
            )
            try:
                dimensions = await self._retries(warm_up, policy)
            except Exception as error:
                self._servers.name(server, error)
                self._given_up.add(server)
                if not can_pass(error) or len(self._given_up) == len(self._servers.all):
                    raise
                await anyio.sleep(_retries.LONGEST_WAIT)
                continue
            self._given_up.discard(server)
            if self._began and dimensions != self._call.dimensions:
                other = ProtocolError(
                    f"a server's vectors have {dimensions} dimensions, "
                    f"those of another one {self._call.dimensions}",
                    request=self._call.label,
                )
                self._servers.name(server, other)
                raise other
            self._meter.start()
            self._call.open(dimensions)
            self._servers.welcome(server)
            await server.gone.wait()
            await self._leave_alone(server)

    async def _leave_alone(self, server: Server) -> None:
        """Give a server that is busy the time that it asks for."""
        rest = server.rest_until - anyio.current_time()
        timeout = self._settings.retry_timeout
        if timeout is not None and rest > timeout:
            self._given_up.add(server)
        await anyio.sleep(max(0.0, rest))

    @property
    def _began(self) -> bool:
        return bool(self._call.dimensions)

    # -- batches -----------------------------------------------------------------------------

    async def _read(self, batches: TaskGroup) -> None:
        """Start a task for each batch, while there is room and a place."""
        await self._call.opened.wait()
        while (chunk := await self._source.next()) is not None:
            if await self._call.wait_for_room(lambda: self._servers.capacity):
                self._servers.held_back()
            place = await self._servers.place()
            self._begun += 1
            self._call.begin()
            batches.start_soon(self._guarded, partial(self._embed, chunk, place))
        self._read_all = True

    async def _embed(self, chunk: Chunk, place: Place) -> None:
        """Be the task of one batch."""
        filling = _Filling(chunk)
        rows, failures = filling.rows, filling.failures
        dimensions = self._call.dimensions
        await self._fill(filling, range(len(rows)), place)
        found = vectors(rows, dimensions)
        odd = [number for number in not_finite(found) if chunk.start + number not in failures]
        if odd:
            for server in dict.fromkeys(filling.asked):
                await self._confirm(server)
            for number in odd:
                self._failed(filling, number, _NOT_FINITE)
            found = vectors(rows, dimensions)
        self._call.deliver(
            chunk.number,
            Batch(start=chunk.start, inputs=chunk.texts, vectors=found, failures=failures),
        )
        self._done += 1
        self._meter.add(len(rows), len(failures))
        if self._settings.on_progress is not None:
            self._settings.on_progress(self._meter.now())

    async def _fill(
        self, filling: _Filling, numbers: Sequence[int], place: Place | None = None
    ) -> None:
        """Fill in the rows with these numbers, in one request, or in halves where it is refused."""
        alone = len(numbers) == 1
        texts = [filling.chunk.texts[number] for number in numbers]
        again_on_500 = alone or place is not None
        try:
            found = await self._ask(texts, place, filling.asked, again_on_500=again_on_500)
        except UnicodeEncodeError:
            await self._fill_without_broken(filling, numbers)
        except ResponseError as error:
            if error.status_code not in _REFUSALS:
                raise
            if alone:
                await self._confirm(filling.asked[-1])
                self._failed(filling, numbers[0], _reason(error), error)
                return
            middle = len(numbers) // 2
            await self._fill(filling, numbers[:middle])
            await self._fill(filling, numbers[middle:])
        else:
            for number, row in zip(numbers, found, strict=True):
                filling.rows[number] = row

    async def _fill_without_broken(self, filling: _Filling, numbers: Sequence[int]) -> None:
        """The same, without the texts that cannot be sent: halves of surrogate pairs."""
        sound: list[int] = []
        for number in numbers:
            try:
                filling.chunk.texts[number].encode()
            except UnicodeEncodeError as error:
                self._failed(filling, number, f"it is not Unicode: {error}", error)
            else:
                sound.append(number)
        if sound:
            await self._fill(filling, sound)

    def _failed(
        self, filling: _Filling, number: int, reason: str, cause: Exception | None = None
    ) -> None:
        """One text cannot be embedded."""
        index = filling.chunk.start + number
        if self._settings.on_error == "raise":
            raise EmbedError(
                f"text {index} cannot be embedded: {reason}",
                index=index,
                reason=reason,
                request=self._call.label,
            ) from cause
        filling.rows[number] = nan_row(self._call.dimensions)
        filling.failures[index] = reason

    async def _confirm(self, server: Server) -> None:
        """Raise what the server has against every text, if it has something.

        Nothing is the fault of a text while the text fails there that the job began with.
        """
        rows = await self._ask([PROBE], None, [], at=server, again_on_500=True)
        if not_finite(vectors(rows, self._call.dimensions)):
            raise ProtocolError("the vectors are not finite", request=self._call.label)

    async def _ask(
        self,
        texts: list[str],
        place: Place | None,
        asked: list[Server],
        *,
        at: Server | None = None,
        again_on_500: bool,
    ) -> list[Row]:
        """The rows of some texts: the first time for this place, then for any that is free.

        `asked` gets each server that is asked, `at` is the one that is wanted.
        """
        failed: Server | None = None

        async def attempt() -> list[Row]:
            nonlocal place, failed
            first = place is not None
            here, place = place or await self._servers.place(again=True, at=at), None
            asked.append(here.server)
            counts = False
            try:
                rows = await here.server.ask(texts, self._call.dimensions)
                counts = first
            except Exception as error:
                failed = here.server
                self._servers.name(here.server, error)
                if can_pass(error):
                    self._servers.lose(
                        here.server,
                        error,
                        # To be slow or busy is no sign of a server's end while there is no other.
                        only_if_others=not isinstance(error, ConnectError),
                    )
                raise
            else:
                return rows
            finally:
                self._servers.leave(here, counts=counts)

        policy = Policy(
            timeout=self._settings.retry_timeout,
            again_on_500=again_on_500,
            elsewhere=lambda: self._servers.any_here(but=failed),
        )
        return await self._retries(attempt, policy)


def _reason(error: ResponseError) -> str:
    return str(error.args[0])
