"""A function's signature as the schema that a model gets."""

from __future__ import annotations

import enum
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union

import attrs
import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import Doc, NotRequired

import ollama_sc._schemas.functions as functions
from ollama_sc import RequestError, Tool, ToolError
from ollama_sc._api.tools import as_tool
from tests.tools.support import kept


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@dataclass
class Node:
    value: int
    children: list[Node] = field(default_factory=list)


class Place(msgspec.Struct):
    name: str
    color: Color = Color.RED


class Options(TypedDict):
    unit: Literal["C", "F"]
    days: NotRequired[int]


@attrs.define
class Box:
    width: float
    label: str = "box"


class Model(BaseModel):
    color: Color
    kind: Literal["x"] = "x"
    children: list[Model] = []
    size: int | None = Field(None, ge=3, description="how large")


class Pair(NamedTuple):
    left: int
    right: str


TYPES: list[Any] = [
    int, str, float, bool, None, Any, list, dict, bytes, datetime, date,
    Color, Level, Node, Place, Options, Box, Model, Pair,
    Literal["b", "a"], Literal[1, "a", None], Literal[True],
    Annotated[int, msgspec.Meta(ge=1, description="d")], Annotated[str, msgspec.Meta(pattern="^a$")],
]  # fmt: skip
COMPOSED = st.recursive(
    st.sampled_from(TYPES),
    lambda inner: st.one_of(
        inner.map(lambda one: list[one]),
        inner.map(lambda one: Optional[one]),
        inner.map(lambda one: dict[str, one]),
        inner.map(lambda one: set[one]),
        st.tuples(inner, inner).map(lambda pair: tuple[pair]),
        st.tuples(inner, inner).map(lambda pair: Union[pair]),
    ),
    max_leaves=4,
)


def function_of(*types: Any) -> Any:
    """A function with parameters of these types."""

    def tool(**_: Any) -> None:
        """Do it."""

    names = [f"p{number}" for number in range(len(types))]
    code = f"def tool({', '.join(names)}):\n    'Do it.'\n"
    scope: dict[str, Any] = {}
    exec(code, scope)
    made = scope["tool"]
    made.__annotations__ = dict(zip(names, types, strict=True))
    return made


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.lists(COMPOSED, max_size=3))
def test_the_server_keeps_all_of_it(types: list[Any]) -> None:
    """What the server's structs keep of a schema is the schema, whatever the types are."""
    # msgspec 0.23.0 breaks the process at a union of a tuple and a number with bounds.
    assume(not ("tuple[" in str(types) and "ge=" in str(types)))
    try:
        schema = Tool.of(function_of(*types)).function.parameters
    except RequestError as error:
        assert "p0" in str(error) or "p1" in str(error) or "p2" in str(error)
        return
    assert schema is not None
    assert kept(schema) == schema
    text = json.dumps(schema)
    for lost in ("$ref", "$defs", '"const"', "oneOf", "additionalProperties"):
        assert lost not in text
    assert Tool.of(function_of(*types)).function.parameters == schema  # the same on every run


def test_unions_are_in_one_order() -> None:
    """Python keeps one object for equal unions; the schema does not tell which was first."""
    one = Tool.of(function_of(Union[str, int, None])).function.parameters
    two = Tool.of(function_of(Union[None, int, str])).function.parameters
    assert one == two == {
        "type": "object",
        "properties": {"p0": {"type": ["integer", "string", "null"]}},
        "required": ["p0"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "expected"),
    [
        (Color, {"type": "string", "enum": ["blue", "red"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (Literal["b", "a"], {"type": "string", "enum": ["a", "b"]}),
        (Literal[1, "a"], {"type": ["integer", "string"], "enum": [1, "a"]}),
        (Literal[True], {"type": "boolean", "enum": [True]}),
        (Optional[int], {"type": ["integer", "null"]}),
        (Any, {}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (
            dict[str, int],
            {"type": "object", "description": "An object of any keys, whose values are integer."},
        ),
        (
            Node,
            {
                "type": "object",
                "properties": {
                    "value": {"type": "integer"},
                    "children": {
                        "type": "array",
                        "items": {"type": "object"},
                        "description": "Default: [].",
                    },
                },
                "required": ["value"],
            },
        ),
        (
            Model,
            {
                "type": "object",
                "properties": {
                    "color": {"type": "string", "enum": ["blue", "red"]},
                    "kind": {"type": "string", "enum": ["x"], "description": 'Default: "x".'},
                    "children": {
                        "type": "array",
                        "items": {"type": "object"},
                        "description": "Default: [].",
                    },
                    "size": {
                        "anyOf": [
                            {"type": "integer", "description": "At least 3."},
                            {"type": "null"},
                        ],
                        "description": "how large. Default: null.",
                    },
                },
                "required": ["color"],
            },
        ),
    ],
)
def test_each_kind_of_type(type_: Any, expected: dict[str, Any]) -> None:
    """Enumerations have a type, references are inlined, what the server drops is said in words."""
    schema = Tool.of(function_of(type_)).function.parameters
    assert schema is not None
    assert schema["properties"]["p0"] == expected


# -- descriptions ----------------------------------------------------------------------------------


def google(a: int, b: int, city: str = "Oslo", *, days: int = 3) -> None:
    """Tell the weather.

    In some detail.

    Args:
        a, b: both of them
        city (str): where
            that is
        days: how many days.

    Returns:
        nothing at all
    """


def numpy(a: int, b: int, city: str = "Oslo", *, days: int = 3) -> None:
    """Tell the weather.

    In some detail.

    Parameters
    ----------
    a, b : int
        both of them
    city : str, optional
        where
        that is
    days
        how many days.
    """


def sphinx(a: int, b: int, city: str = "Oslo", *, days: int = 3) -> None:
    """Tell the weather.

    In some detail.

    :param a: both of them
    :param b: both of them
    :param str city: where
        that is
    :param days: how many days.
    :returns: nothing
    """


@pytest.mark.parametrize("function", [google, numpy, sphinx])
def test_docstrings(function: Any) -> None:
    """Three styles say the same; two parameters can be documented together; defaults are told."""
    tool = Tool.of(function)
    assert tool.function.name == function.__name__
    assert tool.function.description == "Tell the weather.\n\nIn some detail."
    assert tool.function.parameters == {
        "type": "object",
        "properties": {
            "a": {"type": "integer", "description": "both of them"},
            "b": {"type": "integer", "description": "both of them"},
            "city": {"type": "string", "description": 'where that is. Default: "Oslo".'},
            "days": {"type": "integer", "description": "how many days. Default: 3."},
        },
        "required": ["a", "b"],
    }


@pytest.mark.parametrize("text", [":: :: ::", "Args:", ":param", "Parameters\n----------", "----"])
def test_a_docstring_in_no_style(text: str) -> None:
    """Whatever it looks like, it is a description."""

    def tool(x: int) -> None: ...

    tool.__doc__ = text
    assert Tool.of(tool).function.parameters is not None


def annotated(
    a: Annotated[int, "in text"],
    b: Annotated[int, Doc("in a Doc")],
    c: Annotated[int, Field(description="in a field")],
    d: Annotated[int, msgspec.Meta(description="in a Meta")],
    e: int = Field(5, description="in a default"),
    f: Annotated[int | None, "optional"] = None,
) -> list[int]:
    """Do it.

    Args:
        a: not this
    """
    return [a, b, c, d, e]


def test_annotations_describe_parameters() -> None:
    """Text, `Doc`, pydantic's fields and msgspec's `Meta`; they come before the docstring."""
    schema = Tool.of(annotated).function.parameters
    assert schema is not None
    assert {name: one["description"] for name, one in schema["properties"].items()} == {
        "a": "in text",
        "b": "in a Doc",
        "c": "in a field",
        "d": "in a Meta",
        "e": "in a default. Default: 5.",
        "f": "optional. Default: null.",
    }
    assert schema["required"] == ["a", "b", "c", "d"]
    signature = functions.signature_of(annotated)
    positional, by_name = signature.bind({"a": 1, "b": "2", "c": 3, "d": 4})
    assert annotated(*positional, **by_name) == [1, 2, 3, 4, 5]


class Inner(msgspec.Struct, rename="camel"):
    the_size: Annotated[int, "how large"]
    color: Annotated[Color, Doc("which one")] = Color.RED
    plain: int = 0


@dataclass
class Outer:
    inner: Annotated[Inner, "the inner one"]
    others: dict[str, list[Inner]]
    size: Annotated[int | None, Field(description="or none")] = None


def test_annotations_describe_fields() -> None:
    """Those of classes at any depth, under their names in JSON."""
    schema = Tool.of(function_of(list[Outer])).function.parameters
    assert schema is not None
    fields = schema["properties"]["p0"]["items"]["properties"]
    assert fields["inner"]["description"] == "the inner one"
    assert fields["size"]["description"] == "or none. Default: null."
    inner = fields["inner"]["properties"]
    assert inner["theSize"]["description"] == "how large"
    assert inner["color"]["description"] == 'which one. Default: "red".'
    assert inner["plain"] == {"type": "integer", "description": "Default: 0."}


# -- what can be a tool ----------------------------------------------------------------------------


class Weather:
    """A weather service."""

    def at(self, city: str) -> str:
        """The weather at a place."""
        return city

    async def __call__(self, city: str) -> str:
        """Not this."""
        return city

    @classmethod
    def of(cls, city: str) -> str:
        return city

    @staticmethod
    def there(city: str) -> str:
        return city


ONE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("tool", "name", "description", "is_async"),
    [
        (Weather().at, "at", "The weather at a place.", False),
        (Weather(), "Weather", "A weather service.", True),
        (Weather.of, "of", None, False),
        (Weather.there, "there", None, False),
        (functools.partial(Weather().at), "at", "The weather at a place.", False),
        (functools.partial(Weather()), "Weather", "A weather service.", True),
    ],
)
def test_what_can_be_called(tool: Any, name: str, description: str | None, is_async: bool) -> None:
    """Methods and objects without their `self`, class and static methods, partials."""
    made = Tool.of(tool)
    assert (made.function.name, made.function.description) == (name, description)
    assert made.function.parameters == ONE
    assert made.__dict__["callee"].is_async is is_async


def test_what_a_partial_has_given_is_left_out() -> None:
    """It is no affair of the model's, and needs no form in JSON."""

    def read(city: str, folder: Path, days: int = 3) -> None: ...

    tool = Tool.of(functools.partial(read, folder=Path()), name="read_weather", description="d")
    assert tool.function.name == "read_weather"
    assert tool.function.description == "d"
    assert set((tool.function.parameters or {})["properties"]) == {"city", "days"}


def test_types_that_are_local() -> None:
    """An annotation that is text can name what is local to the functions that run."""

    class Here(msgspec.Struct):
        x: int

    def tool(here: Here, more: list[Here], color: Color) -> None: ...

    def make(Color: Any) -> Any:  # noqa: N803 - the module has another one, which is meant
        return Tool.of(tool).function.parameters

    schema = make(5)
    assert schema["properties"]["here"]["properties"] == {"x": {"type": "integer"}}
    assert schema["properties"]["color"]["enum"] == ["blue", "red"]


def of_args(*args: int) -> None: ...


def of_kwargs(city: str, **kwargs: int) -> None: ...


def of_callable(city: str, callback: Callable[[], None]) -> None: ...


def of_path(path: Path) -> None: ...


def of_paths(path: list[Path] | None = None) -> None: ...


def of_object(thing: object) -> None: ...


def of_a_class(tool: Weather) -> None: ...


def of_two_kinds(thing: Node | Box) -> None: ...


def of_nobody(x: Nobody) -> None: ...  # type: ignore[name-defined]  # noqa: F821


class Unhashable:
    """One that has no hash."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, x: int) -> int:
        return x


def test_what_has_no_hash_can_be_a_tool() -> None:
    """Its signature is made anew each time."""
    assert Tool.of(Unhashable()).function.parameters == Tool.of(Unhashable()).function.parameters


class Endless:
    name = "endless"
    parameters: Mapping[str, Any] = {
        "properties": {"x": {"$ref": "#/$defs/L0"}},
        "$defs": {
            f"L{n}": {
                "properties": {
                    "a": {"$ref": f"#/$defs/L{n + 1}"},
                    "b": {"$ref": f"#/$defs/L{n + 1}"},
                }
            }
            for n in range(40)
        },
    }


def test_a_schema_that_doubles_with_each_level() -> None:
    """It is refused, and not inlined until memory ends."""
    with pytest.raises(RequestError, match="too large"):
        as_tool("tools[0]", Endless())


def generator(x: int) -> Any:
    yield x


async def generators(x: int) -> Any:
    yield x


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (of_args, r"\*args"),
        (of_kwargs, r"\*\*kwargs"),
        (of_callable, "'callback'"),
        (of_path, "'path'"),
        (of_paths, "'path'"),
        (of_object, "'thing'"),
        (of_a_class, "'tool'"),
        (of_two_kinds, "'thing'"),
        (of_nobody, "Nobody"),
        (generator, "generator"),
        (generators, "generator"),
        (Weather.at, "without its object"),
        (lambda city: city, "name="),
        (type, "signature"),
        (5, "5"),
        (None, "None"),
        ("text", "text"),
    ],
)
def test_what_cannot_be_a_tool(function: Any, named: str) -> None:
    """It is refused with the name of the parameter, or says what is the matter."""
    with pytest.raises(RequestError, match=named):
        Tool.of(function)
    with pytest.raises(RequestError, match=r"tools\[3\]"):
        as_tool("tools[3]", function)


@pytest.mark.parametrize("timeout", [0, -1, "5", True, float("nan")])
def test_a_timeout_that_is_none(timeout: Any) -> None:
    """A limit is a number of seconds above zero."""
    with pytest.raises(RequestError, match="timeout"):
        Tool.of(google, timeout=timeout)


def test_a_default_makes_no_refused_type_a_parameter() -> None:
    """A parameter that has no form in JSON is refused with a default, too."""

    def tool(where: Path = Path()) -> None: ...  # noqa: B008

    with pytest.raises(RequestError, match="'where'"):
        Tool.of(tool)


# -- other tools -----------------------------------------------------------------------------------


class Described:
    """What an MCP client lists: no call in it."""

    name = "search"
    description = "Find it."
    inputSchema = {  # noqa: N815
        "type": "object",
        "title": "Search",
        "$defs": {"Kind": {"enum": ["a", "b"], "title": "Kind"}},
        "properties": {"q": {"type": "string", "minLength": 1}, "kind": {"$ref": "#/$defs/Kind"}},
        "required": ["q"],
        "additionalProperties": False,
    }


class Callable_(Described):  # noqa: N801
    async def call(self, arguments: Mapping[str, Any]) -> str:
        return str(arguments)


def test_objects_that_are_tools() -> None:
    """A name and a schema make a tool, a call makes one that can be run."""
    expected = {
        "type": "object",
        "properties": {
            "q": {"type": "string", "description": "At least 1 characters."},
            "kind": {"type": "string", "enum": ["a", "b"]},
        },
        "required": ["q"],
    }
    for item in (Described(), Callable_()):
        tool = as_tool("tools[0]", item)
        assert isinstance(tool, Tool)
        assert (tool.function.name, tool.function.description) == ("search", "Find it.")
        assert tool.function.parameters == expected
        assert ("callee" in tool.__dict__) is isinstance(item, Callable_)


# -- once for each function ------------------------------------------------------------------------


def test_a_signature_is_made_once() -> None:
    """A second tool of the same function, or of the same method of another object, costs nothing."""
    one, two = functions.signature_of(Weather().at), functions.signature_of(Weather().at)
    assert one is two
    assert functions.signature_of(google) is functions.signature_of(google)
    assert functions.signature_of(Weather.there) is not one


def test_a_tool_is_sent_as_the_api_has_it() -> None:
    """What runs it is no part of it."""
    tool = Tool.of(Weather().at)
    assert tool.to_dict()["function"]["name"] == "at"
    assert set(tool.to_dict()) <= {"type", "function", "items"}
    assert tool == Tool.of(Weather().at)
    assert issubclass(ToolError, Exception)


def sequence(x: Sequence[int], y: Mapping[str, Any]) -> None: ...


def test_abstract_collections() -> None:
    """They are lists and objects."""
    schema = Tool.of(sequence).function.parameters
    assert schema is not None
    assert schema["properties"]["x"] == {"type": "array", "items": {"type": "integer"}}
    assert schema["properties"]["y"]["type"] == "object"
