"""The options of commands, from the commands themselves.

``command-options`` lists those of a function of the command line, ``command-help`` shows what a
module prints for ``--help``.
"""

import importlib
import inspect
import os
import subprocess
import sys
import typing
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


class CommandOptions(SphinxDirective):
    """A list of the parameters of a function that cyclopts makes a command of."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        module, _, name = self.arguments[0].partition(":")
        function = getattr(importlib.import_module(module), name)
        hints = typing.get_type_hints(function, include_extras=True)
        groups: dict[str, nodes.definition_list] = {}
        shown: list[nodes.Node] = []
        for parameter in inspect.signature(function).parameters.values():
            kind, said = typing.get_args(hints[parameter.name])
            group = said.group[0].name
            if group not in groups:
                groups[group] = nodes.definition_list()
                shown += [nodes.rubric("", group), groups[group]]
            groups[group] += self.item(parameter, kind, said)
        return shown

    def item(self, parameter: inspect.Parameter, kind: Any, said: Any) -> nodes.Node:
        names = list(said.name or [f"--{parameter.name.replace('_', '-')}"])
        if parameter.kind is parameter.VAR_POSITIONAL:
            names = [parameter.name.upper()]
        names += [negative for negative in said.negative or () if negative]
        choices = [repr(value).strip("'") for value in choices_of(kind)]
        choices += ["a number"] if choices and int in typing.get_args(kind) else []
        term = nodes.term()
        for name in names:
            term += [nodes.literal("", name), nodes.Text(" ")]
        details = [f"one of {', '.join(choices)}"] if choices else []
        if parameter.default not in (None, (), parameter.empty):
            details.append(f"{parameter.default} if not given")
        if parameter.default is parameter.empty and parameter.kind is parameter.KEYWORD_ONLY:
            details.append("required")
        text = said.help + (f" ({'; '.join(details)})" if details else "")
        body = nodes.definition("", nodes.paragraph("", text))
        return nodes.definition_list_item("", term, body)


def choices_of(kind: Any) -> list[Any]:
    if typing.get_origin(kind) is typing.Literal:
        return list(typing.get_args(kind))
    return [value for part in typing.get_args(kind) for value in choices_of(part)]


class CommandHelp(SphinxDirective):
    """What ``python -m`` and these words print."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        command = [sys.executable, "-m", *self.arguments[0].split(), "--help"]
        environment = {**os.environ, "COLUMNS": "72", "NO_COLOR": "1"}
        done = subprocess.run(  # noqa: S603 - a module of this package
            command, capture_output=True, text=True, check=True, env=environment
        )
        block = nodes.literal_block(done.stdout, done.stdout)
        block["language"] = "text"
        return [block]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("command-options", CommandOptions)
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
