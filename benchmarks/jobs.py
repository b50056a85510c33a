"""Embedding jobs: what a vector costs, and how near a job comes to what the server can do."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from .contenders import PYTHON, Contender, contender
from .limits import Line, ours_on
from .rounds import Figures, measure
from .works import JOB_BATCHES, JOB_MANY, JOB_SINGLE, SERVED_BATCHES, SERVED_MANY, Work


def jobs(url: str, *, rounds: int, hurry: bool, say: Callable[[str], None]) -> list[Line]:
    """What each way to embed many texts takes, beside ollama-python's ways."""
    single, batches, many, served_batches, served_many = (
        work.sized(hurry=hurry)
        for work in (JOB_SINGLE, JOB_BATCHES, JOB_MANY, SERVED_BATCHES, SERVED_MANY)
    )
    theirs = contender(f"{PYTHON}, asyncio")
    ours = ours_on()
    pairs: list[tuple[Work, Contender]] = []
    if missing := theirs.missing():
        say(f"skipped: jobs of {theirs.label} (not installed: {', '.join(missing)})")
    else:
        pairs += [(work, theirs) for work in (single, batches, served_batches)]
    pairs += [(work, who) for work in (batches, served_batches) for who in ours]
    if find_spec("ollama_sc.embedding"):
        pairs += [(work, who) for work in (many, served_many) for who in ours]
    else:
        say("skipped: embed_many (this version of ollama_sc has none)")
    results = measure(pairs, url, rounds=rounds, say=say)
    lines = []
    for work in (batches, many):
        for than in (single, batches):
            base = results.get(than, {}).get(theirs)
            for who, figures in results.get(work, {}).items():
                if base is not None and who != theirs:
                    lines.append(less_than(base, than, figures, work, who))
    for work in (served_batches, served_many):
        for who, figures in results.get(work, {}).items():
            lines.append(of_the_server(figures, work, who))
    return lines


def less_than(base: Figures, than: Work, figures: Figures, work: Work, who: Contender) -> Line:
    title = (
        f"CPU of a vector, {work.title}, {who.label} ({figures.cpu_us:.1f} µs): less than {PYTHON},"
        f" {than.title} ({base.cpu_us:.1f} µs)"
    )
    return Line(title, base.cpu_us / figures.cpu_us, "times", digits=1)


def of_the_server(figures: Figures, work: Work, who: Contender) -> Line:
    assert work.seconds is not None
    title = (
        f"throughput of what the server's service time allows, {work.in_flight} in flight,"
        f" {work.title}, {who.label}"
    )
    share = work.seconds / work.count * 1e6 / figures.wall_us
    return Line(title, share * 100, "%", digits=1)
