"""Figures into docs/bench.svg: CPU beside ollama-python's, a panel for each piece of work."""

from __future__ import annotations

from xml.sax.saxutils import escape

from .contenders import AIOHTTP, OURS, PYTHON, Contender
from .report import less_than_python, micro, sentence, times
from .rounds import Figures, Results
from .works import Work

# The rows of a panel: who, on which event loop, and what that is called.
ROWS = [
    (PYTHON, "asyncio", PYTHON),
    ("ollama-js", "node", "ollama-js"),
    ("httpx + msgspec", "asyncio", "httpx + msgspec"),
    (AIOHTTP, "asyncio", AIOHTTP),
    (OURS, "asyncio", f"{OURS}, asyncio"),
    (OURS, "trio", f"{OURS}, trio"),
]
COLUMNS = 2
WIDTH = 760
PANEL_WIDTH = WIDTH // COLUMNS
MARGIN = 16
LABELS = 134  # wide; the bars begin after that
BAR = 100  # the longest one
ROW = 20
HEAD = 74
PANEL_HEAD = 46
PANEL_GAP = 22

STYLE = """
    .paper { fill: #ffffff; }
    text { fill: #1f2328; font-size: 12px; }
    .title { font-size: 16px; font-weight: bold; }
    .panel { font-size: 13px; font-weight: bold; }
    .small { fill: #57606a; }
    .peer { fill: #afb8c1; }
    .ours { fill: #0b6e4f; }
    .bold { font-weight: bold; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; }
      text { fill: #e6edf3; }
      .small { fill: #9da7b3; }
      .peer { fill: #57606a; }
      .ours { fill: #3fb98c; }
    }"""


def shown(figures: dict[Contender, Figures]) -> list[tuple[str, Contender, Figures, float]]:
    """The rows that there are figures for: label, who, figures, share of ollama-python's CPU."""
    found = []
    for name, loop, label in ROWS:
        for who, each in figures.items():
            less = less_than_python(figures, who)
            if (who.name, who.loop) == (name, loop) and less:
                found.append((label, who, each, 1 / less))
    return found


def heading(work: Work) -> tuple[str, str]:
    """A title in two lines: what it is, and how much of it."""
    at = ": " if ": " in work.title else ", "
    what, _, rest = work.title.partition(at)
    return sentence(what), sentence(rest)


def panel(
    work: Work, figures: dict[Contender, Figures], left: int, top: int, scale: float
) -> list[str]:
    what, rest = heading(work)
    parts = [
        f'  <text class="panel" x="{left}" y="{top + 14}">{escape(what)}</text>',
        f'  <text class="small" x="{left}" y="{top + 30}">{escape(rest)}</text>',
    ]
    for number, (label, who, found, share) in enumerate(shown(figures)):
        y = top + PANEL_HEAD + number * ROW
        ours = who.name == OURS
        length = max(1.0, share * scale)
        at = left + LABELS
        bold = " bold" if ours else ""
        less = 1 / share
        beside = f", {times(less)}× less" if less >= 1.05 else ""
        parts += [
            f'  <text class="label{bold}" x="{at - 8}" y="{y + 4}" text-anchor="end">'
            f"{escape(label)}</text>",
            f'  <rect class="{"ours" if ours else "peer"}" x="{at}" y="{y - 6}"'
            f' width="{length:.1f}" height="13" rx="2"/>',
            f'  <text class="small{bold}" x="{at + length + 6:.1f}" y="{y + 4}">'
            f"{micro(found.cpu_us)} µs{beside}</text>",
        ]
    return parts


def svg(results: Results) -> str:
    """The whole picture."""
    panels = {work: figures for work, figures in results.items() if shown(figures)}
    rows = max((len(shown(figures)) for figures in panels.values()), default=0)
    longest = max((row[3] for figures in panels.values() for row in shown(figures)), default=1)
    height_of_panel = PANEL_HEAD + rows * ROW + PANEL_GAP
    height = HEAD + -(-len(panels) // COLUMNS) * height_of_panel
    described = " ".join(
        f"{sentence(work.title)}: "
        + ", ".join(f"{row[0]} {micro(row[2].cpu_us)} µs" for row in shown(figures))
        + "."
        for work, figures in panels.items()
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="sans-serif" role="img" aria-labelledby="title description">',
        '  <title id="title">CPU time of the client for a part or a request, beside other clients'
        "</title>",
        f'  <desc id="description">{escape(described)}</desc>',
        f"  <style>{STYLE}\n  </style>",
        f'  <rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'  <text class="title" x="{MARGIN}" y="30">CPU time of the client: shorter is better</text>',
        f'  <text class="small" x="{MARGIN}" y="50">For a part of a stream, or a request. Bars are'
        " shares of ollama-python’s time on the same event loop.</text>",
    ]
    for number, (work, figures) in enumerate(panels.items()):
        left = MARGIN + number % COLUMNS * PANEL_WIDTH
        top = HEAD + number // COLUMNS * height_of_panel
        parts += panel(work, figures, left, top, BAR / longest)
    return "\n".join([*parts, "</svg>"]) + "\n"
