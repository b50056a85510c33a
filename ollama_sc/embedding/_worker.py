"""An event loop in a thread of its own, and clients that are open as long as it runs.

What is known of the servers stays from one job to the next: a server is warmed up once, not by each
job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import AsyncExitStack, suppress
from contextvars import Context
from copy import copy
from threading import Thread, current_thread
from typing import TYPE_CHECKING, Any

import anyio
from anyio.from_thread import BlockingPortal
from anyio.lowlevel import current_token

from ollama_sc._client import AsyncClient
from ollama_sc._errors import AbortError, ClientClosedError, OllamaError, RequestError

from ._entry import gathered, job_of
from ._plan import Plan
from ._servers import Server, Servers
from ._vectors import Vectors

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


CLOSED = "the embedder is closed: make another one"


class Worker:
    """The thread. It refers to nothing that could keep its user alive.

    Args:
        plan: what its jobs are to do.
        clients: one for each server, not open yet.
        backend: the event loop, ``"asyncio"`` or ``"trio"``.
    """

    def __init__(self, plan: Plan, clients: Sequence[AsyncClient], backend: str) -> None:
        self._plan = plan
        self._clients = clients
        self._backend = backend
        self._calls = 0  # that are running
        self._ready: Future[BlockingPortal] = Future()
        self._servers: LastingServers | None = None
        self._schedule: Callable[[Callable[[], object]], object] | None = None
        self._stopped: anyio.Event | None = None
        self._error: BaseException | None = None
        # A daemon, which a program that ends need not wait for; in a context of its own, because
        # the one who starts it may be in the middle of anything.
        self._thread = Thread(
            target=Context().run, args=(self._run,), name="ollama_sc embedder", daemon=True
        )

    # -- for any thread ----------------------------------------------------------------------

    def start(self) -> None:
        """Start it, and wait until its clients are open."""
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:
            if not self._ready.cancel():
                self.stop()
            raise

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of some texts. An exception that interrupts the wait ends the requests.

        Raises:
            ClientClosedError: it has been stopped.
            OllamaError: as `embed_array` does.
        """
        if current_thread() is self._thread:
            raise RequestError("an embedder cannot be called in its own event loop")
        portal = self._ready.result()
        call = _Call()
        future: Future[Vectors] | None = None
        try:
            try:
                future = portal.start_task_soon(self._embed, call, texts)
            except RuntimeError as error:
                raise ClientClosedError(CLOSED) from error
            return future.result()
        except CancelledError as error:
            raise AbortError("the embedder's event loop has ended") from error
        except BaseException:
            if future is None or not future.done():
                with suppress(RuntimeError, CancelledError):  # closed meanwhile
                    portal.call(self._abandon, call)
            raise
        finally:
            del future  # it holds the error, whose traceback holds this frame

    def stop(self) -> None:
        """Tell it to end what runs, to close its clients, and to end; without waiting."""
        if self._schedule is not None and self._stopped is not None:
            with suppress(RuntimeError):  # it has ended
                self._schedule(self._stopped.set)

    def join(self, seconds: float | None = None) -> None:
        """Wait until it has ended; raises what its clients failed with when they were closed."""
        self._thread.join(seconds)
        error, self._error = self._error, None
        if error is not None:
            raise error

    # -- in its thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            anyio.run(self._main, backend=self._backend)
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            if self._ready.done():
                self._error = error
            else:
                self._ready.set_exception(error)

    async def _main(self) -> None:
        token: Any = current_token().native_token
        self._schedule = getattr(token, "run_sync_soon", None) or token.call_soon_threadsafe
        self._stopped = anyio.Event()
        async with BlockingPortal() as portal, AsyncExitStack() as stack:
            for client in self._clients:
                await stack.enter_async_context(client)
            async with anyio.create_task_group() as tasks:
                self._servers = LastingServers(self._plan.servers(self._clients).all, tasks)
                if self._ready.set_running_or_notify_cancel():
                    self._ready.set_result(portal)
                    await self._stopped.wait()
                await portal.stop()
                for client in self._clients:
                    client.abort("the embedder was closed")
                tasks.cancel_scope.cancel()

    async def _embed(self, call: _Call, texts: Sequence[str]) -> Vectors:
        assert self._servers is not None
        if not self._calls:
            self._servers.held_back()  # there was nothing to do
        self._calls += 1
        try:
            with call.begin():
                servers = self._servers
                return await gathered(
                    job_of(self._plan, self._clients, texts, lambda: servers, in_order=False)
                )
        finally:
            self._calls -= 1
            call.ended.set()
        raise AbortError("abandoned")  # nobody gets it

    async def _abandon(self, call: _Call) -> None:
        """End a call that nobody waits for any more."""
        await call.abandon()
        if not self._calls:
            assert self._servers is not None
            await self._servers.stop_warming_up()


class _Call:
    """One call of `Worker.embed`, in the event loop."""

    def __init__(self) -> None:
        self.ended: anyio.Event
        self._abandoned = False
        self._scope: anyio.CancelScope | None = None

    def begin(self) -> anyio.CancelScope:
        self.ended = anyio.Event()
        self._scope = anyio.CancelScope()
        if self._abandoned:
            self._scope.cancel()
        return self._scope

    async def abandon(self) -> None:
        """End it, and wait for that; one that has not begun will not ask for anything."""
        self._abandoned = True
        if self._scope is not None:
            self._scope.cancel()
            await self.ended.wait()


class LastingServers(Servers):
    """Servers that many jobs use, one after the other or several at once.

    A server is warmed up by a task of its own: that goes on if the job ends that began it, because
    others could do the work. Otherwise small jobs would never wait for a model that takes longer
    to load than they take.
    """

    def __init__(self, servers: Sequence[Server], tasks: TaskGroup) -> None:
        super().__init__(servers)
        self._tasks = tasks
        self._warming: dict[Server, _WarmUp] = {}

    async def warm_up(self, server: Server) -> int:
        """See `Servers.warm_up`; whoever asks meanwhile gets the same outcome."""
        if server.here:  # an earlier job has seen to it, or another one just now
            return server.dimensions
        warming = self._warming.get(server)
        if warming is None:
            warming = self._warming[server] = _WarmUp()
            self._tasks.start_soon(self._warm_up, server, warming)
        await warming.ended.wait()
        error = warming.error
        if error is not None:  # each of those who wait gets one of its own
            raise copy(error) if isinstance(error, OllamaError) else error
        return server.dimensions

    async def stop_warming_up(self) -> None:
        """Nobody is interested any more: end it, and wait for that."""
        for warming in list(self._warming.values()):
            warming.scope.cancel()
            await warming.ended.wait()

    async def _warm_up(self, server: Server, warming: _WarmUp) -> None:
        try:
            with warming.scope:
                await server.warm_up()
                self.welcome(server)
                warming.error = None
        except Exception as error:  # noqa: BLE001 - those who wait get it
            warming.error = error
        finally:
            del self._warming[server]
            warming.ended.set()


class _WarmUp:
    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.scope = anyio.CancelScope()
        self.error: Exception | None = AbortError("nobody waited for the model any more")
