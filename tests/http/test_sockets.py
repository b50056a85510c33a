"""Opening connections: addresses and names, nobody there, time limits."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

import anyio
import anyio.streams.tls
import httpx
import pytest

from ollama_sc import AsyncClient, ConnectError, RequestError, RequestTimeout, Timeouts
from tests.http.support import VERSION
from tests.wire import (
    Peer,
    all_idle,
    answering,
    client_context,
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


# -- addresses -------------------------------------------------------------------------------------


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on the loopback interface")


@needs_ipv6
@plain_and_tls
async def test_an_ipv6_address(anyio_backend: Any, secure: bool) -> None:
    """An address in brackets is connected to, and named so in `Host`."""
    replies = {"/api/version": VERSION}
    async with serving(answering(replies), tls=secure, host="::1") as server:
        async with connected(secure) as transport:
            await works(transport, server)
            assert server.asked[0].headers["host"] == f"[::1]:{server.port}"
        options: Any = {"verify": client_context()} if secure else {}
        async with AsyncClient(server.url, **options) as client:
            assert (await client.version()).version == "1"


@needs_ipv6
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@plain_and_tls
async def test_a_name_with_two_addresses(
    anyio_backend: Any, host: str, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a name has addresses of both kinds and one is dead, the other is found."""
    resolve = socket.getaddrinfo

    def both(name: Any, port: Any, family: int = 0, *args: Any, **kwargs: Any) -> Any:
        if name not in ("localhost", b"localhost"):
            return resolve(name, port, family, *args, **kwargs)
        return [
            (kind, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address)
            for kind, address in (
                (socket.AF_INET6, ("::1", int(port or 0), 0, 0)),
                (socket.AF_INET, ("127.0.0.1", int(port or 0))),
            )
            if family in (0, kind)
        ]

    async with serving(answering(), tls=secure, host=host) as server:
        monkeypatch.setattr(socket, "getaddrinfo", both)
        async with connected(secure) as transport:
            got = await fetch(transport, server.url_of("localhost") + "/ok/")
            assert got.body == b"/ok/"
            assert transport.connections() == (1, 1)
            assert server.asked[0].headers["host"] == f"localhost:{server.port}"


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "unix:///x"])
async def test_another_protocol(anyio_backend: Any, url: str) -> None:
    """What is neither http nor https is an UnsupportedProtocol."""
    async with connected() as transport:
        with pytest.raises(httpx.UnsupportedProtocol):
            await fetch(transport, url)


# -- no connection ---------------------------------------------------------------------------------


@plain_and_tls
async def test_nobody_listens(anyio_backend: Any, secure: bool) -> None:
    """A refused connection is a ConnectError, of the client's too."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        url = f"http{'s' * secure}://127.0.0.1:{sock.getsockname()[1]}"
        async with connected(secure) as transport:
            for _ in range(2):
                with pytest.raises(httpx.ConnectError) as caught:
                    await fetch(transport, url + "/")
                assert str(caught.value)
            assert transport.connections() == (0, 0)
        async with AsyncClient(url) as client:
            with pytest.raises(ConnectError, match=r"127\.0\.0\.1"):
                await client.version()


@pytest.mark.parametrize("name", ["nothing.invalid", "a" * 70 + ".invalid", "a..invalid"])
async def test_a_name_that_cannot_be_found(
    anyio_backend: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown or impossible name is a ConnectError; of a client, or refused before."""

    def unknown(host: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(host, str):
            host.encode("idna")  # as the real one does
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with connected() as transport:
        with pytest.raises(httpx.ConnectError) as caught:
            await fetch(transport, f"http://{name}:1/")
        assert str(caught.value)
    with pytest.raises((ConnectError, RequestError)):
        async with AsyncClient(f"http://{name}:1") as client:
            await client.version()


@plain_and_tls
async def test_no_descriptor_is_left_to_take(
    anyio_backend: Any, secure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system has none left a request is a ConnectError, and nothing of it stays open."""

    def none_left(*args: Any) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    async with serving(answering(), tls=secure) as server, connected(secure) as transport:
        with monkeypatch.context() as patched:
            patched.setattr(os, "dup", none_left)
            with contextlib.suppress(httpx.ConnectError):
                await fetch(transport, server.url + "/ok/", headers={"Connection": "close"})
        await server.until_open(0)
        await works(transport, server)
        assert all_idle(transport)


@plain_and_tls
async def test_no_socket_is_left_of_a_cancelled_connect(anyio_backend: Any, secure: bool) -> None:
    """Cancelled after any number of steps on its way to an answer, a request leaves no socket."""
    async with serving(answering(), tls=secure) as server, connected(secure) as transport:
        for rounds in range(0, 60, 2):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(fetch, transport, server.url + "/ok/")
                await settle(rounds)
                tasks.cancel_scope.cancel()
            assert all_idle(transport)
            await until(lambda: server.open <= transport.connections().open)
        await works(transport, server)


# -- time limits -----------------------------------------------------------------------------------


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a socket that takes no connection any more, and refuses none."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            try:
                sock.connect(listener.getsockname())
            except BlockingIOError:
                pass
        yield listener.getsockname()[1]


async def test_a_connect_that_never_ends(anyio_backend: Any, full: int) -> None:
    """The connect timeout ends it with a ConnectTimeout, the client's with a RequestTimeout."""
    url = f"http://127.0.0.1:{full}"
    async with connected() as transport:
        with pytest.raises(httpx.ConnectTimeout):
            await fetch(transport, url + "/", timeout={"connect": 0.1})
        assert transport.connections() == (0, 0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch, transport, url + "/")
            await settle(20)
            tasks.cancel_scope.cancel()
        assert transport.connections() == (0, 0)
    async with AsyncClient(url, timeout=Timeouts(connect=0.1)) as client:
        with pytest.raises(RequestTimeout) as caught:
            await client.version()
        assert caught.value.limit == "connect"


@pytest.mark.parametrize("timeout", [None, {}, {"connect": None}, {"read": None, "write": None}])
async def test_no_timeout_is_no_limit(anyio_backend: Any, timeout: Any) -> None:
    """Absent limits and limits of None are the same."""
    async with serving(answering()) as server, connected() as transport:
        got = await fetch(transport, server.url + "/ok/", timeout=timeout)
        assert got.body == b"/ok/"


@plain_and_tls
async def test_a_timeout_does_not_outlive_its_request(anyio_backend: Any, secure: bool) -> None:
    """The limits of one request are not those of the next on the same connection."""

    async def slow(peer: Peer) -> None:
        await anyio.sleep(0.08)  # longer than the first request's limits
        await peer.send(ok(b"slow"))

    async with (
        serving(answering({"/": slow}), tls=secure) as server,
        connected(secure) as transport,
    ):
        limits = {"connect": 5, "read": 0.05, "write": 0.05, "pool": 0.05}
        await fetch(transport, server.url + "/ok/", timeout=limits)
        assert (await fetch(transport, server.url + "/")).body == b"slow"
        assert (await fetch(transport, server.url + "/", timeout={"read": 5})).body == b"slow"
        assert len(server.peers) == 1
