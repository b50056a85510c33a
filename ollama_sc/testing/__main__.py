"""`python -m ollama_sc.testing`: the fake server as a process of its own.

`python -m ollama_sc.testing record` records a real one.
"""

import argparse
import errno
import importlib.util
import math
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from ollama_sc.testing import FakeOllama, Registry
from ollama_sc.testing._cassette import Cassette, CassetteError, CassetteWriter
from ollama_sc.testing._masking import secrets_of
from ollama_sc.testing._record import Recorder, Upstream
from ollama_sc.testing._state.store import DEFAULT_MODELS, ModelStore

_NO_ADDRESS = {errno.EADDRNOTAVAIL, errno.EACCES, errno.EAFNOSUPPORT}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ollama_sc.testing",
        description="A fake Ollama server. Prints its URL; exits on SIGINT or SIGTERM."
        " `record --help`: keep what a real server answers.",
    )
    add = partial(parser.add_argument, metavar="N", type=_positive)
    parser.add_argument("--replay", metavar="FOLDER", help="answer as a recorded server did")
    _add_address(parser)
    parser.add_argument(
        "--models", default=",".join(DEFAULT_MODELS), help="names, separated by commas"
    )
    add("--token-rate", help="tokens per second; without it, as fast as they are read")
    add("--tokens", type=_count, default=24, help="length of an answer (%(default)s)")
    parser.add_argument("--call-tools", action="store_true", help="ask for each tool once")
    add("--parallel", type=_count, help="requests that run at the same time; others wait")
    add("--max-queue", type=_count_or_none, help="requests that may wait; any more draw 503")
    add("--dimensions", type=_count, default=768, help="length of embeddings (%(default)s)")
    add(
        "--embed-seconds",
        type=_seconds,
        default=0.0,
        help="what a request for embeddings takes (%(default)s)",
    )
    parser.add_argument("--version", default="0.33.0", help="the server's version (%(default)s)")
    add("--pull-rate", help="bytes per second of a download")
    _add_backend(parser)
    arguments = parser.parse_args()
    try:
        if arguments.replay is not None:
            Cassette(arguments.replay)
        ModelStore(_names(arguments), arguments.dimensions)
    except (CassetteError, ValueError) as error:
        parser.error(str(error))
    return arguments


def _number(
    convert: Callable[[str], float], fits: Callable[[float], bool], what: str
) -> Callable[[str], float]:
    """What argparse takes for a type: a number in its bounds."""

    def number(text: str) -> float:
        try:
            value = convert(text)
        except ValueError:
            value = math.nan
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return number


_positive = _number(float, lambda value: 0 < value < math.inf, "a number above zero")
_seconds = _number(float, lambda value: 0 <= value < math.inf, "a number of seconds")
_count = _number(int, lambda value: value >= 1, "a number of 1 or more")
_count_or_none = _number(int, lambda value: value >= 0, "a number of 0 or more")
_port = _number(int, lambda value: 0 <= value <= 65535, "a port, 0 to 65535")


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="where it listens (%(default)s)")
    parser.add_argument(
        "--port", metavar="N", type=_port, default=0, help="0, which is the default: a free one"
    )


def _names(arguments: argparse.Namespace) -> list[str]:
    return [name for name in arguments.models.split(",") if name]


def _add_backend(parser: argparse.ArgumentParser) -> None:
    installed = "trio" if importlib.util.find_spec("trio") is not None else "asyncio"
    parser.add_argument(
        "--backend",
        choices=("trio", "asyncio"),
        default=installed,
        help="its event loop; trio where it is installed",
    )


def _record_arguments(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ollama_sc.testing record",
        description="Stands between a program and a real Ollama server, and keeps each response in"
        " a folder, byte for byte, with keys and tokens masked: for `FakeOllama.replay(FOLDER)`."
        " Prints the URL to be used as OLLAMA_HOST; exits on SIGINT or SIGTERM.",
    )
    upstream = os.environ.get("OLLAMA_HOST") or "http://127.0.0.1:11434"
    parser.add_argument("--upstream", default=upstream, metavar="URL", help="the real server")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="a new folder")
    _add_address(parser)
    _add_backend(parser)
    options = parser.parse_args(words)
    try:
        options.upstream = Upstream.parse(options.upstream)
        secrets = secrets_of({"authorization": options.upstream.authorization}, "", b"")
        options.writer = CassetteWriter(options.output, options.upstream.name, secrets)
    except (ValueError, CassetteError, OSError) as error:
        parser.error(str(error))
    return options


async def _record(options: argparse.Namespace) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with Recorder(
            options.upstream, options.writer, options.host, options.port
        ) as recorder:
            print(recorder.url, flush=True)  # noqa: T201 - the interface of this program
            async for _ in signals:
                return


async def _serve(arguments: argparse.Namespace) -> None:
    make = FakeOllama if arguments.replay is None else partial(FakeOllama.replay, arguments.replay)
    # The signals are handled before the URL is printed: its reader may send one at once.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with make(
            host=arguments.host,
            port=arguments.port,
            models=_names(arguments),
            token_rate=arguments.token_rate,
            tokens=arguments.tokens,
            call_tools=arguments.call_tools,
            parallel=arguments.parallel,
            max_queue=arguments.max_queue,
            dimensions=arguments.dimensions,
            embed_seconds=arguments.embed_seconds,
            version=arguments.version,
            registry=Registry(rate=arguments.pull_rate),
        ) as fake:
            print(fake.url, flush=True)  # noqa: T201 - the interface of this program
            async for _ in signals:
                return


def _run(
    program: Callable[[argparse.Namespace], Awaitable[None]], arguments: argparse.Namespace
) -> None:
    try:
        anyio.run(program, arguments, backend=arguments.backend)
    except OSError as error:
        where = f"{arguments.host}:{arguments.port}"
        if error.errno == errno.EADDRINUSE:
            sys.exit(f"{where} is in use; --port 0 takes a free one")
        if isinstance(error, socket.gaierror) or error.errno in _NO_ADDRESS:
            sys.exit(f"cannot listen at {where}: {error.strerror}")
        raise


if __name__ == "__main__":
    if sys.argv[1:2] == ["record"]:
        _run(_record, _record_arguments(sys.argv[2:]))
    else:
        _run(_serve, _arguments())
