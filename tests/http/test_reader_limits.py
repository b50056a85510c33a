"""Replies without end, servers that fall silent: refused in bounded memory and bounded time."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient, ProtocolError, RequestTimeout, Timeouts
from tests.http.support import CHUNKED, OK
from tests.support import MESSAGES, is_quiet
from tests.wire import Peer, answering, connected, fetch, ok, plain_and_tls, serving, settle, works

pytestmark = pytest.mark.anyio


# -- too much --------------------------------------------------------------------------------------


@plain_and_tls
async def test_a_head_of_32_kib_is_read(anyio_backend: Any, secure: bool) -> None:
    """Many headers and long ones are fine up to a point."""
    many = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 20) for number in range(1000))
    long = b"X: " + b"v" * 32_000 + b"\r\n"
    replies = {
        f"/{key}": OK + lines + b"Content-Length: 2\r\n\r\nok"
        for key, lines in {"many": many, "long": long}.items()
    }
    async with (
        serving(answering(replies), tls=secure) as server,
        connected(secure) as transport,
    ):
        got = await fetch(transport, server.url + "/many")
        assert got.headers[999] == (b"X-999", b"v" * 20)
        got = await fetch(transport, server.url + "/long")
        assert got.headers[0] == (b"X", b"v" * 32_000)


PIECE = 8192
ENDLESS = {
    "line": (OK + b"X: ", b"v" * PIECE),
    "name": (OK, b"X" * PIECE),
    "headers": (OK, b"".join(b"X-%d: %d\r\n" % (n, n) for n in range(600))),
    "empty-headers": (OK, b"a:\r\n" * 2000),
    "spaces": (OK + b"X:", b" " * PIECE),
    "folds": (OK + b"X: a", b"\r\n b" * 2000),
    "reason": (b"HTTP/1.1 200 ", b"O" * PIECE),
    "version": (b"HTTP/1.", b"1" * PIECE),
    "informed": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 300),
    "hints": (b"", b"HTTP/1.1 103 Hints\r\nLink: </a>\r\n\r\n" * 200),
    "blank-lines": (b"", b"\r\n" * 4000),
    "trailers": (
        CHUNKED + b"5\r\nhello\r\n0\r\n",
        b"".join(b"X-%d: 1\r\n" % n for n in range(600)),
    ),
    "trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nX: ", b"v" * PIECE),
    "extension": (CHUNKED + b"5;", b"e" * PIECE),
    "size": (CHUNKED, b"0" * PIECE),
}


@plain_and_tls
@pytest.mark.parametrize("name", ENDLESS)
async def test_a_head_without_end(anyio_backend: Any, name: str, secure: bool) -> None:
    """Whatever has no end before or around a body is refused before a mebibyte has come."""
    begin, piece = ENDLESS[name]
    sent = 0

    async def handle(peer: Peer) -> None:
        nonlocal sent
        await peer.send(begin)
        while sent < 16 << 20:
            await peer.send(piece)
            sent += len(piece)

    async with (
        serving(answering({"/": handle}), tls=secure) as server,
        connected(secure) as transport,
    ):
        with pytest.raises(httpx.RemoteProtocolError):
            await fetch(transport, server.url + "/")
        assert transport.connections() == (0, 0)
        await server.until_open(0)
        await works(transport, server)
    # What the kernel's buffers took counts as sent.
    assert sent < 12 << 20


@pytest.mark.parametrize("name", ["headers", "informed", "line", "blank-lines"])
async def test_a_client_under_a_flood(anyio_backend: Any, name: str) -> None:
    """A head without end is a ProtocolError of the call."""
    begin, piece = ENDLESS[name]

    async def handle(peer: Peer) -> None:
        await peer.send(begin)
        while True:
            await peer.send(piece)

    async with serving(answering({"/api/version": handle})) as server:
        async with AsyncClient(server.url) as client:
            with pytest.raises(ProtocolError):
                with anyio.fail_after(10):
                    await client.version()
            await server.until_open(0)
            assert is_quiet(client)


async def test_a_flood_in_one_packet(anyio_backend: Any) -> None:
    """Headers over the bound that come together with their end are refused all the same."""
    flood = b"X: y\r\n" * 100_000
    async with serving(answering({"/": OK + flood + b"Content-Length: 0\r\n\r\n"})) as server:
        async with connected() as transport:
            with pytest.raises(httpx.RemoteProtocolError):
                await fetch(transport, server.url + "/")
            await works(transport, server)


async def test_many_bodies_do_not_count_as_head(anyio_backend: Any) -> None:
    """The bound is for each head: long bodies, and many replies on one connection, are free."""
    chunks = b"".join(b"1;%s\r\nx\r\n" % (b"e" * 20) for _ in range(20_000))
    body = b"y" * 1_000_000
    async with (
        serving(
            answering({"/chunks": CHUNKED + chunks + b"0\r\n\r\n", "/body": ok(body)})
        ) as server,
        connected() as transport,
    ):
        assert (await fetch(transport, server.url + "/chunks")).body == b"x" * 20_000
        assert (await fetch(transport, server.url + "/body")).body == body
        for number in range(300):
            got = await fetch(transport, f"{server.url}/ok/{number}{'z' * 400}")
            assert len(got.body) > 400
        assert len(server.peers) == 1


async def test_a_few_hints_are_fine(anyio_backend: Any) -> None:
    """Replies of the class 1xx before the real one are passed over, together or apart."""
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"

    async def apart(peer: Peer) -> None:
        for _ in range(20):
            await peer.send(hint)
            await settle()
        await peer.send(ok(b"mine"))

    replies = {"/together": hint * 20 + ok(b"mine"), "/apart": apart}
    async with serving(answering(replies)) as server, connected() as transport:
        for path in replies:
            got = await fetch(transport, server.url + path)
            assert (got.status, got.body) == (200, b"mine")
            assert got.headers == [(b"Content-Length", b"4")]
        assert len(server.peers) == 1


# -- slow ------------------------------------------------------------------------------------------


@plain_and_tls
@pytest.mark.parametrize(
    "piece", [b"", b"HTTP/1.1 200", OK + b"A: b\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", CHUNKED]
)
async def test_a_server_that_falls_silent(anyio_backend: Any, piece: bytes, secure: bool) -> None:
    """A silence longer than the read timeout is a ReadTimeout, and closes the connection."""

    async def handle(peer: Peer) -> None:
        await peer.send(piece)
        await peer.gone()

    async with (
        serving(answering({"/": handle}), tls=secure) as server,
        connected(secure) as transport,
    ):
        with pytest.raises(httpx.ReadTimeout):
            await fetch(transport, server.url + "/", timeout={"read": 0.02})
        assert transport.connections() == (0, 0)
        await server.until_open(0)
        await works(transport, server)


async def test_a_slow_head_is_not_a_silent_one(anyio_backend: Any) -> None:
    """The read timeout is for each silence: a head in many pieces has no limit as a whole."""

    async def handle(peer: Peer) -> None:
        for byte in ok(b"slow"):
            await peer.send(bytes([byte]))
            await anyio.sleep(0.005)

    async with serving(answering({"/": handle})) as server, connected() as transport:
        started = anyio.current_time()
        got = await fetch(transport, server.url + "/", timeout={"read": 0.15})
        assert got.body == b"slow"
        assert anyio.current_time() - started > 0.15


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_a_head_that_drips_is_under_a_clients_limit(anyio_backend: Any, stream: bool) -> None:
    """`first_chunk` is for the whole way to the answer, however the bytes trickle in."""

    async def handle(peer: Peer) -> None:
        for byte in OK + b"X: " + b"v" * 10_000:
            await peer.send(bytes([byte]))
            await anyio.sleep(0.004)

    async with serving(answering({"/api/chat": handle})) as server:
        async with AsyncClient(server.url, timeout=Timeouts(first_chunk=0.06)) as client:
            with pytest.raises(RequestTimeout) as caught:
                await client.chat("m", MESSAGES, stream=stream)
            assert caught.value.limit == "first_chunk"
            await server.until_open(0)
            assert is_quiet(client)
