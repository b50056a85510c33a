"""`python -m benchmarks`: measure, print, and write the table, the chart and the README's part."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from . import against, chart, limits, report
from .contenders import BLOCKING, CONTENDERS, OURS, Contender
from .jobs import jobs
from .machine import ROOT, server
from .observed import telemetry
from .rounds import Failed, Results, able, measure
from .works import BLOCKED, COMPARED, Work

LIMITS = ("jobs", "in-flight", "live", "first", "import", "telemetry")
DOCS = ROOT / "docs"
PARTS = (*(work.name for work in (*COMPARED, *BLOCKED)), *LIMITS)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="CPU time of the client, beside its peers. Without options it measures all and"
        " writes docs/bench.md, docs/bench.svg and the README's table.",
    )
    parser.add_argument("--rounds", type=int, default=5, help="for each figure (default: 5)")
    parser.add_argument(
        "--only", metavar="WORK", action="append", choices=PARTS, help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--contenders",
        metavar="NAMES",
        help="parts of names, with commas: ollama-sc,aiohttp or 'ollama-sc, trio' alone",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one small round, to see that it works"
    )
    parser.add_argument("--streams", type=int, default=limits.STREAMS, help="live ones (10,000)")
    parser.add_argument(
        "--no-pin", action="store_true", help="leave it to the system who runs where"
    )
    parser.add_argument(
        "--write", type=Path, metavar="DIR", help="write there, whatever was measured"
    )
    parser.add_argument(
        "--against", metavar="COMMIT", help="measure this library alone, beside itself at a commit"
    )
    return parser.parse_args()


def picked(contenders: list[Contender], names: str | None) -> list[Contender]:
    if names is None:
        return contenders
    labels = {each.label for each in contenders}
    parts = [names] if names in labels else [part.strip() for part in names.split(",")]
    return [each for each in contenders if any(part in each.label for part in parts)]


class Run:
    """What was asked for, and what was found."""

    def __init__(self, url: str, options: argparse.Namespace) -> None:
        self.url = url
        self.options = options
        self.rounds = 1 if options.quick else options.rounds
        self.failures: list[str] = []
        self.results: Results = {}
        self.blocking: Results = {}
        self.lines: list[limits.Line] = []

    def wants(self, name: str) -> bool:
        return self.options.only is None or name in self.options.only

    def failed(self, error: Failed) -> None:
        self.failures.append(error.what)
        say(f"FAILED: {error}")

    def compare(self) -> None:
        """Every piece of work by every contender."""
        self.results = self.compared(COMPARED, CONTENDERS)
        self.blocking = self.compared(BLOCKED, BLOCKING)

    def compared(self, works: list[Work], contenders: list[Contender]) -> Results:
        wanted = [work for work in works if self.wants(work.name)]
        able_ones = able(picked(contenders, self.options.contenders), say) if wanted else []
        results: Results = {}
        for each in wanted:
            work = each.sized(hurry=self.options.quick)
            pairs = [(work, who) for who in able_ones if who.does(work.kind)]
            found = measure(pairs, self.url, rounds=self.rounds, say=say, failed=self.failed)
            results |= found
            if found:
                print(report.for_terminal(work, found[work]), flush=True)
        return results

    def bounds(self) -> None:
        """What has a bound of its own."""
        for name in filter(self.wants, LIMITS):
            try:
                found = self.part(name)
            except Failed as error:
                self.failed(error)
                continue
            print(f"\n{name}\n{report.lines_for_terminal(found)}", flush=True)
            self.lines += found

    def part(self, name: str) -> list[limits.Line]:
        hurry = self.options.quick
        match name:
            case "jobs":
                return jobs(self.url, rounds=self.rounds, hurry=hurry, say=say)
            case "in-flight":
                return limits.in_flight(self.url, rounds=self.rounds, hurry=hurry, say=say)
            case "live":
                return limits.live_streams(self.url, streams=self.options.streams, say=say)
            case "first":
                return limits.first_requests(self.url, rounds=3 * self.rounds, say=say)
            case "telemetry":
                return telemetry(self.url, rounds=self.rounds, hurry=hurry, say=say)
            case _:
                return limits.imports(rounds=3 * self.rounds)


def compare_commits(options: argparse.Namespace) -> None:
    """This library beside itself at another commit; nothing is written."""
    pairs = [
        (each.sized(hurry=options.quick), who)
        for works, contenders in ((COMPARED, CONTENDERS), (BLOCKED, BLOCKING))
        for each in works
        if options.only is None or each.name in options.only
        for who in able(picked(contenders, options.contenders), say)
        if who.name == OURS
    ]
    rounds = 1 if options.quick else options.rounds
    with (
        against.checked_out(options.against) as other,
        server(pinned=not options.no_pin) as url,
    ):
        print("\n".join(against.ratios(pairs, other, url, rounds=rounds, say=say)))


def write(run: Run, folder: Path) -> None:
    """The table and the chart of one run; into docs/, the README's table with them."""
    text = report.document(
        run.results, run.lines, run.failures, rounds=run.rounds, blocking=run.blocking
    )
    (folder / "bench.md").write_text(text, encoding="utf-8")
    (folder / "bench.svg").write_text(chart.svg(run.results), encoding="utf-8")
    if folder.resolve() == DOCS:
        readme = ROOT / "README.md"
        text = report.into_readme(readme.read_text(encoding="utf-8"), run.results)
        readme.write_text(text, encoding="utf-8")


def main() -> None:
    options = arguments()
    started = time.monotonic()
    if options.against is not None:
        compare_commits(options)
        return
    with server(pinned=not options.no_pin) as url:
        run = Run(url, options)
        run.compare()
        run.bounds()
    say(f"\n{(time.monotonic() - started) / 60:.1f} minutes")
    whole = options.only is None and options.contenders is None and not options.quick
    if options.write is not None or whole:
        write(run, options.write or DOCS)
    else:
        say("nothing was written: that takes a whole run, or --write")
    sys.exit(1 if run.failures else 0)


if __name__ == "__main__":
    main()
