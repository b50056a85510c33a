"""The tutorial, done as a newcomer does it: its server, its files, and what they print."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

TEXT = (ROOT / "docs" / "tutorial.md").read_text()
STEPS = re.findall(r"`(\w+\.py)`.*?\n```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
PATH = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The fake server that it says to start, but at a port that is free."""
    (line,) = re.findall(r"^python (-m ollama_sc\.testing .*)$", TEXT, re.MULTILINE)
    words = line.replace("--port 11434", "--port 0").split()
    environment = {**os.environ, "PYTHONPATH": PATH}
    with subprocess.Popen(
        [sys.executable, *words], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGTERM)


def test_each_step_is_a_file_with_what_it_prints() -> None:
    """None of its programs is left out, and no two have one name."""
    assert len(STEPS) == TEXT.count("```python") == len({name for name, _, _ in STEPS})


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("name", "code", "shown"), [pytest.param(*step, id=step[0]) for step in STEPS]
)
def test_a_step_prints_what_is_shown(
    name: str, code: str, shown: str, backend: str, server: str, tmp_path: Path
) -> None:
    """As it stands, in a file of that name; three dots stand for more of the same."""
    (tmp_path / name).write_text(code)
    on_backend = f"import anyio, functools, runpy; anyio.run = functools.partial(anyio.run, backend={backend!r}); "
    done = subprocess.run(
        [sys.executable, "-c", on_backend + f"runpy.run_path({name!r}, run_name='__main__')"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PATH, "OLLAMA_HOST": server},
        check=False,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (done.returncode, done.stderr) == (0, "")
    pattern = re.escape(shown).replace(re.escape("..."), ".*")
    if name == "abort.py":  # how far a story is told in a second is for the machine to say
        pattern = r"(This is synthetic .*)?\nended, because it is bedtime\n"
    assert re.fullmatch(pattern, done.stdout, re.DOTALL), done.stdout
