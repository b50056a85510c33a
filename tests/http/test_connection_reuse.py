"""Which connections are used again, and what becomes of a request on one that has died."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient, ConnectError
from tests.http.support import VERSION
from tests.support import MESSAGES, is_quiet, recording
from tests.wire import (
    Peer,
    all_idle,
    answering,
    connected,
    fetch,
    ok,
    plain_and_tls,
    serving,
    settle,
    until,
    works,
)

pytestmark = pytest.mark.anyio

DIED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


# -- keep-alive ------------------------------------------------------------------------------------


@plain_and_tls
async def test_requests_in_a_row_use_one_connection(anyio_backend: Any, secure: bool) -> None:
    """Fifty requests one after the other, of all methods, take one connection."""
    async with serving(answering(), tls=secure) as server, connected(secure) as transport:
        for number in range(50):
            method = ["GET", "POST", "PUT", "DELETE"][number % 4]
            got = await fetch(transport, f"{server.url}/ok/{number}", method)
            assert got.body == f"/ok/{number}".encode()
            assert transport.connections() == (1, 1)
        assert len(server.peers) == 1


async def test_a_client_in_a_row_uses_one_connection(anyio_backend: Any) -> None:
    """Calls and streams of the public client, one after the other, take one connection."""
    stream = recording("chat-stream").replace(b"Connection: close\r\n", b"")
    async with serving(answering({"/api/version": VERSION, "/api/chat": stream})) as server:
        async with AsyncClient(server.url) as client:
            for _ in range(5):
                await client.version()
                async with await client.chat("m", MESSAGES, stream=True) as parts:
                    assert [part async for part in parts][-1].done
            assert client.statistics()[4:] == (1, 1)
        assert len(server.peers) == 1


async def test_requests_side_by_side_take_a_connection_each(anyio_backend: Any) -> None:
    """None waits for another's connection; those that are idle afterwards are used again."""
    everyone = anyio.Event()
    waiting = 0

    async def together(peer: Peer) -> None:
        nonlocal waiting
        waiting += 1
        if waiting % 60 == 0:
            everyone.set()
        await everyone.wait()
        await peer.send(ok())

    async with serving(answering({"/": together})) as server, connected() as transport:
        for _ in range(2):
            everyone = anyio.Event()
            async with anyio.create_task_group() as tasks:
                for _ in range(60):
                    tasks.start_soon(fetch, transport, server.url + "/")
            assert transport.connections() == (60, 60)
        assert len(server.peers) == 60


@plain_and_tls
async def test_the_connection_that_came_back_last_is_used_first(
    anyio_backend: Any, secure: bool
) -> None:
    """Idle connections are a stack: the others may go stale in peace."""
    go = {name: anyio.Event() for name in "abc"}

    async def hold(peer: Peer) -> None:
        await go[peer.asked[-1].target[1:]].wait()
        await peer.send(ok(b"%d" % peer.number))

    async with (
        serving(answering({f"/{name}": hold for name in "abc"}), tls=secure) as server,
        connected(secure) as transport,
    ):
        numbers: dict[str, int] = {}

        async def ask(name: str) -> None:
            numbers[name] = int((await fetch(transport, f"{server.url}/{name}")).body)

        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(ask, name)
            await until(lambda: len(server.asked) == 3)
            for count, name in enumerate("bca"):
                go[name].set()
                await until(lambda: transport.connections().idle == count + 1)
        for _ in range(4):
            await works(transport, server)
        assert len(server.peers[numbers["a"]].asked) == 5
        assert [len(peer.asked) for peer in server.peers].count(1) == 2


@pytest.mark.parametrize(
    "reply",
    [
        ok(b"ok", b"Connection: close"),
        ok(b"ok", b"connection: Close"),
        ok(b"ok", b"Connection: x, close"),
        ok(b"ok", b"Connection: x", b"Connection: close"),
        ok(b"ok", b"Connection: close", b"Connection: x"),
        ok(b"ok", b"Connection: close\t"),
        ok(b"ok").replace(b"1.1", b"1.0"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        b"2\r\nok\r\n0\r\n\r\n",
    ],
    ids=["close", "case", "list", "lines", "first-line", "tab", "1.0", "chunked"],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@plain_and_tls
async def test_a_server_that_wants_no_more(
    anyio_backend: Any, reply: bytes, method: str, secure: bool
) -> None:
    """A connection that the reply says is over is closed at once, by the client."""
    body = b"ok" if method == "GET" else b""

    async def handle(peer: Peer) -> None:
        await peer.send(reply if body else reply.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        await peer.gone()

    async with (
        serving(answering({"/": handle}), tls=secure) as server,
        connected(secure) as transport,
    ):
        for number in range(3):
            assert (await fetch(transport, server.url + "/", method)).body == body
            assert transport.connections() == (0, 0)
            await server.until_open(0)
            assert len(server.peers) == number + 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_http_1_0_with_keep_alive(anyio_backend: Any, method: str) -> None:
    """HTTP/1.0 that says keep-alive may be used again, and gives the right replies if it is."""
    reply = ok(b"" if method == "HEAD" else b"ok", b"Connection: keep-alive")
    reply = reply.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Length: 0", b"Length: 2")
    async with serving(answering({"/": reply})) as server, connected() as transport:
        for _ in range(3):
            got = await fetch(transport, server.url + "/", method)
            assert got.body == (b"" if method == "HEAD" else b"ok")
            assert got.version == b"HTTP/1.0"
            await works(transport, server)
        assert all_idle(transport)


async def test_a_request_that_says_close(anyio_backend: Any) -> None:
    """A request with `Connection: close` gives no connection back."""
    async with serving(answering()) as server, connected() as transport:
        for _ in range(2):
            got = await fetch(transport, server.url + "/ok/", headers={"Connection": "close"})
            assert got.body == b"/ok/"
            await until(lambda: transport.connections() == (0, 0))
            await server.until_open(0)
        assert len(server.peers) == 2


async def test_every_head_reply_leaves_a_good_connection(anyio_backend: Any) -> None:
    """After replies without body, whatever their headers say, the next one is read right."""
    no_body = {
        "/length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        "/chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "/neither": b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
        "/204": b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n",
        "/304": b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n",
        "/404": b"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\n",
        "/100": b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    }
    async with serving(answering(no_body)) as server, connected() as transport:
        for _ in range(2):
            for path in no_body:
                method = "GET" if path in ("/204", "/304") else "HEAD"
                got = await fetch(transport, server.url + path, method)
                assert got.body == b""
                await works(transport, server, path)
        assert all_idle(transport)


# -- idle connections that die ---------------------------------------------------------------------


@plain_and_tls
@pytest.mark.parametrize("how", ["finish", "cut", "reset", "close"])
async def test_an_idle_connection_that_the_server_ends(
    anyio_backend: Any, how: str, secure: bool
) -> None:
    """The next request goes over a new one, is asked once, and the old one is closed."""

    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(ok())
        await settle()
        if how != "close":
            await getattr(peer, how)()
        if how in ("finish", "cut"):
            await peer.gone()

    async with serving(handle, tls=secure) as server, connected(secure) as transport:
        for number in range(4):
            assert (await fetch(transport, server.url + "/", "POST", content=b"x")).body == b"ok"
            assert len(server.peers) == number + 1
            await settle(20)
        assert len(server.asked) == 4
        assert transport.connections().open <= 1


@plain_and_tls
@pytest.mark.parametrize("how", ["finish", "reset"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_ends_under_its_second_request(
    anyio_backend: Any, how: str, secure: bool, method: str
) -> None:
    """A request on a reused connection that dies before the reply is sent once more, whole."""
    body = b"b" * 100_000 if method == "POST" else b""

    async def handle(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            if asked.target == "/" and peer.number == 0:
                return await getattr(peer, how)()
            await peer.send(ok(asked.target.encode()))

    async with serving(handle, tls=secure) as server, connected(secure) as transport:
        await works(transport, server)
        got = await fetch(transport, server.url + "/", method, content=body)
        assert got.body == b"/"
        await works(transport, server)
        assert [[asked.target for asked in peer.asked] for peer in server.peers] == [
            ["/ok/", "/"],
            ["/", "/ok/"],
        ]
        assert server.asked[2].body == body
        assert transport.connections() == (1, 1)


@pytest.mark.parametrize("how", ["finish", "reset"])
async def test_a_request_is_sent_twice_at_the_most(anyio_backend: Any, how: str) -> None:
    """A second try that dies too is an error, and so is a first try on a new connection."""

    async def die(peer: Peer) -> None:
        await getattr(peer, how)()
        await settle()

    async with serving(answering({"/": die})) as server, connected() as transport:
        with pytest.raises(DIED):
            await fetch(transport, server.url + "/")
        assert len(server.asked) == 1
        await works(transport, server)
        with pytest.raises(DIED):
            await fetch(transport, server.url + "/")
        assert [asked.target for asked in server.asked] == ["/", "/ok/", "/", "/"]
        assert transport.connections() == (0, 0)
        await works(transport, server)


async def test_the_second_try_has_a_new_connection(anyio_backend: Any) -> None:
    """Where one idle connection dies under a request the others may be dead too: none is tried."""
    everyone = anyio.Event()
    old = 8

    async def handle(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            if asked.target == "/first":
                if len(server.asked) == old:
                    everyone.set()
                await everyone.wait()
            elif peer.number < old:
                return
            await peer.send(ok(asked.target.encode()))

    async with serving(handle) as server, connected() as transport:
        async with anyio.create_task_group() as tasks:
            for _ in range(old):
                tasks.start_soon(fetch, transport, server.url + "/first")
        assert transport.connections() == (old, old)
        for _ in range(3):
            assert (await fetch(transport, server.url + "/second")).body == b"/second"


@plain_and_tls
@pytest.mark.parametrize(
    "piece",
    [b"H", b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 100 Continue\r\n\r\n"],
    ids=["byte", "head", "1xx"],
)
@pytest.mark.parametrize("how", ["finish", "reset"])
async def test_a_reply_that_has_begun_is_not_asked_for_again(
    anyio_backend: Any, piece: bytes, how: str, secure: bool
) -> None:
    """From its first byte on, a broken reply on a reused connection is an error."""

    async def half(peer: Peer) -> None:
        await peer.send(piece)
        await settle()
        await getattr(peer, how)()

    async with (
        serving(answering({"/": half}), tls=secure) as server,
        connected(secure) as transport,
    ):
        await works(transport, server)
        with pytest.raises(DIED):
            await fetch(transport, server.url + "/")
        assert [asked.target for asked in server.asked] == ["/ok/", "/"]
        assert transport.connections() == (0, 0)
        await works(transport, server)


@pytest.mark.parametrize("how", ["finish", "reset"])
async def test_a_body_that_can_be_sent_only_once(anyio_backend: Any, how: str) -> None:
    """It arrives whole or the request is an error; never half of it, never an empty one."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async def die_once(peer: Peer) -> None:
        if peer.number == 0:
            await getattr(peer, how)()
        else:
            await peer.send(ok(peer.asked[-1].body))

    async with serving(answering({"/": die_once})) as server, connected() as transport:
        await works(transport, server)
        try:
            got = await fetch(transport, server.url + "/", "POST", content=pieces())
        except DIED:
            pass
        else:
            assert got.body == b"onetwo"  # it had a connection of its own
        assert {asked.body for asked in server.asked if asked.target == "/"} <= {b"onetwo"}
        await works(transport, server)
        assert all_idle(transport)


@plain_and_tls
async def test_many_idle_connections_all_dead(anyio_backend: Any, secure: bool) -> None:
    """After a server restart each request succeeds, and the dead connections are closed."""
    everyone = anyio.Event()
    restart = anyio.Event()

    async def handle(peer: Peer) -> None:
        asked = await peer.request()
        if asked is not None and asked.target == "/first":
            if len(server.asked) == 20:
                everyone.set()
            await everyone.wait()
            await peer.send(ok())
            await restart.wait()
            return await peer.finish()
        while asked is not None:
            await peer.send(ok(asked.target.encode()))
            asked = await peer.request()

    async with serving(handle, tls=secure) as server, connected(secure) as transport:
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(fetch, transport, server.url + "/first")
        restart.set()
        await settle(20)
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(works, transport, server, number)
        assert all_idle(transport)
        assert transport.connections().open <= 20


@pytest.mark.parametrize("how", ["finish", "reset"])
async def test_a_client_asks_again_once(anyio_backend: Any, how: str) -> None:
    """A call on a dead reused connection is asked again, once; then it is a ConnectError."""
    dies = 1

    async def version(peer: Peer) -> None:
        nonlocal dies
        if len(peer.asked) > 1 or dies > 1:
            dies -= 1
            return await getattr(peer, how)()
        await peer.send(VERSION)

    async with serving(answering({"/api/version": version})) as server:
        async with AsyncClient(server.url) as client:
            await client.version()
            await client.version()
            assert [len(peer.asked) for peer in server.peers] == [2, 1]
            dies = 3
            with pytest.raises(ConnectError):
                await client.version()
            assert [len(peer.asked) for peer in server.peers] == [2, 2, 1]
            assert is_quiet(client)
            assert client.statistics()[4:] == (0, 0)
