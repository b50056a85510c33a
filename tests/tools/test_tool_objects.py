"""A `Tool` of a function is an object of its user's: to be copied and changed."""

from __future__ import annotations

from copy import copy, deepcopy
from typing import Any

import pytest

from ollama_sc import AsyncClient, Tool
from ollama_sc.testing import FakeOllama
from tests.tools.support import USER, answer, calls


def double(n: int) -> int:
    """Double it."""
    return n * 2


@pytest.mark.anyio
@pytest.mark.parametrize("copied", [copy, deepcopy])
async def test_a_copy_can_be_called(fake: FakeOllama, copied: Any) -> None:
    """It runs what the first one does, under a name of its own."""
    tool = Tool.of(double)
    other: Tool = copied(tool)
    other.function = deepcopy(tool.function)
    other.function.name = "twice"
    assert tool.function.name == "double"
    fake.script("/api/chat", calls(("double", {"n": 1}), ("twice", {"n": "2"})), answer())
    async with AsyncClient(fake.url) as client:
        run = await client.run_tools("qwen3", [USER], [tool, other])
    assert [record.result for record in run.calls] == [2, 4]


def test_a_change_is_that_of_one_tool() -> None:
    """A function's signature is made once, and what it says stays as it is."""
    tool = Tool.of(double)
    assert tool.function.parameters is not None
    tool.function.parameters["properties"]["n"]["description"] = "of this tool"
    for other in (Tool.of(double), deepcopy(Tool.of(double))):
        assert other.function.parameters == {
            "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"],
        }  # fmt: skip
    deepcopy(tool).function.parameters.clear()  # type: ignore[union-attr]
    assert tool.function.parameters["required"] == ["n"]
