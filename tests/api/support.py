"""What the tests of the API share: a client that is never opened, chats, and parts of them."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any

import pytest

from ollama_sc import AsyncClient, ChatResponse, Stream
from tests.support import MESSAGES

CLIENT = AsyncClient("127.0.0.1:9")  # never opened
USER = {"role": "user", "content": "Hi"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"  # of a stream, but for its end
# asyncio's debug mode makes tests of many thousand steps too slow.
no_debug = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


def first_step(coroutine: Coroutine[Any, Any, Any]) -> BaseException | None:
    """What a call raises in its first step, with no event loop at all; None where it waits."""
    try:
        coroutine.send(None)
    except BaseException as error:
        return error
    finally:
        coroutine.close()
    return None


async def chat_stream(client: AsyncClient, **fields: Any) -> Stream[ChatResponse]:
    """A streamed chat."""
    stream: Stream[ChatResponse] = await client.chat("llama3.2", MESSAGES, stream=True, **fields)
    return stream


def a_message(text: str) -> dict[str, Any]:
    """What a model says, as the server sends it."""
    return {"role": "assistant", "content": text}


def a_part(text: str, *, done: bool = False) -> dict[str, Any]:
    """A part of a chat, as the server sends it."""
    part = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": a_message(text)}
    return {**part, "done": done, **({"done_reason": "stop"} if done else {})}


def a_line(text: str, *, done: bool = False) -> bytes:
    """The same in bytes, without the end of the line."""
    return json.dumps(a_part(text, done=done), ensure_ascii=False).encode()
