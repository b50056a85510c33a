"""What a model gives as arguments, converted to what a function takes."""

from __future__ import annotations

import sys
from datetime import date
from typing import Annotated, Any

import pytest
from annotated_types import Ge
from pydantic import AfterValidator, Field, PositiveInt, StringConstraints
from pydantic.dataclasses import dataclass as pydantic_dataclass

import ollama_sc
import ollama_sc._schemas.forms as forms
import ollama_sc._schemas.functions as functions
from ollama_sc import AsyncClient, Client, RequestError, Tool
from tests.tools.test_schemas import Color, Model, Node, Options, Place


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


def typed(
    number: int,
    items: list[int] = [],
    node: Node | None = None,
    options: Options | None = None,
    color: Color = Color.RED,
    model: Model | None = None,
    text: str = "",
    real: float = 0,
    yes: bool = False,
    pair: tuple[int, str] = (1, ""),
    when: date | None = None,
    any: Any = None,
) -> None: ...


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("number", "3", 3),
        ("number", 3.0, 3),
        ("items", "[1, 2]", [1, 2]),
        ("items", ["1", 2], [1, 2]),
        ("items", '["1"]', [1]),
        ("node", {"value": "3"}, Node(3)),
        ("node", '{"value": 3, "children": [{"value": 4}]}', Node(3, [Node(4)])),
        ("node", {"value": 1, "children": '[{"value": "4"}]'}, Node(1, [Node(4)])),
        ("node", {"value": 1, "children": ['{"value": 4}']}, Node(1, [Node(4)])),
        ("options", '{"unit": "C"}', {"unit": "C"}),
        ("color", "blue", Color.BLUE),
        ("model", {"color": "red"}, Model(color=Color.RED)),
        ("model", '{"color": "red"}', Model(color=Color.RED)),
        ("text", "[1]", "[1]"),
        ("text", "3", "3"),
        ("real", "2.5", 2.5),
        ("yes", "true", True),
        ("pair", '[2, "x"]', (2, "x")),
        ("when", "2026-01-31", date(2026, 1, 31)),
        ("any", "[1]", "[1]"),
    ],
)
def test_arguments_are_converted(name: str, value: Any, expected: Any) -> None:
    """Texts stand for numbers, and for lists and objects where they are JSON, at any depth."""
    _, found = functions.signature_of(typed).bind({"number": 1, name: value})
    assert found[name] == expected
    assert type(found[name]) is type(expected)


@pytest.mark.parametrize(
    ("given_arguments", "path"),
    [
        ({"number": "x"}, "$.number"),
        ({"number": None}, "$.number"),
        ({}, "$.number"),
        ({"number": 1, "nope": 2}, "$.nope"),
        ({"number": 1, "items": [1, "x"]}, "$.items[1]"),
        ({"number": 1, "items": "not JSON"}, "$.items"),
        (
            {"number": 1, "node": {"value": 1, "children": [{"value": "x"}]}},
            "$.node.children[0].value",
        ),
        ({"number": 1, "model": {"color": "red", "children": [{}]}}, "$.model.children[0].color"),
        ({"number": 1, "color": "green"}, "$.color"),
        ({"number": 1, "text": 5}, "$.text"),
    ],
)
def test_a_misfit_has_a_path(given_arguments: dict[str, Any], path: str) -> None:
    """Wherever in the arguments it is."""
    with pytest.raises(functions.Misfit) as caught:
        functions.signature_of(typed).bind(given_arguments)
    assert caught.value.path == path


def test_texts_in_values_of_a_mapping() -> None:
    """Whichever of them they are."""

    def tool(found: dict[str, list[int]]) -> None: ...

    given_arguments = {"found": {"a": "[1]", "b": [2], "c": '["3"]'}}
    _, found = functions.signature_of(tool).bind(given_arguments)
    assert found == {"found": {"a": [1], "b": [2], "c": [3]}}


@pydantic_dataclass
class Checked:
    size: int = Field(ge=3, description="how large")


def test_what_only_pydantic_reads() -> None:
    """Its dataclasses with their checks, and unions of its models; also as JSON in a text."""

    def tool(checked: Checked, either: Model | Checked | None = None) -> None: ...

    signature = functions.signature_of(tool)
    description = signature.schema["properties"]["checked"]["properties"]["size"]["description"]
    assert description == "how large. At least 3."
    for size in (5, "5"):
        _, found = signature.bind({"checked": {"size": size}, "either": '{"color": "red"}'})
        assert found == {"checked": Checked(5), "either": Model(color=Color.RED)}
    _, found = signature.bind({"checked": '{"size": 5}'})
    assert found == {"checked": Checked(5)}
    with pytest.raises(functions.Misfit) as caught:
        signature.bind({"checked": {"size": 1}})
    assert caught.value.path == "$.checked.size"


def bounded(
    days: Annotated[int, Field(ge=1, le=14, description="how many")],
    size: int = Field(3, gt=0),
    parts: list[Annotated[int, Ge(2)]] | None = None,
    count: PositiveInt = 1,
    name: Annotated[str, StringConstraints(max_length=3)] = "",
    even: Annotated[int, AfterValidator(lambda number: number // 2)] = 2,
) -> None: ...


@pytest.mark.parametrize(
    ("given_arguments", "path"),
    [
        ({"days": 15}, "$.days"),
        ({"days": "0"}, "$.days"),
        ({"days": 1, "size": 0}, "$.size"),
        ({"days": 1, "parts": [2, 1]}, "$.parts[1]"),
        ({"days": 1, "count": -1}, "$.count"),
        ({"days": 1, "name": "long"}, "$.name"),
    ],
)
def test_bounds_in_pydantics_terms_are_checked(given_arguments: dict[str, Any], path: str) -> None:
    """As they are in a model, though a parameter's type is one of Python's own."""
    with pytest.raises(functions.Misfit) as caught:
        functions.signature_of(bounded).bind(given_arguments)
    assert caught.value.path == path


def test_bounds_in_pydantics_terms_are_told() -> None:
    """With the description; and what fits is converted as ever."""
    signature = functions.signature_of(bounded)
    found = signature.schema["properties"]
    assert found["days"]["description"] == "how many. At least 1. At most 14."
    assert found["size"]["description"] == "More than 0. Default: 3."
    assert found["count"]["description"] == "More than 0. Default: 1."
    assert found["name"]["description"] == 'At most 3 characters. Default: "".'
    _, by_name = signature.bind({"days": "3", "parts": "[2, 3]", "even": 8})
    assert by_name == {"days": 3, "parts": [2, 3], "even": 4, "size": 3}
    with pytest.raises(forms.Misfit, match="greater than or equal to 3"):
        forms.decode("[5, 2]", list[Annotated[int, Field(ge=3)]])


def test_classes_are_tools() -> None:
    """Calling one makes an object of it, of checked arguments."""
    for cls in (Checked, Model, Node):
        signature = functions.signature_of(cls)
        name = next(iter(signature.parameters))
        assert signature.schema["properties"][name]["type"] in ("integer", "string")
    positional, by_name = functions.signature_of(Model).bind({"color": "red", "size": "5"})
    assert Model(*positional, **by_name) == Model(color=Color.RED, size=5)


def test_null_for_what_has_a_default_is_nothing() -> None:
    """Models say null of what they leave out."""
    _, found = functions.signature_of(typed).bind({"number": 1, "items": None, "node": None})
    assert found == {"number": 1, "node": None}


def test_positional_parameters_are_given_by_place() -> None:
    """Those that have no other way, with the default of one that is left out."""

    def tool(a: int, b: int = 2, c: int = 3, /, d: int = 4) -> tuple[int, ...]:
        return a, b, c, d

    positional, by_name = functions.signature_of(tool).bind({"a": "1", "c": "9", "d": 5})
    assert tool(*positional, **by_name) == (1, 2, 9, 5)


def test_it_is_made_quickly() -> None:
    """A dozen parameters of all kinds take about 2 ms: so many calls, however busy the machine."""
    functions._signature_of(typed)  # imports
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        functions._signature_of(typed)
    finally:
        sys.setprofile(before)
    assert 1000 < calls < 20_000  # some 10,000; twice as many would still take less than 5 ms


@pytest.mark.parametrize("client", [ollama_sc, Client(), AsyncClient()])
def test_calls_of_a_client_are_tools(client: Any) -> None:
    """As they are with ollama-python; a model is told nothing of what is for their callers."""
    function = Tool.of(client.web_search).function
    assert (function.name, function.description) == ("web_search", "Search the web.")
    parameters: Any = function.parameters
    assert (list(parameters["properties"]), parameters["required"]) == (
        ["query", "max_results"],
        ["query"],
    )
    assert list(Tool.of(client.web_fetch).function.parameters["properties"]) == ["url"]  # type: ignore[arg-type, index]


def test_the_type_of_a_result_is_not_read() -> None:
    """It may be one for type checkers alone: no model is told of it."""

    def look(place: str) -> DataFrame:  # type: ignore[name-defined] # noqa: F821
        raise NotImplementedError

    tool = Tool.of(look)
    assert tool.function.parameters == {
        "type": "object",
        "properties": {"place": {"type": "string"}},
        "required": ["place"],
    }


@pytest.mark.parametrize("type_", [Place | Model, list[Model | Place], Model | Place | None])
def test_what_neither_library_reads_is_refused(type_: Any) -> None:
    """By the parameter's name: a union of a Struct and a pydantic model."""

    def look(place: Any) -> None: ...

    look.__annotations__["place"] = type_
    with pytest.raises(RequestError, match="the parameter 'place' cannot be"):
        Tool.of(look)
