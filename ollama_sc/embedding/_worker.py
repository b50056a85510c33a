"""An event loop in a thread of its own, and clients that are open as long as it runs.

What is known of the servers stays from one job to the next: a server is warmed up once, not by each
job.

The threads that call share no lock of Python's with the event loop: where a KeyboardInterrupt hits
a `threading.Condition`, which futures and anyio's portal are made of, it can stay locked, and the
whole loop would wait for it. They share queues and flags, which no interrupt leaves in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from contextvars import Context
from copy import copy
from functools import partial
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import TYPE_CHECKING, Any

import anyio
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
CLOSED_MEANWHILE = "the embedder was closed"


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
        # A daemon, which a program that ends need not wait for; in a context of its own, because
        # the one who starts it may be in the middle of anything.
        self._thread = Thread(
            target=Context().run, args=(self._run,), name="ollama_sc embedder", daemon=True
        )
        self._schedule: Callable[[Callable[[], object]], object] | None = None  # in the event loop
        self._inbox: deque[Callable[[], object]] = deque()  # to be done in the event loop
        self._news: anyio.Event | None = None  # there is something, or it is to stop
        self._stop_soon = False
        self.ended = False  # nobody is let in any more
        self._error: BaseException | None = None  # what it ended with, unasked
        self._failed_to_close: BaseException | None = None
        self._asked: set[_Call] = set()  # calls that somebody waits for
        self._calls = 0  # that are running
        self._tasks: TaskGroup | None = None
        self._servers: LastingServers | None = None

    # -- for any thread ----------------------------------------------------------------------

    def start(self) -> None:
        """Start it, without waiting: whoever calls waits."""
        self._thread.start()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of some texts. An exception that interrupts the wait ends the requests.

        Raises:
            ClientClosedError: it was stopped before.
            AbortError: it was stopped meanwhile.
            OllamaError: others, as `embed_array` does; or it could not start.
        """
        if current_thread() is self._thread:
            raise RequestError("an embedder cannot be called in its own event loop")
        if self._stop_soon:
            raise ClientClosedError(CLOSED)
        call = _Call(texts)
        self._asked.add(call)
        try:
            self._soon(partial(self._begin, call))
            if self.ended:  # maybe before it could know of this call
                call.finish(self._why_ended())
            call.done.get()
        except BaseException:
            self._soon(partial(self._abandon, call))
            # If it is finished, the interrupt came just after that.
            if not (call.finished or self.ended):
                call.done.get()
            raise
        finally:
            self._asked.discard(call)
        return call.outcome()

    def stop(self) -> None:
        """Tell it to end what runs, to close its clients, and to end; without waiting."""
        self._stop_soon = True
        self._wake()

    def join(self, seconds: float | None = None) -> None:
        """Wait until it has ended; raises what its clients failed with when they were closed.

        Its own thread does not wait for itself, nor a signal's handler for a thread whose start it
        interrupts.
        """
        if self._thread.ident is None or current_thread() is self._thread:
            return
        self._thread.join(seconds)
        error, self._failed_to_close = self._failed_to_close, None
        if error is not None:
            raise error

    def _soon(self, function: Callable[[], object]) -> None:
        """Call a function in the event loop's main task, which may end before that."""
        self._inbox.append(function)
        self._wake()

    def _wake(self) -> None:
        if self._schedule is not None:  # otherwise it looks by itself, once it runs
            with suppress(RuntimeError):  # the loop is closed
                self._schedule(self._notify)

    def _why_ended(self) -> BaseException:
        error = self._error
        if error is None:
            return AbortError(CLOSED_MEANWHILE)
        return copy(error) if isinstance(error, OllamaError) else error

    # -- in its thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            anyio.run(self._main, backend=self._backend)
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            if self._stop_soon:
                self._failed_to_close = error
            else:
                self._error = error
        # From here on nobody is let in; who was quicker is told here, or sees it.
        self.ended = True
        for call in tuple(self._asked):
            call.finish(self._why_ended())

    async def _main(self) -> None:
        self._news = anyio.Event()
        token: Any = current_token().native_token
        self._schedule = getattr(token, "run_sync_soon", None) or token.call_soon_threadsafe
        async with AsyncExitStack() as stack:
            for client in self._clients:
                await stack.enter_async_context(client)
            async with anyio.create_task_group() as warm_ups, anyio.create_task_group() as tasks:
                self._servers = LastingServers(self._plan.servers(self._clients).all, warm_ups)
                self._tasks = tasks
                while not self._stop_soon:
                    while self._inbox:
                        self._inbox.popleft()()
                    await self._news.wait()
                    self._news = anyio.Event()
                # Not `abort`, which does not know of a job that is only about to start.
                warm_ups.cancel_scope.cancel()

    def _notify(self) -> None:
        assert self._news is not None
        self._news.set()

    def _begin(self, call: _Call) -> None:
        assert self._tasks is not None
        call.begun = True
        self._tasks.start_soon(self._embed, call)

    def _abandon(self, call: _Call) -> None:
        """End a call that nobody waits for any more."""
        call.abandoned = True
        if call.scope is not None:
            call.scope.cancel()
        elif not call.begun:
            call.finish()

    async def _embed(self, call: _Call) -> None:
        servers = self._servers
        assert servers is not None
        if not self._calls:
            servers.held_back()  # there was nothing to do
        self._calls += 1
        try:
            with anyio.CancelScope() as call.scope:
                if call.abandoned:
                    call.scope.cancel()
                job = job_of(self._plan, self._clients, call.texts, lambda: servers, in_order=False)
                call.vectors = await gathered(job)
        except Exception as error:  # noqa: BLE001 - the caller gets it
            call.error = error
        finally:
            self._calls -= 1
        if call.abandoned and not self._calls:
            await servers.stop_warming_up()
        call.finish(call.error)


class _Call:
    """One call of `Worker.embed`."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.begun = False
        self.abandoned = False  # by its caller
        self.scope: anyio.CancelScope | None = None
        self.vectors: Vectors | None = None
        self.error: BaseException | None = None
        self.finished = False
        self.done: SimpleQueue[None] = SimpleQueue()  # gets something when it is finished

    def finish(self, error: BaseException | None = None) -> None:
        """Tell the caller, once."""
        if not self.finished:
            self.error = error
            self.finished = True
            self.done.put(None)

    def outcome(self) -> Vectors:
        """What came out, or raise it."""
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame
        assert self.vectors is not None
        return self.vectors


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
        if server.here and server.dimensions:  # an earlier job has seen to it, or one just now
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
        ending, self._warming = self._warming, {}  # who comes meanwhile begins anew
        for warming in ending.values():
            warming.scope.cancel()
        for warming in ending.values():
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
            if self._warming.get(server) is warming:
                del self._warming[server]
            warming.ended.set()


class _WarmUp:
    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.scope = anyio.CancelScope()
        self.error: Exception | None = AbortError("nobody waited for the model any more")
