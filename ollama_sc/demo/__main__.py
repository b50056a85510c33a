"""`python -m ollama_sc.demo`: what can be written, and what is missing."""

import argparse
import signal
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ollama_sc.demo._options import EMBED_SECONDS, PROGRAM, REFUSED, Options

_RICH = "it needs rich, which is missing: pip install 'ollama-sc[demo]'"
_TRIO = "--backend trio needs trio, which is missing: pip install 'ollama-sc[demo]'"


def main() -> int:
    """Run the demo; returns its exit status."""
    try:
        options = _options()
        if find_spec("rich") is None:
            return _refuse(_RICH)
        if options.backend == "trio" and find_spec("trio") is None:
            return _refuse(_TRIO)
        from ollama_sc.demo._app import run  # noqa: PLC0415 - what it needs is an extra

        return run(options)
    except KeyboardInterrupt:  # before anything was open
        return 128 + signal.SIGINT


def _refuse(text: str) -> int:
    print(f"{PROGRAM}: {text}", file=sys.stderr)  # noqa: T201 - what a command does
    return REFUSED


def _options() -> Options:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="What ollama-sc does, on one screen. Where no Ollama server answers, it brings "
        "a fake one.",
    )
    default = Options(backend="trio" if find_spec("trio") is not None else "asyncio")
    parser.add_argument(
        "--backend",
        choices=("trio", "asyncio"),
        help="the event loop; trio where it is installed",
    )
    parser.add_argument("--host", help="the server; OLLAMA_HOST or 127.0.0.1:11434 if not given")
    parser.add_argument("--model", help="for the chats; the smallest if not given")
    parser.add_argument("--embed-model", metavar="MODEL", help="for the vectors; likewise")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        help=f"how long the chats run; {default.seconds:g} if not given",
    )
    parser.add_argument(
        "--texts",
        type=_count,
        help=f"how many texts are embedded, in {EMBED_SECONDS:g} seconds at most; "
        f"{default.texts} if not given",
    )
    parser.add_argument(
        "--save-svg", type=Path, metavar="FILE", help="save the screen as a picture"
    )
    return parser.parse_args(namespace=default)  # which goes before argparse's own defaults


def _seconds(text: str) -> float:
    """For argparse, which says which option it is."""
    with suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise argparse.ArgumentTypeError(f"it must be a number above zero, not {text!r}")


def _count(text: str) -> int:
    """For argparse."""
    with suppress(ValueError):
        if (count := int(text)) > 0:
            return count
    raise argparse.ArgumentTypeError(f"it must be a whole number above zero, not {text!r}")


if __name__ == "__main__":
    sys.exit(main())
