"""What the machine gives: open files, cores, memory, and the server's process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent
OPEN_FILES = 16384


def raise_file_limit() -> None:
    """Thousands of streams are thousands of open files."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def resident_bytes() -> int:
    """The memory that this process occupies now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ask(url: str, path: str) -> Any:
    """A plain question to the server; it blocks."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def pin(server: int) -> bool:
    """One core for the server, another one for the clients, where there are two to choose from."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return False
    os.sched_setaffinity(server, {cores[-1]})
    os.sched_setaffinity(0, {cores[0]})  # and the processes that this one starts
    return True


@contextmanager
def server(*, pinned: bool = True) -> Iterator[str]:
    """The benchmark's server as a process of its own; yields its URL."""
    raise_file_limit()
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the benchmark's server did not start")
            if pinned:
                pin(process.pid)
            yield url
        finally:
            process.terminate()
            if before:
                os.sched_setaffinity(0, before)
