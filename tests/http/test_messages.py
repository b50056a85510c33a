"""What a request looks like to the server, and what can be none."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ollama_sc import AsyncClient, RequestError
from ollama_sc.testing import FakeOllama
from tests.http.support import VERSION, exhaust, nothing, one_of_each
from tests.support import MESSAGES
from tests.wire import Peer, all_idle, answering, connected, fetch, serving, works

pytestmark = pytest.mark.anyio


# -- what is sent ----------------------------------------------------------------------------------


async def test_what_is_sent(fake: FakeOllama) -> None:
    """Headers of the user's, the key, and what the API wants to see."""
    async with AsyncClient(fake.url, api_key="k1", headers={"X-Mine": "1"}) as client:
        await client.chat("llama3.2", MESSAGES)
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        await client.version()
    whole, streamed, version = fake.requests
    assert whole.headers["authorization"] == "Bearer k1"
    assert whole.headers["x-mine"] == "1"
    assert whole.headers["content-type"] == "application/json"
    assert whole.headers["accept"] == "application/json"
    assert streamed.headers["accept"] == "application/x-ndjson"
    assert whole.headers["user-agent"].startswith("ollama-sc/")
    assert whole.json == {"model": "llama3.2", "messages": MESSAGES, "stream": False}
    assert streamed.json["stream"] is True
    assert version.body == b""


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("{}", {}),
        ("{}/", {"headers": {"X-Mine": "1", "user-agent": "me", "Accept": "mine"}}),
        ("{}", {"api_key": "k"}),
        ("{}", {"headers": {"Host": "localhost", "Authorization": "mine"}, "api_key": "k"}),
        ("localhost", {}),
    ],
)
async def test_both_ways_send_the_same(fake: FakeOllama, host: str, options: Any) -> None:
    """The short way to the server sends what httpx's own would have sent: lines and headers."""
    host = host.format(fake.url) if "{" in host else fake.url.replace("127.0.0.1", host)
    heads: list[Any] = []
    for extra in ({}, {"event_hooks": {"request": [nothing]}}):
        before = len(fake.requests)
        async with AsyncClient(host, **options, **extra) as client:
            await one_of_each(client)
        heads.append(
            [
                (asked.method, asked.path, sorted(asked.headers.items()), asked.body)
                for asked in fake.requests[before:]
                if "/api/blobs" not in asked.path
            ]
        )
    assert len(heads[0]) >= 8
    assert heads[0] == heads[1]


async def test_what_the_request_line_and_headers_look_like(anyio_backend: Any) -> None:
    """Target, headers and their order are sent as they are."""
    async with serving(answering()) as server, connected() as transport:
        headers = [(b"Host", b"named:1"), (b"X-b", b"1"), (b"x-A", b"2"), (b"X-b", b"\xe4")]
        request = httpx.Request("OPTIONS", server.url + "/ok/%20a?b=c%2Fd&e=;#not", headers=headers)
        response = await transport.handle_async_request(request)
        await response.aread()
        await response.aclose()
    (asked,) = server.asked
    assert asked.method == "OPTIONS"
    assert asked.target == "/ok/%20a?b=c%2Fd&e=;"
    assert asked.raw_headers == request.headers.raw


async def test_params_go_with_every_call(anyio_backend: Any) -> None:
    """A query that the user sets is sent."""

    async def handle(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(VERSION)

    async with serving(handle) as server:
        async with AsyncClient(server.url, params={"tenant": "7"}) as client:
            await client.version()
            await client.version()
        assert {asked.target for asked in server.asked} == {"/api/version?tenant=7"}


# -- what cannot be sent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [("BREW", "/"), ("GET", "api"), ("GET", ""), ("GET", "/a b"), ("GET", "/\n"), ("", "/")],
)
async def test_requests_that_cannot_be(fake: FakeOllama, method: str, path: str) -> None:
    """A method or path that cannot be is a RequestError, and nothing is sent."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError):
            await client.request(method, path)
    assert fake.connections == 0


@pytest.mark.parametrize(
    "headers",
    [
        [(b"x", b"a\r\nb: c")],
        [(b"x", b"a\nb")],
        [(b"x", b"a\x00b")],
        [(b"x\r\ny", b"z")],
        [(b"x y", b"z")],
        [(b"", b"z")],
        [(b"x:", b"z")],
    ],
)
async def test_request_headers_that_cannot_be(anyio_backend: Any, headers: Any) -> None:
    """They are a LocalProtocolError before anything is sent."""
    async with serving(answering()) as server, connected() as transport:
        request = httpx.Request("GET", server.url + "/ok/")
        request.headers = httpx.Headers([(b"Host", b"h"), *headers])
        with pytest.raises(httpx.LocalProtocolError):
            await transport.handle_async_request(request)
        assert not server.asked
        assert all_idle(transport)
        await works(transport, server)


@pytest.mark.parametrize("method", ["GET /x", "G\r\nX: y", ""])
async def test_methods_that_cannot_be(anyio_backend: Any, method: str) -> None:
    """A method that would change the request line is refused before anything is sent."""
    async with serving(answering()) as server, connected() as transport:
        with pytest.raises(httpx.LocalProtocolError):
            await fetch(transport, server.url + "/ok/", method)
        assert not server.asked
        await works(transport, server)
