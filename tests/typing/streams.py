"""Driven by type checkers alone: what comes out of streams."""

from collections.abc import AsyncIterator

from typing_extensions import assert_type

from ollama_sc import AsyncClient, ChatResponse, GenerateResponse, Message, Stream, ToolCall


async def chat(client: AsyncClient) -> None:
    async with await client.chat("m", [], stream=True) as stream:
        assert_type(stream, Stream[ChatResponse])
        async for part in stream:
            assert_type(part, ChatResponse)
            assert_type(part.message, Message)
            assert_type(part.message.tool_calls, list[ToolCall] | None)
        assert_type(stream.iter_text(), AsyncIterator[str])
        async for text in stream.iter_text():
            assert_type(text, str)
        assert_type(stream.batches(), AsyncIterator[list[ChatResponse]])
        async for batch in stream.batches():
            assert_type(batch, list[ChatResponse])
        assert_type(stream.result(), ChatResponse)
        assert_type(stream.result().complete, bool)
        assert_type(stream.abort(), bool)
        assert_type(await stream.aclose(), None)
        assert_type(await anext(stream), ChatResponse)


async def generate(client: AsyncClient) -> None:
    async with await client.generate("m", "p", stream=True) as stream:
        assert_type(stream, Stream[GenerateResponse])
        async for part in stream:
            assert_type(part, GenerateResponse)
            assert_type(part.response, str)
        assert_type(stream.result(), GenerateResponse)
        assert_type([text async for text in stream.iter_text()], list[str])


async def either(client: AsyncClient, choice: bool) -> str:
    """`isinstance` tells apart what a call with an unknown `stream` gives."""
    reply = await client.chat("m", [], stream=choice)
    if isinstance(reply, Stream):
        assert_type(reply, Stream[ChatResponse])
        return reply.result().text
    assert_type(reply, ChatResponse)
    return reply.text


async def any_stream(stream: Stream[ChatResponse] | Stream[GenerateResponse]) -> str:
    """What both kinds of reply have can be used without telling them apart."""
    async for part in stream:
        print(part.text, part.done)
    return stream.result().text


async def as_iterator(stream: Stream[ChatResponse]) -> None:
    """A stream is an async iterator to whoever asks for one."""
    parts: AsyncIterator[ChatResponse] = stream
    async for part in parts:
        assert_type(part, ChatResponse)
