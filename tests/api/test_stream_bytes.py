"""The bytes of a stream: line ends, what comes after the end, lines without end."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient, ProtocolError
from ollama_sc.testing import FakeOllama, Reply
from tests.api.support import HEAD, a_line, chat_stream
from tests.support import raw_server, read_request, replying

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "between",
    [b"\n", b"\r\n", b"\n\n\n", b"\n \t \n", b"\r\n\r\n"],
    ids=["lf", "crlf", "blank lines", "white space", "blank crlf"],
)
@pytest.mark.parametrize("last", [b"", b"\n", b"\r\n"], ids=["no newline", "lf", "crlf"])
async def test_lines(anyio_backend: Any, between: bytes, last: bytes) -> None:
    """Lines end at a line feed; blank ones do not count; the last one needs no end."""
    texts = ["a\u0085b", "\u2028", "c\u2029\x0b\x0c", "é"]
    lines = [a_line(text) for text in texts] + [a_line("", done=True)]
    reply = HEAD + b"\r\n" + between.join(lines) + last
    async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            assert [part.text async for part in stream] == [*texts, ""]


@pytest.mark.parametrize(
    "after", [b"garbage", b"\n{}", b'{"error":"late"}\n', b"\xff\xfe", b"x" * 1000]
)
@pytest.mark.parametrize("where", ["same packet", "next packet"])
@pytest.mark.parametrize(
    "options",
    [{}, {"auth": ("user", "password")}, {"transport": httpx.AsyncHTTPTransport}],
    ids=["short", "httpx", "foreign"],
)
async def test_bytes_after_the_terminal_object(
    anyio_backend: Any, after: bytes, where: str, options: dict[str, Any]
) -> None:
    """They are ignored, and their connection is not used again."""
    connections = 0
    body = a_line("a") + b"\n" + a_line("", done=True) + b"\n"
    head = HEAD + b"Content-Length: %d\r\n\r\n" % (len(body) + len(after))

    async def handle(stream: Any) -> None:
        nonlocal connections
        connections += 1
        while await read_request(stream):
            if where == "same packet":
                await stream.send(head + body + after)
            else:
                await stream.send(head + body)
                await anyio.sleep(0.005)
                await stream.send(after)

    if "transport" in options:
        options = {"transport": options["transport"](verify=False)}
    async with raw_server(handle) as url, AsyncClient(url, **options) as client:
        for number in range(1, 3):
            async with await chat_stream(client) as stream:
                assert [part.text async for part in stream] == ["a", ""]
            assert stream.result().complete
            assert client.statistics().open == 0
            assert connections == number


async def test_an_endless_line_is_an_error_not_memory(fake: FakeOllama) -> None:
    """A line over its limit ends the stream with a ProtocolError."""
    fake.always("/api/chat", Reply.endless_line())
    async with AsyncClient(fake.url, max_line_bytes=1_000_000) as client:
        stream = await chat_stream(client)
        with pytest.raises(ProtocolError, match="1000000 bytes"):
            await anext(stream)
        assert sum(map(len, stream._call._blocks)) == 0
        await fake.requests[0].wait_closed()


async def test_an_endless_body_is_an_error_not_memory(fake: FakeOllama) -> None:
    """A reply in one piece over its limit ends the call with a ProtocolError."""
    fake.always("/api/version", Reply.endless_line())
    async with AsyncClient(fake.url, max_body_bytes=1_000_000) as client:
        with pytest.raises(ProtocolError, match="1000000 bytes"):
            await client.version()
        await fake.requests[0].wait_closed()
