"""The worker of an embedder: its clients, and the state of its servers, which jobs share.

The state stays from one job to the next: each server is warmed up once, not by each job.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import anyio

from ollama_sc._client import AsyncClient
from ollama_sc._jobs.plan import Plan
from ollama_sc._jobs.start import gather_array, make_job_from_plan
from ollama_sc._jobs.vectors import Vectors
from ollama_sc._worker.thread import Worker

from .shared_servers import SharedServers


class JobWorker(Worker):
    """The thread of an embedder, its event loop and its clients.

    Args:
        plan: the arguments of its jobs.
        clients: one for each server, not open yet.
        backend: the event loop, ``"asyncio"`` or ``"trio"``.
    """

    def __init__(self, plan: Plan, clients: Sequence[AsyncClient], backend: str) -> None:
        super().__init__(backend, "embedder")
        self._plan = plan
        self._clients = clients
        self._running_jobs = 0
        self._servers: SharedServers | None = None

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of some texts: a ``float32`` array of n by d. Blocks the calling thread.

        An exception that interrupts the wait, such as KeyboardInterrupt, ends the call's requests,
        and is raised when none is running.

        Raises:
            OllamaError: as `call` and `embed_array` raise it.
        """
        return self.call(partial(self._embed, texts))

    @asynccontextmanager
    async def _resources(self) -> AsyncGenerator[None, None]:
        async with AsyncExitStack() as stack:
            for client in self._clients:
                await stack.enter_async_context(client)
            async with anyio.create_task_group() as warm_ups:
                made = self._plan.make_servers(self._clients)
                self._servers = SharedServers(made.all, warm_ups, made.model)
                yield
                warm_ups.cancel_scope.cancel()

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        """Run a job.

        The last job to end cancels the warm-ups, if its caller was interrupted: nobody waits for
        the model.
        """
        servers = self._servers
        assert servers is not None
        if not self._running_jobs:
            servers.restart_tuners()  # there were no requests meanwhile
        self._running_jobs += 1
        try:
            job = make_job_from_plan(
                self._plan, self._clients, texts, lambda: servers, in_order=False
            )
            return await gather_array(job)
        except anyio.get_cancelled_exc_class():
            if self._running_jobs == 1:
                with anyio.CancelScope(shield=True):
                    await servers.cancel_warm_ups()
            raise
        finally:
            self._running_jobs -= 1
