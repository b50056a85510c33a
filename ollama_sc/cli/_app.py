"""The command line: what can be written, what it means, and what `--help` says."""

import importlib.util
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import anyio
from cyclopts import App, CycloptsError, Group, Parameter
from rich.console import Console

from ollama_sc._version import __version__
from ollama_sc.cli._again import told
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._inputs import STANDARD_INPUT
from ollama_sc.cli._job import Options
from ollama_sc.cli._job import run as run_job
from ollama_sc.cli._progress import reporter

_WIDTH = 80  # of the help, at most

app = App(
    name="ollama-sc",
    help="Jobs for Ollama servers.",
    version=__version__,
    result_action="return_value",
    help_format="markdown",
)

_INPUT = Group("Input", sort_key=1)
_OUTPUT = Group("Output", sort_key=2)
_VECTORS = Group("Vectors", sort_key=3)
_SERVERS = Group("Servers and speed", sort_key=4)


def run(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    try:
        status = app(
            arguments,
            exit_on_error=False,
            print_error=False,
            console=_console(),
        )
    except CycloptsError as error:
        return _refuse(str(error))
    return status if isinstance(status, int) else 0


def _refuse(text: str) -> int:
    print(f"ollama-sc: {text}", file=sys.stderr)  # noqa: T201 - what a command does
    return Refused.status


def _console() -> Console:
    """For the help and the version."""
    console = Console(highlight=False)
    console.width = min(console.width, _WIDTH)
    return console


def _above_zero(type_: object, value: int | str | None) -> None:
    """For cyclopts."""
    del type_
    if isinstance(value, int) and value < 1:
        raise ValueError("It must be above zero.")


@app.command
def embed(
    *inputs: Annotated[
        str,
        Parameter(
            group=_INPUT, allow_leading_hyphen=True, help="Files, globs, or - for standard input."
        ),
    ],
    model: Annotated[
        str, Parameter(name=["--model", "-m"], group=_VECTORS, help="The embedding model.")
    ],
    output: Annotated[
        Path,
        Parameter(name=["--output", "-o"], group=_OUTPUT, help="The folder of the Parquet shards."),
    ],
    field: Annotated[
        str | None,
        Parameter(group=_INPUT, help='The field or column of the texts; "text" if not given.'),
    ] = None,
    key: Annotated[
        str | None,
        Parameter(
            group=_INPUT,
            help="The field or column that is copied to the shards; if not given, they have "
            '"row", the row\'s number from 0.',
        ),
    ] = None,
    input_format: Annotated[
        Literal["jsonl", "lines", "parquet"] | None,
        Parameter(
            group=_INPUT,
            help="Told by the files' names if not given; standard input is then JSONL.",
        ),
    ] = None,
    on_error: Annotated[
        Literal["skip", "raise"],
        Parameter(
            group=_INPUT,
            help="What a row does that has no text, or one that cannot be embedded: get no vector "
            "and a line in failures.jsonl, or end the job.",
        ),
    ] = "skip",
    shard_rows: Annotated[
        int, Parameter(group=_OUTPUT, validator=_above_zero, help="Rows of each shard.")
    ] = 10_000,
    dimensions: Annotated[
        int | None,
        Parameter(
            group=_VECTORS,
            validator=_above_zero,
            help="Numbers of a vector, for models that can be asked for fewer.",
        ),
    ] = None,
    truncate: Annotated[
        bool | None,
        Parameter(
            group=_VECTORS,
            negative="--no-truncate",
            help="Whether texts that are too long are cut, in silence, or fail. If not given, it "
            "is the server's way: it cuts.",
        ),
    ] = None,
    host: Annotated[
        tuple[str, ...],
        Parameter(
            group=_SERVERS,
            negative="",
            show_default=False,
            help="A server; again for each further one. OLLAMA_HOST if not given.",
        ),
    ] = (),
    max_in_flight: Annotated[
        int | Literal["auto"],
        Parameter(
            group=_SERVERS,
            validator=_above_zero,
            help="Requests in flight at each server; auto finds out.",
        ),
    ] = 4,
    batch_size: Annotated[
        int, Parameter(group=_SERVERS, validator=_above_zero, help="Texts in a request, at most.")
    ] = 64,
    backend: Annotated[
        Literal["trio", "asyncio"] | None,
        Parameter(group=_SERVERS, help="The event loop; trio where it is installed."),
    ] = None,
) -> int:
    """Embed many texts: JSONL, plain lines or Parquet into Parquet shards of vectors.

    A job that was stopped, or killed, goes on where it was when the same command is given again.
    Its folder is bound to the input, the model and the way in which vectors are made. Servers,
    requests in flight and the batch size may change.

    Exit status: 0 done; 1 done, and some rows have no vector; 2 refused, nothing was changed; 3
    stopped by an error; 130 or 143 stopped by SIGINT or SIGTERM.
    """
    for given in inputs:
        if given.startswith("-") and given != STANDARD_INPUT:
            return _refuse(f"there is no option {given}")
    if not inputs:
        return _refuse("name a file to embed, or - for standard input")
    options = Options(
        inputs=inputs,
        output=output,
        model=model,
        field=field,
        key=key,
        input_format=input_format,
        hosts=host,
        max_in_flight=max_in_flight,
        batch_size=batch_size,
        dimensions=dimensions,
        truncate=truncate,
        on_error=on_error,
        shard_rows=shard_rows,
        command=shlex.join(["ollama-sc", *sys.argv[1:]]),
    )
    with reporter() as shown, told(shown):
        return anyio.run(partial(run_job, options, shown), backend=backend or _default_backend())


def _default_backend() -> str:
    return "trio" if importlib.util.find_spec("trio") is not None else "asyncio"
