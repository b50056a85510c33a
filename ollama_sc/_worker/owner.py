"""What has an event loop in a thread: it starts with the first call, and ends in several ways."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from sys import is_finalizing
from threading import RLock
from types import TracebackType
from typing import Any, Generic, NoReturn, Self, TypeVar

from ollama_sc._errors import ClientClosedError, RequestError

from . import processes
from .thread import Worker, closed

W = TypeVar("W", bound=Worker)


def check_backend(backend: object) -> None:
    """Raise `RequestError` for what is no event loop, or is not installed."""
    if backend not in ("asyncio", "trio"):
        raise RequestError(f"backend must be 'asyncio' or 'trio', not {backend!r:.80}")
    if backend == "trio" and find_spec("trio") is None:
        raise RequestError("trio is not installed: pip install 'ollama-sc[trio]'")


class WorkerOwner(Generic[W]):
    """What has a worker as long as it is open.

    A worker starts with the first call, and another one where that has ended by itself, or in a
    forked process. It ends with `close`, when its owner is collected, and when the program ends.
    """

    _what = "client"

    def __init__(self) -> None:
        self._closed = False
        # No code waits for anything while it holds this. It is reentrant because a signal handler
        # can call `close` in the thread that holds it.
        self._lock = RLock()
        self._worker: W | None = None

    def _new_worker(self) -> W:
        """A worker that has not started."""
        raise NotImplementedError

    def _open_worker(self) -> W:
        """The worker that runs, or a new one.

        Raises:
            ClientClosedError: it is closed, or no thread can be started any more.
        """
        worker = self._worker
        if worker is not None and not worker.ended and worker.started:
            return worker
        processes.register(self)
        with self._lock:
            if self._closed:
                raise ClientClosedError(closed(self._what))
            if is_finalizing():  # a thread would be started, and never run
                raise ClientClosedError(
                    f"the {self._what} cannot be used any more: the interpreter ends"
                )
            worker = self._worker
            if worker is None or worker.ended or not worker.started:
                if worker is not None:
                    worker.stop()  # where an exception interrupted its start, and it starts yet
                worker = self._new_worker()
                if self._closed:  # by a signal handler, meanwhile
                    raise ClientClosedError(closed(self._what))
                processes.close_all_at_exit()
                self._worker = worker
                try:
                    worker.start()
                except BaseException as error:  # noqa: BLE001 - raised again
                    self._give_up(worker, error)
            return self._worker or worker  # a signal handler may have made another one

    def _give_up(self, worker: W, error: BaseException) -> NoReturn:
        """Drop a worker whose start failed, or was interrupted, and raise why.

        An interrupt inside of `Thread.start` can leave a lock behind that its thread waits for, for
        ever, or make that lock complain. If it starts yet, it ends at once.
        """
        worker.stop()
        if self._worker is worker:
            self._worker = None
        if not isinstance(error, RuntimeError):
            raise error
        interrupt = error.__context__
        if interrupt is not None and not isinstance(interrupt, Exception):
            raise interrupt from None
        raise ClientClosedError(
            f"the {self._what}'s background thread cannot be started: {error}"
        ) from error

    def close(self) -> None:
        """End all requests, close the connections, and end the background thread.

        When it returns, the thread has ended. Threads that are in a call get `AbortError`. It can
        be called more than once.
        """
        processes.register(self)
        with self._lock:
            self._closed = True
            worker = self._worker
        if worker is not None:
            worker.stop()
            worker.join()

    def _reset_after_fork(self) -> None:
        """Drop the worker, in a forked process: its thread is the parent's."""
        self._lock = RLock()
        processes.keep_inherited(self._worker)
        self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self, is_finalizing: Callable[[], bool] = is_finalizing) -> None:
        # The garbage collector runs in any thread, the event loop's included: no waiting here.
        # At the very end of a program modules lose their names, hence the argument, and there is
        # nothing left to stop.
        worker: Any = getattr(self, "_worker", None)
        if worker is not None and not is_finalizing():
            worker.stop()
