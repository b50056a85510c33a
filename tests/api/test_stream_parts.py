"""The parts of a stream, the ways to take them, and its end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import AsyncClient, ChatResponse, ProtocolError, ResponseError
from ollama_sc.testing import FakeOllama, Reply
from tests.api.support import HEAD, a_line, a_part, chat_stream
from tests.support import (
    MESSAGES,
    is_quiet,
    plain_reply,
    raw_server,
    read_request,
    recorded_body,
    recording,
    replying,
)

pytestmark = pytest.mark.anyio


# -- parts -----------------------------------------------------------------------------------------


async def test_a_recorded_stream_arrives_whole(anyio_backend: Any) -> None:
    """A real server's stream gives its parts, and joined they are its own single reply."""
    single = ChatResponse.__name__ and recorded_body("chat-single")
    import msgspec  # noqa: PLC0415

    expected = msgspec.json.decode(single)["message"]
    async with raw_server(replying(recording("chat-stream"))) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            parts = [part async for part in stream]
        assert len(parts) == 25
        assert [part.done for part in parts] == [False] * 24 + [True]
        whole = stream.result()
        assert whole.complete
        assert whole.message.to_dict() == expected
        assert whole.eval_count == 24
        assert whole.done_reason == "length"


async def test_iter_text_gives_the_text_alone(anyio_backend: Any) -> None:
    """Nothing but text, and no empty piece."""
    reply = recording("generate-stream")
    async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
        async with await client.generate("m", "The sky is", stream=True) as stream:
            pieces = [text async for text in stream.iter_text()]
        assert all(pieces)
        assert len(pieces) == 24
        assert "".join(pieces) == stream.result().response


async def test_batches_are_what_each_read_brought(fake: FakeOllama) -> None:
    """One list for each network read, all parts once and in order."""
    lines = [a_part(str(number)) for number in range(50)] + [a_part("", done=True)]
    fake.always("/api/chat", Reply.stream(lines).replace(flush=False))
    async with AsyncClient(fake.url) as client:
        async with await chat_stream(client) as stream:
            batches = [batch async for batch in stream.batches()]
        assert all(batches)
        assert len(batches) < 10
        assert [p.text for batch in batches for p in batch] == [*map(str, range(50)), ""]


async def test_the_ways_of_iterating_can_be_mixed(fake: FakeOllama) -> None:
    """What one iterator has not given, the next gives."""
    lines = [a_part(str(number)) for number in range(9)] + [a_part("", done=True)]
    fake.always("/api/chat", Reply.stream(lines).replace(flush=False))
    async with AsyncClient(fake.url) as client, await chat_stream(client) as stream:
        first = (await anext(stream)).text
        second = await anext(stream.iter_text())
        rest = [part.text async for batch in stream.batches() for part in batch]
        assert [first, second, *rest] == [*map(str, range(9)), ""]


async def test_a_single_object_in_place_of_a_stream(fake: FakeOllama) -> None:
    """Load and unload replies are one JSON object, also where a stream was asked for."""
    async with AsyncClient(fake.url) as client:
        async with await client.chat("llama3.2", stream=True) as stream:
            parts = [part async for part in stream]
        assert [(part.done, part.done_reason) for part in parts] == [(True, "load")]
        async with await client.generate("llama3.2", keep_alive=0, stream=True) as stream:
            assert [part.done_reason async for part in stream] == ["unload"]
    async with raw_server(replying(recording("chat-load"))) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            assert [part.done_reason async for part in stream] == ["load"]


async def test_a_streams_repr_says_what_and_how(fake: FakeOllama) -> None:
    """The repr names type, endpoint, model and phase."""
    async with AsyncClient(fake.url) as client:
        async with await chat_stream(client) as stream:
            assert "ChatResponse" in repr(stream)
            assert "POST /api/chat, model 'llama3.2'" in repr(stream)
        assert "ended" in repr(stream)


# -- the end ---------------------------------------------------------------------------------------


async def test_the_last_part_comes_at_once(anyio_backend: Any) -> None:
    """The terminal object is delivered although the HTTP message has not ended."""

    async def handle(stream: Any) -> None:
        await read_request(stream)
        body = recording("chat-stream")
        await stream.send(body[: -len(b"0\r\n\r\n")])
        await anyio.sleep_forever()

    async with raw_server(handle) as url, AsyncClient(url) as client:
        stream = await chat_stream(client)
        while not (await anext(stream)).done:
            pass
        assert client.abort() == 0, "a stream whose terminal object has arrived is finished"
        with anyio.fail_after(5), pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert client.statistics().open == 0
        assert stream.result().complete


async def test_a_message_that_ends_a_little_later_gives_its_connection_back(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the HTTP message in a packet of its own does not cost the connection."""
    monkeypatch.setattr("ollama_sc._http.exchange._DRAIN_SECONDS", 5.0)  # a busy machine is late
    body = recording("chat-stream").replace(b"Connection: close\r\n", b"")
    connections = 0

    async def handle(stream: Any) -> None:
        nonlocal connections
        connections += 1
        while await read_request(stream):
            await stream.send(body[: -len(b"0\r\n\r\n")])
            await anyio.sleep(0.005)
            await stream.send(b"0\r\n\r\n")

    async with raw_server(handle) as url, AsyncClient(url) as client:
        for _ in range(5):
            stream = await chat_stream(client)
            async for _ in stream:
                pass
        assert connections == 1


async def test_a_finished_stream_keeps_its_parts(fake: FakeOllama) -> None:
    """Abort, close and the end of the client discard nothing of a reply that is whole."""
    async with AsyncClient(fake.url) as client:
        stream = await client.chat("llama3.2", MESSAGES, stream=True, options={"num_predict": 5})
        with anyio.fail_after(5):
            while client.statistics().in_flight:
                await anyio.sleep(0.001)
        assert client.abort() == 0
        assert not stream.abort()
        await stream.aclose()
    parts = [part async for part in stream]
    assert parts[-1].done
    assert len(parts) == 6


async def test_the_end_is_the_end(fake: FakeOllama) -> None:
    """After its end a stream goes on being at its end."""
    async with AsyncClient(fake.url) as client:
        stream = await chat_stream(client)
        assert [part async for part in stream]
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert [text async for text in stream.iter_text()] == []
        assert [batch async for batch in stream.batches()] == []


# -- errors inside a stream ------------------------------------------------------------------------


@pytest.mark.parametrize("parts_before", [0, 1, 3])
async def test_an_error_inside_a_stream(fake: FakeOllama, parts_before: int) -> None:
    """It arrives after the parts before it, as ResponseError, though the status was 200."""
    lines: list[Any] = [a_part(str(number)) for number in range(parts_before)]
    fake.always("/api/chat", Reply.stream([*lines, {"error": "the runner has stopped"}]))
    async with AsyncClient(fake.url) as client:
        stream = await chat_stream(client)
        texts: list[str] = []
        with pytest.raises(ResponseError, match="the runner has stopped") as caught:
            async for part in stream:
                texts.append(part.text)
        assert texts == [str(number) for number in range(parts_before)]
        assert caught.value.status_code == 200
        assert caught.value.error == "the runner has stopped"
        assert "/api/chat" in str(caught.value)
        assert "llama3.2" in str(caught.value)
        assert is_quiet(client)


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Welcome to the proxy</body></html>\n",
        b"garbage\n",
        b"42\n",
        b"[1]\n",
        b'"x"\n',
    ],
)
async def test_what_is_no_object_of_the_api(anyio_backend: Any, body: bytes) -> None:
    """A stream of something else is a ProtocolError that shows its beginning."""
    for reply in (HEAD + b"\r\n" + body, plain_reply(body)):
        async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
            stream = await chat_stream(client)
            with pytest.raises(ProtocolError) as caught:
                await anext(stream)
            assert caught.value.excerpt
            assert body.startswith(caught.value.excerpt)
            assert is_quiet(client)


async def test_a_bad_line_after_good_ones(anyio_backend: Any) -> None:
    """The good parts of the same read are delivered before the error."""
    reply = HEAD + b"\r\n" + a_line("a") + b"\n" + a_line("b") + b"\nnot json\n"
    async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
        stream = await chat_stream(client)
        assert (await anext(stream)).text == "a"
        assert (await anext(stream)).text == "b"
        with pytest.raises(ProtocolError, match="not json"):
            await anext(stream)
        assert stream.result().text == "ab"
