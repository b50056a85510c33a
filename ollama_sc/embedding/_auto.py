"""How many requests a server is best given at the same time, found while a job runs. No I/O.

A server works on so many requests at once and lets others queue: beyond that number throughput does
not grow, and each request only takes longer. The number is found in two steps. It is doubled from
one while that gains something; then the smallest one whose throughput is near the best is looked
for between those that were measured.

Throughput is what Little's law says it is: requests in flight, divided by how long each takes. That
needs a few requests where counting them over time would need many: requests that begin together end
together, in waves.
"""

from __future__ import annotations

import math

_GOOD = 0.9  # of the best throughput: good enough
_GAIN = 1.15  # what doubling must bring to be done again
_MOST = 64  # in flight
_FEWEST = 6  # requests that a measurement is made of
_PATIENCE = 200  # requests until what was measured must do


class Auto:
    """Chooses a level: the number of requests in flight.

    Attributes:
        level: the level for now.
        found: whether it stays.
    """

    def __init__(self) -> None:
        self.level = 1
        self.found = False
        self._rates: dict[int, float] = {}  # by level
        self._growing = True
        self._ended = 0
        self._in_flight = 0
        self._changed = 0.0  # when that did
        self._round = 0  # of measuring: what began in an earlier one does not count
        self._measure()

    def _measure(self) -> None:
        """Measure the level, with requests that begin from now on."""
        self._round += 1
        # Those that begin first find a shorter queue than those after them.
        self._to_skip = (self.level + 1) // 2
        self._since = 0.0
        self._times: list[float] = []  # how long each took, since then
        self._area = 0.0  # requests in flight times seconds, since then

    def begin(self, now: float) -> tuple[int, float]:
        """A request begins; returns what `end` needs."""
        self._pass(now)
        self._in_flight += 1
        return self._round, now

    def end(self, token: tuple[int, float], now: float, *, counts: bool = True) -> None:
        """A request has ended; it counts if it is like the others."""
        self._pass(now)
        self._in_flight -= 1
        if self.found or not counts:
            return
        self._ended += 1
        begun_in, began = token
        if begun_in != self._round:
            return
        if self._to_skip:
            self._to_skip -= 1
            if not self._to_skip:
                self._since, self._area = now, 0.0
            return
        self._times.append(now - began)
        if len(self._times) >= max(self.level // 2, _FEWEST) and now > self._since:
            in_flight = self._area / (now - self._since)
            self._rates[self.level] = in_flight * len(self._times) / sum(self._times)
            self.level = self._next()
            self._measure()
        elif self._ended >= _PATIENCE and self._rates:
            self.level = self._best_so_far()
            self.found = True

    def disturb(self) -> None:
        """Something else than the server holds requests back: measure this level afresh."""
        self._measure()

    def _pass(self, now: float) -> None:
        self._area += self._in_flight * (now - self._changed)
        self._changed = now

    def _best_so_far(self) -> int:
        """The smallest level measured whose throughput is good enough."""
        enough = _GOOD * max(self._rates.values())
        return min(level for level, rate in self._rates.items() if rate >= enough)

    def _next(self) -> int:
        """The level after one was measured."""
        rates = self._rates
        if self._growing:
            before = rates.get(self.level // 2, 0.0)
            if rates[self.level] >= _GAIN * before and self.level < _MOST:
                return self.level * 2
            self._growing = False
        high = self._best_so_far()
        low = max((level for level in rates if level < high), default=0)
        if high - low <= 1 or self._ended >= _PATIENCE:
            self.found = True
            return high
        # While there is no queue, throughput is proportional to the level.
        likely = math.ceil(_GOOD * max(rates.values()) / rates[1] - 1e-6)
        for level in (likely, likely - 1, likely + 1):
            if low < level < high:
                return level
        return (low + high) // 2
