"""What telemetry costs: a request and a stream with it off and on, in one run."""

from __future__ import annotations

from collections.abc import Callable

from .contenders import OBSERVED
from .limits import Line, ours_on
from .rounds import able, measure
from .works import BACK_TO_BACK, EMBED


def telemetry(url: str, *, rounds: int, hurry: bool, say: Callable[[str], None]) -> list[Line]:
    """Each on both event loops."""
    stream, request = (each.sized(hurry=hurry) for each in (BACK_TO_BACK, EMBED))
    off = ours_on()
    on = able(OBSERVED, say)
    pairs = [(work, who) for work in (stream, request) for who in (*off, *on)]
    results = measure(pairs, url, rounds=rounds, say=say)
    lines = []
    for work, what in ((request, "a request"), (stream, f"a stream of {stream.units:,} parts")):
        for who in on:
            (plain,) = (each for each in off if each.loop == who.loop)
            without, with_it = (results[work][each].cpu_us * work.units for each in (plain, who))
            lines.append(
                Line(
                    f"CPU that telemetry adds to {what}, {who.loop}"
                    f" ({without:,.0f} µs with it off, {with_it:,.0f} µs with it on)",
                    with_it - without,
                    "µs",
                    digits=0,
                )
            )
    return lines
