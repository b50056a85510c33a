"""Runs contenders in turn, each in a fresh process, and keeps what each took."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .contenders import Contender
from .machine import ROOT
from .works import Work

NODE = Path(__file__).parent / "node"
SECONDS = 600  # more than any round takes


class Failed(Exception):
    """A process of the benchmark did not do its work.

    Attributes:
        what: which one.
    """

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")
        self.what = what


def run(what: str, command: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
    """Run a process of the benchmark; what it printed, from JSON."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        raise Failed(what, f"not done in {SECONDS} seconds") from None
    if done.returncode:
        last = "\n  ".join(done.stderr.strip().splitlines()[-3:])
        raise Failed(what, last)
    return json.loads(done.stdout)


@dataclass
class Figures:
    """What a contender took for a piece of work, one entry for each round.

    Attributes:
        cpu: CPU time of the client for each unit, user and system, in µs.
        wall: wall time for each unit, in µs.
        server: how much of a core the server used meanwhile, 0 to 1.
    """

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)

    @property
    def cpu_us(self) -> float:
        return statistics.median(self.cpu)

    @property
    def wall_us(self) -> float:
        return statistics.median(self.wall)

    @property
    def server_share(self) -> float:
        return statistics.median(self.server)

    @property
    def spread(self) -> float:
        """Half of what lies between the lowest and the highest round, as a share of the median."""
        return (max(self.cpu) - min(self.cpu)) / 2 / self.cpu_us


Results = dict[Work, dict[Contender, Figures]]


def node_is_ready(say: Callable[[str], None]) -> bool:
    """Whether the official client for JavaScript can take part; installs it where it can."""
    if shutil.which("node") is None:
        say("skipped: ollama-js (there is no node)")
        return False
    if (NODE / "node_modules" / "ollama").is_dir():
        return True
    npm = shutil.which("npm")
    if npm is None:
        say("skipped: ollama-js (there is no npm to install it)")
        return False
    command = [npm, "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
    if subprocess.run(command, cwd=NODE, check=False).returncode:
        say("skipped: ollama-js (npm could not install it)")
        return False
    return True


def able(contenders: Iterable[Contender], say: Callable[[str], None]) -> list[Contender]:
    """Those that can take part here; says which cannot, and why."""
    found = []
    for each in contenders:
        if each.open is None and each.blocks is None:
            if node_is_ready(say):
                found.append(each)
        elif missing := each.missing():
            say(f"skipped: {each.label} (not installed: {', '.join(missing)})")
        else:
            found.append(each)
    return found


def once(
    contender: Contender, work: Work, url: str, environment: Mapping[str, str] | None = None
) -> dict[str, float]:
    """One round in a fresh process: seconds of its CPU, of the wall; the server's share of a core."""
    if contender.open is None and contender.blocks is None:
        command = ["node", str(NODE / "worker.mjs"), work.to_json(), url]
    else:
        worker = [sys.executable, "-m", "benchmarks.worker"]
        command = [*worker, contender.label, work.to_json(), url]
    return run(f"{contender.label}, {work.name}", command, environment)


def measure(
    pairs: Sequence[tuple[Work, Contender]],
    url: str,
    *,
    rounds: int,
    say: Callable[[str], None],
    failed: Callable[[Failed], None] | None = None,
) -> Results:
    """All pairs in turn, and that so many times.

    Args:
        failed: told of a pair that did not do its work, which then is left out; without it that
            raises `Failed`.
    """
    left = list(pairs)
    results: Results = {}
    for work, contender in pairs:
        results.setdefault(work, {})[contender] = Figures()
    for number in range(rounds):
        for work, contender in list(left):
            try:
                taken = once(contender, work, url)
            except Failed as error:
                if failed is None:
                    raise
                failed(error)
                left.remove((work, contender))
                del results[work][contender]
                continue
            figures = results[work][contender]
            figures.cpu.append(taken["cpu"] / work.count * 1e6)
            figures.wall.append(taken["wall"] / work.count * 1e6)
            figures.server.append(taken["server"])
            say(
                f"round {number + 1}, {work.name:16} {contender.label:28}"
                f" {figures.cpu[-1]:9.2f} us a {work.unit}"
            )
    return results
