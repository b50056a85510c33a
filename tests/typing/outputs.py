"""Driven by type checkers alone: replies that are values of a type."""

from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import attrs
import msgspec
from pydantic import BaseModel
from typing_extensions import Unpack, assert_type

from ollama_sc import (
    AsyncClient,
    ChatFields,
    ChatResponse,
    GenerateResponse,
    Group,
    Stream,
    ToolRun,
    ToolStream,
    TypedChatFields,
)

USER = {"role": "user", "content": "Hi"}


class Struct(msgspec.Struct):
    name: str


@dataclass
class Data:
    name: str


class Typed(TypedDict):
    name: str


@attrs.define
class Attrs:
    name: str


class Model(BaseModel):
    name: str


async def kinds(client: AsyncClient, group: Group) -> None:
    assert_type(await client.chat("m", [USER], format=Struct), ChatResponse[Struct])
    assert_type(await client.chat("m", [USER], format=Data), ChatResponse[Data])
    assert_type(await client.chat("m", [USER], format=Typed), ChatResponse[Typed])
    assert_type(await client.chat("m", [USER], format=Attrs), ChatResponse[Attrs])
    assert_type(await client.chat("m", [USER], format=Model), ChatResponse[Model])
    assert_type(await client.chat("m", [USER], format=list[Data]), ChatResponse[list[Data]])
    assert_type(await client.chat("m", [USER], format=Data | None), ChatResponse[Data | None])
    assert_type(
        await client.chat("m", [USER], format=Literal["a", "b"]), ChatResponse[Literal["a", "b"]]
    )
    assert_type(await client.chat("m", [USER], format=dict[str, int]), ChatResponse[dict[str, int]])
    assert_type(await group.chat("m", [USER], format=int, attempts=3), ChatResponse[int])
    assert_type((await client.chat("m", [USER], format=Data)).parsed, Data)
    assert_type((await client.chat("m", [USER], format=Data)).parsed.name, str)
    assert_type((await client.chat("m", [USER], format=Data | None)).parsed, Data | None)


async def plain(client: AsyncClient) -> None:
    assert_type(await client.chat("m", [USER], format="json"), ChatResponse)
    assert_type(await client.chat("m", [USER], format={"type": "object"}), ChatResponse)
    assert_type(await client.chat("m", [USER], format=None), ChatResponse)
    assert_type((await client.chat("m", [USER])).parsed, None)


async def generate(client: AsyncClient, choice: bool) -> None:
    assert_type(await client.generate("m", "p", format=Data), GenerateResponse[Data])
    assert_type((await client.generate("m", "p", format=list[int])).parsed, list[int])
    assert_type(
        await client.generate("m", "p", format=Data, stream=True), Stream[GenerateResponse, Data]
    )
    assert_type(
        await client.generate("m", "p", format=Data, stream=choice),
        GenerateResponse[Data] | Stream[GenerateResponse, Data],
    )


async def streams(client: AsyncClient, choice: bool) -> None:
    async with await client.chat("m", [USER], format=Data, stream=True) as stream:
        assert_type(stream, Stream[ChatResponse, Data])
        async for part in stream:
            assert_type(part, ChatResponse)
        async for value in stream.partials():
            assert_type(value, Any)
        assert_type(stream.parsed(), Data)
        assert_type(stream.result(), ChatResponse)
    assert_type(
        await client.chat("m", [USER], format=Data, stream=choice),
        ChatResponse[Data] | Stream[ChatResponse, Data],
    )
    untyped = await client.chat("m", [USER], stream=True)
    assert_type(untyped.parsed(), None)


async def runs(client: AsyncClient, choice: bool) -> None:
    assert_type(await client.run_tools("m", [USER], format=Data), ToolRun[Data])
    assert_type((await client.run_tools("m", [USER], format=Data)).response.parsed, Data)
    assert_type(await client.run_tools("m", [USER], format=Data, stream=True), ToolStream[Data])
    assert_type(
        await client.run_tools("m", [USER], format=Data, stream=choice),
        ToolRun[Data] | ToolStream[Data],
    )


async def my_chat(client: AsyncClient, text: str, **fields: Unpack[ChatFields]) -> ChatResponse:
    """A wrapper takes and hands on what the call accepts."""
    return await client.chat("m", [{"role": "user", "content": text}], **fields)


async def my_typed(client: AsyncClient, **fields: Unpack[TypedChatFields[Data]]) -> Data:
    return (await client.chat("m", [USER], **fields)).parsed


async def wrapped(client: AsyncClient) -> None:
    assert_type(await my_chat(client, "Hi", format="json", think=True), ChatResponse)
    assert_type(await my_typed(client, format=Data, attempts=2), Data)
