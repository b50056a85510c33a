"""What docstrings and annotations say, in all the places where it can stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Optional

import msgspec
import pytest
from pydantic import BaseModel, Field
from typing_extensions import Doc

from ollama_sc import Tool


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


def described(kind: str, text: str) -> dict[str, Any]:
    return {"type": kind, "description": text}


def properties(function: Any) -> dict[str, Any]:
    schema = Tool.of(function).function.parameters
    assert schema is not None
    found: dict[str, Any] = schema["properties"]
    return found
