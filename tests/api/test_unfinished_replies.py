"""Replies that do not say `done`: which are whole, and what is said of the others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import AsyncClient, IncompleteStreamError, ResponseError
from ollama_sc._replies.ndjson import says_done
from ollama_sc.testing import FakeOllama, Reply
from tests.support import MESSAGES, is_quiet, plain_reply, raw_server, recording, replying

pytestmark = pytest.mark.anyio

PARTS: dict[str, dict[str, Any]] = {
    "chat": {"message": {"role": "assistant", "content": "half"}},
    "generate": {"response": "half"},
}


async def ask(client: AsyncClient, call: str, **options: Any) -> Any:
    if call == "chat":
        return await client.chat("m", MESSAGES, **options)
    return await client.generate("m", "x", **options)


# -- a prompt that is shown ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["chat-debug-render", "chat-debug-render-stream"])
async def test_a_shown_prompt_is_a_whole_reply(anyio_backend: Any, name: str) -> None:
    """As a real server sends it: `done` is false, and nothing more will come."""
    reply = recording(f"0.33/{name}")
    for stream in (False, True):
        async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
            if stream:
                async with await ask(client, "chat", stream=True) as parts:
                    assert len([part async for part in parts]) == 1
                whole = parts.result()
            else:
                whole = await ask(client, "chat", debug_render_only=True)
            assert whole.complete
            assert whole.done is False
            assert whole.debug_info["rendered_template"].startswith("<start_of_turn>user")
            assert is_quiet(client)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("call", PARTS)
async def test_the_fakes_shown_prompt(fake: FakeOllama, call: str, stream: bool) -> None:
    """The connection lives on."""
    async with AsyncClient(fake.url) as client:
        for _ in range(2):
            options: Any = {"stream": stream, "debug_render_only": True}
            if call == "chat":
                found: Any = await client.chat("llama3.2", MESSAGES, **options)
            else:
                found = await client.generate("llama3.2", "x", **options)
            if stream:
                async with found:
                    assert [part async for part in found]
                found = found.result()
            assert found.complete
            assert found.debug_info
        assert client.statistics().open == 1


# -- text that repeats itself ----------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_the_guard_against_repetition(anyio_backend: Any, stream: bool) -> None:
    """A real server's end without `done` says what it may be, and keeps what came."""
    name = "generate-repeat-guard-stream" if stream else "generate-repeat-guard"
    reply = recording(f"0.33/{name}")
    async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
        with pytest.raises(IncompleteStreamError, match="repeats itself") as caught:
            found = await ask(client, "generate", stream=stream)
            async for _ in found:
                pass
        assert "temperature" in str(caught.value)
        assert caught.value.partial.response.startswith("Model with 1000000")
        assert not caught.value.partial.complete


@pytest.mark.parametrize("call", PARTS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("thinking", [False, True])
async def test_the_fakes_guard_against_repetition(
    fake: FakeOllama, call: str, stream: bool, thinking: bool
) -> None:
    """The same for chats, and for a model that repeats itself while it thinks."""
    fake.models.add("m")
    words = ["so"] * 99
    script = Reply.chat_text([], thinking=words) if thinking else Reply.chat_text(words)
    fake.script(f"/api/{call}", script)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(IncompleteStreamError, match="repeats itself") as caught:
            async for _ in await ask(client, call, stream=stream):
                pass
        partial: Any = caught.value.partial
        said = partial.message if call == "chat" else partial
        found = said.thinking if thinking else partial.text
        assert found == "so" * 31
        await client.version()


@pytest.mark.parametrize("call", PARTS)
async def test_what_broke_did_not_repeat_itself(anyio_backend: Any, call: str) -> None:
    """A connection that breaks, or a reply without text, has another cause."""
    line = msgspec.json.encode(PARTS[call] | {"done": False}) + b"\n"
    cut = plain_reply(line).replace(b"Content-Length: ", b"Content-Length: 9")
    empty = plain_reply(line.replace(b"half", b""))
    for reply in (cut, empty):
        async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
            with pytest.raises(IncompleteStreamError) as caught:
                async for _ in await ask(client, call, stream=True):
                    pass
        assert "repeats" not in str(caught.value)


# -- no word of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"done": None}, {"model": "m", "usage": {"done": False}}])
@pytest.mark.parametrize("call", PARTS)
async def test_one_that_says_nothing_of_it_is_whole(
    anyio_backend: Any, call: str, more: dict[str, Any]
) -> None:
    """Imitations leave `done` out: a reply in one piece is whole where HTTP says so."""
    reply = plain_reply(msgspec.json.encode(PARTS[call] | more))
    async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
        found = await ask(client, call)
        assert found.text == "half"
        assert found.complete
        assert found.done


@pytest.mark.parametrize("call", PARTS)
async def test_one_that_says_that_it_is_not_done_is_not(anyio_backend: Any, call: str) -> None:
    """In one piece, and in a stream with or without the word."""
    for more, stream in (({"done": False}, False), ({"done": False}, True), ({}, True)):
        reply = plain_reply(msgspec.json.encode(PARTS[call] | more))
        async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
            with pytest.raises(IncompleteStreamError) as caught:
                async for _ in await ask(client, call, stream=stream):
                    pass
            assert caught.value.partial.text == "half"
            assert not caught.value.partial.complete
            assert client.statistics().open == 0


async def test_a_transfer_has_to_say_success(anyio_backend: Any) -> None:
    """A pull in one piece without it is not done, and nothing repeats itself in there."""
    async with raw_server(replying(plain_reply(b'{"status":"pulling"}'))) as url:
        async with AsyncClient(url) as client:
            with pytest.raises(IncompleteStreamError) as caught:
                await client.pull("m")
    assert "repeats" not in str(caught.value)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["a", "Done", "doneness", "message"]), st.none() | st.text()),
    st.sampled_from([True, False, None, "absent", 1, "no"]),
)
def test_whether_a_reply_says_it(others: dict[str, Any], done: Any) -> None:
    """Only the key itself says it, whatever stands beside it."""
    body = others if done == "absent" else {**others, "done": done}
    assert says_done(msgspec.json.encode(body)) == (done is not None and done != "absent")


# -- a model that cannot ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("embed-unsupported", 501),
        ("v1-embeddings-unsupported", 501),
        ("embeddings-unsupported", 500),
    ],
)
async def test_a_model_that_does_not_embed(anyio_backend: Any, name: str, status: int) -> None:
    """The server's text, and its status."""
    async with raw_server(replying(recording(f"0.33/{name}"))) as url, AsyncClient(url) as client:
        with pytest.raises(ResponseError, match="does not support embeddings") as caught:
            await client.embed("gemma3:270m", "x")
    assert type(caught.value) is ResponseError
    assert caught.value.status_code == status


async def test_a_server_without_internet(anyio_backend: Any) -> None:
    """As a real one answers to `me()`."""
    async with raw_server(replying(recording("0.33/me-offline"))) as url:
        async with AsyncClient(url) as client:
            with pytest.raises(ResponseError, match="account unavailable") as caught:
                await client.me()
    assert type(caught.value) is ResponseError
