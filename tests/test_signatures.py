"""What the package shows, name by name: changed on purpose, and never by moving modules.

`signatures.txt` has a line for each public name: for a class its constructor with every field and
default, for each of its methods and for a function the signature. Annotations are the source's own
text, so that they are the same in every Python and wherever the source lies.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any, is_typeddict

import ollama_sc
import ollama_sc.blocking
import ollama_sc.embedding
import ollama_sc.starlette
import ollama_sc.telemetry
import ollama_sc.testing

WRITTEN = Path(__file__).with_name("signatures.txt")
PACKAGES = (ollama_sc, ollama_sc.blocking, ollama_sc.embedding, ollama_sc.testing)
PACKAGES += (ollama_sc.starlette, ollama_sc.telemetry)
# Nobody else makes these: what they are made of is the library's own affair.
MADE_BY_THE_LIBRARY = {
    "ollama_sc.Group",
    "ollama_sc.NamedTool",  # of others
    "ollama_sc.Stream",
    "ollama_sc.ToolStream",
    "ollama_sc.blocking.Batches",
    "ollama_sc.blocking.Group",
    "ollama_sc.blocking.Stream",
    "ollama_sc.blocking.ToolStream",
    "ollama_sc.embedding.Batches",
    "ollama_sc.testing.LoadedModel",
    "ollama_sc.testing.ModelStore",
    "ollama_sc.testing.RecordedRequest",
    "ollama_sc.testing.StoredModel",
}
# What `async with`, `async for`, `in`, `[...]` and calls need.
PROTOCOLS = ("aenter", "aexit", "aiter", "anext", "enter", "exit", "iter", "next", "len", "call")
PROTOCOLS += ("contains", "getitem", "setitem", "delitem")
SPECIAL = {f"__{name}__" for name in PROTOCOLS}


def test_the_public_names_are_as_they_are_written_down() -> None:
    """Every public name, signature, field and default is what `signatures.txt` says."""
    found = lines()
    if os.environ.get("WRITE_SIGNATURES"):
        WRITTEN.write_text("".join(f"{line}\n" for line in found))
    written = WRITTEN.read_text().splitlines()
    difference = "\n".join(difflib.unified_diff(written, found, "written", "found", "", "", 0, ""))
    assert not difference, (
        f"\n{difference}\n\nWhere this is meant: WRITE_SIGNATURES=1 pytest {Path(__file__).name}"
    )


def test_the_lines_name_no_place() -> None:
    """A line has neither a private module nor an address in it, and each name has one line."""
    found = lines()
    assert not [line for line in found if "._" in line.replace(".__", "") or " at 0x" in line]
    names = [re.findall(r"ollama_sc\.[\w.]+", line)[0] for line in found]
    assert len(set(names)) == len(names)
    for package in PACKAGES:
        assert {f"{package.__name__}.{name}" for name in package.__all__} <= set(names)


# -- names -----------------------------------------------------------------------------------------


@cache
def lines() -> list[str]:
    """A line for each public name."""
    return [
        line
        for package in PACKAGES
        for name in sorted(package.__all__)
        for line in of_name(f"{package.__name__}.{name}", getattr(package, name))
    ]


def of_name(name: str, value: Any) -> Iterator[str]:
    """A public name, and what can be reached through it."""
    if isinstance(value, FunctionType):
        yield of_function(name, value)
    elif isinstance(value, MethodType):
        yield f"{name} = {type(value.__self__).__mro__[1].__name__}.{value.__name__}"
    elif is_typeddict(value):
        fields = fields_of(value)
        assert set(fields) == value.__required_keys__ | value.__optional_keys__
        yield f"TypedDict {name}"
        yield from (f"{name}.{field}: {fields[field]}" for field in sorted(fields))
    elif isinstance(value, type):
        yield f"class {name}{'' if name in MADE_BY_THE_LIBRARY else of_constructor(value)}"
        yield from of_members(name, value)
    elif isinstance(value, str):
        yield f"{name}: str"
    else:
        yield f"{name} = {of_alias(name.rpartition('.')[2], value)}"


def of_members(prefix: str, cls: type) -> Iterator[str]:
    """The methods, properties and attributes of a class that the library defines."""
    fields = fields_of(cls)
    in_constructor = set(parameters_of(cls))
    for name in sorted({*dir(cls), *fields}):
        if name.startswith("_") and name not in SPECIAL:
            continue
        owner = next((one for one in cls.__mro__ if name in vars(one)), cls)
        if not is_ours(owner):
            continue
        value = vars(owner).get(name)
        if isinstance(value, classmethod | staticmethod):
            yield f"{type(value).__name__} {of_function(f'{prefix}.{name}', value.__func__)}"
        elif isinstance(value, FunctionType):
            yield of_function(f"{prefix}.{name}", value)
        elif getter := getattr(value, "fget", None) or getattr(value, "func", None):
            yield f"property {prefix}.{name} -> {annotations_of(getter)['return']}"
        elif name in fields and (name not in in_constructor or prefix in MADE_BY_THE_LIBRARY):
            yield f"{prefix}.{name}: {fields[name]}"


def of_alias(name: str, value: Any) -> str:
    """What a type's own name stands for."""
    for module in modules():
        for node in tree_of(module).body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
                if vars(module).get(name) is value:
                    return text_of(node.value)
    raise AssertionError(f"nobody defines {name}")


# -- signatures ------------------------------------------------------------------------------------


def of_function(name: str, function: Any) -> str:
    """A signature as it would be written, without its own instance or class."""
    annotations = annotations_of(function)
    parameters = parameters_of(function)
    for first in [*parameters][:1]:
        if first in ("self", "cls"):
            del parameters[first]
    coroutine = "async " * inspect.iscoroutinefunction(function)
    returns = f" -> {annotations['return']}" if "return" in annotations else ""
    return f"{coroutine}{name}{written(parameters, annotations)}{returns}"


def of_constructor(cls: type) -> str:
    """What a class is made of: its fields, or the parameters of its `__init__`."""
    if "__init__" in {name for one in cls.__mro__ if is_ours(one) for name in vars(one)}:
        annotations = annotations_of(cls.__init__) or fields_of(cls)
    else:
        annotations = fields_of(cls)
    return written(parameters_of(cls), annotations)


def written(parameters: dict[str, inspect.Parameter], annotations: dict[str, str]) -> str:
    """Parameters in parentheses, each with its annotation and its default."""
    shown: list[str] = []
    kinds = [parameter.kind for parameter in parameters.values()]
    for number, (name, parameter) in enumerate(parameters.items()):
        kind = parameter.kind
        if kind is parameter.KEYWORD_ONLY and not {kind, parameter.VAR_POSITIONAL} & {
            *kinds[:number]
        }:
            shown.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(kind, "")
        default = (
            "" if parameter.default is parameter.empty else f" = {of_value(parameter.default)}"
        )
        shown.append(f"{stars}{name}: {annotations[name]}{default}")
        if kind is parameter.POSITIONAL_ONLY and kinds[number + 1 : number + 2] != [kind]:
            shown.append("/")
    return f"({', '.join(shown)})"


def of_value(value: Any) -> str:
    """A default; of what has no text of its own, the kind."""
    text = repr(value)
    return f"<{type(value).__name__}>" if " at 0x" in text else text


def parameters_of(value: Any) -> dict[str, inspect.Parameter]:
    """Names, kinds and defaults; nobody evaluates annotations."""
    options: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        from annotationlib import Format  # noqa: PLC0415

        options["annotation_format"] = Format.STRING
    try:
        return dict(inspect.signature(value, **options).parameters)
    except ValueError:  # of a builtin
        return {}


# -- annotations, from the source ------------------------------------------------------------------


def is_ours(cls: Any) -> bool:
    """Whether the library defines a class."""
    return bool(cls.__module__.partition(".")[0] == "ollama_sc")


def modules() -> list[ModuleType]:
    """All of the library that was imported."""
    found = [*sys.modules.items()]
    return [
        module for name, module in found if name == "ollama_sc" or name.startswith("ollama_sc.")
    ]


@cache
def tree_of(module: ModuleType) -> ast.Module:
    """A module as it is written."""
    assert module.__file__ is not None
    return ast.parse(Path(module.__file__).read_text())


@cache
def functions_in(file: str) -> dict[int, ast.FunctionDef | ast.AsyncFunctionDef]:
    """A file's functions by their first lines, decorators included."""
    return {
        min(one.lineno for one in (node, *node.decorator_list)): node
        for node in ast.walk(ast.parse(Path(file).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def annotations_of(function: Any) -> dict[str, str]:
    """What is written behind the parameters, and before them where a dictionary spells them."""
    code = inspect.unwrap(function).__code__
    if not Path(code.co_filename).is_file():
        return {}  # made by `dataclass`
    node = functions_in(code.co_filename)[code.co_firstlineno]
    given = node.args
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    found = {one.arg: text_of(one.annotation) for one in every if one and one.annotation}
    if given.kwarg and given.kwarg.annotation:
        spelled = text_of(given.kwarg.annotation)
        if spelled.startswith("Unpack["):
            found |= fields_of(defined(spelled.removeprefix("Unpack[").removesuffix("]")))
    if node.returns is not None:
        found["return"] = text_of(node.returns)
    return found


def fields_of(cls: Any) -> dict[str, str]:
    """The annotated names in the bodies of a class and of its bases."""
    found: dict[str, str] = {}
    node = class_of(cls)
    if is_typeddict(cls):  # they forget their bases
        for base in node.bases:
            name = text_of(base).partition("[")[0]
            if name not in ("TypedDict", "Generic"):
                found |= fields_of(defined(name))
    else:
        for base in reversed(cls.__mro__[1:]):
            if is_ours(base):
                found |= own_fields(class_of(base))
    return found | own_fields(node)


def own_fields(node: ast.ClassDef) -> dict[str, str]:
    """Those in the body of this class."""
    return {
        item.target.id: text_of(item.annotation)
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        if not item.target.id.startswith("_")
    }


def class_of(cls: Any) -> ast.ClassDef:
    """A class as it is written."""
    for module in modules():
        # A package can give its name to what its private modules define.
        if f"{module.__name__}.".startswith(f"{cls.__module__}."):
            for node in ast.walk(tree_of(module)):
                if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
                    return node
    raise AssertionError(f"no source of {cls}")


def defined(name: str) -> Any:
    """The dictionary of fields of that name, wherever in the library it is."""
    for module in modules():
        value = vars(module).get(name)
        if is_typeddict(value) and value.__module__ == module.__name__:
            return value
    raise AssertionError(f"nobody defines {name}")


def text_of(node: ast.AST) -> str:
    """An annotation on one line, without quotation marks and without modules' names."""
    return ast.unparse(_Plain().visit(ast.parse(ast.unparse(node), mode="eval")).body)


class _Plain(ast.NodeTransformer):
    """Takes quotation marks and modules' names away."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:  # noqa: N802 - ast's name
        if isinstance(node.value, str):
            return self.visit(ast.parse(node.value, mode="eval").body)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:  # noqa: N802
        return ast.Name(node.attr)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:  # noqa: N802
        if text_of(node.value) == "Literal":  # what is quoted there are values
            return ast.Subscript(ast.Name("Literal"), node.slice)
        return self.generic_visit(node)
