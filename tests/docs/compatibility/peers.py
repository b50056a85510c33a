"""What the official libraries have: each name, with what stands behind it.

Of ollama-python it is read from the installed package; of ollama-js from the declarations in its
package, which are recorded in `ollama_js.json` for where there is no Node.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

import httpx
import ollama
import pydantic

from tests.support import ROOT

RECORDED = Path(__file__).with_name("ollama_js.json")
INSTALLED = ROOT / "benchmarks" / "node" / "node_modules" / "ollama" / "dist"
# Those of pydantic's that programs use; its others change with its version.
PYDANTIC = (
    "model_dump", "model_dump_json", "model_validate", "model_validate_json", "model_json_schema",
    "model_copy",
)  # fmt: skip
_NOTHING = inspect.Parameter.empty


class Entry(NamedTuple):
    """A name of a peer.

    Attributes:
        section: the heading that it stands under.
        name: such as ``Client.chat(model)`` for a parameter, ``Message.role`` for a field.
        default: as text; empty where there is none.
        position: where it is given by position, from zero; -1 where it is not.
    """

    section: str
    name: str
    default: str = ""
    position: int = -1


# -- ollama-python ---------------------------------------------------------------------------------


def ollama_python() -> Iterator[Entry]:
    """Everything that a program can import, call, pass or read."""
    for name in sorted({*ollama.__all__, *vars(ollama)}):
        value = getattr(ollama, name)
        if not name.startswith("_") and not isinstance(value, ModuleType):
            yield Entry("ollama", f"ollama.{name}")
    yield from _constructor()
    yield from _methods(ollama.Client, "Client")
    ours = list(_methods(ollama.Client, "AsyncClient"))
    theirs = list(_methods(ollama.AsyncClient, "AsyncClient"))
    yield from (each for each in theirs if each not in ours)  # what is not the same in both
    own = vars(ollama._types.SubscriptableBaseModel)
    for name in (*filter(_is_public, own), *PYDANTIC):
        if callable(getattr(ollama.Message, name)):
            yield Entry("Objects", f"every object: {name}()")
    yield Entry("Objects", "every object: pydantic's other methods")
    seen: set[type] = set()
    for name in ollama.__all__:
        yield from _class_members(name, getattr(ollama, name), seen)


def _is_public(name: str) -> bool:
    return not name.startswith(("_", "model_")) or name in (
        "__getitem__",
        "__setitem__",
        "__contains__",
    )


def _constructor() -> Iterator[Entry]:
    parameters = {
        **inspect.signature(ollama.Client.__init__).parameters,
        **inspect.signature(ollama.Client.__mro__[1].__init__).parameters,
    }
    passed_on = inspect.signature(httpx.Client.__init__).parameters  # **kwargs
    for name, parameter in {**passed_on, **parameters}.items():
        if name not in ("self", "client", "kwargs"):
            yield _parameter("Clients", "Client()", parameter)


def _methods(cls: type, shown: str) -> Iterator[Entry]:
    for name, _ in inspect.getmembers(cls, lambda member: isinstance(member, property)):
        if not name.startswith("_"):
            yield Entry("Calls", f"{shown}.{name}()")
    for name, method in sorted(inspect.getmembers(cls, inspect.isfunction)):
        if name.startswith("_") and name not in (
            "__enter__",
            "__exit__",
            "__aenter__",
            "__aexit__",
        ):
            continue
        if shown == "Client" and name in ("__aenter__", "__aexit__"):
            continue
        yield Entry("Calls", f"{shown}.{name}()")
        if not name.startswith("__"):
            parameters = list(inspect.signature(method).parameters.values())[1:]
            for number, parameter in enumerate(parameters):
                yield _parameter("Calls", f"{shown}.{name}()", parameter, number)


def _parameter(section: str, call: str, parameter: inspect.Parameter, number: int = -1) -> Entry:
    position = number if parameter.kind is parameter.POSITIONAL_OR_KEYWORD else -1
    return Entry(section, f"{call[:-1]}{parameter.name})", _default(parameter), position)


def _class_members(name: str, value: Any, seen: set[type]) -> Iterator[Entry]:
    if not isinstance(value, type) or value in seen:
        return
    seen.add(value)
    if not issubclass(value, pydantic.BaseModel | Exception):
        return
    for member, found in vars(value).items():
        if not member.startswith("_") and isinstance(found, property | FunctionType | classmethod):
            yield Entry("Objects", f"{name}.{member}()")
    if issubclass(value, pydantic.BaseModel):
        for field, info in value.model_fields.items():
            default = "" if info.is_required() else repr(info.default)
            yield Entry("Objects", f"{name}.{field}", default)
        for inner, nested in vars(value).items():
            if isinstance(nested, type) and issubclass(nested, pydantic.BaseModel):
                yield Entry("Objects", f"{name}.{inner}")
                yield from _class_members(f"{name}.{inner}", nested, seen)
    elif issubclass(value, Exception):
        for parameter in list(inspect.signature(value.__init__).parameters.values())[1:]:
            yield Entry("Objects", f"{name}.{parameter.name}", _default(parameter))


def _default(parameter: inspect.Parameter) -> str:
    return "" if parameter.default is _NOTHING else repr(parameter.default)


# -- ollama-js -------------------------------------------------------------------------------------


def ollama_js() -> Iterator[Entry]:
    """What its declarations export: the methods, and the fields of requests and of objects."""
    for name, members in json.loads(RECORDED.read_text()).items():
        yield Entry("ollama-js", f"JS: {name}")
        for member in members:
            yield Entry("ollama-js", f"JS: {name}.{member}")


def declared(folder: Path = INSTALLED) -> dict[str, list[str]]:
    """The same, from the declarations of an installed package: members of each exported name."""
    found: dict[str, list[str]] = {}
    for file in ("browser.d.ts", "index.d.ts"):
        text = re.sub(r"/\*.*?\*/", "", (folder / file).read_text(), flags=re.DOTALL)
        for match in re.finditer(
            r"^(?:declare class|interface) (\w+)[^\n]*\{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE
        ):
            members = [
                member[2]
                for line in match[2].splitlines()
                if (member := re.match(r"    (protected |private |readonly )?(\w+)\??[(:<]", line))
                and not member[1]
                and member[2] != "constructor"
            ]
            before = found.setdefault(match[1], [])
            before += [member for member in dict.fromkeys(members) if member not in before]
        for match in re.finditer(r"^type (\w+) =", text, re.MULTILINE):
            found.setdefault(match[1], [])
    return found
