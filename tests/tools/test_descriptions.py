"""What docstrings and annotations say, in all the places where it can stand."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from datetime import datetime, time
from typing import Annotated, Any, NamedTuple, Optional

import msgspec
import pytest
from pydantic import BaseModel, Field
from typing_extensions import Doc

from ollama_sc import Tool
from ollama_sc._schemas import forms, narrow


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


@pytest.mark.parametrize(
    "text",
    [
        "Args:\n    a: the one\n    b: the other",
        "\n    Args:\n        a: the one\n        b: the other\n    ",
        "Arguments:\n    a (int): the one\n    b (int): the\n        other",
        "Parameters\n    ----------\n    a : int\n        the one\n    b\n        the other\n    ",
        ":param a: the one\n    :param b: the other",
        ":param dict[str, int] a: the one\n:param Optional[int] b: the other",
        "Args:\n    *a*: the one\n    `b`: the other",
    ],
)
def test_a_docstring_that_has_parameters_alone(text: str) -> None:
    """Those are described, and the function is not."""

    def tool(a: int, b: int) -> None: ...

    tool.__doc__ = text
    function = Tool.of(tool).function
    assert properties(tool) == {
        "a": {"type": "integer", "description": "the one"},
        "b": {"type": "integer", "description": "the other"},
    }
    assert not function.description


@pytest.mark.parametrize(
    "text",
    [
        "Do it.\n\nArgs:\n    a, b: both of them",
        "Do it.\n\nArgs:\n    a,b (int): both of them",
        "Do it.\n\nParameters\n----------\na, b : int\n    both of them",
        "Do it.\n\nParameters\n----------\na,b\n    both of them",
        "Do it.\n\n:param a, b: both of them",
        "Do it.\n\n:param a,b: both\n    of them",
        "Do it.\n\n:param int a , b: both of them\n:returns: a, b: no parameters",
        "Do it.\n\n:arg a, b: both of them",
    ],
)
def test_parameters_that_are_documented_together(text: str) -> None:
    """Each of them has the description, in each style."""

    def tool(a: int, b: int) -> None: ...

    tool.__doc__ = text
    both = {"type": "integer", "description": "both of them"}
    assert properties(tool) == {"a": both, "b": both}
    assert Tool.of(tool).function.description == "Do it."


@pytest.mark.parametrize(
    "type_",
    [
        ":obj:`int`, optional",
        "dict[str, int], default: {}",
        "Literal['a:b']",
        ":class:`~a.b.C`",
        "Callable[[int], str], see: there",
    ],
)
def test_a_colon_in_a_type_does_not_end_it(type_: str) -> None:
    """The description begins behind the brackets, and may have colons of its own."""

    def tool(a: int, b: int) -> None: ...

    tool.__doc__ = f"Do it.\n\nArgs:\n    a ({type_}): the one: first\n    b: the other"
    assert properties(tool)["a"] == described("integer", "the one: first")
    assert properties(tool)["b"] == described("integer", "the other")
    assert Tool.of(tool).function.description == "Do it."


def test_a_first_sentence_of_two_lines() -> None:
    """It stays together, with parameters behind it too."""

    def tool(a: int) -> None:
        """Do it and
        do it again.

        :param a: how often
        """

    assert Tool.of(tool).function.description == "Do it and\ndo it again."


@dataclass
class Search:
    key: str

    def __call__(self, query: str) -> str:
        """Search the web.

        Args:
            query: what for
        """
        return query


class Found(NamedTuple):
    place: int


class Point(msgspec.Struct):
    """A point."""

    x: int


class Silent(list[int]):
    def __call__(self, query: str) -> str:
        return query


class Louder(Search):
    """Search loudly."""

    def __call__(self, query: str) -> str:
        return query


def test_only_what_somebody_has_written_describes_an_object() -> None:
    """No signature that a dataclass has as its text, and nothing that a base says of itself."""
    query = described("string", "what for")
    for tool, text, about in (
        (Search("secret"), "Search the web.", query),
        (Louder("secret"), "Search loudly.", query),
        (Silent(), None, {"type": "string"}),
    ):
        assert Tool.of(tool).function.description == text
        assert properties(tool) == {"query": about}
    assert Tool.of(Found).function.description is None
    assert properties(Found) == {"place": {"type": "integer"}}
    assert Tool.of(Point).function.description == "A point."
    assert properties(Point) == {"x": {"type": "integer"}}
    assert Tool.of(Shape).function.description is None


def test_a_signature_that_a_decorator_has_put_there() -> None:
    """Its types count where the function itself has none."""

    def tool(**given: Any) -> None: ...

    kind = inspect.Parameter.KEYWORD_ONLY
    place = inspect.Parameter("place", kind, annotation=Annotated[int, "which"])
    tool.__signature__ = inspect.Signature([place])  # type: ignore[attr-defined]
    assert properties(tool) == {"place": described("integer", "which")}


class Shape(BaseModel):
    sides: Annotated[int, "how many"]
    name: Annotated[str, Doc("what it is called")] = ""
    size: Annotated[float, "not this", Field(alias="its-size", description="how large")] = 1
    tint: Annotated[Optional[str], "of what color"] = Field(None, alias="the-tint")
    inner: list[Shape] = []


class Row(msgspec.Struct):
    width: Optional[Annotated[int, "in pixels"]]
    cells: list[Annotated[int, "a number"]]


@dataclass
class Table:
    rows: Annotated[list[Row], "from the top"]
    shape: Shape


def test_annotations_inside_of_types() -> None:
    """In unions, in lists, and in the fields of classes of all kinds."""

    def tool(
        a: Optional[Annotated[int, "in an Optional"]],
        c: list[Annotated[int, "in a list"]],
        d: Annotated[list[Annotated[list[Annotated[str, Doc("deep")]], "middle"]], "outside"],
        table: Table,
        b: Annotated[int, Field(description="before a bar")] | None = None,
    ) -> None:
        """Do it."""

    found = properties(tool)
    assert found["a"]["description"] == "in an Optional"
    assert found["b"]["description"] == "before a bar. Default: null."
    assert found["c"] == {"type": "array", "items": described("integer", "in a list")}
    middle = {**described("array", "middle"), "items": described("string", "deep")}
    assert found["d"] == {**described("array", "outside"), "items": middle}
    rows, shape = (found["table"]["properties"][name] for name in ("rows", "shape"))
    assert rows["description"] == "from the top"
    row = rows["items"]["properties"]
    assert row["width"]["description"] == "in pixels"
    assert row["cells"]["items"]["description"] == "a number"
    sides, name, size, tint = (
        shape["properties"][name]["description"]
        for name in ("sides", "name", "its-size", "the-tint")
    )
    assert sides == "how many"
    assert name == 'what it is called. Default: "".'
    assert size == "how large. Default: 1."
    assert tint == "of what color. Default: null."


class Model(BaseModel):
    inner: Annotated[int, "not a field"]
    each: list[Annotated[int, "an item"]]


def test_annotations_inside_of_a_model() -> None:
    """Of one that is itself the type, in a list or alone."""

    def tool(one: Model, all_: list[Model]) -> None: ...

    found = properties(tool)
    for model in (found["one"], found["all_"]["items"]):
        assert model["properties"]["inner"] == described("integer", "not a field")
        assert model["properties"]["each"]["items"] == described("integer", "an item")


class Trip(msgspec.Struct):
    begins: datetime
    stops: list[time] = []


def test_times_have_a_format() -> None:
    """With or without a zone, wherever they are; where they may have none they have no format."""

    def tool(
        trip: Trip,
        at: datetime | None,
        each: dict[str, Annotated[datetime, "when"]],
        local: Annotated[datetime, msgspec.Meta(tz=False)],
    ) -> None: ...

    found = properties(tool)
    moment, hour = (described("string", f"Format: {name}.") for name in ("date-time", "time"))
    assert found["trip"]["properties"]["begins"] == moment
    assert found["trip"]["properties"]["stops"]["items"] == hour
    assert found["at"] == {"anyOf": [moment, {"type": "null"}]}
    assert found["local"] == {"type": "string"}
    sent = narrow.for_output(forms.schema_of(dict[str, datetime]))
    assert sent["additionalProperties"] == {"type": "string", "format": "date-time"}


def test_a_default_that_is_a_set() -> None:
    """Equal sets are told in one order, whichever they have."""
    told: list[Any] = []
    for numbers in (frozenset([0, 8]), frozenset([8, 0])):

        @dataclass
        class Chosen:
            inside: frozenset[int] = numbers

        def tool(
            a: frozenset[int] = numbers,
            b: dict[str, frozenset[int]] = {"k": numbers},  # noqa: B006, B008
            c: Chosen | None = None,
        ) -> None: ...

        told.append(properties(tool))
    assert list(frozenset([0, 8])) != list(frozenset([8, 0]))
    assert told[0] == told[1]
    assert told[0]["a"]["description"] == "No item twice. Default: [0,8]."


def test_a_default_that_json_does_not_have() -> None:
    """Is not told as null, which it is not."""

    def tool(a: float = float("inf"), b: float | None = None) -> None: ...

    assert properties(tool)["a"] == {"type": "number"}
    assert properties(tool)["b"]["description"] == "Default: null."


def described(kind: str, text: str) -> dict[str, Any]:
    return {"type": kind, "description": text}


def properties(function: Any) -> dict[str, Any]:
    schema = Tool.of(function).function.parameters
    assert schema is not None
    found: dict[str, Any] = schema["properties"]
    return found
