"""`python -m ollama_sc.testing`: the fake server as a process of its own."""

import argparse
import importlib.util
import signal

import anyio

from ollama_sc.testing import FakeOllama, Registry
from ollama_sc.testing._store import DEFAULT_MODELS


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m ollama_sc.testing",
        description="A fake Ollama server. Prints its URL; ends on SIGINT or SIGTERM.",
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--models", default=",".join(DEFAULT_MODELS), help="names, by commas")
    parser.add_argument("--token-rate", type=float, help="tokens a second")
    parser.add_argument("--tokens", type=int, default=24, help="length of an answer")
    parser.add_argument("--parallel", type=int, help="requests that are answered at once")
    parser.add_argument("--max-queue", type=int, help="requests that may wait")
    parser.add_argument("--dimensions", type=int, default=768, help="length of embeddings")
    parser.add_argument("--embed-seconds", type=float, default=0.0, help="of a request")
    parser.add_argument("--version", default="0.33.0", help="the server's version")
    parser.add_argument("--pull-rate", type=float, help="bytes a second of a download")
    parser.add_argument("--backend", choices=("trio", "asyncio"), default=_default_backend())
    return parser.parse_args()


def _default_backend() -> str:
    return "trio" if importlib.util.find_spec("trio") is not None else "asyncio"


async def _serve(arguments: argparse.Namespace) -> None:
    # The signals are caught before the URL is printed: who reads it may send one at once.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with FakeOllama(
            host=arguments.host,
            port=arguments.port,
            models=[name for name in arguments.models.split(",") if name],
            token_rate=arguments.token_rate,
            tokens=arguments.tokens,
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


if __name__ == "__main__":
    options = _arguments()
    anyio.run(_serve, options, backend=options.backend)
