"""Calls follow redirects within their server, and never to another one."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_sc import AsyncClient, ResponseError
from ollama_sc.testing import FakeOllama
from tests.support import MESSAGES, is_quiet, plain_reply, raw_server, read_request

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nothing_follows_a_redirect_to_another_server(fake: FakeOllama, status: int) -> None:
    """Neither the prompt nor any header goes where another server points; the error says where."""

    async def handle(stream: Any) -> None:
        await read_request(stream)
        await stream.send(
            b"HTTP/1.1 %d Moved\r\nLocation: %s/api/chat?k=s3cret\r\nContent-Length: 0\r\n\r\n"
            % (status, fake.url.encode())
        )

    async with raw_server(handle) as url:
        async with AsyncClient(url, headers={"X-API-Key": "k"}, cookies={"a": "b"}) as client:
            with pytest.raises(ResponseError, match="use it as the host") as caught:
                await client.chat("llama3.2", MESSAGES)
            assert caught.value.status_code == status
            assert fake.url in str(caught.value)
            assert "s3cret" not in str(caught.value)
            assert is_quiet(client)
    assert fake.connections == 0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_within_the_server_keeps_method_and_body(
    anyio_backend: Any, status: int
) -> None:
    """A request that is sent on to another path of the same server arrives as it was."""
    seen: list[bytes] = []

    async def handle(stream: Any) -> None:
        while request := await read_request(stream):
            seen.append(request)
            if len(seen) == 1:
                head = b"HTTP/1.1 %d Moved\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
                await stream.send(head % status)
            else:
                await stream.send(plain_reply(b'{"embeddings":[[1]]}'))

    async with raw_server(handle) as url, AsyncClient(url, api_key="k") as client:
        assert (await client.embed("m", "hello")).embeddings == [[1]]
    assert seen[1].startswith(b"POST /other ")
    assert b'"input":"hello"' in seen[1]
    assert b"Bearer k" in seen[1]


async def test_redirects_in_a_circle_end(anyio_backend: Any) -> None:
    """A server that sends a request round and round is an error."""

    async def handle(stream: Any) -> None:
        while await read_request(stream):
            head = b"HTTP/1.1 307 Round\r\nLocation: /api/version\r\nContent-Length: 0\r\n\r\n"
            await stream.send(head)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.version()
        assert caught.value.status_code == 307


async def test_httpx_follows_where_the_user_says_so(fake: FakeOllama) -> None:
    """With follow_redirects=True httpx follows to other servers, and drops the key on its way."""

    async def handle(stream: Any) -> None:
        await read_request(stream)
        await stream.send(
            b"HTTP/1.1 307 Moved\r\nLocation: %s/api/version\r\nContent-Length: 0\r\n\r\n"
            % fake.url.encode()
        )

    async with raw_server(handle) as url:
        async with AsyncClient(url, api_key="k", follow_redirects=True) as client:
            assert (await client.version()).version
    assert "authorization" not in fake.requests[0].headers
