"""Opening connections: TLS and its failures, addresses, names, time limits."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import ssl
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.streams.tls
import httpx
import pytest
import trustme
from conftest import is_quiet
from wire import (
    CHUNKED_HELLO,
    Peer,
    all_idle,
    answering,
    authority,
    client_context,
    connected,
    fetch,
    ok,
    open_files,
    plain_and_tls,
    serving,
    settle,
    until,
    works,
)

from ollama_sc import AbortError, AsyncClient, ConnectError, RequestError, RequestTimeout, Timeouts
from ollama_sc._http import Transport

pytestmark = pytest.mark.anyio

VERSION = ok(b'{"version":"1"}')


# -- who the server is -----------------------------------------------------------------------------


async def test_a_server_that_nobody_vouches_for(anyio_backend: Any) -> None:
    """A certificate of an unknown authority is a ConnectError that says so; nothing is sent."""
    async with serving(answering(), tls=True) as server, connected() as transport:
        for _ in range(2):
            with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
                await fetch(transport, server.url + "/ok/")
            assert transport.connections() == (0, 0)
        await server.until_open(0)
        assert not server.asked


async def test_a_server_of_another_name(anyio_backend: Any) -> None:
    """A certificate for another name is a ConnectError; a matching one is fine."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost").configure_cert(context)
    async with serving(answering(), tls=context) as server, connected(secure=True) as transport:
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            await fetch(transport, server.url + "/ok/")
        got = await fetch(transport, server.url_of("localhost") + "/ok/")
        assert got.body == b"/ok/"


async def test_a_server_that_need_not_be_known(anyio_backend: Any) -> None:
    """`verify=False` takes any certificate."""
    async with serving(answering(), tls=True) as server, connected(verify=False) as transport:
        await works(transport, server)


@pytest.mark.parametrize("how", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_the_environments_authorities(
    anyio_backend: Any, how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They count with `trust_env`, and not without."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    pem = authority().cert_pem
    if how == "SSL_CERT_FILE":
        pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv(how, str(tmp_path / "ca.pem"))
    else:
        pem.write_to_path(str(tmp_path / f"{subject_hash(tmp_path)}.0"))
        monkeypatch.setenv(how, str(tmp_path))
    async with serving(answering({"/api/version": VERSION}), tls=True) as server:
        async with connected(trust_env=True) as transport:
            await works(transport, server)
        async with connected(trust_env=False) as transport:
            with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
                await fetch(transport, server.url + "/ok/")
        async with AsyncClient(server.url) as client:
            assert (await client.version()).version == "1"
        async with AsyncClient(server.url, trust_env=False) as client:
            with pytest.raises(ConnectError, match=r"(?i)certificate"):
                await client.version()


def subject_hash(folder: Path) -> str:
    """The name that OpenSSL looks an authority up by, out of its own tool."""
    import subprocess

    authority().cert_pem.write_to_path(str(folder / "x.pem"))
    try:
        done = subprocess.run(
            ["openssl", "x509", "-subject_hash", "-noout", "-in", folder / "x.pem"],
            capture_output=True,
            check=True,
            text=True,
        )
    except FileNotFoundError:
        pytest.skip("needs the openssl command")
    return done.stdout.strip()


async def test_authorities_from_a_file(anyio_backend: Any, tmp_path: Path) -> None:
    """`verify` can be the name of a file, as httpx has it, with httpx's own warning."""
    authority().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with serving(answering({"/api/version": VERSION}), tls=True) as server:
        with pytest.warns(DeprecationWarning):
            async with connected(verify=str(tmp_path / "ca.pem")) as transport:
                await works(transport, server)
        with pytest.warns(DeprecationWarning):
            async with AsyncClient(server.url, verify=str(tmp_path / "ca.pem")) as client:
                assert (await client.version()).version == "1"


@pytest.fixture
def demanding() -> tuple[ssl.SSLContext, trustme.LeafCert]:
    """A server that asks for a certificate of its own authority's, and such a certificate."""
    own = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1").configure_cert(context)
    context.verify_mode = ssl.CERT_REQUIRED
    own.configure_trust(context)
    return context, own.issue_cert("me@example.org")


@pytest.mark.parametrize("how", ["cert", "context"])
async def test_a_certificate_of_the_clients(
    anyio_backend: Any, how: str, demanding: Any, tmp_path: Path
) -> None:
    """A server that wants to know the client gets `cert`, or what the context has loaded."""
    context, mine = demanding
    known = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(known)
    options: dict[str, Any] = {"verify": known}
    if how == "context":
        mine.configure_cert(known)
    else:
        mine.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "mine.pem"))
        options["cert"] = str(tmp_path / "mine.pem")
    replies = {"/api/version": VERSION}
    async with serving(answering(replies), tls=context) as server:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`cert=...` is deprecated", DeprecationWarning)
            async with connected(**options) as transport:
                await works(transport, server)
                await works(transport, server)
            async with AsyncClient(server.url, **options) as client:
                assert (await client.version()).version == "1"
        async with connected(verify=client_context()) as transport:
            with pytest.raises(httpx.TransportError):
                await fetch(transport, server.url + "/ok/")
            assert transport.connections() == (0, 0)


async def test_only_http_1_is_spoken(anyio_backend: Any) -> None:
    """A server that would rather speak HTTP/2 is not taken up on it; its name is told to it."""
    names: list[Any] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.sni_callback = lambda sock, name, _: names.append(name)

    async def handle(peer: Peer) -> None:
        protocols.append(peer.stream.extra(anyio.streams.tls.TLSAttribute.alpn_protocol))
        await answering()(peer)

    protocols: list[Any] = []
    async with serving(handle, tls=context) as server, connected(secure=True) as transport:
        got = await fetch(transport, server.url_of("localhost") + "/ok/")
        assert got.body == b"/ok/"
    assert protocols[0] in (None, "http/1.1")
    assert names == ["localhost"]


async def test_plain_and_tls_in_one_transport(anyio_backend: Any) -> None:
    """Connections are kept apart by scheme, host and port."""
    async with (
        serving(answering(), tls=True) as secure,
        serving(answering()) as plain,
        serving(answering()) as other,
        connected(secure=True) as transport,
    ):
        for _ in range(2):
            for server in (secure, plain, other):
                await works(transport, server)
        assert transport.connections() == (3, 3)
        got = await fetch(transport, plain.url_of("localhost") + "/ok/")
        assert got.body == b"/ok/"
        assert len(plain.peers) == 2
        for server in (secure, other):
            assert len(server.peers) == 1


async def test_http_spoken_to_https_and_back(anyio_backend: Any) -> None:
    """The wrong scheme is an error on both sides, and leaves nothing open."""

    async def puzzled(peer: Peer) -> None:
        await peer.stream.receive()
        await peer.send(ok(b"what?", b"Connection: close", status=b"400 Bad Request"))
        await peer.finish()
        await peer.gone()

    async with serving(answering(), tls=True) as secure, serving(puzzled) as plain:
        async with connected(secure=True) as transport:
            with pytest.raises(httpx.ConnectError):
                await fetch(transport, plain.url.replace("http:", "https:") + "/ok/")
            with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
                await fetch(transport, secure.url.replace("https:", "http:") + "/ok/")
            assert transport.connections() == (0, 0)


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
        await anyio.sleep(0.15)
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


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "unix:///x"])
async def test_another_protocol(anyio_backend: Any, url: str) -> None:
    """What is neither http nor https is an UnsupportedProtocol."""
    async with connected() as transport:
        with pytest.raises(httpx.UnsupportedProtocol):
            await fetch(transport, url)


async def test_no_tls_is_prepared_for_plain_http(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TLS context, which takes its time, is made when an https host is asked, and then once."""
    made = 0
    create = ssl.SSLContext.__new__

    def counting(cls: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal made
        made += 1
        return create(cls, *args, **kwargs)

    client_context()  # made before we count
    async with serving(answering()) as plain, serving(answering(), tls=True) as secure:
        monkeypatch.setattr(ssl.SSLContext, "__new__", counting)
        async with connected(verify=False) as transport:
            await works(transport, plain)
            assert made == 0
            for _ in range(3):
                await works(transport, secure)
                await fetch(transport, secure.url + "/ok/", headers={"Connection": "close"})
            assert made <= 1
        async with AsyncClient(plain.url) as client:
            await client.request("GET", "/ok/", type=bytes)
        assert made <= 1


async def test_tls_settings_that_are_wrong_open_nothing(
    anyio_backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read before there is a connection that would have to be closed."""
    broken = tmp_path / "ca.pem"
    broken.write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(broken))
    async with serving(answering({}), tls=True) as server:
        async with Transport() as transport:
            before = open_files()
            with pytest.raises(httpx.ConnectError):
                await fetch(transport, server.url + "/")
            assert open_files() == before
        assert not server.peers
