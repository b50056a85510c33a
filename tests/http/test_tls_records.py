"""TLS as bytes: handshakes that do not end, and records in any pieces."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.streams.tls
import httpx
import pytest

from ollama_sc import AbortError, AsyncClient, RequestTimeout, Timeouts
from tests.support import is_quiet
from tests.wire import (
    CHUNKED_HELLO,
    Peer,
    answering,
    client_context,
    connected,
    fetch,
    ok,
    serving,
    settle,
    until,
    works,
)

pytestmark = pytest.mark.anyio


# -- handshakes that do not end --------------------------------------------------------------------


async def test_a_handshake_that_never_ends(anyio_backend: Any) -> None:
    """The connect timeout is for the handshake too; the socket is closed."""
    async with serving(Peer.gone) as server, connected(secure=True) as transport:
        url = server.url.replace("http:", "https:")
        with pytest.raises(httpx.ConnectTimeout):
            await fetch(transport, url + "/", timeout={"connect": 0.1})
        assert transport.connections() == (0, 0)
        await server.until_open(0)
        async with AsyncClient(url, verify=client_context()) as client:
            with pytest.raises(RequestTimeout) as caught:
                await client.version(timeout=Timeouts(connect=0.1))
            assert caught.value.limit == "connect"
            await server.until_open(0)
            assert is_quiet(client)


@pytest.mark.parametrize("steps", range(4))
async def test_a_handshake_that_is_cancelled(anyio_backend: Any, steps: int) -> None:
    """Cancelled or aborted at any of its steps, a handshake leaves no socket."""
    hello = anyio.Event()

    async def relay(peer: Peer) -> None:
        """Pass on so many of the server's and the client's messages, then nothing more."""
        async with await anyio.connect_tcp("127.0.0.1", server.port) as real:
            for step in range(steps):
                source, sink = (peer.stream, real) if step % 2 == 0 else (real, peer.stream)
                await sink.send(await source.receive())
            hello.set()
            await peer.gone()

    async with serving(answering(), tls=True) as server, serving(relay) as middle:
        url = middle.url.replace("http:", "https:")
        async with connected(secure=True) as transport:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fetch, transport, url + "/ok/")
                await hello.wait()
                await settle(20)
                tasks.cancel_scope.cancel()
            assert transport.connections() == (0, 0)
            await middle.until_open(0)
            hello = anyio.Event()
        async with AsyncClient(url, verify=client_context()) as client:

            async def ask() -> None:
                with pytest.raises(AbortError):
                    await client.version()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                await hello.wait()
                await settle(20)
                assert client.abort() == 1
            await middle.until_open(0)
            assert is_quiet(client)
            assert client.statistics()[4:] == (0, 0)


async def test_a_handshake_that_is_cut(anyio_backend: Any) -> None:
    """Cut or reset after any number of its bytes, a handshake is a ConnectError; nothing leaks."""
    size = 0
    how = "cut"

    async def relay(peer: Peer) -> None:
        """Pass on so many bytes of the server's, then break the connection."""
        nonlocal most
        async with await anyio.connect_tcp("127.0.0.1", server.port) as real:

            async def forward() -> None:
                while data := await peer.stream.receive():
                    await real.send(data)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(quietly, forward)
                left = size
                while left:
                    data = (await real.receive())[:left]
                    await peer.stream.send(data)
                    left -= len(data)
                    most += len(data)
                await getattr(peer, how)()
                if how == "cut":
                    await until(lambda: transport.connections() == (0, 0))
                tasks.cancel_scope.cancel()

    async def quietly(function: Any) -> None:
        try:
            await function()
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    most = 0
    async with serving(answering(), tls=True) as server, serving(relay) as middle:
        async with connected(secure=True) as transport:
            for how in ("cut", "reset"):
                for size in (0, 1, 4, 5, 6, 60, 127, 128, 129, 300, 500):
                    with pytest.raises(httpx.ConnectError):
                        await fetch(transport, middle.url.replace("http:", "https:") + "/ok/")
                    assert transport.connections() == (0, 0)
            await works(transport, server)
    assert most > 2000


async def test_closing_the_transport_ends_handshakes(anyio_backend: Any) -> None:
    """Connections that are still being opened are closed too; who waits for one gets an error."""
    outcomes: list[Any] = []

    async def ask() -> None:
        try:
            outcomes.append(await fetch(transport, server.url.replace("http:", "https:")))
        except Exception as error:
            outcomes.append(error)

    async with serving(Peer.gone) as server, connected(secure=True) as transport:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(lambda: server.open == 1)
            await settle(20)
            await transport.aclose()
        assert isinstance(outcomes[0], httpx.TransportError), outcomes
        await server.until_open(0)


# -- records ---------------------------------------------------------------------------------------


async def test_records_in_any_pieces(anyio_backend: Any) -> None:
    """TLS records that come in pieces of any size, the handshake's too, make the same replies."""
    size = 1
    big = b"x" * 1_500

    async def relay(peer: Peer) -> None:
        async with await anyio.connect_tcp("127.0.0.1", server.port) as real:

            async def pass_on(source: Any, sink: Any) -> None:
                try:
                    while True:
                        data = await source.receive()
                        for start in range(0, len(data), size):
                            await sink.send(data[start : start + size])
                            await settle(1)
                except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                    tasks.cancel_scope.cancel()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(pass_on, peer.stream, real)
                tasks.start_soon(pass_on, real, peer.stream)

    replies = {"/": ok(big), "/chunked": CHUNKED_HELLO}
    async with serving(answering(replies), tls=True) as server, serving(relay) as middle:
        url = middle.url.replace("http:", "https:")
        for size in (7, 100, 1000):
            async with connected(secure=True) as transport:
                for _ in range(2):
                    assert (await fetch(transport, url + "/")).body == big
                    assert (await fetch(transport, url + "/chunked")).body == b"hello"
                assert transport.connections() == (1, 1)


@pytest.mark.parametrize("place", ["head", "body", "idle"])
async def test_a_record_that_is_none(anyio_backend: Any, place: str) -> None:
    """Bytes that are no TLS break the reply that they come in, or the idle connection."""
    reply = ok(b"hello")

    async def handle(peer: Peer) -> None:
        pieces = {"head": b"HTTP/1.1 200", "body": reply[:-2], "idle": reply}
        await peer.send(pieces[place])
        await settle()
        await peer.stream.transport_stream.send(b"\x17\x03\x03\x00\x20" + b"garbage!" * 4)
        await peer.gone()

    async with serving(answering({"/": handle}), tls=True) as server:
        async with connected(secure=True) as transport:
            if place == "idle":
                assert (await fetch(transport, server.url + "/")).body == b"hello"
                await settle(20)
            else:
                with pytest.raises(httpx.ReadError):
                    await fetch(transport, server.url + "/")
                assert transport.connections() == (0, 0)
            await works(transport, server)
            assert len(server.peers) == 2
            await server.until_open(1)


async def test_many_records_in_one_read(anyio_backend: Any) -> None:
    """All of a body arrives that came in many records, while the caller was elsewhere."""

    async def handle(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        for _ in range(600):
            await peer.send(b"y" * 100)

    async with serving(answering({"/": handle}), tls=True) as server:
        async with connected(secure=True) as transport:
            request = httpx.Request("GET", server.url + "/")
            response = await transport.handle_async_request(request)
            await settle(1500)
            with anyio.fail_after(5):
                assert await response.aread() == b"y" * 60000
            await response.aclose()
            assert transport.connections() == (1, 1)


async def test_a_handshakes_late_messages(anyio_backend: Any) -> None:
    """Session tickets that come after the handshake do not make an idle connection look stale."""
    async with serving(answering(), tls=True) as server, connected(secure=True) as transport:
        for number in range(5):
            await works(transport, server, number)
            await settle(20)
        assert len(server.peers) == 1
