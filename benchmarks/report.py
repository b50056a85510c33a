"""Figures into tables: for the terminal, for docs/bench.md, and for the README."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from .contenders import AIOHTTP, FLOOR, OURS, PYTHON, THREADS, Contender
from .limits import Line
from .rounds import Figures, Results
from .works import Work

PACKAGES = (
    "anyio", "trio", "uvloop", "httpx", "httpcore", "httptools", "msgspec", "aiohttp", "ollama",
)  # fmt: skip
FEW_ROUNDS = 3
START, END = "<!-- bench -->", "<!-- /bench -->"


def peer(figures: dict[Contender, Figures], name: str, loop: str) -> Figures | None:
    """A peer on the same event loop, or on asyncio where it does not run on that; or in threads."""
    by_loop = {who.loop: found for who, found in figures.items() if who.name == name}
    return by_loop.get(loop, by_loop.get("asyncio", by_loop.get(THREADS)))


def ratio(above: Figures | None, below: Figures | None) -> float | None:
    """The median of the rounds' ratios: the machine's speed drifts from one to the next."""
    if above is None or below is None:
        return None
    rounds = zip(above.cpu, below.cpu, strict=True)
    return statistics.median(one / other for one, other in rounds)


def less_than_python(figures: dict[Contender, Figures], who: Contender) -> float | None:
    """How many times less CPU than ollama-python."""
    return ratio(peer(figures, PYTHON, who.loop), figures[who])


def of_aiohttp(figures: dict[Contender, Figures], who: Contender) -> float | None:
    """The share of what aiohttp + msgspec takes."""
    return ratio(figures[who], peer(figures, AIOHTTP, who.loop))


def of_floor(figures: dict[Contender, Figures], who: Contender) -> float | None:
    """How many times the floor."""
    return ratio(figures[who], peer(figures, FLOOR, who.loop))


def times(value: float | None) -> str:
    """A ratio with as many digits as it deserves."""
    return "" if value is None else f"{value:.1f}" if value < 20 else f"{value:.0f}"


def micro(value: float) -> str:
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose first columns are text, the others numbers."""
    marks = ["---" if number < left else "---:" for number in range(len(heads))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heads, marks, *rows))


def sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def versions() -> str:
    found = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


# -- each figure ---------------------------------------------------------------------------------


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def work_table(work: Work, figures: dict[Contender, Figures]) -> str:
    rows = [
        (
            f"**{who.name}**" if who.name == OURS else who.name,
            who.loop,
            micro(found.cpu_us),
            f"{found.spread:.0%}",
            micro(found.wall_us),
            f"{found.server_share:.0%}",
            times(less_than_python(figures, who)),
            share(of_aiohttp(figures, who)),
            share(of_floor(figures, who)),
        )
        for who, found in figures.items()
    ]
    heads = (
        "client", "loop", "CPU, µs", "±", "wall, µs", "server's CPU",
        "times less than ollama-python", "of aiohttp + msgspec", "of the floor",
    )  # fmt: skip
    return table(heads, rows, left=2)


def work_section(work: Work, figures: dict[Contender, Figures]) -> str:
    amount = f"{work.operations:,} {'streams' if work.streams else 'requests'}"
    if work.kind == "tokens":
        amount += f" of {work.units:,} parts, from when each of them has its first one"
    elif work.kind == "stream":
        amount += f" of {work.units:,} parts"
    return (
        f"## {sentence(work.title)}\n\nFor each {work.unit}; {amount}.\n\n"
        f"{work_table(work, figures)}\n"
    )


def lines_table(lines: Sequence[Line]) -> str:
    return table(("what", "figure"), [(line.title, line.shown) for line in lines])


def document(
    results: Results,
    lines: Sequence[Line],
    failures: Sequence[str],
    *,
    rounds: int,
    blocking: Results | None = None,
) -> str:
    """docs/bench.md."""
    parts = [
        "# What requests cost the client",
        "Written by `make bench`, all of it in one run.",
        f"All clients talk to the same local server, which is a process on another core. Each figure "
        f"is the median of {rounds} {'round' if rounds == 1 else 'rounds'}. In each round every client runs in a fresh process, the "
        "clients in turn. The clock starts after a warm-up."
        + (" With so few rounds, a figure can be a third off." if rounds < FEW_ROUNDS else ""),
        "The first tables are what a model does: it writes a token, and then nothing for some "
        "hundredths of a second. The last one, streams back to back, is what a client can do and no "
        "model asks of it.",
        "- *CPU* is the user and system time of the client's process; ± is half of what lies between "
        "its lowest and highest round.\n"
        "- *server's CPU* is how much of its core the server used meanwhile: far below 100 %, it is "
        "not what limits.\n"
        "- Ratios are of CPU times on the same event loop, the median over the rounds; where the other "
        "client does not run on that, with its figure on asyncio.\n"
        "- *floor* is a raw socket, the parser (llhttp) and the decoder (msgspec), and nothing else: "
        "no limits, no cancellation, no errors.\n"
        "- httpx + msgspec and aiohttp + msgspec decode into the same types as ollama-sc, as many "
        "lines at once as they are given.\n"
        "- What builds on httpx has a hundred connections, its default, and one for each stream where "
        "there are more. More connections for short requests make it slower.",
        f"With {versions()}.",
    ]
    every = {**results, **(blocking or {})}
    parts += [work_section(work, figures).rstrip() for work, figures in every.items()]
    if lines:
        parts += ["## Jobs, many at once, the first request", lines_table(lines)]
    if failures:
        parts += ["## Not finished", "\n".join(f"- {what}" for what in failures)]
    return "\n\n".join(parts) + "\n"


# -- the README ----------------------------------------------------------------------------------


def readme_table(results: Results) -> str:
    """One row for each work: what it costs, and how many times less that is."""
    rows = []
    for work, figures in results.items():
        row = [f"{work.title} (for each {work.unit})"]
        for name, loop in (
            (PYTHON, "asyncio"),
            (AIOHTTP, "asyncio"),
            (OURS, "asyncio"),
            (OURS, "trio"),
        ):
            found = next((f for w, f in figures.items() if (w.name, w.loop) == (name, loop)), None)
            row.append("" if found is None else micro(found.cpu_us))
        less = [
            value
            for who in figures
            if who.name == OURS and who.loop in {"asyncio", "trio"}
            if (value := less_than_python(figures, who)) is not None
        ]
        row.append(" to ".join(dict.fromkeys(times(value) for value in sorted(less))))
        rows.append(row)
    heads = (
        "CPU of the client, µs", PYTHON, AIOHTTP, f"{OURS}, asyncio", f"{OURS}, trio",
        f"times less than {PYTHON}",
    )  # fmt: skip
    return table(heads, rows)


def into_readme(text: str, results: Results) -> str:
    """The README with the table of this run between its markers."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f"the README has no {START} ... {END}")
    return f"{before}{START}\n{readme_table(results)}\n{END}{after}"


# -- the terminal --------------------------------------------------------------------------------


def for_terminal(work: Work, figures: dict[Contender, Figures]) -> str:
    lines = [f"\n{work.name}: {work.title}, for each {work.unit}"]
    lines.append(
        f"  {'':28} {'CPU us':>9} {'+-':>5} {'wall us':>9} {'server':>6}"
        f" {'less than ollama-python':>24} {'of aiohttp':>10} {'of the floor':>12}"
    )
    for who, found in figures.items():
        lines.append(
            f"  {who.label:28} {micro(found.cpu_us):>9} {found.spread:5.0%}"
            f" {micro(found.wall_us):>9} {found.server_share:6.0%}"
            f" {times(less_than_python(figures, who)):>24} {share(of_aiohttp(figures, who)):>10}"
            f" {share(of_floor(figures, who)):>12}".rstrip()
        )
    return "\n".join(lines)


def lines_for_terminal(lines: Sequence[Line]) -> str:
    return "\n".join(f"  {line.shown:>12}  {line.title}" for line in lines)
