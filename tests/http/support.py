"""What the tests of HTTP share: literal heads, and calls of every kind."""

from __future__ import annotations

from typing import Any

from ollama_sc import AsyncClient
from tests.support import MESSAGES
from tests.wire import ok

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LINE = b'{"model":"m","message":{"role":"assistant","content":"x"},"done":%b}\n'
VERSION = ok(b'{"version":"1"}')


async def nothing(request: Any) -> None:
    """A hook that makes requests go the long way, through `httpx.AsyncClient.send`."""


async def exhaust(stream: Any) -> None:
    """Read a stream to its end."""
    async for _ in stream:
        pass


async def one_of_each(client: AsyncClient) -> None:
    """Calls of every kind: no body, a body, a stream, an upload, none of the API's."""
    await client.version()
    await client.chat("llama3.2", MESSAGES)
    async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
        await exhaust(stream)
    await client.embed("nomic-embed-text", ["é", "x" * 100_000])
    await client.create_blob(b"blob" * 1000)
    await client.request("HEAD", "/api/version")
    await client.request("GET", "/api/tags?a=b%20c&d=ü")
    await client.copy("llama3.2", "other")
    await client.delete("other")
