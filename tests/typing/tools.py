"""Driven by type checkers alone: runs of tools, and conversations."""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

from typing_extensions import Unpack, assert_type

from ollama_sc import (
    AsyncClient,
    ChatResponse,
    Conversation,
    Group,
    Message,
    RoundEnded,
    RunFields,
    Tool,
    ToolCall,
    ToolCallRecord,
    ToolEnded,
    ToolEvent,
    ToolLike,
    ToolRun,
    ToolStarted,
    ToolStream,
    keep_last,
)

USER = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def sync(city: str, days: int = 1) -> str:
    return city * days


async def asynchronous(city: str) -> dict[str, int]:
    return {city: 1}


class Weather:
    def at(self, city: str) -> str:
        return city

    async def __call__(self, city: str) -> str:
        return city


class Remote:
    """What an MCP client has."""

    name = "remote"
    description: str | None = None
    inputSchema: Mapping[str, Any] = {}  # noqa: N815

    async def call(self, arguments: Mapping[str, Any]) -> Any:
        return arguments


def approve(call: ToolCall) -> bool | str:
    return call.function.name == "f" or "no"


async def approve_later(call: ToolCall) -> bool | dict[str, Any]:
    return call.function.arguments


async def runs(client: AsyncClient, group: Group, choice: bool) -> None:
    tools: list[ToolLike] = [
        sync,
        asynchronous,
        Weather().at,
        Weather(),
        Remote(),
        SCHEMA,
        partial(sync, days=2),
    ]
    assert_type(await client.run_tools("m", [USER], tools), ToolRun)
    assert_type(await client.run_tools("m", [USER], [sync], stream=True), ToolStream)
    assert_type(await group.run_tools("m", [USER], [sync], stream=choice), ToolRun | ToolStream)
    await client.chat("m", [USER], tools=[sync, Tool.of(sync, name="x", timeout=5, abandon=True)])
    await client.run_tools(
        "m",
        [Message("user", "Hi")],
        [sync],
        max_rounds=3,
        max_parallel=1,
        max_repeats=None,
        on_tool_error="tell",
        approve=approve,
        think=True,
        options={"seed": 1},
        timeout=5,
    )
    await client.run_tools("m", [USER], [sync], approve=approve_later)
    run = await client.run_tools("m", [USER], [sync])
    assert_type(run.response, ChatResponse)
    assert_type(run.messages, list[Message])
    assert_type(run.calls, list[ToolCallRecord])
    assert_type(run.text, str)
    await client.chat("m", run.messages)


async def events(stream: ToolStream) -> None:
    async with stream:
        async for event in stream:
            assert_type(event, ToolEvent)
            match event:
                case ChatResponse():
                    assert_type(event.text, str)
                case ToolStarted(call=call):
                    assert_type(call, ToolCall)
                case ToolEnded(record=record):
                    assert_type(record, ToolCallRecord)
                case RoundEnded(messages=messages):
                    assert_type(messages, list[Message])
    assert_type(stream.iter_text(), AsyncIterator[str])
    assert_type(stream.result(), ToolRun)
    assert_type(stream.abort("why"), bool)
    assert_type(await stream.aclose(), None)


async def talk(client: AsyncClient, group: Group) -> None:
    conversation = Conversation(
        client, "m", system="s", messages=[USER], tools=[sync], trim=keep_last(5), max_rounds=3
    )
    assert_type(conversation.messages, list[Message])
    assert_type(await conversation.send("Hi", images=[b"png"]), ToolRun)
    assert_type(await conversation.send("Hi", stream=True), ToolStream)
    Conversation(group, "m", trim=lambda messages: messages[-3:])


async def mine(client: AsyncClient, **fields: Unpack[RunFields]) -> ToolRun:
    return await client.run_tools("m", [USER], [sync], **fields)
