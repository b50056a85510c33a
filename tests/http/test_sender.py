"""Which way a request goes, the short one or httpx's, and the cookies that change it."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient, ResponseError
from ollama_sc._http.transport import Transport
from ollama_sc.testing import FakeOllama, Reply
from tests.http.support import LINE, exhaust, nothing, one_of_each
from tests.support import MESSAGES, is_quiet, plain_reply, raw_server, read_request

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({}, "short"),
        ({"verify": False}, "short"),
        ({"trust_env": False}, "short"),
        ({"follow_redirects": False}, "short"),
        ({"api_key": "key", "headers": {"X-Team": "weather"}}, "short"),
        ({"auth": ("user", "password")}, "httpx"),
        ({"cookies": {"a": "b"}}, "httpx"),
        ({"params": {"a": "b"}}, "httpx"),
        ({"follow_redirects": True}, "httpx"),
        ({"event_hooks": {"request": [anyio.sleep]}}, "httpx"),
        ({"mounts": {"all://": httpx.MockTransport(httpx.Response)}}, "foreign"),
        ({"transport": httpx.MockTransport(httpx.Response)}, "foreign"),
        ({"proxy": "http://127.0.0.1:1"}, "foreign"),
        ({"http1": False, "http2": False}, "foreign"),
    ],
    ids=lambda value: "-".join(value) or "none" if isinstance(value, dict) else value,
)
@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "http://example.com"])
def test_the_way_of_a_request(options: dict[str, Any], way: str, host: str) -> None:
    """Only what needs httpx goes through it, and only what needs its transports over these."""
    http = AsyncClient(host, **options)._shared.sender
    transport = http._client._transport_for_url(httpx.URL(host))
    assert isinstance(transport, Transport) == (way != "foreign")
    assert http._direct is (transport if way == "short" else None)


# -- cookies ---------------------------------------------------------------------------------------


async def test_a_cookie_changes_the_way(anyio_backend: Any) -> None:
    """A cookie that a server sets is sent back from then on."""
    seen: list[bytes] = []
    reply = plain_reply(b'{"version":"1"}').replace(b"\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n", 1)

    async def handle(stream: Any) -> None:
        while request := await read_request(stream):
            seen.append(request.lower())
            await stream.send(reply)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        for _ in range(3):
            await client.version()
        assert is_quiet(client)
    assert [b"cookie: a=b" in request for request in seen] == [False, True, True]


@pytest.mark.parametrize("way", ["short", "long"])
async def test_cookies_of_the_servers(fake: FakeOllama, way: str) -> None:
    """A cookie that a reply sets is sent from then on, changed and taken away as servers say."""
    cookie = {"Set-Cookie": "sticky=node7; Path=/"}
    fake.script(
        "/api/version",
        Reply.json({"version": "1"}, headers=cookie),
        Reply.json({"version": "1"}),
        Reply.error(500, "no", headers={"Set-Cookie": "sticky=node8; Path=/"}),
        Reply.json({"version": "1"}, headers={"Set-Cookie": "sticky=; Max-Age=0; Path=/"}),
        Reply.json({"version": "1"}),
    )
    options: Any = {} if way == "short" else {"event_hooks": {"request": [nothing]}}
    async with AsyncClient(fake.url, **options) as client:
        await client.version()
        await client.version()
        with pytest.raises(ResponseError):
            await client.version()
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        await client.version()
        await client.version()
    sent = [asked.headers.get("cookie") for asked in fake.requests]
    assert sent == [None, "sticky=node7", "sticky=node7", "sticky=node8", "sticky=node8", None]


async def test_cookies_of_the_users(fake: FakeOllama) -> None:
    """Cookies that the user gives go with every call."""
    async with AsyncClient(fake.url, cookies={"mine": "1"}) as client:
        await one_of_each(client)
    assert {asked.headers["cookie"] for asked in fake.requests} == {"mine=1"}


async def test_a_stream_can_set_a_cookie(fake: FakeOllama) -> None:
    """The head of a stream can set one as well."""
    lines = [LINE % b"true"]
    fake.script("/api/chat", Reply.stream(lines, headers={"Set-Cookie": "a=b; Path=/"}))
    async with AsyncClient(fake.url) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        await client.version()
    assert fake.requests[-1].headers["cookie"] == "a=b"
