"""The command line: its options, their meaning, and the text of `--help`."""

import importlib.util
import inspect
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import anyio
from cyclopts import App, CycloptsError, Group, Parameter, Token
from rich.console import Console

from ollama_sc._http.credentials import HIDDEN
from ollama_sc._version import __version__
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._inputs import STANDARD_INPUT
from ollama_sc.cli._job import CommandOptions
from ollama_sc.cli._job import run as run_job
from ollama_sc.cli._reporter import open_reporter
from ollama_sc.cli._retries import report_retries
from ollama_sc.cli._shown import CleanReporter, Secrets, print_error

_WIDTH = 80  # of the help, at most
_AUTO = "auto"
_MOST = 2**31 - 1  # of whole numbers

_given: ContextVar[Sequence[str]] = ContextVar("_given")  # the arguments, as they were given

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
    _given.set(arguments)
    try:
        status = app(
            arguments,
            exit_on_error=False,
            print_error=False,
            console=_console(),
        )
    except CycloptsError as error:
        unknown = next((name for name in map(_option_name, arguments[1:]) if _is_unknown(name)), "")
        text = _no_such_option(unknown) if unknown else str(error)
        return _refuse(text, Secrets.of_arguments(arguments))
    return status if isinstance(status, int) else 0


def _refuse(text: str, secrets: Secrets | None = None) -> int:
    print_error(f"ollama-sc: {text}", secrets or Secrets())
    return Refused.status


def _option_name(argument: str) -> str:
    return argument.partition("=")[0]


def _is_unknown(name: str) -> bool:
    return name.startswith("--") and name != "--" and name not in _options()


def _options() -> list[str]:
    """The names of all options."""
    names = [f"--{name.replace('_', '-')}" for name in inspect.signature(embed).parameters]
    return [*names, "--no-truncate", "--help", "--version"]


def _no_such_option(name: str) -> str:
    if name in _options():
        return f"{name} takes no value"
    near = get_close_matches(name, _options(), 1)
    return f"there is no option {name}" + (f": did you mean {near[0]}?" if near else "")


def _unknown_option(inputs: Sequence[str], arguments: Sequence[str]) -> str | None:
    """The first of the inputs that is an option rather, such as one that is misspelled."""
    # Behind two hyphens are files, whatever their names look like.
    files = arguments[arguments.index("--") :] if "--" in arguments else ()
    for given in inputs:
        if given.startswith("-") and given not in (STANDARD_INPUT, *files):
            return _option_name(given)
    return None


def _header_problem(headers: Sequence[str], *, has_key: bool) -> str:
    """What is wrong with the headers, or nothing."""
    names: set[str] = set()
    for header in headers:
        name, colon, value = header.partition(":")
        if not (colon and name.strip() and value.strip()):
            return "--header is a name, a colon and a value, such as 'X-Team: search'"
        if _header_name(header).lower() in names:
            return f"--header {_header_name(header)} is there twice: put commas between its values"
        names.add(_header_name(header).lower())
    if has_key and "authorization" in names:
        return "--api-key-env and --header Authorization contradict each other"
    return ""


def _command(arguments: Sequence[str], secrets: Secrets) -> str:
    """The command as it can be shown: with the names of headers, and without their values."""
    shown: list[str] = []
    for number, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        if option == "--header" and value:
            shown.append(f"--header={_header_name(value)}: {HIDDEN}")
        elif number and arguments[number - 1] == "--header":
            shown.append(f"{_header_name(argument)}: {HIDDEN}")
        else:
            shown.append(secrets.hide(argument))
    return shlex.join(["ollama-sc", *shown])


def _header_name(header: str) -> str:
    return header.partition(":")[0].strip()


def _console() -> Console:
    """For the help and the version."""
    console = Console(highlight=False)
    console.width = min(console.width, _WIDTH)
    return console


def _whole(type_: object, tokens: Sequence[Token]) -> int | str:
    """A whole number above zero, or `auto` where that is allowed; a converter of cyclopts.

    Its own one rounds what is not whole.
    """
    text = tokens[0].value.strip()
    if text == _AUTO and _AUTO in str(type_):
        return text
    try:
        value = int(text)
    except ValueError:
        raise ValueError(f"It must be a whole number, not {text!r}.") from None
    if not 0 < value <= _MOST:
        raise ValueError("It must be above zero." if value < 1 else f"It can be {_MOST} at most.")
    return value


def _seconds(type_: object, value: float | None) -> None:
    """Refuse what is no time; a validator of cyclopts."""
    del type_
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ValueError("It must be above zero seconds.")


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
        str,
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
            "and a line in _failures.jsonl, or end the job.",
        ),
    ] = "skip",
    shard_rows: Annotated[
        int, Parameter(group=_OUTPUT, converter=_whole, help="Rows of each shard.")
    ] = 10_000,
    dimensions: Annotated[
        int | None,
        Parameter(
            group=_VECTORS,
            converter=_whole,
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
    header: Annotated[
        tuple[str, ...],
        Parameter(
            group=_SERVERS,
            negative="",
            show_default=False,
            allow_leading_hyphen=True,
            help="A header of each request, such as 'X-Team: search'; again for each further one.",
        ),
    ] = (),
    api_key_env: Annotated[
        str | None,
        Parameter(group=_SERVERS, help="The environment variable that has the API key."),
    ] = None,
    timeout: Annotated[
        float | None,
        Parameter(
            group=_SERVERS,
            validator=_seconds,
            help="Seconds for connecting, and for each time in which a server says nothing; a "
            "request that takes longer is tried again. Without, only connecting is limited.",
        ),
    ] = None,
    max_in_flight: Annotated[
        int | Literal["auto"],
        Parameter(
            group=_SERVERS,
            converter=_whole,
            help="Requests in flight at each server; auto finds out.",
        ),
    ] = 4,
    batch_size: Annotated[
        int, Parameter(group=_SERVERS, converter=_whole, help="Texts in a request, at most.")
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
    arguments = _given.get()
    if (option := _unknown_option(inputs, arguments)) is not None:
        return _refuse(_no_such_option(option), Secrets.of_arguments(arguments))
    if not inputs:
        return _refuse("name a file to embed, or - for standard input")
    texts: Mapping[str, Sequence[str | None]] = {
        "an input": inputs,
        "--output": [output],
        "--model": [model],
        "--field": [field],
        "--key": [key],
        "--host": host,
        "--header": header,
        "--api-key-env": [api_key_env],
    }
    for name, values in texts.items():
        if any(value is not None and not value.strip() for value in values):
            return _refuse(f"{name} is empty")
    if problem := _header_problem(header, has_key=api_key_env is not None):
        return _refuse(problem)
    api_key = None if api_key_env is None else os.environ.get(api_key_env, "").strip()
    if api_key_env is not None and not api_key:
        return _refuse(
            f"--api-key-env: there is no {api_key_env} in the environment, or it is empty"
        )
    secrets = Secrets(host or [os.environ.get("OLLAMA_HOST", "")], header, [api_key or ""])
    options = CommandOptions(
        inputs=inputs,
        output=Path(output),
        model=model,
        field=field,
        key=key,
        input_format=input_format,
        hosts=host,
        headers={_header_name(given): given.partition(":")[2].strip() for given in header},
        api_key=api_key,
        timeout=timeout,
        max_in_flight=max_in_flight,
        batch_size=batch_size,
        dimensions=dimensions,
        truncate=truncate,
        on_error=on_error,
        shard_rows=shard_rows,
        command=_command(arguments, secrets),
        secrets=secrets,
    )
    with open_reporter() as plain:
        reporter = CleanReporter(plain, secrets)
        with report_retries(reporter):
            backend_name = backend or _default_backend()
            return anyio.run(partial(run_job, options, reporter), backend=backend_name)


def _default_backend() -> str:
    return "trio" if importlib.util.find_spec("trio") is not None else "asyncio"
