"""Writes `ollama_sc/blocking/_calls.py`, the calls of blocking clients, from the asynchronous ones.

`python scripts/blocking_calls.py` writes it again; `tests/blocking/test_generated.py` does the same
and compares. It reads the syntax trees of the classes that `Requests` is made of, so that a call
which is added to one of them needs nothing but that. What the bridge defines itself is left out.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from ollama_sc import _client
from ollama_sc.blocking import _bridge

WRITTEN = Path(_bridge.__file__).with_name("_calls.py")
HEAD = '''"""The calls of blocking clients and groups: each asks its asynchronous twin.

Written by `scripts/blocking_calls.py`: change the asynchronous calls, and run it again.
"""

from __future__ import annotations
'''
CLIENT = """A client of one Ollama server, for programs and threads without an event loop.

::

    with Client() as client:
        reply = client.chat("llama3.2", [{"role": "user", "content": "Hello"}])
        print(reply.message.content)

It is an `AsyncClient` in a background thread, which starts with the first call. Any thread can
use it, as many at the same time as you like: they share its connections and `max_in_flight`.
Leaving ``with``, or `close`, ends what still runs, whose callers get `AbortError`. One that is
not closed ends when it is garbage-collected, and when the program does. An exception that
interrupts a call, such as KeyboardInterrupt, ends its request before it is raised. In a forked
process it starts anew, with connections of its own.

A call blocks its thread, and with it whatever else runs there: where a program is asynchronous
already, use `AsyncClient`. Hooks and progress functions are called in the background thread; a
call in there is a `RequestError`, an `abort` is not.
"""
BACKEND = '    backend: what the background thread runs, ``"asyncio"`` or ``"trio"``.\n'
GROUP = """Requests of a client that can be aborted together; see `Client.group`.

It is open from the beginning. Leaving ``with``, or `close`, ends what is left of its requests.
"""
OF_GROUP = """Requests that can be aborted together: ``with client.group() as group``.

The group makes requests as the client does, over the same connections and under the same
limit. Its `abort` reaches its own requests; leaving it ends what is left of them; what
ends the client's requests ends its own. Groups can have groups.
"""
# What is spelled otherwise in a blocking program; in annotations, and in docstrings.
NAMES = {"Texts": "Iterable[str]"}
# A blocking program's own signal handler can call `abort`.
ASYNCHRONOUS_ALONE = {"shutdown_on_signals"}
OURS = {"Batches": "._batches", "Stream": "._stream", "ToolStream": "._tool_stream"}
PHRASES = {
    "async with await ": "with ",
    "async with ": "with ",
    "async for ": "for ",
    "await ": "",
    "an iterable or async iterable, read no further than the requests in flight need. It is read "
    "in the event loop: one that waits for I/O should be asynchronous.": "an iterable, read no "
    "further than the requests in flight need. One\n        without a length, such as a "
    "generator, is read in a thread, and may wait for what\n        it likes.",
    "use a cancel scope, or ``timeout=Timeouts(total=30)`` for all of the tries": "use "
    "``timeout=Timeouts(total=30)``,\nfor all of the tries",
    "A call that is cancelled aborts the rest at once": "An interrupt aborts the rest at once",
    "Cancelling it ends the job": "An exception that interrupts it ends the job",
    "sent and the bytes in all, now and then. It is not": "sent and the bytes in all, now and "
    "then, in the\n        background thread. It is not",
}
ASYNCHRONOUS = re.compile(r"\bawait|\basync\b|coroutine|cancel scope|event loop's thread")
NO_FORM = re.compile(r"\bA(?:wait|sync)\w+|Coroutine")


class Imports:
    """What the asynchronous calls import, and which of it only type checkers need."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, bool]] = {}

    def add(self, tree: ast.Module, module: str) -> None:
        """Add what a module imports and defines."""
        above = module.split(".")
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                checking = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
                if isinstance(child, ast.Import) and (node is tree or checking):
                    for alias in child.names:
                        self.known.setdefault(alias.name, ("", checking))
                if isinstance(child, ast.ImportFrom) and (node is tree or checking):
                    base = ".".join([*above[: -child.level], child.module or ""]).rstrip(".")
                    origin = base if child.level else str(child.module)
                    for alias in child.names:
                        self.known.setdefault(alias.name, (origin, checking))
        for node in tree.body:
            for name in _defined(node):
                self.known[name] = (module, False)

    def lines(self, used: set[str]) -> Iterator[str]:
        """The imports that some names need."""
        checked: list[str] = []
        for name in sorted(used & self.known.keys() - OURS.keys()):
            origin, checking = self.known[name]
            line = f"from {origin} import {name}" if origin else f"import {name}"
            if checking:
                checked.append(f"    {line}")
            else:
                yield line
        yield "from functools import partial"
        yield "from ollama_sc._client import AsyncClient"
        yield "from ollama_sc._client import Requests as AsyncRequests"
        yield from (f"from {place} import {name}" for name, place in sorted(OURS.items()))
        yield "from ._bridge import Bridge, ClientBridge, GroupBridge"
        yield from ["if TYPE_CHECKING:", *checked]


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return []


def docstring(text: str) -> str:
    """A docstring without what only asynchronous programs have."""
    for there, here in PHRASES.items():
        words = r"\s+".join(map(re.escape, there.split()))
        text = re.sub(words + (r"\s+" if there.endswith(" ") else ""), here.replace("\\", ""), text)
    if found := ASYNCHRONOUS.search(text):
        raise SystemExit(f"a docstring says {found[0]!r}: add how to say it to PHRASES\n\n{text}")
    return text


def blocking(method: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.FunctionDef:
    """A method that asks its asynchronous twin."""
    source = copy.deepcopy(method)
    for node in ast.walk(source):
        if isinstance(node, ast.Name):
            node.id = NAMES.get(node.id, node.id)
    returns = ast.unparse(source.returns) if source.returns else ""
    signature = f"{ast.unparse(source.args)} {returns}"
    if found := NO_FORM.search(signature):
        raise SystemExit(f"{method.name}: there is no blocking form of {found[0]!r}")
    body: list[ast.stmt] = source.body
    if not any(ast.unparse(one) == "overload" for one in source.decorator_list):
        text = docstring(ast.get_docstring(source) or "")
        text += "\n" * ("\n" in text)  # where the formatter has the closing quotes
        body = [ast.Expr(ast.Constant(text)), ast.parse(call_of(source, returns)).body[0]]
    new = ast.FunctionDef(source.name, source.args, body, source.decorator_list, source.returns)
    return ast.fix_missing_locations(new)


def call_of(method: ast.FunctionDef | ast.AsyncFunctionDef, returns: str) -> str:
    """The statement that asks the twin."""
    way = "_run" if "ToolStream" in returns else "_generate" if "Stream" in returns else "_ask"
    way = "_job" if returns == "Batches" else way
    way = "_gather" if way == "_ask" and "Iterable[str]" in ast.unparse(method.args) else way
    given = [one.arg for one in method.args.args[1:]]
    given += [f"{one.arg}={one.arg}" for one in method.args.kwonlyargs]
    given += [f"**{method.args.kwarg.arg}"] if method.args.kwarg else []
    call = f"self.{way}({', '.join([f'AsyncRequests.{method.name}', *given])})"
    return call if returns == "None" else f"return {call}"


def methods(imports: Imports) -> Iterator[ast.FunctionDef]:
    """Every public method of the asynchronous calls that the bridge does not have itself."""
    for cls in _client.Requests.__mro__[1:-1]:
        path = inspect.getfile(cls)
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
        imports.add(tree, cls.__module__)
        for node in class_of(tree, cls.__name__).body:
            if (
                isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                and not node.name.startswith("_")
                and node.name not in ASYNCHRONOUS_ALONE
                and not hasattr(_bridge.Bridge, node.name)
            ):
                yield blocking(node)


def class_of(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(one for one in tree.body if isinstance(one, ast.ClassDef) and one.name == name)


def constructor(imports: Imports) -> str:
    """`__init__` of the client, with the arguments of the asynchronous one."""
    tree = ast.parse(Path(_client.__file__).read_text(encoding="utf-8"))
    imports.add(tree, _client.__name__)
    body = class_of(tree, "AsyncClient").body
    init = next(one for one in body if isinstance(one, ast.FunctionDef))
    given = [one.arg for one in init.args.args[1:]]
    given += [f"{one.arg}={one.arg}" for one in init.args.kwonlyargs]
    assert init.args.kwarg is not None
    given.append(f"**{init.args.kwarg.arg}")
    backend = ast.parse("def f(*, backend: Literal['asyncio', 'trio'] = 'asyncio'): ...").body[0]
    assert isinstance(backend, ast.FunctionDef)
    init.args.kwonlyargs += backend.args.kwonlyargs
    init.args.kw_defaults += backend.args.kw_defaults
    init.body = ast.parse(
        f"make = partial(AsyncClient, {', '.join(given)})\nsuper().__init__(make, backend, make())"
    ).body
    return ast.unparse(ast.fix_missing_locations(init))


def arguments_of_client() -> str:
    """What the asynchronous client's docstring says of its arguments."""
    text = inspect.getdoc(_client.AsyncClient) or ""
    arguments, raises = text[text.index("Args:") :].split("    **httpx_options", 1)
    return f"{arguments}{BACKEND}    **httpx_options{raises}"


def generate() -> str:
    """The module, not formatted."""
    imports = Imports()
    calls = [textwrap.indent(ast.unparse(one), "    ") for one in methods(imports)]
    init = textwrap.indent(constructor(imports), "    ")
    group = f"    def group(self) -> Group:\n{doc(OF_GROUP, 8)}\n        return Group._of(self)"
    client = docstring(f"{CLIENT}\n{arguments_of_client()}")
    classes = "\n\n".join(
        [
            'class Requests(Bridge):\n    """The calls that a client and a group both have."""\n',
            *calls,
            group,
            f"class Client(ClientBridge, Requests):\n{doc(client, 4)}\n",
            init,
            f"class Group(GroupBridge, Requests):\n{doc(GROUP, 4)}\n",
        ]
    )
    used = {node.id for node in ast.walk(ast.parse(classes)) if isinstance(node, ast.Name)}
    used |= {"TYPE_CHECKING", *(used & {"Iterable"})}
    imports.known |= {
        "TYPE_CHECKING": ("typing", False),
        "Iterable": ("collections.abc", False),
        "Literal": ("typing", False),
    }
    defined = {"AsyncClient", "AsyncRequests", "Client", "Group", "Requests"}
    lines = "\n".join(imports.lines(used - defined))
    return f"{HEAD}\n{lines}\n\n\n{classes}\n"


def doc(text: str, indent: int) -> str:
    return textwrap.indent(f'"""{text.rstrip()}\n"""', " " * indent)


def main() -> None:
    WRITTEN.write_text(generate(), encoding="utf-8")
    ruff = [sys.executable, "-m", "ruff"]
    for command in (["check", "--fix", "--quiet", "--select", "I,F401"], ["format", "--quiet"]):
        subprocess.run([*ruff, *command, str(WRITTEN)], check=True)


if __name__ == "__main__":
    main()
