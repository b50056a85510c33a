"""A stream that breaks off anywhere gives what arrived, and says that it is not whole."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import AsyncClient, ChatResponse, IncompleteStreamError, OllamaError, Stream
from ollama_sc.testing import FakeOllama, Reply
from tests.api.support import a_message, a_part, chat_stream, no_debug
from tests.support import LONG, MESSAGES, is_quiet, raw_server, read_request, recording

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("fault", ["cut", "reset", "clean end", "inside a line"])
async def test_a_stream_without_its_end_is_incomplete(fake: FakeOllama, fault: str) -> None:
    """Whatever way a stream breaks off, its parts come first and what arrived stays readable."""
    lines = [a_part("a"), a_part("b"), a_part("", done=True)]
    reply = {
        "cut": Reply.stream(lines).replace(cut_after=2),
        "reset": Reply.stream(lines).replace(reset_after=2),
        "clean end": Reply.stream(lines[:2]),
        "inside a line": Reply.stream([*lines[:2], b'{"model":"m","mess'], newline_at_end=False),
    }[fault]
    fake.always("/api/chat", reply)
    async with AsyncClient(fake.url) as client:
        stream = await chat_stream(client)
        texts: list[str] = []
        with pytest.raises(IncompleteStreamError) as caught:
            async for part in stream:
                texts.append(part.text)
        assert texts == ["a", "b"]
        assert caught.value.partial.message.content == "ab"
        assert not caught.value.partial.complete
        assert stream.result().message.content == "ab"
        assert not stream.result().complete
        assert (caught.value.__cause__ is not None) == (fault in ("cut", "reset"))
        assert is_quiet(client)


@pytest.mark.parametrize("call", ["chat", "generate"])
async def test_a_single_reply_that_is_not_done_is_incomplete(fake: FakeOllama, call: str) -> None:
    """`done: false` in a reply in one piece is the same error, with what arrived."""
    body = {"model": "m", "created_at": "", "response": "a", "message": a_message("a")}
    fake.always("/api/chat", Reply.json({**body, "done": False}))
    fake.always("/api/generate", Reply.json({**body, "done": False}))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(IncompleteStreamError) as caught:
            if call == "chat":
                await client.chat("llama3.2", MESSAGES)
            else:
                await client.generate("llama3.2", "x")
        assert caught.value.partial.text == "a"


@no_debug
async def test_cut_after_every_byte(anyio_backend: Any) -> None:
    """A recorded stream cut at every byte: a prefix of its parts, then the right exception.

    In its short form at every byte around the end of a line, and at every seventh elsewhere.
    """
    reply = recording("chat-stream-logprobs")
    head = reply.index(b"\r\n\r\n") + 4
    terminal = reply.rindex(b"}") + 1
    position = iter(_positions(reply))

    async def handle(stream: Any) -> None:
        where = int((await read_request(stream)).partition(b"x-cut: ")[2].split(b"\r\n")[0])
        await stream.send(reply[:where])

    async with raw_server(handle) as url, AsyncClient(url) as whole:
        async with await _cut_stream(whole, len(reply)) as stream:
            everything = [part async for part in stream]

        async def worker() -> None:
            async with AsyncClient(url, verify=False) as client:
                for where in position:
                    await _check_cut(client, where, head, terminal, everything)

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(worker)
        assert next(position, None) is None


def _positions(reply: bytes) -> list[int]:
    """Where a reply is cut. Lines end where its head, its chunks and its parts do."""
    return [
        where
        for where in range(len(reply) + 1)
        if LONG or where % 7 == 0 or b"\n" in reply[max(where - 3, 0) : where + 3]
    ]


async def _cut_stream(client: AsyncClient, where: int) -> Stream[ChatResponse]:
    client._shared.sender._client.headers["x-cut"] = str(where)
    client._shared.sender._header_lines.clear()
    return await chat_stream(client)


async def _check_cut(
    client: AsyncClient, where: int, head: int, terminal: int, everything: list[ChatResponse]
) -> None:
    parts: list[ChatResponse] = []
    error: OllamaError | None = None
    try:
        async with await _cut_stream(client, where) as stream:
            async for part in stream:
                parts.append(part)
    except OllamaError as found:
        error = found
    assert parts == everything[: len(parts)], where
    if where < head:
        assert isinstance(error, ConnectionError), (where, error)
        assert parts == []
    elif where < terminal:
        assert isinstance(error, IncompleteStreamError), (where, error)
        assert len(parts) < len(everything)
        assert error.partial.message.content == "".join(part.text for part in parts)
    else:
        assert error is None, (where, error)
        assert parts == everything
    assert is_quiet(client)


@no_debug
async def test_split_at_every_byte(anyio_backend: Any) -> None:
    """A recorded stream in two packets, split at every 7th byte, is the same stream.

    In its short form at every 23rd.
    """
    reply = recording("chat-stream-unicode")
    positions = iter(range(1, len(reply), 7 if LONG else 23))

    async def handle(stream: Any) -> None:
        where = int((await read_request(stream)).partition(b"x-cut: ")[2].split(b"\r\n")[0])
        await stream.send(reply[:where])
        await anyio.sleep(0.001)
        await stream.send(reply[where:])

    async with raw_server(handle) as url, AsyncClient(url) as whole:
        async with await _cut_stream(whole, len(reply)) as stream:
            everything = [part async for part in stream]
        assert stream.result().message.content.startswith("Repeat exactly: <b>é漢字🙂 & \u2028")

        async def worker() -> None:
            async with AsyncClient(url, verify=False) as client:
                for where in positions:
                    async with await _cut_stream(client, where) as stream:
                        assert [part async for part in stream] == everything, where

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(worker)


async def test_byte_by_byte(anyio_backend: Any) -> None:
    """A stream that drips in single bytes is the same stream."""
    reply = recording("chat-stream-logprobs")

    async def handle(stream: Any) -> None:
        await read_request(stream)
        for byte in reply:
            await stream.send(bytes([byte]))

    async with raw_server(handle) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            parts = [part async for part in stream]
        assert len(parts) == 5
        assert [logprob.token for logprob in stream.result().logprobs or []] == [
            "Why",
            " is",
            " the",
            " sky",
        ]
