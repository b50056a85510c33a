"""TLS as it is configured: who the server is, who the client is, and what is spoken."""

from __future__ import annotations

import ssl
import subprocess
import warnings
from pathlib import Path
from typing import Any

import anyio
import anyio.streams.tls
import httpx
import pytest
import trustme

from ollama_sc import AsyncClient, ConnectError
from ollama_sc._http.transport import Transport
from tests.http.support import VERSION
from tests.wire import (
    Peer,
    answering,
    authority,
    client_context,
    connected,
    fetch,
    ok,
    open_files,
    serving,
    works,
)

pytestmark = pytest.mark.anyio


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


# -- who the client is -----------------------------------------------------------------------------


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


# -- what is spoken --------------------------------------------------------------------------------


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


# -- when its settings are read --------------------------------------------------------------------


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
