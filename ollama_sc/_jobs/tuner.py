"""Finds the best number of requests in flight at a server, while a job runs. No I/O.

A server works on a number of requests at once and queues the others. Beyond that number throughput
does not grow, and only latency does. The number, here the level, is found in two steps:

1. It is doubled from one while that raises throughput by `_MIN_GAIN`.
2. The smallest level whose throughput is at least `_GOOD_ENOUGH` of the best is searched for
   between the levels that were measured.

The throughput of a level is measured by Little's law (J. D. C. Little, "A proof for the queuing
formula L = λW", 1961): λ = L / W, the mean number of requests in flight divided by the mean time
that each takes. That needs a few requests where counting them over time would need many: requests
that start together end together, in waves.
"""

from __future__ import annotations

import math

_GOOD_ENOUGH = 0.9  # of the best throughput
_MIN_GAIN = 1.15  # of throughput, for the level to be doubled again
_MAX_LEVEL = 64  # requests in flight
_MIN_SAMPLES = 6  # requests in a measurement
_MAX_REQUESTS = 200  # after which the best level so far is chosen


class ConcurrencyTuner:
    """Finds the number of requests in flight at one server. Times are on the event loop's clock.

    Attributes:
        level: how many requests may be in flight now.
        found: whether the search is over, and the level final.
    """

    def __init__(self) -> None:
        self.level = 1
        self.found = False
        self._throughputs: dict[int, float] = {}  # by level
        self._doubling = True
        self._ended_requests = 0
        self._in_flight = 0
        self._last_change = 0.0  # of the number in flight: when
        self._round = 0  # the measurement; requests that started in an earlier one do not count
        self._start_window()

    def _start_window(self) -> None:
        """Start to measure the level, with the requests that start from now on."""
        self._round += 1
        # Requests that start first find a shorter queue than those after them.
        self._samples_to_skip = (self.level + 1) // 2
        self._window_start = 0.0
        self._durations: list[float] = []  # of the requests that count
        self._in_flight_seconds = 0.0  # requests in flight, integrated over the window

    def begin(self, now: float) -> tuple[int, float]:
        """Count a request that starts; returns a token for `end`."""
        self._advance(now)
        self._in_flight += 1
        return self._round, now

    def end(self, token: tuple[int, float], now: float, *, measured: bool = True) -> None:
        """Count a request that has ended, and choose the next level once there are enough.

        There are four cases. The request is not like others, or the search is over: only the number
        in flight changes. It started before this measurement: it does not count. It is among the
        first of the measurement: those are skipped. It counts: with enough of them the level's
        throughput is known and the next level is chosen; the best one so far is final where the
        job had too many requests without that.

        Args:
            token: from `begin`.
            now: the time.
            measured: whether the request is like others: a whole batch that was not retried.
        """
        self._advance(now)
        self._in_flight -= 1
        if self.found or not measured:
            return
        self._ended_requests += 1
        token_round, started_at = token
        if token_round != self._round:
            return
        if self._samples_to_skip:
            self._samples_to_skip -= 1
            if not self._samples_to_skip:
                self._window_start, self._in_flight_seconds = now, 0.0
            return
        self._durations.append(now - started_at)
        if len(self._durations) >= max(self.level // 2, _MIN_SAMPLES) and now > self._window_start:
            in_flight = self._in_flight_seconds / (now - self._window_start)
            self._throughputs[self.level] = in_flight * len(self._durations) / sum(self._durations)
            self.level = self._next_level()
            self._start_window()
        elif self._ended_requests >= _MAX_REQUESTS and self._throughputs:
            self.level = self._best_so_far()
            self.found = True

    def restart(self) -> None:
        """Restart the measurement: something else than the server has held requests up."""
        self._start_window()

    def _advance(self, now: float) -> None:
        """Integrate the requests in flight up to now."""
        self._in_flight_seconds += self._in_flight * (now - self._last_change)
        self._last_change = now

    def _best_so_far(self) -> int:
        """The smallest of the measured levels whose throughput is near the best."""
        enough = _GOOD_ENOUGH * max(self._throughputs.values())
        return min(level for level, throughput in self._throughputs.items() if throughput >= enough)

    def _next_level(self) -> int:
        """The level to measure next, or the final one.

        There are three cases. Doubling still gains: the level is doubled. No level is left between
        the best one and the next smaller one that was measured, or there were too many requests:
        the best one is final. Otherwise a level between those two: near the estimate, or halfway.
        """
        throughputs = self._throughputs
        if self._doubling:
            half = throughputs.get(self.level // 2, 0.0)
            if throughputs[self.level] >= _MIN_GAIN * half and self.level < _MAX_LEVEL:
                return self.level * 2
            self._doubling = False
        high = self._best_so_far()
        low = max((level for level in throughputs if level < high), default=0)
        if high - low <= 1 or self._ended_requests >= _MAX_REQUESTS:
            self.found = True
            return high
        # While there is no queue, throughput is proportional to the level.
        estimate = math.ceil(_GOOD_ENOUGH * max(throughputs.values()) / throughputs[1] - 1e-6)
        for level in (estimate, estimate - 1, estimate + 1):
            if low < level < high:
                return level
        return (low + high) // 2

    def __repr__(self) -> str:
        state = "found" if self.found else f"measuring, {self._ended_requests} requests so far"
        return f"<ConcurrencyTuner: level {self.level}, {state}>"
