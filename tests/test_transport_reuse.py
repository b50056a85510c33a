"""Which connections are used again, and what becomes of a request on one that has died."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import httpx
import pytest
from conftest import MESSAGES, is_quiet, recording
from wire import (
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

from ollama_sc import AsyncClient, ConnectError, OllamaError

pytestmark = pytest.mark.anyio

DIED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
VERSION = b'{"version":"1"}'


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
    async with serving(answering({"/api/version": ok(VERSION), "/api/chat": stream})) as server:
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


class Pieces(httpx.AsyncByteStream):
    """A body that can be read once, as a generator's."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.begun = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun += 1
        assert self.begun == 1
        for piece in self.pieces:
            yield piece


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


# -- bytes that belong to no request ---------------------------------------------------------------

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


# -- cancelled, in every phase ---------------------------------------------------------------------

PHASES = {
    "silence": b"",
    "head": b"HTTP/1.1 200 OK\r\nContent-",
    "informed": b"HTTP/1.1 103 Hints\r\n\r\n",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "closing": b"HTTP/1.1 200 OK\r\n\r\nhello",
}


@plain_and_tls
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
async def test_a_cancelled_request_closes_its_connection(
    anyio_backend: Any, phase: str, reused: bool, secure: bool
) -> None:
    """In whatever phase a request is cancelled, the server sees its connection close."""
    there = anyio.Event()

    async def handle(peer: Peer) -> None:
        await peer.send(PHASES[phase])
        await settle(20)
        there.set()
        await peer.gone()

    async with (
        serving(answering({"/": handle}), tls=secure) as server,
        connected(secure) as transport,
    ):
        if reused:
            await works(transport, server)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch, transport, server.url + "/")
            await there.wait()
            assert transport.connections() == (1, 0)
            tasks.cancel_scope.cancel()
        assert transport.connections() == (0, 0)
        await server.until_open(0)
        await works(transport, server)


async def test_a_cancel_that_comes_with_the_last_byte(anyio_backend: Any) -> None:
    """Cancelled just where the reply ends: the connection is closed or clean, never half-read."""

    async def handle(peer: Peer) -> None:
        await peer.send(ok(b"mine")[:-1])
        await settle()
        await peer.send(b"e")
        scopes[-1].cancel()

    scopes: list[anyio.CancelScope] = []
    async with serving(answering({"/": handle})) as server, connected() as transport:
        for number in range(30):
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await fetch(transport, server.url + "/")
            await works(transport, server, number)
            assert all_idle(transport)
            await server.until_open(transport.connections().open)


# -- the public client's words ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["finish", "reset"])
async def test_a_client_asks_again_once(anyio_backend: Any, how: str) -> None:
    """A call on a dead reused connection is asked again, once; then it is a ConnectError."""
    dies = 1

    async def version(peer: Peer) -> None:
        nonlocal dies
        if len(peer.asked) > 1 or dies > 1:
            dies -= 1
            return await getattr(peer, how)()
        await peer.send(ok(VERSION))

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
                with anyio.move_on_after(0.0007 * (number % 5) if number % 2 else LONG):
                    got = await fetch(transport, f"{server.url}/{number}")
                    assert got.body == b"/%d" % number

        async with anyio.create_task_group() as tasks:
            for first in range(0, 250, 25):
                tasks.start_soon(worker, first)
        assert all_idle(transport)
        await until(lambda: server.open <= transport.connections().open)


LONG = 20.0


async def test_a_failing_stream_of_a_client_is_its_own_error(anyio_backend: Any) -> None:
    """A stream that is reset in the middle is an OllamaError, and its sibling goes on."""
    stream = recording("chat-stream")
    half = anyio.Event()

    async def chat(peer: Peer) -> None:
        if peer.number == 0:
            await peer.send(stream[:600])
            await settle()
            await peer.reset()
            half.set()
        else:
            await peer.send(stream[:600])
            await half.wait()
            await peer.send(stream[600:])

    outcomes: list[Any] = []

    async def ask() -> None:
        try:
            async with await client.chat("m", MESSAGES, stream=True) as parts:
                outcomes.append(len([part async for part in parts]))
        except OllamaError as error:
            outcomes.append(error)

    async with serving(answering({"/api/chat": chat})) as server:
        async with AsyncClient(server.url) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(partial(ask))
    assert sum(isinstance(outcome, OllamaError) for outcome in outcomes) == 1
    assert max(outcome for outcome in outcomes if isinstance(outcome, int)) > 5
