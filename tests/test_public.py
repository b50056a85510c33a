"""What the package shows, and that importing it does nothing."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import textwrap
from types import ModuleType
from typing import Any, get_type_hints

import pytest

import ollama_sc
from ollama_sc import AsyncClient, Group


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


ALIASES = {"__version__", "MessageLike", "ToolEvent", "ToolLike"}


# -- names ---------------------------------------------------------------------------------------


def test_all_is_what_the_package_exports() -> None:
    """`__all__` has every public name, once and sorted, but the submodules, and `list`.

    With that, ``from ollama_sc import *`` would hide Python's own.
    """
    names = {
        name
        for name in dir(ollama_sc)
        if not name.startswith("_") and not isinstance(getattr(ollama_sc, name), ModuleType)
    }
    assert set(ollama_sc.__all__) == (names - {"list"}) | {"__version__"}
    assert sorted(ollama_sc.__all__) == list(ollama_sc.__all__)
    assert len(set(ollama_sc.__all__)) == len(ollama_sc.__all__)


@pytest.mark.parametrize("name", [name for name in ollama_sc.__all__ if name not in ALIASES])
def test_each_public_name_is_documented(name: str) -> None:
    """Each public class says in its docstring what it is."""
    documentation = getattr(ollama_sc, name).__doc__
    assert documentation
    assert len(documentation) > 15
    assert not documentation.startswith(name + "(")  # what dataclasses and tuples write


@pytest.mark.parametrize("cls", [AsyncClient, Group])
def test_each_public_method_is_documented_and_annotated(cls: type) -> None:
    """Each public method says what it does, and has a type for every parameter and its result."""
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("_"):
            continue
        assert inspect.getdoc(method), name
        signature = inspect.signature(method)
        assert signature.return_annotation is not inspect.Signature.empty, name
        for parameter in list(signature.parameters.values())[1:]:
            assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)


def test_the_version_is_one() -> None:
    """`__version__` is what the installed package says, in numbers."""
    from importlib.metadata import version

    assert ollama_sc.__version__ == version("ollama-sc")
    assert ollama_sc.__version__.split(".")[0].isdigit()


def test_the_package_is_typed() -> None:
    """Type checkers find the marker that the package's own types count."""
    from importlib.resources import files

    assert files("ollama_sc").joinpath("py.typed").is_file()


# -- signatures: the table of section 2.1 of ollama-wire.md, by hand -----------------------------

COMMON = ["timeout", "extra"]
GENERATION = ["options", "keep_alive", "truncate", "think", "format", "logprobs", "top_logprobs"]
GENERATION += ["shift", "debug_render_only", "stream", "attempts"]
WIRE = {
    "chat": ["model", "messages", "tools", *GENERATION, *COMMON],
    "generate": ["model", "prompt", "suffix", "system", "template", "images", "context", "raw"]
    + [*GENERATION, "width", "height", "steps", *COMMON],
    "embed": ["model", "input", "truncate", "dimensions", "options", "keep_alive", *COMMON],
}


@pytest.mark.parametrize("cls", [AsyncClient, Group])
@pytest.mark.parametrize("name", WIRE)
def test_every_field_of_the_api_is_a_keyword(cls: type, name: str) -> None:
    """`inspect.signature` shows every field of the request that the API has, and no other."""
    signature = inspect.signature(getattr(cls, name))
    parameters = dict(signature.parameters)
    assert next(iter(parameters)) == "self"
    del parameters["self"]
    assert sorted(parameters) == sorted(WIRE[name])
    # Each can be given by its keyword, together.
    signature.bind(None, **dict.fromkeys(WIRE[name]))
    for parameter in parameters.values():
        assert (parameter.default is inspect.Parameter.empty) == (parameter.name == "model")
    with pytest.raises(TypeError):
        signature.bind(None, "m", temperature=0)


@pytest.mark.parametrize(
    ("name", "positional"),
    [
        ("chat", ["model", "messages"]),
        ("generate", ["model", "prompt", "suffix"]),
        ("embed", ["model", "input"]),
        ("list", []),
        ("version", []),
        ("request", ["method", "path"]),
        ("abort", ["reason"]),
        ("group", []),
        ("shutdown", ["grace"]),
        ("statistics", []),
    ],
)
def test_what_can_be_given_by_position(name: str, positional: list[str]) -> None:
    """The parameters that ollama-python has first come first here, and the others by keyword."""
    parameters = list(inspect.signature(getattr(AsyncClient, name)).parameters.values())[1:]
    found = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert found == positional
    assert all(p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)


@pytest.mark.parametrize(("name", "extra"), [("list", []), ("version", []), ("request", ["json"])])
def test_calls_that_are_about_no_model(name: str, extra: list[str]) -> None:
    """They accept a time limit too."""
    parameters = inspect.signature(getattr(AsyncClient, name)).parameters
    assert {"timeout", *extra} <= set(parameters)


def test_the_fields_can_be_read_by_wrappers() -> None:
    """The dictionaries of fields have the types that wrappers need, at run time too."""
    for fields, method in (
        (ollama_sc.ChatFields, "chat"),
        (ollama_sc.GenerateFields, "generate"),
        (ollama_sc.EmbedFields, "embed"),
    ):
        # `attempts` is for replies of a type, which have dictionaries of their own.
        positional = {"model", "messages", "prompt", "suffix", "input", "stream", "attempts"}
        assert set(fields.__annotations__) == set(WIRE[method]) - positional
        assert not fields.__required_keys__


def test_groups_make_the_same_calls() -> None:
    """A group has every call that the client has."""

    def public(cls: type) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    assert public(Group) == public(AsyncClient) - {"open", "aclose", "close"}


# -- importing -----------------------------------------------------------------------------------


def in_a_fresh_interpreter(code: str, *options: str) -> Any:
    """Run code where nothing has been imported; what it prints last, as JSON."""
    done = subprocess.run(
        [sys.executable, "-I", "-B", "-W", "error", *options, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=50,
        # Coverage of child processes would import what it needs.
        env={name: value for name, value in os.environ.items() if "COVERAGE" not in name},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


WATCHED_IMPORT = """
    import json, logging, os, sys, threading, warnings

    events, reads = [], []

    def hook(name, arguments):
        if name.split(".")[0] in ("socket", "subprocess", "urllib", "ssl"):
            events.append(name)
        elif name in ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.putenv"):
            events.append(name)
        elif name == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            events.append(f"writes {arguments[0]}")
        elif name == "_thread.start_new_thread":
            events.append(name)

    class Watched(type(os.environ)):
        def __getitem__(self, key):
            reads.append(key)
            return super().__getitem__(key)

        def __contains__(self, key):
            reads.append(key)
            return super().__contains__(key)

        def __iter__(self):
            reads.append("all of it")
            return super().__iter__()

    os.environ.__class__ = Watched
    os.environ["OLLAMA_HOST"] = "tcp://nonsense"  # whoever reads it raises
    assert os.environ.get("OLLAMA_HOST") and reads.pop() == "OLLAMA_HOST" and not reads
    os.getenv("OLLAMA_X"), "OLLAMA_Y" in os.environ
    assert {"OLLAMA_X", "OLLAMA_Y"} <= set(reads)
    reads.clear()
    handlers, level = list(logging.root.handlers), logging.root.level
    filters = list(warnings.filters)
    sys.addaudithook(hook)
    import socket
    socket.socket().close()
    assert "socket.__new__" in events  # the hook sees what it is for
    events.clear()

    sys.modules["click"] = None  # with it and rich, httpx imports its own command
    import ollama_sc

    found = {
        "events": events,
        "reads": [name for name in reads if "OLLAMA" in name or "PROXY" in name.upper()],
        "threads": threading.active_count(),
        "handlers": len(logging.root.handlers) - len(handlers),
        "level": logging.root.level - level,
        "loggers": [
            name
            for name, logger in logging.root.manager.loggerDict.items()
            if name.startswith("ollama_sc") and getattr(logger, "handlers", None)
        ],
        "filters": warnings.filters == filters,
        "modules": sorted(sys.modules),
    }
    try:
        import asyncio.events
        found["loop"] = repr(asyncio.events._get_running_loop())
        found["policy"] = repr(asyncio.events._event_loop_policy)
    except ImportError:
        found["loop"] = found["policy"] = "None"
    print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def watched() -> Any:
    """What importing the package did, in an interpreter of its own."""
    return in_a_fresh_interpreter(WATCHED_IMPORT)


def test_importing_does_no_io(watched: Any) -> None:
    """No socket, no process, no thread, no file is written."""
    assert watched["events"] == []
    assert watched["threads"] == 1


def test_importing_reads_no_settings(watched: Any) -> None:
    """Neither OLLAMA_... nor proxies are read from the environment before a client is made."""
    assert watched["reads"] == []


def test_importing_sets_nothing_up(watched: Any) -> None:
    """Logging, warnings and event loops are as they were."""
    assert watched["handlers"] == 0
    assert watched["level"] == 0
    assert watched["loggers"] == []
    assert watched["filters"]
    assert watched["loop"] == "None"
    assert watched["policy"] == "None"


@pytest.mark.parametrize(
    "module",
    ["trio", "numpy", "rich", "pytest", "hypothesis", "asyncio", "pydantic", "attrs", "ollama"]
    + [
        "ollama_sc.blocking",
        "ollama_sc.testing",
        "httptools",
        "stamina",
        "pyarrow",
        "html",
        "ollama_sc.cli",
        "opentelemetry",
        "starlette",
        "ollama_sc.telemetry",
        "ollama_sc.starlette",
        "ollama_sc._api.files",
        "ollama_sc._api.outputs",
        "ollama_sc._http.fetch",
        "ollama_sc._http.tls",
        "ollama_sc._http.upload",
        "ollama_sc._http.via_httpx",
        "ollama_sc._jobs.start",
        "ollama_sc._replies.lenient",
        "ollama_sc._replies.partials",
        "ollama_sc._tools.conversation",
        "ollama_sc._tools.results",
        "ollama_sc._tools.stream",
        "anyio.lowlevel",
        "anyio._core._tasks",
        "difflib",
    ],
)
def test_importing_leaves_what_is_optional_alone(watched: Any, module: str) -> None:
    """What only some users need is not imported for all of them."""
    assert module not in watched["modules"]


def test_a_client_can_be_made_without_an_event_loop() -> None:
    """Making a client reads the environment, but opens nothing and needs no event loop."""
    found = in_a_fresh_interpreter(
        """
        import json, os, sys
        import ollama_sc
        os.environ["OLLAMA_HOST"] = "box:1"
        events = []
        sys.addaudithook(lambda name, _: name.startswith("socket.") and events.append(name))
        client = ollama_sc.AsyncClient()
        print(json.dumps({"repr": repr(client), "events": events}))
        """
    )
    assert "http://box:1" in found["repr"]
    assert found["events"] == []


def test_the_package_works_without_trio() -> None:
    """On asyncio nothing of trio is needed."""
    found = in_a_fresh_interpreter(
        """
        import json, sys
        sys.modules["trio"] = None  # importing it fails
        import asyncio
        from ollama_sc import AsyncClient, ConnectError

        async def main():
            async with AsyncClient("127.0.0.1:1") as client:
                try:
                    await client.version()
                except ConnectError as error:
                    return str(error)

        print(json.dumps(asyncio.run(main())))
        """
    )
    assert "GET /api/version" in found


def test_the_package_works_with_optimization() -> None:
    """Without docstrings and asserts (`python -OO`) the package is the same."""
    found = in_a_fresh_interpreter(
        """
        import inspect, json
        import ollama_sc
        print(json.dumps(list(inspect.signature(ollama_sc.AsyncClient.chat).parameters)))
        """,
        "-OO",
    )
    assert "think" in found


def test_types_can_be_resolved() -> None:
    """Annotations of the public functions mean something at run time, too."""
    for name in ("abort", "group", "shutdown", "statistics", "request"):
        assert "return" in get_type_hints(getattr(AsyncClient, name))
