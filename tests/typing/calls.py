"""Driven by type checkers alone: what calls return, and what they accept."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from typing_extensions import Unpack, assert_type

from ollama_sc import (
    AsyncClient,
    ChatFields,
    ChatResponse,
    EmbedFields,
    EmbedResponse,
    GenerateFields,
    GenerateResponse,
    Group,
    ListResponse,
    Message,
    MessageLike,
    Statistics,
    Stream,
    Timeouts,
    VersionResponse,
)

MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


async def chat(client: AsyncClient, choice: bool) -> None:
    assert_type(await client.chat("m"), ChatResponse)
    assert_type(await client.chat("m", MESSAGES), ChatResponse)
    assert_type(await client.chat("m", messages=MESSAGES, stream=False), ChatResponse)
    assert_type(await client.chat("m", MESSAGES, stream=True), Stream[ChatResponse])
    assert_type(
        await client.chat("m", MESSAGES, stream=choice), ChatResponse | Stream[ChatResponse]
    )
    plain: ChatResponse = await client.chat("m", MESSAGES)
    stream: Stream[ChatResponse] = await client.chat("m", MESSAGES, stream=True)
    assert_type(plain.message, Message)
    assert_type(plain.message.content, str)
    assert_type(plain["message"], Any)
    assert_type(plain.text, str)
    assert_type(plain.done, bool)
    assert_type(plain.tokens_per_second, float | None)
    async with stream:
        pass


async def conversation(client: AsyncClient) -> None:
    messages: list[MessageLike] = [{"role": "user", "content": "Why is the sky blue?"}]
    reply = await client.chat("m", messages)
    messages.append(reply)
    messages += [reply.message, Message("tool", "x"), {"role": "user", "content": "And at night?"}]
    assert_type(await client.chat("m", messages), ChatResponse)


async def generate(client: AsyncClient, choice: bool) -> None:
    assert_type(await client.generate("m"), GenerateResponse)
    assert_type(await client.generate("m", "p", "s"), GenerateResponse)
    assert_type(await client.generate("m", prompt="p", stream=False), GenerateResponse)
    assert_type(await client.generate("m", "p", stream=True), Stream[GenerateResponse])
    assert_type(
        await client.generate("m", "p", stream=choice),
        GenerateResponse | Stream[GenerateResponse],
    )
    plain: GenerateResponse = await client.generate("m", "p")
    assert_type(plain.response, str)
    assert_type(plain.context, list[int] | None)


async def others(client: AsyncClient) -> None:
    assert_type(await client.embed("m", "text"), EmbedResponse)
    assert_type((await client.embed("m", ["a", "b"], dimensions=8)).embeddings, list[list[float]])
    assert_type(await client.list(), ListResponse)
    assert_type(await client.version(timeout=5), VersionResponse)
    assert_type((await client.version()).version, str)
    assert_type(client.abort("why"), int)
    assert_type(await client.shutdown(grace=5), int)
    assert_type(client.statistics(), Statistics)
    assert_type(client.statistics().in_flight, int)


async def request(client: AsyncClient) -> None:
    assert_type(await client.request("GET", "/api/tags", type=ListResponse), ListResponse)
    assert_type(await client.request("GET", "/api/x", type=dict[str, int]), dict[str, int])
    assert_type(await client.request("GET", "/api/x", type=list[str]), list[str])
    assert_type(await client.request("GET", "/", type=bytes), bytes)
    assert_type(await client.request("POST", "/api/x", json={"a": [1]}), Any)
    found: dict[str, Any] = await client.request("GET", "/api/x", timeout=Timeouts(idle=5))
    del found


async def groups(client: AsyncClient, choice: bool) -> None:
    """A group has the client's calls, with the client's types."""
    async with client.group() as group:
        assert_type(group, Group)
        assert_type(await group.chat("m", MESSAGES), ChatResponse)
        assert_type(await group.chat("m", MESSAGES, stream=True), Stream[ChatResponse])
        assert_type(
            await group.chat("m", MESSAGES, stream=choice), ChatResponse | Stream[ChatResponse]
        )
        assert_type(await group.generate("m", "p"), GenerateResponse)
        assert_type(await group.generate("m", "p", stream=True), Stream[GenerateResponse])
        assert_type(await group.embed("m", "text"), EmbedResponse)
        assert_type(await group.list(), ListResponse)
        assert_type(await group.version(), VersionResponse)
        assert_type(await group.request("GET", "/", type=bytes), bytes)
        assert_type(group.abort(), int)
        assert_type(await group.shutdown(), int)
        assert_type(group.statistics(), Statistics)
        async with group.group() as inner:
            assert_type(inner, Group)


async def opening() -> None:
    async with AsyncClient("h:1", api_key="k", headers={"a": "b"}, timeout=5) as client:
        assert_type(client, AsyncClient)
    AsyncClient(None, timeout=Timeouts(total=5), max_in_flight=4, verify=False, auth=("u", "p"))


async def arguments(client: AsyncClient, reply: ChatResponse) -> None:
    """Everything that a call is documented to accept."""
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    await client.chat(
        "m",
        [Message("system", "Be brief."), {"role": "user", "content": "Hi"}, reply],
        tools=[tool],
        options={"seed": 1, "stop": ["a"]},
        keep_alive=timedelta(minutes=5),
        think="max",
        format={"type": "object"},
        logprobs=True,
        top_logprobs=3,
        shift=False,
        truncate=False,
        debug_render_only=True,
        timeout=5,
        extra={"new": 1},
    )
    await client.chat("m", (Message("user", "Hi", images=[b"png", "base64"]),), think=True)
    await client.chat("m", [reply, reply.message], format="json", keep_alive="1h30m")
    await client.chat("m", [reply], think=None, format=None, keep_alive=-1, options=None)
    await client.generate("m", "p", images=[b"png"], context=[1, 2], raw=True, system="s")
    await client.generate("m", "p", images=(b"a", "base64"), template="t")
    await client.embed("m", ("a", "b"), truncate=False, keep_alive=0)


async def my_chat(client: AsyncClient, text: str, **fields: Unpack[ChatFields]) -> ChatResponse:
    """A wrapper takes and hands on what the call accepts."""
    fields.setdefault("think", False)
    return await client.chat("m", [Message("user", text)], **fields)


async def my_generate(client: AsyncClient, **fields: Unpack[GenerateFields]) -> GenerateResponse:
    return await client.generate("m", "p", **fields)


async def my_embed(
    client: AsyncClient, texts: Sequence[str], **fields: Unpack[EmbedFields]
) -> list[list[float]]:
    return (await client.embed("m", texts, **fields)).embeddings


async def wrapped(client: AsyncClient) -> None:
    assert_type(await my_chat(client, "Hi", options={"seed": 1}), ChatResponse)
    assert_type(await my_embed(client, ["a"], dimensions=8), list[list[float]])


def annotated(reply: ChatResponse, other: "GenerateResponse") -> None:
    """The class without brackets is a whole annotation, strict checkers agree."""
    replies: list[ChatResponse] = [reply]
    by_name: dict[str, GenerateResponse] = {"x": other}
    del replies, by_name
