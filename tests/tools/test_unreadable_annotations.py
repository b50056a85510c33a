"""An annotation that cannot be read names its parameter, whatever is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_sc import RequestError
from ollama_sc.types import Tool


def function_with(annotation: str) -> Any:
    def tool(fine: int, odd: int) -> str:
        return f"{fine}{odd}"

    tool.__annotations__["odd"] = annotation
    return tool


@pytest.mark.parametrize(
    "annotation", ["Undefined", "ClassVar[int]", "list[", "int.nothing", "1 / 0"]
)
def test_it_names_the_parameter(annotation: str) -> None:
    """And the function, before anything is sent."""
    with pytest.raises(RequestError, match=r"the parameter 'odd' of .*tool"):
        Tool.of(function_with(annotation))
