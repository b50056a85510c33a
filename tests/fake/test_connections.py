"""Requests and connections: the record, scripts, HTTP/1.1 from end to end, TLS, addresses."""

from __future__ import annotations

import json
import re
import ssl

import httpx
import pytest
import trustme

from ollama_sc.testing import FakeOllama, Reply
from tests.fake.support import (
    CHAT,
    client,
    connect,
    exchange,
    head_and_body,
    lines,
    post,
    read_all,
)

pytestmark = pytest.mark.anyio


async def test_requests_are_recorded():
    """The record has method, path, headers, body and times; keep-alive keeps the connection."""
    async with FakeOllama() as fake:
        async with client(fake) as http:
            await http.post("/api/chat?q=1", json=CHAT, headers={"X-Two": "a"})
            await http.get("/")
            assert fake.open_connections == 1
        await fake.wait_all_closed()
        first, second = fake.requests
    assert (first.method, first.path, first.query) == ("POST", "/api/chat", "q=1")
    assert first.json == CHAT
    assert json.loads(first.body) == CHAT
    assert first.headers["x-two"] == "a"
    assert first.connection == second.connection == 1
    assert first.received_at <= first.headers_sent_at <= first.finished_at <= first.closed_at
    assert not first.disconnected
    assert first.parts_sent == 25
    assert "answered" in repr(first)
    assert fake.url in repr(fake)


async def test_scripts_run_out():
    """Scripted replies are used in order, one a request; then `always`; then the default."""
    async with FakeOllama() as fake, client(fake) as http:
        fake.script(
            "/api/version",
            Reply.json({"n": 1}),
            Reply.error(429, "slow", {"Retry-After": "3"}, signin_url="u"),
        )
        fake.always("/api/version", Reply.text("always"))
        assert (await http.get("/api/version")).json() == {"n": 1}
        limited = await http.get("/api/version")
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "3")
        assert limited.json() == {"error": "slow", "signin_url": "u"}
        assert (await http.get("/api/version")).text == "always"
        fake.always("/api/version", None)
        assert (await http.get("/api/version")).json() == {"version": "0.33.0"}


async def test_reuse_can_be_refused():
    """reuse=False closes each connection after one reply."""
    async with FakeOllama(reuse=False) as fake, client(fake) as http:
        for _ in range(2):
            assert (await http.get("/")).headers["connection"] == "close"
        assert fake.connections == 2


# ---------------------------------------------------------------------------------------------
# HTTP/1.1


async def test_each_line_of_a_stream_is_a_chunk():
    """A stream is chunked with one object and newline a chunk, then an empty chunk."""
    async with FakeOllama(tokens=3) as fake:
        answer, _ = await exchange(fake, post("/api/chat", CHAT, extra="Connection: close\r\n"))
    body = answer.partition(b"\r\n\r\n")[2]
    chunks = re.findall(rb"([0-9a-f]+)\r\n(\{.*?\}\n)\r\n", body)
    assert len(chunks) == 4
    assert all(int(size, 16) == len(data) for size, data in chunks)
    assert body.endswith(b"\r\n0\r\n\r\n")


async def test_requests_may_be_divided_anywhere():
    """A request that comes byte by byte, with a chunked body, is the same request."""
    request = (
        b"POST /api/generate HTTP/1.1\r\nHost: x.local\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5\r\n{"mod\r\n1a\r\nel":"llama3.2","stream":tr\r\n3\r\nue}\r\n0\r\n\r\n'
    )
    async with FakeOllama() as fake, await connect(fake) as stream:
        for position in range(len(request)):
            await stream.send(request[position : position + 1])
        head, body = await head_and_body(stream)
        assert fake.requests[0].json == {"model": "llama3.2", "stream": True}
    assert b"200 OK" in head
    assert json.loads(body)["done_reason"] == "load"


async def test_pipelined_requests_are_answered_in_order():
    """Two requests in one write draw two replies, one after the other."""
    async with FakeOllama() as fake:
        answer, _ = await exchange(
            fake,
            b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        assert len(fake.requests) == 2
        assert fake.in_flight == 0
    assert answer.index(b'{"version"') < answer.index(b"Ollama is running")


async def test_http_1_0_gets_no_chunks():
    """A client of HTTP/1.0 reads a stream until the connection closes."""
    async with FakeOllama(tokens=2) as fake:
        answer, clean = await exchange(fake, post("/api/chat", CHAT, version="1.0"))
    assert clean
    assert b"chunked" not in answer
    assert len(answer.partition(b"\r\n\r\n")[2].splitlines()) == 3


async def test_what_is_no_http_draws_a_400():
    """The server says 400 and closes."""
    async with FakeOllama() as fake:
        answer, _ = await exchange(fake, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_expect_continue():
    """A client that waits for 100 gets it before it sends the body."""
    head, body = post(
        "/api/chat", CHAT, extra="Expect: 100-continue\r\nConnection: close\r\n"
    ).split(b"\r\n\r\n")
    async with FakeOllama() as fake, await connect(fake, head + b"\r\n\r\n") as stream:
        assert await stream.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send(body)
        answer, _ = await read_all(stream)
    assert answer.startswith(b"HTTP/1.1 200 OK")


# ---------------------------------------------------------------------------------------------
# Addresses


async def test_tls():
    """With a context the fake serves https, and its URL says so."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with FakeOllama(ssl_context=server) as fake:
        assert fake.url.startswith("https://127.0.0.1:")
        async with client(fake, verify=trust) as http:
            assert len(lines(await http.post("/api/chat", json=CHAT))) == 25
            fake.script("/", Reply.default(keep_alive=False))
            assert (await http.get("/")).text == "Ollama is running"
            fake.script("/", Reply.default(reset_at=20))
            with pytest.raises(httpx.NetworkError):
                await http.get("/")
        async with await connect(fake, b"GET / HTTP/1.1\r\n\r\n") as plain:
            await read_all(plain)
        await fake.wait_all_closed()


async def test_ipv6_and_names():
    """The host may be an IPv6 address or a name."""
    async with FakeOllama(host="::1") as fake, client(fake) as http:
        assert fake.url.startswith("http://[::1]:")
        assert (await http.get("/")).status_code == 200
    async with FakeOllama(host="localhost") as fake, client(fake) as http:
        assert (await http.get("/")).status_code == 200


async def test_a_taken_port_is_an_error():
    """Two servers cannot have one port; the failed one leaves nothing behind."""
    async with FakeOllama() as fake:
        with pytest.raises(OSError, match="in use"):
            async with FakeOllama(port=fake.port):
                pass
