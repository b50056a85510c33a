"""What every handle on a streamed call has: ways to end it, from any thread."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ollama_sc._calls.call import Call, abort_unclosed
from ollama_sc._errors import AbortError, ClientClosedError
from ollama_sc._worker.thread import Worker

C = TypeVar("C", bound=Call[Any])

_CLOSED = "the stream was closed"


class Handle(Generic[C]):
    """A call whose consumer is in a thread of its own.

    One that is dropped without being closed is aborted, with a `ResourceWarning`.
    """

    __slots__ = ("_call", "_owner", "_worker")

    def __init__(self, call: C, worker: Worker, owner: object) -> None:
        self._call = call
        self._worker = worker
        self._owner = owner  # which would close its requests if it were collected

    def abort(self, reason: object = None) -> bool:
        """End it now, whatever it is doing, and discard what waits to be taken.

        Any thread can call it, a tool's as well, and a signal handler. The consumer gets
        `AbortError`. Returns whether there was anything to end: what is complete is finished, and
        what waits of it is still delivered.
        """
        return self._worker.call_now(partial(self._call.abort, reason), otherwise=False)

    def close(self) -> None:
        """End it, and wait until nothing of it is running: requests, connections, tools.

        Iterating afterwards raises `AbortError`, unless it was complete.
        """
        worker, call = self._worker, self._call
        if worker.ended or call.ended.is_set():
            return
        if worker.is_current:  # which cannot wait for itself
            call.abort(_CLOSED)
            return
        with suppress(ClientClosedError, AbortError):  # then its client was closed
            worker.call(partial(_aclose, call))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        worker: Worker | None = getattr(self, "_worker", None)
        if worker is not None and not worker.ended:
            abort_unclosed(self, self._call, "stream", "with")


async def _aclose(call: Call[Any]) -> None:
    call.abort(_CLOSED)
    await call.wait_ended()
