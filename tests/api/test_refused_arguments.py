"""What would reach the server as something else is refused before anything is sent."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from ollama_sc import AsyncClient, Message, RequestError, ToolCall
from ollama_sc.testing import FakeOllama
from ollama_sc.types import Function
from tests.support import MESSAGES

pytestmark = pytest.mark.anyio
CALL = ToolCall(Function("f", {"x": math.nan}))
NOT_JSON = [
    {"options": {"temperature": math.nan}},
    {"options": {"nested": [{"x": math.inf}]}},
    {"options": {"stop": [b"x"]}},
    {"options": {"stop": {"a"}}},
    {"options": {"temperature": Decimal("0.1")}},
    {"format": {"maximum": math.inf}},
    {"format": 5},
    {"tools": [{"function": {"x": b"y"}}]},
    {"tools": "x"},
    {"think": 5},
    {"truncate": "no"},
    {"logprobs": 1},
    {"top_logprobs": 1.5},
    {"top_logprobs": True},
    {"keep_alive": math.inf},
    {"keep_alive": True},
    {"extra": {"x": b"y"}},
    {"extra": {"stream": True}},
    {"messages": [{"role": "user", "thinking": b"x"}]},
    {"messages": [{"role": "assistant", "tool_calls": [CALL]}]},
    {"messages": [Message("assistant", tool_calls=[CALL])]},
    {"stream": "no"},
]


@pytest.mark.parametrize("given", NOT_JSON, ids=[repr(given)[:60] for given in NOT_JSON])
async def test_nothing_changes_on_its_way_into_json(fake: FakeOllama, given: Any) -> None:
    """What JSON would turn into something else is refused before anything is sent."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="POST /api/chat, model 'llama3.2'"):
            await client.chat("llama3.2", **{"messages": MESSAGES, **given})
    assert fake.connections == 0


@pytest.mark.parametrize(
    "given",
    [{"system": b"x"}, {"system": 5}, {"template": b"x"}, {"context": "ab"}, {"context": [1.5]},
     {"raw": 1}, {"images": "aGk="}, {"images": [""]}, {"images": ["no base64!"]}, {"images": [5]}],
)  # fmt: skip
async def test_generate_refuses_what_cannot_be(fake: FakeOllama, given: Any) -> None:
    """Wrong types of generate's own fields are a RequestError."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError):
            await client.generate("llama3.2", "x", **given)
    assert fake.connections == 0


async def test_a_type_that_nothing_can_be_read_into(fake: FakeOllama) -> None:
    """A wrong type is a TypeError before anything is sent."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(TypeError):
            await client.request("GET", "/api/version", type=5)  # type: ignore[call-overload]
    assert fake.connections == 0


@pytest.mark.parametrize("name", ["chat", "generate", "create", "embeddings"])
async def test_a_wrong_argument_names_its_endpoint(fake: FakeOllama, name: str) -> None:
    """Errors about messages and prompts say which endpoint and model, as all do."""
    async with AsyncClient(fake.url) as client:
        given: Any = {"messages": "x"} if name in ("chat", "create") else {"prompt": 5}
        with pytest.raises(RequestError, match=f"POST /api/{name}, model 'm'"):
            await getattr(client, name)("m", **given)
    assert fake.connections == 0
