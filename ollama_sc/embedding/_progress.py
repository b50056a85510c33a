"""How far a job is. Knows nothing but numbers and the clock."""

from __future__ import annotations

from collections import deque

import anyio
import msgspec

_RECENT = 64  # batches that the rate is of


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is.

    Attributes:
        texts: how many texts are done, those that failed included.
        failed: how many of them failed.
        batches: how many batches that were.
        total: how many texts there are, where they have a length.
        elapsed: the seconds since the model was ready.
        rate: texts a second, lately.
        seconds_left: how long the rest takes at that rate, where there is a total.
    """

    texts: int = 0
    failed: int = 0
    batches: int = 0
    total: int | None = None
    elapsed: float = 0.0
    rate: float = 0.0
    seconds_left: float | None = None


class Meter:
    """Counts what is done."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._texts = 0
        self._failed = 0
        self._batches = 0
        self._start: float | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)  # times, and texts by then

    def start(self) -> None:
        """The model is ready: the clock begins; once."""
        if self._start is None:
            self._start = anyio.current_time()
            self._recent.append((self._start, 0))

    def add(self, texts: int, failed: int) -> None:
        """Count one batch."""
        self._texts += texts
        self._failed += failed
        self._batches += 1
        self._recent.append((anyio.current_time(), self._texts))

    def now(self) -> Progress:
        """How far the job is."""
        rate = elapsed = 0.0
        left: float | None = None
        if self._start is not None:
            (began, before), (last, _) = self._recent[0], self._recent[-1]
            elapsed = anyio.current_time() - self._start
            rate = (self._texts - before) / (last - began) if last > began else 0.0
        if self._total is not None and rate > 0:
            left = max(0, self._total - self._texts) / rate
        return Progress(
            texts=self._texts,
            failed=self._failed,
            batches=self._batches,
            total=self._total,
            elapsed=elapsed,
            rate=rate,
            seconds_left=left,
        )
