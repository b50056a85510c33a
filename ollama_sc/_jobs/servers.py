"""The servers of a job: which are available, which has a free slot, how requests reach each."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import anyio
from anyio.lowlevel import checkpoint

from ollama_sc._api.base import BaseClient
from ollama_sc._errors import ModelNotFoundError, OllamaError, ProtocolError, ResponseError
from ollama_sc._http.messages import Request

from .endpoints import VALUE_BYTES, Endpoint, NoBase64Error, VectorBytes, check_rows
from .retries import backoff_seconds, is_transient
from .served_model import CHECK_SECONDS, ServedModel
from .settings import MaxInFlight
from .tuner import ConcurrencyTuner
from .vectors import not_finite, to_vectors

# The text of warm-ups and probes. Any would do: what matters is whether a server embeds it.
PROBE = "warm up"

_NO_SUCH_ENDPOINT = {404, 405}
# How gateways and imitations close an endpoint. Before a server has answered, whatever is no sign
# of a busy one can mean that; later a 400 or 500 is about a text.
_CLOSED_ENDPOINT = {401, 403, 410, 501}


class Server:
    """A client, and the state of its server.

    Args:
        client: sends the requests.
        max_in_flight: how many requests may be in flight; ``"auto"`` lets a tuner find it.
        endpoints: that it may have, the fastest first.
        timeout: of each request.

    Attributes:
        tuner: measures the requests, with ``"auto"``.
        in_flight: the slots that are acquired.
        available: whether requests go to it: a warm-up has succeeded, and none was marked since.
        unavailable: set when `available` becomes false.
        backoff_until: when it may be warmed up again, on the event loop's clock.
        dimensions: the length of its vectors; zero until it has answered.
        model_checked_at: when its model was last compared; minus infinity before that, and where
            the server was away since.
        kept: whether it is kept for one text; see `Servers.keep_for_one`.
    """

    def __init__(
        self,
        client: BaseClient,
        max_in_flight: MaxInFlight,
        endpoints: Sequence[Endpoint],
        timeout: Any,
    ) -> None:
        self.client = client
        self.tuner = ConcurrencyTuner() if max_in_flight == "auto" else None
        self.in_flight = 0
        self.available = False
        self.unavailable = anyio.Event()
        self.backoff_until = 0.0
        self.dimensions = 0
        self.model_checked_at = float("-inf")
        self.kept = False
        self.keeping = anyio.Lock()
        self._max_in_flight = 0 if max_in_flight == "auto" else max_in_flight
        self._endpoints = list(endpoints)  # the first one is used; what it lacks is removed
        self._fields = {"timeout": timeout}

    @property
    def max_in_flight(self) -> int:
        """How many requests may be in flight."""
        return self._max_in_flight if self.tuner is None else self.tuner.level

    async def embed(self, texts: list[str], dimensions: int) -> list[VectorBytes]:
        """Send one request; the vectors of its texts.

        Cancelling it closes the request's connection.

        Raises:
            UnicodeEncodeError: a text cannot be encoded in UTF-8.
            ProtocolError: there are not as many vectors, or they have other `dimensions`.
            OllamaError: others, as every call raises them.
        """

        def check(rows: list[VectorBytes], label: str) -> None:
            try:
                check_rows(rows, len(texts), dimensions, label)
            except ProtocolError:
                self.dimensions = 0  # maybe another model: a later job has to warm it up again
                raise

        return await self._request(texts, check)

    async def warm_up(self) -> int:
        """Load the model and find the endpoint, by a request for one text; the vectors' length.

        Raises:
            ProtocolError: the answer is not one vector of finite numbers.
            OllamaError: others, as every call raises them.
        """
        (row,) = await self._request([PROBE], _check_warm_up)
        self.dimensions = len(row) // VALUE_BYTES
        return self.dimensions

    async def _request(
        self, texts: list[str], check: Callable[[list[VectorBytes], str], None]
    ) -> list[VectorBytes]:
        """Send a request to the first endpoint that the server has, and forget those that it lacks.

        There are four cases. The reply has vectors, which `check` may refuse. The endpoint is not
        there, or has no base64: the next one is tried, unless there is none. It may be closed: the
        last one is tried, once. Anything else raises.
        """
        while True:
            endpoint = self._endpoints[0]
            try:
                return await self._ask(endpoint, texts, check)
            except NoBase64Error:
                self._forget(endpoint)
            except (ResponseError, ProtocolError) as error:
                if endpoint is self._endpoints[-1]:
                    raise
                if not _has_status(error, _NO_SUCH_ENDPOINT):
                    if not self._may_be_closed(error):
                        raise
                    return await self._ask_instead(error, texts, check)
                self._forget(endpoint)

    async def _ask(
        self,
        endpoint: Endpoint,
        texts: list[str],
        check: Callable[[list[VectorBytes], str], None],
    ) -> list[VectorBytes]:
        request = endpoint.request(texts)
        return await self.client._fetch(request, self._fields, _read_rows, endpoint, check)

    async def _ask_instead(
        self,
        error: ResponseError | ProtocolError,
        texts: list[str],
        check: Callable[[list[VectorBytes], str], None],
    ) -> list[VectorBytes]:
        """Ask the last endpoint, because the first one may be closed; use it if that was so."""
        first, last = self._endpoints[0], self._endpoints[-1]
        try:
            rows = await self._ask(last, texts, check)
        except ResponseError as other:
            if _has_status(other, _NO_SUCH_ENDPOINT) and not isinstance(other, ModelNotFoundError):
                raise error from other  # the server has the first one alone
            raise
        self._forget(first)
        return rows

    def _may_be_closed(self, error: ResponseError | ProtocolError) -> bool:
        """Whether an error can mean that the server lets nobody use an endpoint that it has."""
        if isinstance(error, ProtocolError):  # a page
            return not self.dimensions and error.excerpt.lstrip().startswith(b"<")
        if is_transient(error):
            return False
        return not self.dimensions or _has_status(error, _CLOSED_ENDPOINT)

    def _forget(self, endpoint: Endpoint) -> None:
        if endpoint is self._endpoints[0]:  # another request may have found out meanwhile
            del self._endpoints[0]

    def __repr__(self) -> str:
        state = "available" if self.available else "unavailable"
        slots = f"{self.in_flight} of {self.max_in_flight} in flight"
        return f"<Server {self.client!r}, {state}, {slots}>"


def _has_status(error: ResponseError | ProtocolError, statuses: set[int]) -> bool:
    return isinstance(error, ResponseError) and error.status_code in statuses


def _read_rows(
    body: bytes,
    status: int,
    _request: Request,
    endpoint: Endpoint,
    check: Callable[[list[VectorBytes], str], None],
) -> list[VectorBytes]:
    rows = endpoint.read(body, status)
    check(rows, endpoint.label)
    return rows


def _check_warm_up(rows: list[VectorBytes], label: str) -> None:
    """Raise ProtocolError unless there is one vector, of any length, of finite numbers."""
    dimensions = len(rows[0]) // VALUE_BYTES if rows else 0
    if not dimensions:
        raise ProtocolError("one text was answered with no vector", request=label)
    check_rows(rows, 1, dimensions, label)
    if not_finite(to_vectors(rows, dimensions)):
        raise ProtocolError("the vector is not finite", request=label)


class Slot(NamedTuple):
    """One of the requests that a server may have in flight; from `Servers.acquire`.

    Attributes:
        server: where the request goes.
        token: of the server's tuner, where it has one.
    """

    server: Server
    token: tuple[int, float] | None


class Servers:
    """The servers of a job: a semaphore with as many slots as they may have requests in flight.

    State changes in synchronous code only; each change that can free a slot wakes all waiters.

    Args:
        servers: that requests can be sent to.
        model: that they must have; ``None`` does not compare.

    Attributes:
        all: the servers.
        model: see above.
    """

    def __init__(self, servers: Sequence[Server], model: ServedModel | None = None) -> None:
        self.all = tuple(servers)
        self.model = model
        self._changed = anyio.Event()
        self._priority_waiters = 0  # retries, which come before new batches

    @contextmanager
    def hold_new_batches(self) -> Generator[None]:
        """Let no new batch begin: a busy server is to serve first what it has turned away."""
        self._priority_waiters += 1
        try:
            yield
        finally:
            self._priority_waiters -= 1
            self._notify_waiters()

    @property
    def capacity(self) -> int:
        """How many requests may be in flight at all servers together."""
        return sum(server.max_in_flight for server in self.all)

    @property
    def any_answered(self) -> bool:
        """Whether a warm-up of any server has ever succeeded."""
        return any(server.dimensions for server in self.all)

    async def warm_up(self, server: Server) -> int:
        """Warm a server up; the length of its vectors. See `Server.warm_up`."""
        return await server.warm_up()

    async def check_model(self, server: Server, request: str) -> None:
        """Compare a server's model with that of the job, unless that was done lately.

        There are three cases. It was compared lately: nothing is asked. It is the only server, and
        its digest is not known: it is asked for where the job lasts, for a short one has one model.
        Otherwise the server is asked.

        Raises:
            ProtocolError: it is another model.
        """
        now = anyio.current_time()
        if self.model is None or now < server.model_checked_at + CHECK_SECONDS:
            return
        known = self.model.digest is not None or server.model_checked_at > float("-inf")
        if known or len(self.all) > 1:
            await self.model.check(server.client, request)
        server.model_checked_at = now

    async def check_models(self, request: str) -> None:
        """Compare the models of all available servers once more, at the end of a job.

        Raises:
            ProtocolError: one has another model than the job began with.
        """
        if self.model is None or self.model.digest is None:
            return
        for server in self.all:
            if server.available:
                try:
                    await self.model.check(server.client, request)
                except ProtocolError as error:
                    self.annotate(server, error)
                    raise

    def any_available(self, *, other_than: Server | None = None) -> bool:
        """Whether any server is available, or any other than this one."""
        return any(server.available for server in self.all if server is not other_than)

    @asynccontextmanager
    async def keep_for_one(self, server: Server) -> AsyncGenerator[None]:
        """Keep a server for one text at a time: what was in flight has ended, nothing else starts.

        Inside of it, `acquire` has to be told so. Cancelling the wait for it keeps nothing.
        """
        async with server.keeping:
            server.kept = True
            try:
                while server.in_flight:
                    await self._changed.wait()
                yield
            finally:
                server.kept = False
                self._notify_waiters()

    async def acquire(
        self, *, priority: bool = False, preferred: Server | None = None, keeps: bool = False
    ) -> Slot:
        """Wait for a free slot and acquire it; `release` gives it back.

        There are three cases. No available server has a free slot: the caller waits for one. One is
        free, but a caller with priority waits, and this one has none: it lets that one go first.
        Otherwise it acquires the slot. A cancelled wait acquires nothing.

        Args:
            priority: for retries, probes and halves of a batch, which come before new batches.
            preferred: the only server to take, while it is available.
            keeps: whether the caller keeps the preferred server for itself.
        """
        self._priority_waiters += priority
        try:
            await checkpoint()
            while (server := self._pick(preferred, keeps=keeps)) is None or (
                self._priority_waiters and not priority
            ):
                await self._changed.wait()
        finally:
            self._priority_waiters -= priority
            if priority:
                self._notify_waiters()  # maybe the last one with priority
        server.in_flight += 1
        tuner = server.tuner
        return Slot(server, None if tuner is None else tuner.begin(anyio.current_time()))

    def _pick(self, preferred: Server | None, *, keeps: bool) -> Server | None:
        """The server to acquire a slot of, if there is one that nobody else keeps.

        There are three cases. The preferred server is available: it is that one, or none while its
        slots are taken. Some available servers have free slots: it is the one with the lowest ratio
        of requests in flight to slots. None has: there is none.
        """
        candidates = [preferred] if preferred is not None and preferred.available else self.all
        free = [
            server
            for server in candidates
            if server.available
            and server.in_flight < server.max_in_flight
            and (not server.kept or (keeps and server is preferred))
        ]
        return min(free, key=lambda server: server.in_flight / server.max_in_flight, default=None)

    def release(self, slot: Slot, *, measured: bool = False) -> None:
        """Give a slot back, once its request has ended.

        Args:
            slot: from `acquire`.
            measured: whether the tuner counts the request: a first attempt that has succeeded.
        """
        slot.server.in_flight -= 1
        if slot.server.tuner is not None and slot.token is not None:
            slot.server.tuner.end(slot.token, anyio.current_time(), measured=measured)
        self._notify_waiters()

    def restart_tuners(self) -> None:
        """Restart the measurements of servers that have free slots: no batch was there for them."""
        for server in self.all:
            if server.tuner is not None and server.in_flight < server.max_in_flight:
                server.tuner.restart()

    def _notify_waiters(self) -> None:
        """Wake all that wait in `acquire`: slots may be free."""
        self._changed.set()
        self._changed = anyio.Event()

    def mark_available(self, server: Server) -> None:
        """Let requests go to a server: its warm-up has succeeded."""
        if not server.available:
            server.available = True
            server.unavailable = anyio.Event()
            self._notify_waiters()

    def mark_unavailable(self, server: Server, error: Exception, *, only_if_others: bool) -> None:
        """Let no request go to a server until it was warmed up again. Those in flight go on.

        Args:
            server: that a request has failed at.
            error: what it failed with; says how long to back off.
            only_if_others: do nothing where no other server is available.
        """
        if only_if_others and not self.any_available(other_than=server):
            return
        if server.available:
            server.available = False
            server.model_checked_at = float("-inf")
            server.backoff_until = anyio.current_time() + backoff_seconds(error)
            server.unavailable.set()

    def annotate(self, server: Server, error: Exception) -> None:
        """Note in an error which server it is from, where there are several."""
        if len(self.all) > 1 and isinstance(error, OllamaError):
            number = self.all.index(server) + 1
            error.add_note(f"server {number} of {len(self.all)}: {server.client!r}")

    def __repr__(self) -> str:
        available = sum(server.available for server in self.all)
        in_flight = sum(server.in_flight for server in self.all)
        slots = f"{in_flight} of {self.capacity} in flight"
        return f"<{type(self).__name__}: {available} of {len(self.all)} available, {slots}>"
