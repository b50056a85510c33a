"""What has a thread in this process: what becomes of all of it after a fork and at the exit."""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from functools import cache
from typing import Protocol
from weakref import WeakSet

from ollama_sc._loop.shielding import CLEANUP_SECONDS

from .thread import Worker


class HasWorker(Protocol):
    """The part of an owner that is used here."""

    @property
    def _worker(self) -> Worker | None: ...

    def _reset_after_fork(self) -> None:
        """Drop the worker, in a forked process: its thread is the parent's."""


_alive: WeakSet[HasWorker] = WeakSet()
_inherited: list[Worker] = []  # workers of the parent, after a fork


def register(owner: HasWorker) -> None:
    """Register what will have a worker in this process."""
    _alive.add(owner)
    _watch_forks()


def keep_inherited(worker: Worker | None) -> None:
    """Mark a worker of the parent as ended here, and never collect it.

    Its thread does not run in a forked child, and its descriptors are shared: closing them would
    break the parent's.
    """
    if worker is not None:
        worker.end()
        _inherited.append(worker)


@cache
def _watch_forks() -> None:
    """Reset all owners in each forked process."""
    os.register_at_fork(after_in_child=_after_fork)


@cache
def close_all_at_exit() -> None:
    """Close all workers when this process exits."""
    atexit.register(_close_all)


def _close_all() -> None:
    workers = [worker for owner in list(_alive) if (worker := owner._worker) is not None]
    for worker in workers:
        worker.stop()
    for worker in workers:
        with suppress(Exception):  # nobody is left to be told
            worker.join(CLEANUP_SECONDS)


def _after_fork() -> None:
    for owner in list(_alive):
        owner._reset_after_fork()
