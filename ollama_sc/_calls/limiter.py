"""How many requests may run at the same time. Knows nothing of what they are."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol


class TakesPlace(Protocol):
    """Who waits for a place, and releases it in the end."""

    has_place: bool


class Limiter:
    """Limits the requests in flight: first come, first served; no limit by default.

    Who waits is called when it has a place. That is no task's wait: what waits for its turn need
    not have a task yet.

    Attributes:
        available: how many more may start now.
    """

    def __init__(self, limit: int | None) -> None:
        self.available: float = math.inf if limit is None else limit
        self._waiting: OrderedDict[TakesPlace, Callable[[], object]] = OrderedDict()
        self._handing_over = False

    def acquire(self) -> bool:
        """Take a place, if there is one."""
        if self.available < 1:
            return False
        self.available -= 1
        return True

    def wait(self, who: TakesPlace, called: Callable[[], object]) -> None:
        """Let `called` be called when `who` has a place."""
        self._waiting[who] = called

    def withdraw(self, who: TakesPlace) -> None:
        """Wait no more, if it does."""
        self._waiting.pop(who, None)

    def release(self) -> None:
        """Give a place back: whoever waits the longest has it, or it is available."""
        self.available += 1
        if self._handing_over:  # to one that has released it at once
            return
        self._handing_over = True
        try:
            while self._waiting and self.acquire():
                who, called = self._waiting.popitem(last=False)
                who.has_place = True
                called()
        finally:
            self._handing_over = False


NO_LIMIT = Limiter(None)
