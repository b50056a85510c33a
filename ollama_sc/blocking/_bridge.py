"""How calls get from a thread into the event loop of a client, and back.

What is called is written in `_calls`, which is generated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ollama_sc._api.stream import Stream as AsyncStream
from ollama_sc._calls.group import Statistics
from ollama_sc._client import AsyncClient
from ollama_sc._client import Group as AsyncGroup
from ollama_sc._client import Requests as AsyncRequests
from ollama_sc._errors import AbortError, ClientClosedError
from ollama_sc._jobs.fields import EMBED_MANY_DEFAULTS
from ollama_sc._loop.threads import require_threads
from ollama_sc._tools.stream import ToolStream as AsyncToolStream
from ollama_sc._worker.owner import WorkerOwner, check_backend
from ollama_sc._worker.thread import Worker

from ._batches import Batches
from ._stream import Stream
from ._texts import readable
from ._tool_stream import ToolStream

if TYPE_CHECKING:
    from ollama_sc._jobs.batches import Batches as AsyncBatches
    from ollama_sc._tools.results import ToolRun

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
_NOTHING = Statistics(0, 0, 0, 0, 0, 0)


class Bridge:
    """What a client and a group both have: calls of their asynchronous twin."""

    def _opened(self) -> tuple[Worker, AsyncRequests]:
        """The event loop, and the twin in it; opened if it is not."""
        raise NotImplementedError

    def _if_opened(self) -> tuple[Worker, AsyncRequests] | None:
        """The same, or nothing where it is not open."""
        raise NotImplementedError

    def _ask(self, function: Callable[..., Awaitable[T]], *args: object, **fields: object) -> T:
        """The reply of a call in one piece."""
        worker, twin = self._opened()
        return worker.call(_bound(function, twin, args, fields))

    def _generate(
        self,
        function: Callable[..., Awaitable[T | AsyncStream[U, V]]],
        *args: object,
        **fields: object,
    ) -> T | Stream[U, V]:
        """The reply of a call that can be streamed."""
        worker, twin = self._opened()
        reply = worker.call(_bound(function, twin, args, fields), discard)
        if isinstance(reply, AsyncStream):
            return Stream(reply._detach(), worker, self, reply._output)  # pyright: ignore[reportUnknownArgumentType, reportUnknownMemberType]
        return reply

    def _run(
        self,
        function: Callable[..., Awaitable[ToolRun[Any] | AsyncToolStream[Any]]],
        *args: object,
        **fields: object,
    ) -> ToolRun[Any] | ToolStream[Any]:
        """The result of a run, which can be streamed."""
        worker, twin = self._opened()
        found = worker.call(_bound(function, twin, args, fields), discard)
        if isinstance(found, AsyncToolStream):
            return ToolStream(*found._detach(), worker, self)
        return found

    def _job(
        self,
        function: Callable[..., AsyncBatches],
        model: str,
        texts: Any,
        **fields: Any,
    ) -> Batches:
        """A job that has not started."""
        worker, twin = self._opened()
        job = function(twin, model, _readable(texts, fields), **fields)
        return Batches(job, lambda: worker, self)

    def _gather(
        self,
        function: Callable[..., Awaitable[T]],
        model: str,
        texts: Any,
        **fields: Any,
    ) -> T:
        """What a whole job brings."""
        return self._ask(function, model, _readable(texts, fields), **fields)

    def abort(self, reason: object = None) -> int:
        """End every request in flight now, in whatever phase it is.

        Any thread can call it, and a signal handler. The requests' callers get `AbortError` with
        this reason. The connections are closed, which makes the server stop. More requests can be
        made right after.

        Returns:
            How many requests that were.
        """
        opened = self._if_opened()
        if opened is None:
            return 0
        worker, twin = opened
        return worker.call_now(partial(twin.abort, reason), otherwise=0)

    def statistics(self) -> Statistics:
        """How many requests are in which phase now, and how many connections there are."""
        opened = self._if_opened()
        if opened is None:
            return _NOTHING
        worker, twin = opened
        return worker.call_now(twin.statistics, otherwise=_NOTHING)


def _bound(
    function: Callable[..., T], twin: AsyncRequests, args: tuple[object, ...], fields: Any
) -> Callable[[], T]:
    """A call with its arguments; generators among them are read here, not in the event loop."""
    if any(isinstance(value, Iterator) for value in (*args, *fields.values())):
        args = tuple(map(_read, args))
        fields = {name: _read(value) for name, value in fields.items()}
    return partial(function, twin, *args, **fields)


def _read(value: Any) -> Any:
    is_file = hasattr(value, "read")
    return list(value) if isinstance(value, Iterator) and not is_file else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def discard(reply: object) -> None:
    """Give up the reply of a call whose caller was interrupted."""
    if isinstance(reply, AsyncStream | AsyncToolStream):
        with suppress(AttributeError):  # the caller has taken it apart just now, and ends it itself
            reply.abort("its caller was interrupted")


def _readable(texts: object, fields: Mapping[str, Any]) -> object:
    sizes = {**EMBED_MANY_DEFAULTS, **fields}
    return readable(texts, sizes["batch_size"], sizes["batch_chars"])


class ClientWorker(Worker):
    """The event loop of a client."""

    def __init__(self, client: AsyncClient, backend: str) -> None:
        super().__init__(backend, "client")
        self.client = client

    def _resources(self) -> AbstractAsyncContextManager[object]:
        return self.client

    async def _end_calls(self) -> None:
        # First, and not by cancelling their tasks alone: it is the client that ends them.
        self.client.abort("client closed")
        await super()._end_calls()


class ClientBridge(WorkerOwner[ClientWorker], Bridge):
    """A client's own part: its event loop."""

    def __init__(
        self, make: Callable[[], AsyncClient], backend: str, twin: AsyncClient | None
    ) -> None:
        check_backend(backend)
        super().__init__()
        self._make_twin = make
        self._backend = backend
        self._twin = twin  # one that is not open yet

    def _new_worker(self) -> ClientWorker:
        require_threads("a blocking client", "use AsyncClient, with top-level `await`")
        twin, self._twin = self._twin or self._make_twin(), None
        return ClientWorker(twin, self._backend)

    def _opened(self) -> tuple[Worker, AsyncRequests]:
        worker = self._open_worker()
        return worker, worker.client

    def _if_opened(self) -> tuple[Worker, AsyncRequests] | None:
        worker = self._worker
        return None if worker is None or worker.ended else (worker, worker.client)

    def __repr__(self) -> str:
        worker, twin = self._worker, self._twin
        if self._closed:
            return f"<{type(self).__name__}, closed>"
        if worker is not None and not worker.ended:
            return repr(worker.client).replace("AsyncClient", type(self).__name__, 1)
        where = "" if twin is None else f" {twin._url}"
        return f"<{type(self).__name__}{where}, idle>"


class GroupBridge(Bridge):
    """A group's own part: it is open from the beginning, and closed once."""

    def __init__(self, owner: Bridge, worker: Worker, twin: AsyncGroup) -> None:
        self._owner = owner  # a client that is collected is closed
        self._twin = twin
        self._worker = worker

    @classmethod
    def _of(cls, owner: Bridge) -> Self:
        """A group below a client or group."""
        worker, above = owner._opened()
        twin = above.group()
        worker.call(twin.__aenter__)
        return cls(owner, worker, twin)

    def _opened(self) -> tuple[Worker, AsyncRequests]:
        if self._worker.ended:
            raise ClientClosedError("the group's client was closed, or belongs to another process")
        return self._worker, self._twin

    def _if_opened(self) -> tuple[Worker, AsyncRequests] | None:
        return None if self._worker.ended else (self._worker, self._twin)

    def close(self) -> None:
        """End what is left of its requests; when it returns, none is running.

        It can be called more than once.
        """
        worker, twin = self._worker, self._twin
        if worker.ended:
            return
        if worker.is_current:  # which cannot wait for itself
            worker.run_soon(twin._calls.aclose)
            return
        with suppress(ClientClosedError, AbortError):  # then its client was closed
            worker.call(twin._calls.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return repr(self._twin)

    def __del__(self) -> None:
        worker: Worker | None = getattr(self, "_worker", None)
        if worker is not None and not worker.ended and self._twin._calls.state == "open":
            worker.run_soon(self._twin._calls.aclose)
