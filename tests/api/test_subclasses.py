"""A subclass of a built-in type is sent as the value that it is, whatever its own `str()` shows."""

from __future__ import annotations

import json
from collections import UserDict, UserList
from enum import Enum, IntEnum
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from ollama_sc import AsyncClient, Message, Options, RequestError
from ollama_sc._api import arguments
from ollama_sc._api.body import encode
from ollama_sc._api.fields import ChatFields, EmbedFields
from tests.api.support import USER


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> None:
    """Nothing here does any I/O: a collection after each test would only take time."""


class Text(str):
    def __str__(self) -> str:
        return "shown"

    __repr__ = __format__ = lambda self, *_: "shown"  # noqa: E731


class Whole(int):
    def __str__(self) -> str:
        return "shown"

    def __int__(self) -> int:
        return 99

    __repr__ = __format__ = lambda self, *_: "shown"  # noqa: E731


class Real(float):
    def __str__(self) -> str:
        return "shown"

    def __float__(self) -> float:
        return 99.0

    __repr__ = __format__ = lambda self, *_: "shown"  # noqa: E731


class Pairs(dict[str, Any]):
    __str__ = __repr__ = lambda self: "shown"  # noqa: E731


class Items(list[Any]):
    __str__ = __repr__ = lambda self: "shown"  # noqa: E731


class Name(str, Enum):
    MODEL = "llama3.2"
    USER = "user"
    JSON = "json"
    HIGH = "high"
    LONG = "1h30m"
    SEED = "seed"
    KEY = "s3cret"


class Number(IntEnum):
    SEVEN = 7


def chat(model: str, messages: Any = (USER,), **fields: Any) -> dict[str, Any]:
    request = arguments.build_request(
        "/api/chat", model, ChatFields, fields, messages=arguments.messages(messages)
    )
    assert isinstance(request.body, bytes)
    return json.loads(request.body)


@pytest.mark.parametrize("user", [Name.USER, Text("user")])
def test_every_place_takes_the_value(user: Any) -> None:
    """Model, role, format, think, keep_alive and options, given as members of an enumeration."""
    body = chat(
        Name.MODEL,
        [{"role": user, "content": Text("Hi")}, Message(user, Text("Hi"))],
        format=Name.JSON,
        think=Name.HIGH,
        keep_alive=Name.LONG,
        options={Name.SEED: Number.SEVEN, "stop": [Name.USER, Text("x")], "top_p": Real(0.5)},
        top_logprobs=Whole(3),
        extra={Text("more"): Pairs(a=Items([Whole(1)]))},
    )
    message = {"role": "user", "content": "Hi"}
    assert body == {
        "model": "llama3.2",
        "messages": [message, message],
        "format": "json",
        "think": "high",
        "keep_alive": "1h30m",
        "options": {"seed": 7, "stop": ["user", "x"], "top_p": 0.5},
        "top_logprobs": 3,
        "more": {"a": [1]},
    }


def test_options_and_structs_take_it_too() -> None:
    """`Options`, and a Struct of the user's own."""

    class Mine(msgspec.Struct):
        seed: Any
        stop: Any

    for options in (Options(seed=Whole(7), stop=[Text("x")]), Mine(Whole(7), [Text("x")])):
        assert json.loads(encode({"options": options}, "x")) == {  # type: ignore[arg-type]
            "options": {"seed": 7, "stop": ["x"]}
        }
    assert chat("m", options=Options(seed=Whole(7)))["options"] == {"seed": 7}


def test_an_error_names_the_value() -> None:
    """The model in a label is the model."""
    with pytest.raises(RequestError, match=r"model 'llama3\.2'"):
        chat(Name.MODEL, think=5)
    request = arguments.build_request("/api/embed", Name.MODEL, EmbedFields, {}, input="x")
    assert request.label == "POST /api/embed, model 'llama3.2'"


async def nothing(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"version": request.headers["authorization"]})


@pytest.mark.anyio
async def test_headers_and_keys(anyio_backend: Any) -> None:
    """What goes into the head is the value as well."""
    transport = httpx.MockTransport(nothing)
    async with AsyncClient("h", api_key=Name.KEY, transport=transport) as client:
        assert (await client.version()).version == "Bearer s3cret"
    async with AsyncClient(
        "h", headers={Text("Authorization"): Name.KEY}, transport=transport
    ) as client:
        assert (await client.version()).version == "s3cret"


def subclassed(value: Any) -> Any:
    """The same value, of subclasses all the way down."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return Text(value)
    if isinstance(value, int):
        return Whole(value)
    if isinstance(value, float):
        return Real(value)
    if isinstance(value, list):
        return (Items, UserList, tuple)[len(value) % 3](subclassed(one) for one in value)
    pairs = {Text(key): subclassed(one) for key, one in value.items()}
    return (Pairs, UserDict)[len(pairs) % 2](pairs)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=200, derandomize=True, deadline=None)
@given(JSON)
def test_any_body_of_subclasses_is_the_plain_one(value: Any) -> None:
    """Whatever JSON there is, subclasses of its types write the same bytes."""
    assert encode(subclassed(value), "x") == encode(value, "x")


@pytest.mark.parametrize("key", [True, False, None, 1.5, (1,), b"a"])
def test_a_key_that_is_no_text_is_refused(key: Any) -> None:
    """JSON has none such, a truth value either, though that is an int in Python."""
    with pytest.raises(RequestError, match="a key that is no text"):
        encode({"p": {key: 1}}, "x")


class Parameters(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    defs: Any = Field(None, alias="$defs")
    role: Name | None = None


def test_a_model_of_pydantic_keeps_its_aliases() -> None:
    """`$defs` stays `$defs`, in a schema of one's own and in the official client's `Tool`."""
    sent = json.loads(encode({"p": Parameters(defs={"A": {}}, role=Name.USER)}, "x"))  # type: ignore[arg-type]
    assert sent == {"p": {"$defs": {"A": {}}, "role": "user"}}
    ollama = pytest.importorskip("ollama")
    schema = {"type": "object", "$defs": {"A": {"type": "string"}}, "properties": {}}
    tool = ollama.Tool(function={"name": "f", "description": "d", "parameters": schema})
    assert chat("m", tools=[tool])["tools"][0]["function"]["parameters"]["$defs"] == schema["$defs"]
