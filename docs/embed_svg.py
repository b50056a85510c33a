"""Make docs/embed.svg: a terminal in which `ollama-sc embed` is stopped, and goes on.

python docs/embed_svg.py
"""

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROWS = 40_000
WIDTH = 80
LINE = "ollama-sc embed corpus.jsonl --key id --model nomic-embed-text -o vectors/"
ERASE = "\x1b[2K"  # what the bar does before it draws itself again


def in_terminal(folder: str, url: str, *, stop_at: str | None = None) -> str:
    """What the terminal shows in the end; Ctrl-C where `stop_at` shows up."""
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "ollama_sc.cli", *LINE.split()[1:]]
    screen = {"COLUMNS": str(WIDTH), "LINES": "24", "TERM": "xterm-256color", "OLLAMA_HOST": url}
    with subprocess.Popen(  # noqa: S603 - our own command
        command, stdin=slave, stdout=slave, stderr=slave, cwd=folder, env={**os.environ, **screen}
    ) as process:
        os.close(slave)
        output = b""
        while block := _read(master):
            output += block
            if stop_at is not None and re.search(stop_at, output.decode("utf-8", "ignore")):
                stop_at = None
                process.send_signal(signal.SIGINT)
    os.close(master)
    lines = [line.rpartition(ERASE)[2] for line in output.decode().split("\r\n")]
    return "\n".join(lines).rstrip()


def _read(master: int) -> bytes:
    try:
        return os.read(master, 65536)
    except OSError:  # Linux's way to say that the other side is closed
        return b""


def main() -> None:
    """Run it twice, against the fake server."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    server = [sys.executable, "-m", "ollama_sc.testing", "--dimensions", "384"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as fake,  # noqa: S603
    ):
        assert fake.stdout is not None
        url = fake.stdout.readline().strip()
        with (Path(folder) / "corpus.jsonl").open("w", encoding="utf-8") as file:
            for number in range(ROWS):
                row = {"id": f"doc-{number}", "text": f"Text {number}: one of very many."}
                file.write(json.dumps(row) + "\n")
        try:
            for stop_at in (r"1[67],\d\d\d of", None):
                console.print(f"[bold green]$[/bold green] {LINE}", highlight=False)
                console.print(Text.from_ansi(in_terminal(folder, url, stop_at=stop_at)))
        finally:
            fake.terminate()
    picture = Path(__file__).with_name("embed.svg")
    picture.write_text(console.export_svg(title="ollama-sc embed"), encoding="utf-8")


if __name__ == "__main__":
    main()
