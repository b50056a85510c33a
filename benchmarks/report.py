"""Figures into tables: for the terminal, for docs/bench.md, and for the README."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version

from .contenders import AIOHTTP, OURS, PYTHON, Contender
from .limits import Line
from .rounds import Figures, Results
from .works import Work

PACKAGES = (
    "anyio", "trio", "uvloop", "httpx", "httpcore", "httptools", "msgspec", "aiohttp", "ollama",
)  # fmt: skip
START, END = "<!-- bench -->", "<!-- /bench -->"


def peer(figures: dict[Contender, Figures], name: str, loop: str) -> Figures | None:
    """A peer on the same event loop, or on asyncio where it does not run on that."""
    by_loop = {who.loop: found for who, found in figures.items() if who.name == name}
    return by_loop.get(loop, by_loop.get("asyncio"))


def ratio(above: Figures | None, below: Figures | None) -> float | None:
    return above.cpu_us / below.cpu_us if above is not None and below is not None else None


def less_than_python(figures: dict[Contender, Figures], who: Contender) -> float | None:
    """How many times less CPU than ollama-python."""
    return ratio(peer(figures, PYTHON, who.loop), figures[who])


def of_aiohttp(figures: dict[Contender, Figures], who: Contender) -> float | None:
    """The share of what aiohttp + msgspec takes."""
    return ratio(figures[who], peer(figures, AIOHTTP, who.loop))


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


def wanted(work: Work, who: Contender) -> tuple[str, str]:
    """The goals of a row, as text: to ollama-python, and to aiohttp + msgspec."""
    if who.name != OURS:
        return "", ""
    less = "" if work.less_than_python is None else f" (goal {work.less_than_python:g})"
    if work.of_aiohttp is None or who.loop == "uvloop":
        return less, ""
    return less, f" (goal {work.of_aiohttp[who.loop != 'trio']:g})"


def work_table(work: Work, figures: dict[Contender, Figures]) -> str:
    rows = []
    for who, found in figures.items():
        less, share = wanted(work, who)
        rows.append(
            (
                f"**{who.name}**" if who.name == OURS else who.name,
                who.loop,
                micro(found.cpu_us),
                f"{found.spread:.0%}",
                micro(found.wall_us),
                f"{found.server_share:.0%}",
                f"{times(less_than_python(figures, who))}{less}",
                f"{'' if (of := of_aiohttp(figures, who)) is None else f'{of:.2f}'}{share}",
            )
        )
    heads = (
        "client", "loop", "CPU, µs", "±", "wall, µs", "server's CPU",
        "times less than ollama-python", "of aiohttp + msgspec",
    )  # fmt: skip
    return table(heads, rows, left=2)


def work_section(work: Work, figures: dict[Contender, Figures]) -> str:
    if work.kind == "stream":
        amount = f"{work.operations:,} streams of {work.units:,} chunks"
    else:
        amount = f"{work.operations:,} requests"
    return (
        f"## {sentence(work.title)}\n\nFor each {work.unit}; {amount}.\n\n"
        f"{work_table(work, figures)}\n"
    )


def lines_table(lines: Sequence[Line]) -> str:
    rows = [
        (
            line.title,
            line.shown(line.value),
            line.wanted,
            "" if line.bound is None else "yes" if line.holds else "**no**",
        )
        for line in lines
    ]
    return table(("what", "figure", "goal", "reached"), rows)


def document(
    results: Results, lines: Sequence[Line], failures: Sequence[str], *, rounds: int
) -> str:
    """docs/bench.md."""
    parts = [
        "# What requests cost the client",
        "Written by `make bench`, all of it in one run.",
        f"All clients talk to the same local server, which is a process on another core. Each figure "
        f"is the median of {rounds} {'round' if rounds == 1 else 'rounds'}. In each round every client runs in a fresh process, the "
        "clients in turn. The clock starts after a warm-up. Opening the connections and streams is "
        "part of the work.",
        "- *CPU* is the user and system time of the client's process; ± is half of what lies between "
        "its lowest and highest round.\n"
        "- *server's CPU* is how much of its core the server used meanwhile: far below 100 %, it is "
        "not what limits.\n"
        "- Ratios are of CPU times, on the same event loop; where the other client does not run on "
        "that, with its figure on asyncio.\n"
        "- *floor* is a raw socket, the parser (llhttp) and the decoder (msgspec), and nothing else: "
        "no limits, no cancellation, no errors.\n"
        "- httpx + msgspec and aiohttp + msgspec decode into the same types as ollama-sc, as many "
        "lines at once as they are given.\n"
        "- What builds on httpx has a hundred connections, its default, and one for each stream where "
        "there are more. More connections for short requests make it slower.",
        f"With {versions()}.",
    ]
    parts += [work_section(work, figures).rstrip() for work, figures in results.items()]
    if lines:
        parts += ["## Bounds and jobs", lines_table(lines)]
    if failures:
        parts += ["## Not finished", "\n".join(f"- {what}" for what in failures)]
    return "\n\n".join(parts) + "\n"


# -- the README ----------------------------------------------------------------------------------


def readme_table(results: Results) -> str:
    """One row for each work: what it costs, and how many times less that is."""
    rows = []
    for work, figures in results.items():
        row = [f"{work.title}: a {work.unit}"]
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
        f"  {'less than ollama-python':24} of aiohttp + msgspec"
    )
    for who, found in figures.items():
        less, share = wanted(work, who)
        of = of_aiohttp(figures, who)
        lines.append(
            f"  {who.label:28} {micro(found.cpu_us):>9} {found.spread:5.0%}"
            f" {micro(found.wall_us):>9} {found.server_share:6.0%}"
            f"  {times(less_than_python(figures, who)) + less:24}"
            f" {'' if of is None else f'{of:.2f}'}{share}".rstrip()
        )
    return "\n".join(lines)


def lines_for_terminal(lines: Sequence[Line]) -> str:
    return "\n".join(
        f"  {line.shown(line.value):>12}  {line.title}"
        + ("" if line.bound is None else f"  [{line.wanted}: {'yes' if line.holds else 'NO'}]")
        for line in lines
    )
