"""Bodies that a proxy compressed: read whole or as a stream, and never cut short in silence."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from ollama_sc import AsyncClient, ProtocolError
from tests.http.support import exhaust
from tests.support import MESSAGES, is_quiet, raw_server, recording, replying
from tests.wire import answering, ok, serving

pytestmark = pytest.mark.anyio


async def test_a_reply_compressed_by_a_proxy(anyio_backend: Any) -> None:
    """A gzip body is read, streamed or whole."""
    body = gzip.compress(recording("chat-single").partition(b"\r\n\r\n")[2])
    reply = (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body
    async with raw_server(replying(reply, reply)) as url, AsyncClient(url) as client:
        assert (await client.chat("m", MESSAGES)).text.startswith("Why is the sky")
        async with await client.chat("m", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        assert stream.result().text.startswith("Why is the sky")


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("step", [1, 2, 3, 10_000])
async def test_what_servers_call_deflate(anyio_backend: Any, bare: bool, step: int) -> None:
    """With zlib's head and checksum, or without, as httpx and browsers read it."""
    body = zlib.compress(b'{"version":"%b"}' % (b"1." * 200))
    body = body[2:-4] if bare else body
    pieces = [body[start : start + step] for start in range(0, len(body), step)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving(answering(head + chunks + b"0\r\n\r\n")) as server:
        async with AsyncClient(server.url) as client:
            assert (await client.version()).version == "1." * 200
    cut = head + b"2\r\n%b\r\n0\r\n\r\n" % body[:2]
    async with serving(answering(cut)) as server, AsyncClient(server.url) as client:
        with pytest.raises(ProtocolError, match="cut short"):
            await client.version()


@pytest.mark.parametrize("missing", [1, 8, 9, 40])
async def test_a_compressed_reply_that_is_not_whole(anyio_backend: Any, missing: int) -> None:
    """A body whose compression breaks off is an error, not its beginning."""
    body = gzip.compress(b"".join(b"%d," % number for number in range(1000)))
    reply = ok(body[:-missing], b"Content-Encoding: gzip")
    async with serving(answering({"/x": reply})) as server, AsyncClient(server.url) as client:
        with pytest.raises(ProtocolError):
            await client.request("GET", "/x", type=bytes)
        assert is_quiet(client)
