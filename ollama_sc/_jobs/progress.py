"""How far a job is. Knows nothing but numbers and the clock."""

from __future__ import annotations

from collections import deque

import anyio
import msgspec

_RATE_BATCHES = 64  # the last batches, which the rate is measured over


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is.

    Attributes:
        texts: how many texts are done, those that failed included.
        failed: how many of them failed.
        batches: how many batches are done.
        total: how many texts there are, where they have a length.
        elapsed: the seconds since the model was ready.
        rate: texts per second, over the last batches.
        seconds_left: the time left at that rate, in seconds, where there is a total.
    """

    texts: int = 0
    failed: int = 0
    batches: int = 0
    total: int | None = None
    elapsed: float = 0.0
    rate: float = 0.0
    seconds_left: float | None = None


class Meter:
    """Counts the texts and batches that are done, and measures their rate.

    Args:
        total: how many texts there are; ``None`` where that is unknown.
    """

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._texts = 0
        self._failed = 0
        self._batches = 0
        self._started_at: float | None = None
        # Of the last batches: when each was done, and the texts that were done by then.
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RATE_BATCHES)

    def start(self) -> None:
        """Start the clock, if it is not running: the model is ready."""
        if self._started_at is None:
            self._started_at = anyio.current_time()
            self._recent.append((self._started_at, 0))

    def add(self, texts: int, failed: int) -> None:
        """Count one batch."""
        self._texts += texts
        self._failed += failed
        self._batches += 1
        self._recent.append((anyio.current_time(), self._texts))

    def snapshot(self) -> Progress:
        """How far the job is."""
        rate = elapsed = 0.0
        seconds_left: float | None = None
        if self._started_at is not None:
            (first, first_texts), (last, _) = self._recent[0], self._recent[-1]
            elapsed = anyio.current_time() - self._started_at
            rate = (self._texts - first_texts) / (last - first) if last > first else 0.0
        if self._total is not None and rate > 0:
            seconds_left = max(0, self._total - self._texts) / rate
        return Progress(
            texts=self._texts,
            failed=self._failed,
            batches=self._batches,
            total=self._total,
            elapsed=elapsed,
            rate=rate,
            seconds_left=seconds_left,
        )
