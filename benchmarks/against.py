"""This library beside itself at another commit, in one run: `make bench ARGS="--against HEAD~1"`.

Each round runs both in turn, now the one first and now the other, so that the ratio of a round holds
where the machine's speed drifts.
"""

from __future__ import annotations

import io
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .contenders import Contender
from .machine import ROOT
from .rounds import Failed, once
from .works import Work

PACKAGE = "ollama_sc"


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """A folder with nothing but the library as it was at a commit."""
    done = subprocess.run(
        ["git", "archive", "--format=tar", revision, PACKAGE],
        cwd=ROOT,
        check=False,
        capture_output=True,
    )
    if done.returncode:
        sys.exit(done.stderr.decode().strip())
    with tempfile.TemporaryDirectory() as folder:
        tarfile.open(fileobj=io.BytesIO(done.stdout)).extractall(folder, filter="data")
        yield Path(folder)


def ratios(
    pairs: Sequence[tuple[Work, Contender]],
    other: Path,
    url: str,
    *,
    rounds: int,
    say: Callable[[str], None],
) -> list[str]:
    """For each work and event loop: the median and the range of now / then in CPU time."""
    here = {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"}
    there = {"PYTHONPATH": os.pathsep.join([str(other), str(ROOT)]), "PYTHONSAFEPATH": "1"}
    found: dict[tuple[Work, Contender], list[tuple[float, float]]] = {pair: [] for pair in pairs}
    for number in range(rounds):
        for pair, figures in found.items():
            work, who = pair
            taken: dict[bool, float] = {}
            for old in (False, True) if number % 2 else (True, False):
                try:
                    taken[old] = once(who, work, url, there if old else here)["cpu"]
                except Failed as error:
                    sys.exit(str(error))
            now, then = (taken[old] / work.count * 1e6 for old in (False, True))
            figures.append((now, then))
            say(
                f"round {number + 1}, {work.name:16} {who.loop:8} {now:9.2f} us, {then:9.2f} us then"
            )
    lines = ["| work | loop | now, µs | then, µs | now / then: median | lowest to highest |"]
    lines.append("|---|---|---|---|---|---|")
    for (work, who), figures in found.items():
        each = sorted(now / then for now, then in figures)
        middle = [statistics.median(column) for column in zip(*figures, strict=True)]
        lines.append(
            f"| {work.title} | {who.loop} | {middle[0]:.2f} | {middle[1]:.2f} "
            f"| {statistics.median(each):.3f} | {each[0]:.2f} to {each[-1]:.2f} |"
        )
    return lines
