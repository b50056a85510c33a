"""Bytes that nobody asked for reach nobody: each caller gets the reply to its own request."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient
from tests.wire import (
    Peer,
    all_idle,
    all_of,
    answering,
    connected,
    fetch,
    ok,
    plain_and_tls,
    quick,
    serving,
    settle,
    until,
    works,
)

pytestmark = pytest.mark.anyio

PLENTY = 20.0  # seconds, for what is not to be cancelled

UNASKED = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nunasked",
    b"x",
    b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"\x00" * 100,
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes",
    b"0\r\n\r\n",
]
SHAPES = {
    "length": (ok(b"mine"), "GET", b"mine"),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\n",
        "GET",
        b"mine",
    ),
    "head": (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n", "HEAD", b""),
    "head-zero": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "HEAD", b""),
    "head-chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD", b""),
    "head-neither": (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", "HEAD", b""),
    "204": (b"HTTP/1.1 204 No\r\n\r\n", "GET", b""),
    "304": (b"HTTP/1.1 304 No\r\nContent-Length: 4\r\n\r\n", "GET", b""),
    "zero": (ok(b""), "GET", b""),
}


@plain_and_tls
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("when", ["together", "apart", "idle"])
async def test_bytes_behind_the_reply(
    anyio_backend: Any, shape: str, when: str, secure: bool
) -> None:
    """What nobody asked for reaches nobody, and its connection is not used again."""
    reply, method, body = SHAPES[shape]
    sent: set[int] = set()

    async def handle(peer: Peer) -> None:
        number = int(peer.asked[-1].target[1:])
        if when == "together":
            await peer.send(reply + UNASKED[number])
        elif when == "apart":
            await peer.send(reply, UNASKED[number])
        else:
            await peer.send(reply)
            await settle(20)
            await peer.send(UNASKED[number])
        sent.add(number)
        await peer.gone()

    replies = {f"/{number}": handle for number in range(len(UNASKED))}
    async with (
        serving(answering(replies), tls=secure) as server,
        connected(secure) as transport,
    ):
        for number in range(len(UNASKED)):
            got = await fetch(transport, f"{server.url}/{number}", method)
            assert got.body == body
            await until(lambda number=number: number in sent)  # type: ignore[misc]
            await settle()
            await works(transport, server, number)
            assert len(server.peers) == number + 2
            assert transport.connections() == (1, 1)
            await server.until_open(1)


@quick
@pytest.mark.parametrize("shape", SHAPES)
async def test_bytes_behind_the_reply_in_any_pieces(anyio_backend: Any, shape: str) -> None:
    """The same wherever the packets are divided: in the head, at its end, behind it."""
    reply, method, body = SHAPES[shape]
    whole = reply + UNASKED[0]
    sent: set[int] = set()

    async def handle(peer: Peer) -> None:
        place = int(peer.asked[-1].target[1:])
        await peer.send(whole[:place], whole[place:])
        sent.add(place)
        await peer.gone()

    async def ask(place: int) -> None:
        async with connected() as transport:
            got = await fetch(transport, f"{server.url}/{place}", method)
            assert got.body == body
            await until(lambda: place in sent)
            await settle()
            await works(transport, server, place)
            assert transport.connections() == (1, 1)

    places = range(1, len(whole))
    async with serving(answering({f"/{place}": handle for place in places})) as server:
        await all_of(partial(ask, place) for place in places)
        assert {len(peer.asked) for peer in server.peers} == {1}


@pytest.mark.parametrize("unasked", UNASKED[:3])
async def test_bytes_behind_the_reply_of_a_client(anyio_backend: Any, unasked: bytes) -> None:
    """Through the public client: each call gets its own answer."""
    number = 0

    async def version(peer: Peer) -> None:
        nonlocal number
        number += 1
        await peer.send(ok(b'{"version":"%d"}' % number) + unasked)

    async with serving(answering({"/api/version": version})) as server:
        async with AsyncClient(server.url) as client:
            for expected in range(1, 6):
                assert (await client.version()).version == str(expected)
        assert len(server.peers) == 5


@plain_and_tls
async def test_each_caller_its_own_reply(anyio_backend: Any, secure: bool) -> None:
    """With cancels and servers' ends in between, no call gets another's answer."""

    async def handle(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            number = int(asked.target.rpartition("/")[2])
            reply = ok(asked.target.encode())
            if number % 3 == 0:
                await peer.send(reply[: number % len(reply)], reply[number % len(reply) :])
            elif number % 7 == 0:
                await peer.send(reply + ok(b"unasked"))
            else:
                await peer.send(reply)
            if number % 11 == 0:
                return

    async with serving(handle, tls=secure) as server, connected(secure) as transport:

        async def worker(first: int) -> None:
            for number in range(first, first + 25):
                with anyio.move_on_after(0.0007 * (number % 5) if number % 2 else PLENTY):
                    try:
                        got = await fetch(transport, f"{server.url}/{number}")
                    except (httpx.ReadError, httpx.RemoteProtocolError):
                        continue  # its connection ended too late to be sure that it was dead before
                    assert got.body == b"/%d" % number

        async with anyio.create_task_group() as tasks:
            for first in range(0, 250, 25):
                tasks.start_soon(worker, first)
        assert all_idle(transport)
        await until(lambda: server.open <= transport.connections().open)
