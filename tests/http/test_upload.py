"""Bodies of requests: how they are sent, and servers that do not want them."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient, RequestTimeout, ResponseError, Timeouts
from tests.support import is_quiet
from tests.wire import (
    Handler,
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

BIG = b"0123456789abcdef" * 2_000_000  # 32 MB: more than any buffer on the way
BROKEN = (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError)
TOO_BIG = ok(b'{"error":"too big"}', b"Connection: close", status=b"413 Too Large")


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()


async def tell_digest(peer: Peer) -> None:
    await peer.send(ok(digest(peer.asked[-1].body)))


class in_pieces(AsyncIterator[bytes]):
    """No generator: httpx wraps it in one, which the transport closes; one inside it could not."""

    def __init__(self, data: bytes, size: int = 100_000) -> None:
        self.rest = iter([data[start : start + size] for start in range(0, len(data), size)])

    async def __anext__(self) -> bytes:
        try:
            return next(self.rest)
        except StopIteration:
            raise StopAsyncIteration from None


# -- bodies that arrive ----------------------------------------------------------------------------


@plain_and_tls
@pytest.mark.parametrize("size", [0, 1, 1000, 70_000, 5_000_000])
@pytest.mark.parametrize("how", ["bytes", "iterator", "sized-iterator"])
async def test_a_body_arrives_as_it_is(
    anyio_backend: Any, size: int, how: str, secure: bool
) -> None:
    """Bytes and iterators, with a length or in chunks, arrive whole and leave a good connection."""
    body = (b"0123456789abcde" * (size // 15 + 1))[:size]
    async with (
        serving(answering({"/": tell_digest}), tls=secure) as server,
        connected(secure) as transport,
    ):
        for _ in range(2):
            content = body if how == "bytes" else in_pieces(body)
            headers = {"Content-Length": str(size)} if how == "sized-iterator" else {}
            got = await fetch(transport, server.url + "/", "POST", content=content, headers=headers)
            assert got.body == digest(body)
        asked = server.asked[-1]
        assert ("transfer-encoding" in asked.headers) == (how == "iterator")
        assert asked.headers.get("content-length") == (None if how == "iterator" else str(size))
        await works(transport, server)
        assert len(server.peers) <= (1 if how == "bytes" else 3)
        assert all_idle(transport)


async def test_empty_pieces_do_not_end_a_chunked_body(anyio_backend: Any) -> None:
    """A piece of nothing is not the chunk that says that the body is over."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"", b"one", b"", b"two", b""):
            yield piece

    async with serving(answering({"/": tell_digest})) as server, connected() as transport:
        got = await fetch(transport, server.url + "/", "POST", content=pieces())
        assert got.body == digest(b"onetwo")
        await works(transport, server)


@pytest.mark.parametrize("size", [5, 7])
async def test_a_body_of_another_length_than_it_says(anyio_backend: Any, size: int) -> None:
    """Too little or too much for its Content-Length is an error; nothing of it poisons the next."""
    async with serving(answering({"/": tell_digest})) as server, connected() as transport:
        await works(transport, server)
        with pytest.raises(httpx.LocalProtocolError):
            await fetch(
                transport,
                server.url + "/",
                "POST",
                content=in_pieces(b"x" * size, 1),
                headers={"Content-Length": "6"},
            )
        await works(transport, server)
        assert all_idle(transport)
        await server.until_open(transport.connections().open)


class MineError(Exception):
    """Nothing that a network could raise."""


@pytest.mark.parametrize("where", ["before", "between"])
@pytest.mark.parametrize(
    "kind", [MineError, OSError, TimeoutError, ConnectionResetError, anyio.EndOfStream]
)
async def test_a_producer_that_raises(anyio_backend: Any, where: str, kind: Any) -> None:
    """What the producer raises comes out as itself at once, and its connection is closed."""
    raised: list[Exception] = []

    async def pieces() -> AsyncIterator[bytes]:
        if where == "between":
            yield b"x" * 100
            await settle()
        raised.append(kind("mine"))
        raise raised[-1]

    async with serving(answering()) as server, connected() as transport:
        for _ in range(2):
            with pytest.raises(kind) as caught:
                await fetch(transport, server.url + "/ok/", "POST", content=pieces())
            assert caught.value is raised[-1]
            assert all_idle(transport)
            await server.until_open(transport.connections().open)
            assert not server.asked
        await works(transport, server)


async def test_a_producer_that_waits_is_cancelled(anyio_backend: Any) -> None:
    """Cancelling a request whose body is not there yet ends both, with the producer's cleanup."""
    cleaned: list[str] = []
    waiting = anyio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            waiting.set()
            await anyio.sleep_forever()
        finally:
            cleaned.append("yes")

    async with serving(answering()) as server, connected() as transport:
        async with anyio.create_task_group() as tasks:
            body = pieces()
            request = httpx.Request("POST", server.url + "/", content=body)
            tasks.start_soon(transport.handle_async_request, request)
            await waiting.wait()
            tasks.cancel_scope.cancel()
        assert cleaned
        assert transport.connections() == (0, 0)
        await server.until_open(0)
        await body.aclose()


async def test_reading_goes_on_while_the_producer_waits(anyio_backend: Any) -> None:
    """A refusal that comes while the body's next piece is awaited ends the request."""
    never = anyio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        await never.wait()
        yield b"y"

    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.send(TOO_BIG)
        await peer.finish()
        await peer.gone()

    body = pieces()
    async with serving(handle) as server, connected() as transport:
        got = await fetch(transport, server.url + "/", "POST", content=body)
        assert (got.status, got.body) == (413, b'{"error":"too big"}')
        assert transport.connections() == (0, 0)
        await server.until_open(0)
    await body.aclose()


# -- servers that do not read ----------------------------------------------------------------------


def deaf(let_go: anyio.Event) -> Handler:
    """Read the head of a request, and nothing more until the client has to be gone."""

    async def handle(peer: Peer) -> None:
        await peer.head()
        await let_go.wait()
        await peer.gone()

    return handle


@plain_and_tls
@pytest.mark.parametrize("how", ["bytes", "iterator"])
async def test_a_server_that_never_reads(anyio_backend: Any, how: str, secure: bool) -> None:
    """An upload that does not move for the write timeout is a WriteTimeout, and is closed."""
    let_go = anyio.Event()
    async with serving(deaf(let_go), tls=secure) as server, connected(secure) as transport:
        content = BIG if how == "bytes" else in_pieces(BIG)
        with pytest.raises(httpx.WriteTimeout):
            await fetch(
                transport, server.url + "/", "POST", content=content, timeout={"write": 0.05}
            )
        assert transport.connections() == (0, 0)
        let_go.set()
        await server.until_open(0)


@plain_and_tls
@pytest.mark.parametrize("how", ["bytes", "iterator"])
async def test_an_upload_that_is_cancelled(anyio_backend: Any, how: str, secure: bool) -> None:
    """A cancelled upload ends at once, though the server takes nothing; its connection is closed."""
    let_go = anyio.Event()
    async with serving(deaf(let_go), tls=secure) as server, connected(secure) as transport:
        async with anyio.create_task_group() as tasks:
            content = BIG if how == "bytes" else in_pieces(BIG)
            request = httpx.Request("POST", server.url + "/", content=content)
            tasks.start_soon(transport.handle_async_request, request)
            await until(lambda: len(server.asked) == 1)
            await settle(50)
            tasks.cancel_scope.cancel()
            started = anyio.current_time()
        assert anyio.current_time() - started < 2
        assert transport.connections() == (0, 0)
        let_go.set()
        await server.until_open(0)


async def test_a_clients_upload_that_does_not_move(anyio_backend: Any) -> None:
    """Through the public client it is the idle limit that passes."""

    async def handle(peer: Peer) -> None:
        while (asked := await peer.head()) is not None:
            if asked.method == "POST":
                await let_go.wait()
                return
            await peer.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    let_go = anyio.Event()
    async with serving(handle) as server:
        async with AsyncClient(server.url, timeout=Timeouts(idle=0.15)) as client:
            with pytest.raises(RequestTimeout) as caught:
                await client.create_blob(BIG)
            assert caught.value.limit == "idle"
            assert is_quiet(client)
            let_go.set()


# -- answers before their time ---------------------------------------------------------------------


@plain_and_tls
@pytest.mark.parametrize("how", ["bytes", "iterator"])
@pytest.mark.parametrize("ending", ["stays", "finish", "reads on", "close"])
async def test_an_answer_before_the_upload_ends(
    anyio_backend: Any, how: str, ending: str, secure: bool
) -> None:
    """The answer is what the caller gets, whatever becomes of the rest of the upload."""

    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.send(TOO_BIG)
        if ending == "finish":
            await peer.finish()
        if ending == "reads on":
            await peer.gone()
        elif ending != "close":
            await anyio.sleep(0.02)  # a while in which the sending is stuck
            await peer.gone()

    async with serving(handle, tls=secure) as server, connected(secure) as transport:
        content = BIG if how == "bytes" else in_pieces(BIG)
        got = await fetch(transport, server.url + "/", "POST", content=content)
        assert (got.status, got.body) == (413, b'{"error":"too big"}')
        assert transport.connections() == (0, 0)
        await server.until_open(0)
        assert len(server.asked) == 1


@plain_and_tls
async def test_an_early_answer_without_close(anyio_backend: Any, secure: bool) -> None:
    """A connection whose upload was not finished is not used again, whatever the answer says."""

    async def handle(peer: Peer) -> None:
        if len(server.peers) > 1:
            return await answering()(peer)
        await peer.head()
        await peer.send(ok(b"enough", status=b"200 OK"))
        await peer.gone()

    async with serving(handle, tls=secure) as server, connected(secure) as transport:
        got = await fetch(transport, server.url + "/", "POST", content=BIG)
        assert got.body == b"enough"
        await works(transport, server)
        assert len(server.peers) == 2
        await server.until_open(1)


async def test_an_early_answer_with_a_long_body(anyio_backend: Any) -> None:
    """A long answer that begins before the upload ends is read to its own end."""
    size = 20_000_000

    async def handle(peer: Peer) -> None:
        async def read() -> None:
            nonlocal received
            while received < len(BIG):
                received += len(peer.data)
                peer.data = b""
                if not await peer._more():
                    return

        received = 0
        await peer.head()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            for _ in range(0, size, 100_000):
                await peer.send(b"y" * 100_000)
        await peer.gone()

    async with serving(handle) as server, connected() as transport:
        got = await fetch(transport, server.url + "/", "POST", content=BIG)
        assert len(got.body) == size


async def test_an_upload_that_breaks_without_answer(anyio_backend: Any) -> None:
    """A reset in the middle of an upload is an error, and nothing is sent a second time."""

    async def handle(peer: Peer) -> None:
        await peer.head()
        await settle(20)
        await peer.reset()

    async with serving(handle) as server, connected() as transport:
        for content in (BIG, in_pieces(BIG)):
            asked = len(server.asked)
            with pytest.raises(BROKEN):
                await fetch(transport, server.url + "/", "POST", content=content)
            assert len(server.asked) == asked + 1
            assert transport.connections() == (0, 0)


@pytest.mark.parametrize("ending", ["stays", "finish", "close"])
@pytest.mark.parametrize("status", [b"400 Bad Request", b"413 Too Large", b"500 Error"])
async def test_a_client_hears_an_early_refusal(
    anyio_backend: Any, ending: str, status: bytes
) -> None:
    """A long embed request that is refused before it is read gives the server's own words."""
    refusal = ok(b'{"error":"too much"}', b"Connection: close", status=status)

    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.send(refusal)
        if ending == "finish":
            await peer.finish()
        if ending != "close":
            await anyio.sleep(0.02)
            await peer.gone()

    async with serving(handle) as server, AsyncClient(server.url) as client:
        with pytest.raises(ResponseError, match="too much") as caught:
            await client.embed("m", BIG.decode())
        assert caught.value.status_code == int(status.split()[0])
        assert len(server.asked) == 1
        assert is_quiet(client)
