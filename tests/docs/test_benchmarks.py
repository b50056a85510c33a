"""The benchmark works: contenders give figures, and figures become a table and a chart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from benchmarks import chart, report, works
from benchmarks.contenders import BLOCKING, CONTENDERS, FLOOR, OURS, PYTHON, Contender
from benchmarks.limits import Line
from benchmarks.machine import server
from benchmarks.rounds import Figures, Results, once
from tests.support import ROOT

README = (ROOT / "README.md").read_text()
TOKENS = {"model": "gate-3-5", "units": 4, "warm_up": 1}
SMALL = [
    replace(works.COMPARED[1], operations=3, **TOKENS),
    replace(works.OPEN, operations=3, warm_up=1),
    replace(works.EMBED, operations=20, in_flight=4, warm_up=1),
    replace(works.CANCEL, operations=20, warm_up=1),
    replace(works.BACK_TO_BACK, operations=1, warm_up=1),
]
SMALL_BLOCKED = [
    replace(works.BLOCKED[0], **TOKENS),
    replace(works.BLOCKED[1], operations=3, **TOKENS),
    replace(works.BLOCKED[2], operations=20, warm_up=1),
    replace(works.BLOCKED[3], operations=1, warm_up=1),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The benchmark's own server, as a process."""
    with server(pinned=False) as where:
        yield where


@pytest.fixture
def results() -> Results:
    """Made-up figures: each contender takes longer than the one before."""
    return {
        work: {
            who: Figures([number, number * 1.2, number * 1.1], [number * 2.0] * 3, [0.125] * 3)
            for number, who in enumerate(reversed(CONTENDERS), 1)
        }
        for work in works.COMPARED
    }


@pytest.mark.parametrize(
    ("work", "contender"),
    [
        pytest.param(work, who, id=f"{work.name}, {who.label}")
        for work in SMALL
        for who in CONTENDERS
        if who.name in {OURS, FLOOR} and who.loop != "uvloop" and who.does(work.kind)
    ],
)
def test_a_contender_gives_figures(contender: Contender, work: works.Work, url: str) -> None:
    """It does all of the work, and what that took is above zero."""
    taken = once(contender, work, url)
    assert taken["cpu"] > 0
    assert taken["wall"] > 0
    assert taken["server"] >= 0


@pytest.mark.parametrize("number", range(len(works.BLOCKED)))
def test_a_blocking_contender_gives_figures(number: int, url: str) -> None:
    """Each piece of work, in small, by one of them in turn: all of it is done."""
    taken = once(BLOCKING[1:][number % 2], SMALL_BLOCKED[number], url)
    assert taken["cpu"] > 0
    assert taken["wall"] > 0


def test_tokens_are_counted_from_the_first_parts_and_openings_until_them(url: str) -> None:
    """Between the two the server waits for a quarter of a second, which neither of them has."""
    tokens = replace(works.COMPARED[0], model="gate-2-1", units=3, warm_up=1)
    opening = replace(works.OPEN, operations=1, warm_up=1)
    who = next(each for each in CONTENDERS if each.name == FLOOR)
    assert once(who, tokens, url)["wall"] > 0.2
    assert min(once(who, opening, url)["wall"] for _ in range(3)) < 0.2


@pytest.mark.parametrize("work", [*works.COMPARED, *works.BLOCKED], ids=lambda work: work.name)
def test_a_small_part_of_a_work_is_counted_like_it(work: works.Work) -> None:
    """As many units for each operation, and the server waits for as many streams as there are."""
    small = work.sized(hurry=True)
    assert small.count / small.operations == work.count / work.operations
    assert small.expected / small.operations == work.expected / work.operations
    if work.kind in {"tokens", "opening"}:
        assert small.asked_model.startswith(f"gate-{small.operations}-")


def test_work_reaches_its_process_as_it_is() -> None:
    """What a process is told of its work says all of it."""
    for work in (*works.COMPARED, *works.BLOCKED):
        assert works.Work.from_json(work.to_json()) == work


def test_the_tables_say_what_was_measured(results: Results) -> None:
    """Each contender has a row in each table, with its median and the ratios to the peers."""
    lines = [Line("memory", 31.5, "KiB", digits=1)]
    text = report.document(results, lines, ["a contender, a work"], rounds=3)
    assert text.count("\n| **ollama-sc** | trio | 4.40 | 9% | 8.00 | 12% |") == len(results)
    assert "| 12% | 3.2 | 0.50 | 4.00 |" in text
    assert "\n| memory | 31.5 KiB |" in text
    assert "- a contender, a work" in text
    assert "off." not in text
    assert "a third off." in report.document(results, lines, [], rounds=1)
    for work, figures in results.items():
        assert report.for_terminal(work, figures).count("\n") == len(CONTENDERS) + 2


def test_blocking_clients_have_sections_of_their_own() -> None:
    """Their ratios are to the peer's blocking client, whatever event loop is behind ours."""
    made = {
        work: {who: Figures([1 + number], [1.0], [0.1]) for number, who in enumerate(BLOCKING)}
        for work in works.BLOCKED
    }
    text = report.document({}, [], [], rounds=1, blocking=made)
    assert text.count("\n## Blocking: ") == len(works.BLOCKED)
    for row in (
        "threads | 2.00 | 0% | 1.00 | 10% | 0.5",
        "threads and trio | 3.00 | 0% | 1.00 | 10% | 0.3",
    ):
        assert text.count(f"| **ollama-sc** | {row}") == len(made)


def test_the_readme_takes_the_table(results: Results) -> None:
    """It stands between the markers, in place of what stood there, and nothing else changes."""
    once_written = report.into_readme(README, results)
    assert report.into_readme(once_written, results) == once_written
    before, table, after = re.split("<!-- /?bench -->", once_written)
    assert table.count("\n| ") == len(results) + 2
    assert [before, after] == re.split("<!-- /?bench -->", README)[::2]


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    """One slow round of a peer is no gain of ours."""
    (python, ours) = (
        next(each for each in CONTENDERS if each.name == name) for name in (PYTHON, OURS)
    )
    figures = {python: Figures([8.0, 80.0, 9.0]), ours: Figures([4.0, 20.0, 3.0])}
    assert report.less_than_python(figures, ours) == 3


def test_a_readme_without_a_place_is_an_error(results: Results) -> None:
    """The table is not written to nowhere."""
    with pytest.raises(ValueError, match="<!-- bench -->"):
        report.into_readme("# Nothing", results)


def test_the_chart_has_every_panel_inside(results: Results) -> None:
    """It is well-formed, has a bar for each row that it shows, and none leaves the picture."""
    picture = ElementTree.fromstring(chart.svg(results))
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    bars = picture.findall("{*}rect")[1:]
    assert len(bars) == len(chart.ROWS) * len(results)
    for bar in bars:
        assert 0 < float(bar.attrib["x"]) + float(bar.attrib["width"]) < width
        assert 0 < float(bar.attrib["y"]) + float(bar.attrib["height"]) < height


@pytest.mark.parametrize("work", works.COMPARED, ids=lambda work: work.name)
def test_a_heading_stays_in_its_panel(work: works.Work) -> None:
    """In each line there is room for so many letters, eight pixels for each in bold."""
    room = chart.PANEL_WIDTH - chart.MARGIN
    what, rest = chart.heading(work)
    assert rest
    assert len(what) * 8 <= room
    assert len(rest) * 6.6 <= room


def test_the_chart_goes_on_without_some_contenders(results: Results) -> None:
    """Where a peer is not installed its bars are missing, and the others are there."""
    some = {
        work: {who: found for who, found in figures.items() if who.loop != "node"}
        for work, figures in results.items()
    }
    assert "ollama-js" not in chart.svg(some)
    assert chart.svg(some).count("<rect") == (len(chart.ROWS) - 1) * len(results) + 1
