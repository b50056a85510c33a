"""What goes with a prompt, and what comes back: images, tools, options, thinking, vectors."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ollama_sc import AsyncClient, Message, Options, ProtocolError, RequestError, Tool, ToolFunction
from ollama_sc.testing import FakeOllama, Reply
from tests.support import MESSAGES, exhaust, is_quiet

pytestmark = pytest.mark.anyio
PNG = b"\x89PNG not really"


async def test_images(fake: FakeOllama, tmp_path: Path) -> None:
    """Bytes, base64 text and files arrive as base64, in messages and prompts."""
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    encoded = base64.b64encode(PNG).decode()
    images = [PNG, encoded, path, bytearray(PNG)]
    async with AsyncClient(fake.url) as client:
        await client.chat("llama3.2", [Message("user", "What?", images=images)])
        await client.chat("llama3.2", [{"role": "user", "content": "?", "images": images}])
        async with await client.generate("llama3.2", "?", images=images, stream=True) as stream:
            await exhaust(stream)
        assert fake.requests[0].json["messages"][0]["images"] == [encoded] * 4
        assert fake.requests[1].json["messages"][0]["images"] == [encoded] * 4
        assert fake.requests[2].json["images"] == [encoded] * 4
        for wrong in (str(path), "", b"", [b""], encoded, PNG, path, ["no!"], [5], [None]):
            with pytest.raises(RequestError, match="image"):
                await client.generate("llama3.2", "?", images=wrong)  # type: ignore[call-overload]
        (tmp_path / "empty").touch()
        for missing in (tmp_path / "missing", tmp_path / "empty"):
            with pytest.raises(RequestError, match=missing.name):
                await client.generate("llama3.2", "?", images=[missing])
        assert len(fake.requests) == 3
        assert is_quiet(client)


async def test_options_tools_and_keep_alive(fake: FakeOllama) -> None:
    """Each of the forms that a value may have is sent as the API spells it."""
    tool = Tool(ToolFunction("f", "does", {"type": "object", "properties": {}}))
    spelled = {
        "type": "function",
        "function": {
            "name": "f",
            "description": "does",
            "parameters": {"type": "object", "properties": {}},
        },
    }
    async with AsyncClient(fake.url) as client:
        await client.chat(
            "llama3.2",
            MESSAGES,
            tools=[tool, spelled],
            options=Options(temperature=0.5, num_ctx=4096),
            keep_alive=timedelta(minutes=1.5),
            debug_render_only=False,
        )
        body = fake.requests[-1].json
        assert body["tools"] == [spelled, spelled]
        assert body["options"] == {"temperature": 0.5, "num_ctx": 4096}
        assert body["keep_alive"] == 90
        assert body["_debug_render_only"] is False
        for keep_alive in (0, -1, 2.5, "1h30m", "0"):
            await client.generate("llama3.2", "x", keep_alive=keep_alive)
            assert fake.requests[-1].json["keep_alive"] == keep_alive
        await client.chat("llama3.2", MESSAGES, options={"no_such_option": 1}, think=None)
        assert fake.requests[-1].json["options"] == {"no_such_option": 1}
        assert "think" not in fake.requests[-1].json


async def test_a_conversation_with_tools_and_thinking(fake: FakeOllama) -> None:
    """Replies go back into the conversation as they are, whatever they hold."""
    calls = [{"function": {"name": "f", "arguments": {"x": 1}}}]
    fake.script("/api/chat", Reply.chat_text("", thinking="Hm", tool_calls=calls))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    async with AsyncClient(fake.url) as client:
        messages: list[Any] = [*MESSAGES]
        async with await client.chat("qwen3", messages, tools=[tool], stream=True) as stream:
            await exhaust(stream)
        whole = stream.result()
        assert whole.message.thinking == "Hm"
        [call] = whole.message.tool_calls or []
        assert call.function.arguments == {"x": 1}
        messages += [whole, Message("tool", "2", tool_name="f", tool_call_id=call.id)]
        assert (await client.chat("qwen3", messages)).text
        sent = fake.requests[-1].json["messages"]
        assert sent[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}
        assert sent[1]["thinking"] == "Hm"
        assert sent[2]["tool_name"] == "f"


@pytest.mark.parametrize("level", [True, False, "low", "medium", "high", "max"])
async def test_thinking_levels(fake: FakeOllama, level: Any) -> None:
    """Every level is sent as it is."""
    async with AsyncClient(fake.url) as client:
        reply = await client.chat("qwen3", MESSAGES, think=level)
        assert fake.requests[-1].json["think"] == level
        assert bool(reply.message.thinking) == (level is not False)


async def test_the_older_embeddings(fake: FakeOllama) -> None:
    """The older endpoint gives one vector."""
    async with AsyncClient(fake.url) as client:
        reply = await client.embeddings("nomic-embed-text", "hello", keep_alive=0)
        assert len(reply.embedding) == 768
        assert fake.requests[-1].json == {
            "model": "nomic-embed-text",
            "prompt": "hello",
            "keep_alive": 0,
        }


async def test_an_embedding_too_few(fake: FakeOllama) -> None:
    """Fewer vectors than texts is not an answer."""
    fake.always("/api/embed", Reply.json({"model": "m", "embeddings": [[1.0]]}))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ProtocolError, match="3 texts were answered with 1"):
            await client.embed("nomic-embed-text", ["a", "b", "c"])
