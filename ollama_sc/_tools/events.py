"""The call of a streamed run, and the queue of its events.

The run's task and those of its tools put events in and wait while it is full; the consumer takes
them out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from ollama_sc._calls.call import Call
from ollama_sc._loop.primitives import Event, Runtime
from ollama_sc._timeouts import Timeouts

from .results import RoundEnded, ToolEvent, ToolRun

_MAX_WAITING = 1024


class RunCall(Call[ToolRun[Any]]):
    """The operation that a run of tools is.

    It is waited for as long as its tools take: nothing stops a thread.

    Attributes:
        responded: set when the model begins to answer, or the call has ended.
        succeeded: which of the two.
        events: those that the consumer has not taken.
        on_complete: called when the consumer has taken the last event.
        on_ended: called with it when nothing of it is running any more.
    """

    cleanup_seconds = math.inf

    def __init__(self, runtime: Runtime, label: str, timeouts: Timeouts) -> None:
        super().__init__(runtime, label, timeouts)
        self.responded = runtime.new_event()
        self.succeeded = False
        self.events: deque[ToolEvent] = deque()
        self.on_complete: Callable[[], object] | None = None
        self.on_ended: Callable[[RunCall], object] | None = None
        self._last = False
        self._consuming = False
        self._not_empty: Event | None = None  # the consumer waits for it
        self._taken: Event | None = None  # the run waits for it

    # -- the run's side ----------------------------------------------------------------------

    def set_responded(self) -> None:
        """The model begins to answer."""
        self.succeeded = True
        self.responded.set()

    async def put(self, event: ToolEvent) -> None:
        """Hand an event over, once there is room for it."""
        await self._wait_until_fewer(_MAX_WAITING)
        self._add((event,))

    async def put_parts(self, parts: Sequence[ToolEvent]) -> None:
        """Hand parts of a reply over, once those before them are taken."""
        await self._wait_until_fewer(1)
        self._add(parts)

    async def end_round(self, event: ToolEvent, *, last: bool) -> None:
        """Hand over that a round has ended, and wait until the consumer has taken that."""
        await self._wait_until_fewer(_MAX_WAITING)
        self._last = last
        self._add((event,))
        await self._wait_until_fewer(1)

    def _add(self, events: Sequence[ToolEvent]) -> None:
        if not self.aborted:  # an abort discards, also what comes before it is noticed
            self.events.extend(events)
            if self._not_empty is not None:
                self._not_empty.set()

    async def _wait_until_fewer(self, count: int) -> None:
        while len(self.events) >= count:
            if self._taken is None:
                self._taken = self.runtime.new_event()
            await self._taken.wait()

    # -- the consumer's side -----------------------------------------------------------------

    def take(self) -> ToolEvent:
        """The next event.

        Raises:
            IndexError: there is none yet.
        """
        event = self.events.popleft()
        if not self.events and self._last and not self.completed:
            self.completed = True  # the run is whole: nothing can spoil it any more
            if self.on_complete is not None:
                self.on_complete()
        if self._taken is not None:
            self._taken.set()
            self._taken = None
        return event

    def take_block(self) -> list[ToolEvent]:
        """The next events, where there are some; a `RoundEnded` by itself: the run waits for it."""
        block: list[ToolEvent] = []
        while self.events:
            if block and RoundEnded in (type(block[-1]), type(self.events[0])):
                break
            block.append(self.take())
        return block

    async def next_event(self) -> ToolEvent | None:
        """Wait for the next event; ``None`` at the end. A cancelled wait takes none."""
        await self._wait_for_events()
        if self.events:
            return self.take()
        self.raise_error()
        return None

    async def next_block(self) -> list[ToolEvent]:
        """Wait for the next events; empty at the end. A cancelled wait takes none."""
        await self._wait_for_events()
        block = self.take_block()
        if not block:
            self.raise_error()
        return block

    async def _wait_for_events(self) -> None:
        if self._consuming:
            raise anyio.BusyResourceError("iterating over")
        self._consuming = True
        try:
            await anyio.lowlevel.checkpoint()
            while not self.events and not self.ended.is_set():
                self._not_empty = self.runtime.new_event()
                await self._not_empty.wait()
        except BaseException:
            self.interrupted = True
            raise
        finally:
            self._not_empty = None
            self._consuming = False

    def _notify_abort(self) -> None:
        self.events.clear()
        if self._not_empty is not None:
            self._not_empty.set()

    def _notify_end(self) -> None:
        if self.on_ended is not None:
            self.on_ended(self)
        self.responded.set()
        if self._not_empty is not None:
            self._not_empty.set()
