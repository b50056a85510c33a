"""The benchmark works: contenders give figures, and figures become a table and a chart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from benchmarks import chart, report, works
from benchmarks.contenders import CONTENDERS, FLOOR, OURS, Contender
from benchmarks.limits import Line
from benchmarks.machine import server
from benchmarks.rounds import Figures, Results, once

README = (Path(__file__).parent.parent / "README.md").read_text()
STREAM, STREAMS, _, EMBED, *_ = works.COMPARED
SMALL = [
    replace(STREAM, operations=1, warm_up=1),
    replace(STREAMS, operations=3, in_flight=3, units=4, model="stream-3-5", warm_up=1),
    replace(EMBED, operations=20, in_flight=4, warm_up=1),
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


@pytest.mark.parametrize("work", SMALL, ids=lambda work: work.name)
@pytest.mark.parametrize(
    "contender",
    [each for each in CONTENDERS if each.name in {OURS, FLOOR} and each.loop != "uvloop"],
    ids=lambda contender: contender.label,
)
def test_a_contender_gives_figures(contender: Contender, work: works.Work, url: str) -> None:
    """It does all of the work, and what that took is above zero."""
    taken = once(contender, work, url)
    assert taken["cpu"] > 0
    assert taken["wall"] > 0
    assert taken["server"] >= 0


def test_work_reaches_its_process_as_it_is() -> None:
    """What a process is told of its work says all of it."""
    for work in works.COMPARED:
        told = works.Work.from_json(work.to_json())
        assert replace(told, of_aiohttp=work.of_aiohttp) == work


def test_the_tables_say_what_was_measured(results: Results) -> None:
    """Each contender has a row in each table, with its median and the ratios to the peers."""
    lines = [Line("memory", 31.5, "KiB", 32, digits=1), Line("rate", 94, "%", 95, at_least=True)]
    text = report.document(results, lines, ["a contender, a work"], rounds=3)
    assert text.count("\n| **ollama-sc** | trio | 3.30 | 9% | 6.00 | 12% |") == len(results)
    assert "| 3.7 (goal 12) | 0.43 (goal 0.8) |" in text
    assert "| memory | 31.5 KiB | at most 32 KiB | yes |" in text
    assert "| rate | 94.00 % | at least 95 % | **no** |" in text
    assert "- a contender, a work" in text
    for work, figures in results.items():
        assert report.for_terminal(work, figures).count("\n") == len(CONTENDERS) + 2


def test_the_readme_takes_the_table(results: Results) -> None:
    """It stands between the markers, in place of what stood there, and nothing else changes."""
    once_written = report.into_readme(README, results)
    assert report.into_readme(once_written, results) == once_written
    before, table, after = re.split("<!-- /?bench -->", once_written)
    assert table.count("\n| ") == len(results) + 2
    assert [before, after] == re.split("<!-- /?bench -->", README)[::2]


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


def test_the_chart_goes_on_without_some_contenders(results: Results) -> None:
    """Where a peer is not installed its bars are missing, and the others are there."""
    some = {
        work: {who: found for who, found in figures.items() if who.loop != "node"}
        for work, figures in results.items()
    }
    assert "ollama-js" not in chart.svg(some)
    assert chart.svg(some).count("<rect") == (len(chart.ROWS) - 1) * len(results) + 1
