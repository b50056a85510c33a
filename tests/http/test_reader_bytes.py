"""Replies that are split, cut and reset at every byte: the same result, or the right exception."""

from __future__ import annotations

import gzip
from functools import partial
from typing import Any, NamedTuple

import httpx
import pytest

from tests.http.support import CHUNKED
from tests.support import recorded_request, recording
from tests.wire import (
    Handler,
    Peer,
    Server,
    all_idle,
    all_of,
    answering,
    connected,
    fetch,
    plain_and_tls,
    quick,
    serving,
    settle,
    works,
)

pytestmark = pytest.mark.anyio


class Literal(NamedTuple):
    """A reply, byte for byte, and what it means.

    `before` are replies of the class 1xx. `ends` says how the end of the message is told: by the
    message, or by the end of the connection.
    """

    head: bytes
    wire: bytes
    body: bytes
    status: int = 200
    method: str = "GET"
    before: bytes = b""
    ends: str = "itself"

    @property
    def whole(self) -> bytes:
        return self.before + self.head + self.wire


HELLO = b"hello, world"
ZIPPED = gzip.compress(HELLO, mtime=0)

LITERALS = {
    "length": Literal(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", HELLO, HELLO),
    "length-zero": Literal(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"", b"", 500),
    "chunked": Literal(CHUNKED, b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n", HELLO),
    "chunked-with-all": Literal(
        b"HTTP/1.1 200 OK\r\nTrailer: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b'5;a=b;c="d e"\r\nhello\r\n007\r\n, world\r\n00;e\r\nX: y\r\nZ: 1\r\n\r\n',
        HELLO,
    ),
    "until-close-1.0": Literal(b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n", HELLO, HELLO, ends="closing"),
    "until-close-1.1": Literal(
        b"HTTP/1.1 404 Not\r\nA: b\r\n\r\n", HELLO, HELLO, 404, ends="closing"
    ),
    "length-1.0": Literal(b"HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\n", HELLO, HELLO),
    "continue-first": Literal(
        b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n",
        HELLO,
        HELLO,
        before=b"HTTP/1.1 100 Continue\r\n\r\n",
    ),
    "hints-first": Literal(
        CHUNKED,
        b"c\r\nhello, world\r\n0\r\n\r\n",
        HELLO,
        before=b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 3\r\n\r\n"
        b"HTTP/1.1 102 \r\n\r\n",
    ),
    "204": Literal(b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n", b"", b"", 204),
    "304": Literal(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b"", b"", 304),
    "head": Literal(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", b"", b"", method="HEAD"),
    "head-chunked": Literal(CHUNKED, b"", b"", method="HEAD"),
    "gzip": Literal(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZIPPED),
        ZIPPED,
        HELLO,
    ),
}
# Enough of them where each connection costs a handshake.
OVER_TLS = ["chunked-with-all", "until-close-1.1", "length"]


def literal_of(name: str) -> Literal:
    """A recorded reply as a literal."""
    head, _, wire = recording(name).partition(b"\r\n\r\n")
    head += b"\r\n\r\n"
    asked = recorded_request(name)
    chunks, rest = [wire], b"" if b"chunked" not in head else wire
    if rest:
        chunks = []
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            chunks.append(rest[: int(size, 16)])
            rest = rest[int(size, 16) + 2 :]
    return Literal(
        head,
        wire,
        b"".join(chunks),
        status=int(head.split()[1]),
        method=asked["method"],
    )


def mode_server(literal: Literal) -> Handler:
    """A server that breaks the reply as the target says: ``/<how>/<position>``."""

    async def handle(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            _, how, where = asked.target.split("/")
            if how == "ok":
                await answering()(_Again(peer, asked))
                continue
            position = int(where)
            await peer.send(literal.whole[:position])
            if position % 2:  # and otherwise the end comes together with the bytes
                await settle()
            if how == "split":
                await peer.send(literal.whole[position:])
                if literal.ends == "itself":
                    continue
            if how == "reset":
                await peer.reset()
            elif how == "ragged":
                await peer.cut()
            else:
                await peer.finish()
            return await peer.gone()

    return handle


class _Again:
    """A peer whose next request has been read already."""

    def __init__(self, peer: Peer, asked: Any) -> None:
        self._asked = asked
        self.send = peer.send

    async def request(self) -> Any:
        asked, self._asked = self._asked, None
        return asked


async def one(transport: Any, server: Server, literal: Literal, how: str, position: int) -> None:
    """One reply, broken at one place; then a good request."""
    whole = literal.whole
    headed = len(literal.before) + len(literal.head)
    body: bytes | None = literal.body
    error: Any = None
    if how == "reset" and (position < len(whole) or literal.ends == "closing"):
        error = httpx.ReadError
    elif how in ("cut", "ragged") and position < len(whole):
        if literal.ends == "closing" and position >= headed:
            body = literal.body[: position - headed]
        else:
            error = httpx.RemoteProtocolError
    where = (how, position, whole[:position])
    try:
        got = await fetch(transport, f"{server.url}/{how}/{position}", literal.method)
    except httpx.HTTPError as raised:
        assert error is not None, (where, raised)
        assert type(raised) is error, (where, repr(raised))
    else:
        assert error is None, (where, got)
        assert (got.status, got.body) == (literal.status, body), where
    await works(transport, server, position)


async def every(literal: Literal, hows: list[str], positions: Any, *, secure: bool = False) -> None:
    async with (
        serving(mode_server(literal), tls=secure) as server,
        connected(secure) as transport,
    ):
        for how in hows:
            await all_of(
                partial(one, transport, server, literal, how, position) for position in positions
            )
            assert all_idle(transport)
            await server.until_open(transport.connections().open)


def places(literal: Literal) -> range:
    return range(len(literal.whole) + 1)


@quick
@pytest.mark.parametrize("name", LITERALS)
async def test_split_cut_and_reset_at_every_byte(anyio_backend: Any, name: str) -> None:
    """A split changes nothing; a cut or reset reply is an error that closes its connection."""
    literal = LITERALS[name]
    await every(literal, ["split", "cut", "reset"], places(literal))


@quick
@pytest.mark.parametrize("name", OVER_TLS)
async def test_split_cut_and_reset_at_every_byte_over_tls(anyio_backend: Any, name: str) -> None:
    """The same over TLS, where the reply is cut by a proper goodbye."""
    literal = LITERALS[name]
    await every(literal, ["split", "cut", "reset"], places(literal)[::2], secure=True)


@quick
@pytest.mark.parametrize("name", ["chunked-with-all", "length", "head", "204"])
async def test_a_tls_connection_that_ends_without_goodbye(anyio_backend: Any, name: str) -> None:
    """What has its own end is whole or not by that, whatever the end of the connection is like."""
    literal = LITERALS[name]
    await every(literal, ["ragged"], places(literal)[::3], secure=True)
    await every(literal, ["ragged"], [len(literal.whole)], secure=True)


async def test_a_body_until_the_end_without_goodbye(anyio_backend: Any) -> None:
    """Over TLS, a body that only the connection ends is whole, or an error if no goodbye came."""
    literal = LITERALS["until-close-1.1"]
    outcomes = []
    async with (
        serving(mode_server(literal), tls=True) as server,
        connected(secure=True) as transport,
    ):
        for position in (len(literal.whole) - 4, len(literal.whole)):
            try:
                got = await fetch(transport, f"{server.url}/ragged/{position}")
            except (httpx.ReadError, httpx.RemoteProtocolError):
                outcomes.append("error")
            else:
                assert literal.body.startswith(got.body)
                assert len(got.body) == position - len(literal.head)
                outcomes.append("body")
            await works(transport, server)
        await server.until_open(transport.connections().open)
    assert len(set(outcomes)) == 1


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("name", LITERALS)
async def test_byte_by_byte(anyio_backend: Any, name: str, secure: bool) -> None:
    """A reply that comes one byte at a time is the same reply."""
    literal = LITERALS[name]

    async def drip(peer: Peer) -> None:
        for start in range(len(literal.whole)):
            await peer.send(literal.whole[start : start + 1])
            await settle(2)
        if literal.ends == "closing":
            await peer.finish()

    async with (
        serving(answering({"/": drip}), tls=secure) as server,
        connected(secure) as transport,
    ):
        got = await fetch(transport, server.url + "/", literal.method)
        assert (got.status, got.body) == (literal.status, literal.body)
        await works(transport, server)
        assert all_idle(transport)


RECORDED = ["chat-single", "chat-stream", "embed-single", "blob-head-present", "copy", "show"]


@quick
@pytest.mark.parametrize("name", RECORDED)
async def test_recorded_replies(anyio_backend: Any, name: str) -> None:
    """What real servers sent, split and cut: at every byte of the head, and here and there."""
    literal = literal_of(name)
    headed, size = len(literal.head), len(literal.whole)
    positions = sorted(
        {*range(0, headed, 3), *range(headed, size, max(7, size // 30 | 1)), size - 1, size}
    )
    await every(literal, ["split", "cut", "reset"], positions)


@plain_and_tls
async def test_two_in_one_packet_each_to_its_own(anyio_backend: Any, secure: bool) -> None:
    """Replies of many requests at a time, in all shapes, reach those who asked."""

    async def odd(peer: Peer) -> None:
        name = peer.asked[-1].target.encode()
        await peer.send(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(name), name))

    paths = [f"/{kind}/{number}" for number in range(60) for kind in ("ok", "odd")]
    replies = {path: odd for path in paths if path.startswith("/odd")}

    async def ask(path: str) -> None:
        got = await fetch(transport, server.url + path)
        assert got.body == path.encode()

    async with serving(answering(replies), tls=secure) as server, connected(secure) as transport:
        await all_of((partial(ask, path) for path in paths), at_once=10)
        assert len(server.peers) <= 10
        assert all_idle(transport)


@quick
@plain_and_tls
async def test_bodies_as_long_as_buffers(anyio_backend: Any, secure: bool) -> None:
    """Replies whose length is about that of a network read arrive whole, one after the other."""
    head = len(b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n")
    sizes = [
        buffer * times + off
        for buffer in (1 << 14, 1 << 16)
        for times in (1, 2)
        for off in (-head - 1, -head, -head + 1, -1, 0, 1)
    ]
    replies = {
        f"/{size}": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"z" * size
        for size in sizes
    }
    async with serving(answering(replies), tls=secure) as server, connected(secure) as transport:
        for size in sizes:
            assert (await fetch(transport, f"{server.url}/{size}")).body == b"z" * size
        assert len(server.peers) == 1
