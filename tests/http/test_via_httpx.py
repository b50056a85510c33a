"""What httpx does for its users keeps working: redirects, mounts, proxies, whom to trust."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient, ConnectError, OllamaError, ResponseError
from ollama_sc.testing import FakeOllama
from tests.http.support import VERSION, exhaust, nothing, one_of_each
from tests.support import MESSAGES, recording
from tests.wire import Peer, authority, client_context, ok, server_context, serving

pytestmark = pytest.mark.anyio


# -- redirects, mounts, transports -----------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_follow_redirects(anyio_backend: Any, status: int) -> None:
    """With `follow_redirects` httpx follows to another server, as its own rules have it."""

    async def there(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(VERSION)

    async def here(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            place = f"Location: {other.url}{asked.target}".encode()
            await peer.send(ok(b"moved", place, status=b"%d Moved" % status))

    async with serving(there) as other, serving(here) as server:
        async with AsyncClient(server.url, follow_redirects=True) as client:
            for _ in range(2):
                assert (await client.version()).version == "1"
        async with AsyncClient(server.url, follow_redirects=False) as client:
            with pytest.raises(ResponseError) as caught:
                await client.version()
            assert caught.value.status_code == status
        assert len(other.asked) == 2
        assert len(server.peers) == 2


@pytest.mark.parametrize("broken", [False, True])
async def test_an_error_behind_a_redirect_names_whom_it_is_about(
    anyio_backend: Any, broken: bool
) -> None:
    """Not the server that redirects, which was there; and no password."""

    async def there(peer: Peer) -> None:
        await peer.request()

    async def here(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            place = target.replace("//", "//ann:secret@") + asked.target
            await peer.send(ok(b"moved", b"Location: " + place.encode(), status=b"307 Moved"))

    with socket.create_server(("127.0.0.1", 0)) as closed:
        target = f"http://127.0.0.1:{closed.getsockname()[1]}"
    async with serving(there) as other, serving(here) as server:
        target = other.url if broken else target
        async with AsyncClient(server.url, follow_redirects=True) as client:
            with pytest.raises(ConnectError) as caught:
                await client.version()
    assert target in str(caught.value)
    assert server.url not in str(caught.value)
    assert "secret" not in str(caught.value)


class Counting(httpx.AsyncBaseTransport):
    """A transport of the user's that notes what goes through it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.closed = 0
        # With a context that is there already: to make one takes longer than all else here.
        self._below = httpx.AsyncHTTPTransport(verify=client_context())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request.url.path)
        return await self._below.handle_async_request(request)

    async def aclose(self) -> None:
        self.closed += 1
        await self._below.aclose()


@pytest.mark.parametrize("setting", ["transport", "all", "scheme", "host", "other"])
async def test_mounts_and_transport(fake: FakeOllama, setting: str) -> None:
    """A user's transport gets what its pattern says, and only that; it is closed in the end."""
    mine = Counting()
    patterns = {"all": "all://", "scheme": "http://", "host": fake.url, "other": "http://other"}
    options: Any = (
        {"transport": mine} if setting == "transport" else {"mounts": {patterns[setting]: mine}}
    )
    async with AsyncClient(fake.url, **options) as client:
        await one_of_each(client)
    assert len(mine.seen) == (0 if setting == "other" else len(fake.requests))
    assert mine.closed == 1


async def test_a_transport_of_the_users(anyio_backend: Any) -> None:
    """A stream through a user's transport works as any other."""

    async def answer(request: httpx.Request) -> httpx.Response:
        body = recording("chat-single").partition(b"\r\n\r\n")[2]
        return httpx.Response(200, content=body)

    async with AsyncClient(transport=httpx.MockTransport(answer)) as client:
        async with await client.chat("m", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        assert stream.result().complete


# -- proxies ---------------------------------------------------------------------------------------


async def proxy(peer: Peer) -> None:
    """A proxy: tunnels for https, and answers of its own in the name of everybody else."""
    while (asked := await peer.request()) is not None:
        if asked.method != "CONNECT":
            await peer.send(VERSION)
            continue
        host, _, port = asked.target.rpartition(":")
        async with await anyio.connect_tcp(host.strip("[]"), int(port)) as real:
            await peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(copy, peer.stream, real, tasks.cancel_scope)
                tasks.start_soon(copy, real, peer.stream, tasks.cancel_scope)
        return


async def copy(source: Any, sink: Any, scope: anyio.CancelScope) -> None:
    try:
        while True:
            await sink.send(await source.receive())
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        scope.cancel()


async def test_a_proxy_for_http(anyio_backend: Any) -> None:
    """With `proxy` requests go there, with whole URLs and the proxy's own password."""
    async with serving(proxy) as server:
        where = server.url.replace("//", "//ann:pw@")
        async with AsyncClient("http://far.invalid:1234", proxy=where) as client:
            for _ in range(2):
                assert (await client.version()).version == "1"
    first, second = server.asked
    assert first.target == second.target == "http://far.invalid:1234/api/version"
    assert first.headers["proxy-authorization"].startswith("Basic ")
    assert first.headers["host"] == "far.invalid:1234"


async def test_a_proxy_for_https(anyio_backend: Any) -> None:
    """Https goes through a tunnel, verified as without one; an abort closes it."""
    async with FakeOllama(ssl_context=server_context(), token_rate=50, tokens=1000) as fake:
        async with serving(proxy) as server:
            async with AsyncClient(fake.url, proxy=server.url, verify=client_context()) as client:
                assert (await client.version()).version
                stream = await client.chat("llama3.2", MESSAGES, stream=True)
                assert await anext(stream)
                assert client.abort() == 1
                await stream.aclose()
            assert {asked.method for asked in server.asked} == {"CONNECT"}
            async with AsyncClient(fake.url, proxy=server.url) as client:
                with pytest.raises(ConnectError, match=r"(?i)certificate"):
                    await client.version()


async def test_no_tunnel_is_kept_whose_handshake_failed(anyio_backend: Any) -> None:
    """Nor counted: what is behind it is not who it should be, or is no TLS at all."""

    async def liar(peer: Peer) -> None:
        assert await peer.request()
        await peer.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        await peer.stream.receive()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async with FakeOllama(ssl_context=server_context()) as fake, serving(proxy) as honest:
        async with serving(liar) as lying, AsyncClient(fake.url, proxy=honest.url) as client:
            other = AsyncClient("https://far.invalid", proxy=lying.url, verify=client_context())
            async with other:
                for one in (client, other):
                    with pytest.raises(ConnectError):
                        await one.version()
                    assert one.statistics().open == 0


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_the_environments_proxy(
    anyio_backend: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is used with `trust_env`, and not without, nor for whom `NO_PROXY` names."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with serving(proxy) as server:
        monkeypatch.setenv(name, server.url)
        async with AsyncClient("http://far.invalid") as client:
            assert (await client.version()).version == "1"
        assert [asked.target for asked in server.asked] == ["http://far.invalid/api/version"]
        nowhere(monkeypatch)
        async with AsyncClient("http://far.invalid", trust_env=False) as client:
            with pytest.raises(ConnectError):
                await client.version()
        monkeypatch.setenv("NO_PROXY", "far.invalid")
        async with AsyncClient("http://far.invalid") as client:
            with pytest.raises(ConnectError):
                await client.version()
        assert len(server.asked) == 1


def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name is known any more."""

    def unknown(host: Any, *args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)


# -- verify ----------------------------------------------------------------------------------------


async def test_verify_goes_with_every_way(anyio_backend: Any) -> None:
    """Trust is the same on the short way and on httpx's, and is not taken from elsewhere."""
    own = ssl.create_default_context()
    authority().configure_trust(own)
    async with FakeOllama(ssl_context=server_context()) as fake:
        for extra in ({}, {"event_hooks": {"request": [nothing]}}):
            for verify in (own, False):
                async with AsyncClient(fake.url, verify=verify, **extra) as client:
                    await one_of_each(client)
                    assert fake.open_connections == 1
            for wrong in ({}, {"verify": True}, {"verify": ssl.create_default_context()}):
                async with AsyncClient(fake.url, **wrong, **extra) as client:
                    with pytest.raises(ConnectError, match=r"(?i)certificate"):
                        await client.version()
                    with pytest.raises(OllamaError):
                        await client.create_blob(b"x")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 503 \x1b[2J\x9b\r\n\r\n", r"503 \\x1b\[2J"),
        (b"\x05\x00nonsense\r\n\r\n", r"not a reply of HTTP \(.*through the proxy"),
        (b"", "without sending a response"),
        (None, r"broke \(Connection reset by peer\)"),
    ],
    ids=["what steers a terminal", "no HTTP", "an end", "a reset"],
)
async def test_what_a_proxy_says_instead_of_a_tunnel(
    anyio_backend: Any, answer: bytes | None, told: str
) -> None:
    """It is told in the same words on every event loop, as text, and with the proxy's name."""

    async def handle(peer: Peer) -> None:
        assert await peer.head()
        if answer is None:
            await peer.reset()
            return
        await peer.send(answer)

    async with serving(handle) as server:
        options: Any = {"verify": client_context(), "proxy": server.url}
        async with AsyncClient("https://far.invalid", **options) as client:
            with pytest.raises(OllamaError, match=told) as caught:
                await client.version()
    text = str(caught.value)
    assert f"through the proxy {server.url}" in text
    assert text.isprintable()
