"""Signals of the process, heard beside whoever handled them before.

A server such as uvicorn has handlers of its own: what is done here comes in addition, and never in
their place. This module knows nothing of requests.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import FrameType
from typing import Any

import anyio.lowlevel

_watches: list[SignalWatch] = []  # those that listen, in the order in which they began


class SignalWatch:
    """Calls a function in the event loop when a signal arrives, then the handler that was there.

    There are four cases of what was there. A handler is called as if nothing had been here. An
    ignored signal stays ignored. One whose handler does not come from Python is left alone. Where
    the signal had its default action, which ends the process, the first one is taken for a
    request to end in order; the second one has the default action again.

    Args:
        numbers: the signals.
        heard: called in the event loop, once for each signal.
    """

    def __init__(self, numbers: Iterable[int], heard: Callable[[], object]) -> None:
        self._numbers = tuple(numbers)
        self._heard = heard
        self._previous: dict[int, Any] = {}
        self._taken: set[int] = set()  # those that would have ended the process
        self._pid = 0
        self._active = False
        self._schedule: Callable[[Callable[[], object]], object]

    def start(self) -> None:
        """Listen. Does nothing outside of the main thread: Python gives signals to no other."""
        if threading.current_thread() is not threading.main_thread():
            return
        token: Any = anyio.lowlevel.current_token().native_token
        self._schedule = getattr(token, "run_sync_soon", None) or token.call_soon_threadsafe
        self._pid = os.getpid()
        self._active = True
        _watches.append(self)
        for number in self._numbers:
            previous = signal.getsignal(number)
            if previous in (None, signal.SIG_IGN):
                continue
            self._previous[number] = previous
            try:
                signal.signal(number, self._handle)
            except ValueError:  # this interpreter is not the process's main one
                del self._previous[number]

    def stop(self) -> None:
        """Listen no more. A handler that somebody has installed meanwhile stays."""
        if not self._active:
            return
        self._active = False
        _watches.remove(self)
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, previous)
            for later in _watches:  # one that began later and lasts longer calls the one before
                if later._previous.get(number) == self._handle:
                    later._previous[number] = previous
                    later._taken |= self._taken & {number}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # In a process that was forked, the loop is its parent's.
        active = self._active and os.getpid() == self._pid
        previous = self._previous[number]
        if active:
            with suppress(RuntimeError):  # that loop is gone
                self._schedule(self._heard)
        if callable(previous):
            previous(number, frame)
        elif active and number not in self._taken:
            self._taken.add(number)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
