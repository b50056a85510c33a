"""Servers that all jobs of an embedder share: each is warmed up once, not by each job."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING

import anyio

from ollama_sc._errors import AbortError, OllamaError
from ollama_sc._jobs.served_model import ServedModel
from ollama_sc._jobs.servers import Server, Servers

if TYPE_CHECKING:
    from anyio.abc import TaskGroup


class SharedServers(Servers):
    """Servers that many jobs use, one after another or several at the same time.

    A warm-up runs in a task of its own, and goes on if the job that started it ends early. With two
    servers, a job can be complete before the second one has loaded the model: if each job cancelled
    its warm-up, the second one would never get requests.

    Args:
        servers: to share.
        tasks: runs the warm-ups.
        model: that they must have.
    """

    def __init__(
        self, servers: Sequence[Server], tasks: TaskGroup, model: ServedModel | None = None
    ) -> None:
        super().__init__(servers, model)
        self._tasks = tasks
        self._warm_ups: dict[Server, _PendingWarmUp] = {}

    async def warm_up(self, server: Server) -> int:
        """See `Servers.warm_up`; all callers that wait get the same outcome.

        There are three cases. The server is available: there is nothing to do. A warm-up runs
        already: this call gets its outcome. None runs: one starts. A cancelled wait cancels no
        warm-up.
        """
        if server.available and server.dimensions:
            return server.dimensions
        pending = self._warm_ups.get(server)
        if pending is None:
            pending = self._warm_ups[server] = _PendingWarmUp()
            self._tasks.start_soon(self._warm_up, server, pending)
        await pending.ended.wait()
        error = pending.error
        if error is not None:  # a copy for each caller, with a traceback of its own
            raise copy(error) if isinstance(error, OllamaError) else error
        return server.dimensions

    async def check_models(self, request: str) -> None:
        """Do nothing: a call is no end. Each compares what was not compared lately."""

    async def cancel_warm_ups(self) -> None:
        """Cancel all warm-ups, because no call waits for them, and wait until they have ended."""
        cancelled, self._warm_ups = self._warm_ups, {}  # later callers start new ones
        for pending in cancelled.values():
            pending.scope.cancel()
        for pending in cancelled.values():
            await pending.ended.wait()

    async def _warm_up(self, server: Server, pending: _PendingWarmUp) -> None:
        try:
            with pending.scope:
                await server.warm_up()
                self.mark_available(server)
                pending.error = None
        except Exception as error:  # noqa: BLE001 - the callers get it
            pending.error = error
        finally:
            if self._warm_ups.get(server) is pending:
                del self._warm_ups[server]
            pending.ended.set()


class _PendingWarmUp:
    """A warm-up that runs: its end, its scope, and the error it ends with; ``None`` is success."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.scope = anyio.CancelScope()
        self.error: Exception | None = AbortError("nobody waited for the model any more")
