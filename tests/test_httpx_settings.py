"""What users configure on httpx keeps working, whichever way a request takes below it."""

from __future__ import annotations

import base64
import contextvars
import ssl
from collections.abc import AsyncGenerator, Generator
from typing import Any

import anyio
import httpx
import pytest
from conftest import MESSAGES, is_quiet
from test_life import exhaust
from wire import (
    Peer,
    authority,
    client_context,
    ok,
    plain_and_tls,
    server_context,
    serving,
)

from ollama_sc import AsyncClient, ConnectError, OllamaError, ResponseError
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio

VERSION = ok(b'{"version":"1"}')
LINE = b'{"model":"m","message":{"role":"assistant","content":"x"},"done":%b}\n'


async def nothing(request: Any) -> None:
    """A hook that makes requests go the long way, through `httpx.AsyncClient.send`."""


async def one_of_each(client: AsyncClient) -> None:
    """Calls of every kind: no body, a body, a stream, an upload, none of the API's."""
    await client.version()
    await client.chat("llama3.2", MESSAGES)
    async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
        await exhaust(stream)
    await client.embed("nomic-embed-text", ["é", "x" * 100_000])
    await client.create_blob(b"blob" * 1000)
    await client.request("HEAD", "/api/version")
    await client.request("GET", "/api/tags?a=b%20c&d=ü")
    await client.copy("llama3.2", "other")
    await client.delete("other")


@pytest.mark.parametrize(
    ("host", "options"),
    [
        ("{}", {}),
        ("{}/", {"headers": {"X-Mine": "1", "user-agent": "me", "Accept": "mine"}}),
        ("{}", {"api_key": "k"}),
        ("{}", {"headers": {"Host": "localhost", "Authorization": "mine"}, "api_key": "k"}),
        ("localhost", {}),
    ],
)
async def test_both_ways_send_the_same(fake: FakeOllama, host: str, options: Any) -> None:
    """The short way to the server sends what httpx's own would have sent: lines and headers."""
    host = host.format(fake.url) if "{" in host else fake.url.replace("127.0.0.1", host)
    heads: list[Any] = []
    for extra in ({}, {"event_hooks": {"request": [nothing]}}):
        before = len(fake.requests)
        async with AsyncClient(host, **options, **extra) as client:
            await one_of_each(client)
        heads.append(
            [
                (asked.method, asked.path, sorted(asked.headers.items()), asked.body)
                for asked in fake.requests[before:]
                if "/api/blobs" not in asked.path
            ]
        )
    assert len(heads[0]) >= 8
    assert heads[0] == heads[1]


# -- auth ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("auth", [("ann", "s3cret"), httpx.BasicAuth("ann", "s3cret")])
async def test_basic_auth(fake: FakeOllama, auth: Any) -> None:
    """A pair or an object of httpx's goes with every call."""
    async with AsyncClient(fake.url, auth=auth) as client:
        await one_of_each(client)
    expected = "Basic " + base64.b64encode(b"ann:s3cret").decode()
    assert {asked.headers["authorization"] for asked in fake.requests} == {expected}


async def test_auth_by_a_function(fake: FakeOllama) -> None:
    """A function that changes the request is an auth too."""

    def sign(request: httpx.Request) -> httpx.Request:
        request.headers["X-Signed"] = f"{request.method} {request.url.path}"
        return request

    async with AsyncClient(fake.url, auth=sign) as client:
        await one_of_each(client)
    for asked in fake.requests:
        assert asked.headers["x-signed"].startswith(f"{asked.method} /api/")


class Asking(httpx.Auth):
    """Gets a token from the first answer, and asks again with it."""

    requires_response_body = True

    def __init__(self) -> None:
        self.seen: list[str] = []

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        self.seen.append(who.get())
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = f"Token {response.json()['token']}"
            yield request


who = contextvars.ContextVar("who", default="nobody")


@pytest.mark.parametrize("kind", ["whole", "stream"])
async def test_auth_in_two_steps(anyio_backend: Any, kind: str) -> None:
    """An auth that reads a refusal and asks again gets its answer, over the same connection."""

    async def handle(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            if "authorization" not in asked.headers:
                await peer.send(ok(b'{"token":"t1"}', status=b"401 Unauthorized"))
            elif kind == "stream":
                await peer.send(ok(b"".join(map(LINE.__mod__, (b"false", b"true")))))
            else:
                await peer.send(ok(LINE % b"true"))

    auth = Asking()
    who.set("me")
    async with serving(handle) as server, AsyncClient(server.url, auth=auth) as client:
        if kind == "whole":
            assert (await client.chat("m", MESSAGES)).done
        else:
            async with await client.chat("m", MESSAGES, stream=True) as stream:
                assert [part.done async for part in stream] == [False, True]
        assert len(server.peers) == 1
        first, second = server.asked
        assert first.body == second.body
        assert second.headers["authorization"] == "Token t1"
        assert is_quiet(client)
    assert auth.seen == ["me"]


async def test_digest_auth(anyio_backend: Any) -> None:
    """Httpx's digest auth, which answers a challenge, works for calls and for uploads."""
    challenge = b'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth", algorithm=MD5'

    async def handle(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            if "authorization" not in asked.headers:
                await peer.send(ok(b"", challenge, status=b"401 Unauthorized"))
            elif asked.method == "HEAD":
                await peer.send(ok(b"", status=b"404 Not Found"))
            elif asked.target.startswith("/api/blobs"):
                bodies.append(asked.body)
                await peer.send(ok(b"", status=b"201 Created"))
            else:
                await peer.send(VERSION)

    bodies: list[bytes] = []
    body = b"y" * 3_000_000
    async with serving(handle) as server:
        async with AsyncClient(server.url, auth=httpx.DigestAuth("ann", "pw")) as client:
            for _ in range(2):
                assert (await client.version()).version == "1"
            await client.create_blob(body)
    assert bodies == [body]


# -- hooks -----------------------------------------------------------------------------------------


async def test_hooks_see_and_change(fake: FakeOllama) -> None:
    """Hooks see each request and response, and what they add to a request is sent."""
    seen: list[tuple[str, int]] = []

    async def before(request: httpx.Request) -> None:
        request.headers["X-Hook"] = "was here"

    async def after(response: httpx.Response) -> None:
        seen.append((response.request.url.path, response.status_code))

    hooks = {"request": [before], "response": [after]}
    async with AsyncClient(fake.url, event_hooks=hooks) as client:
        await one_of_each(client)
        with pytest.raises(ResponseError):
            await client.chat("no-such-model", MESSAGES)
    assert {asked.headers["x-hook"] for asked in fake.requests} == {"was here"}
    assert len(seen) == len(fake.requests)
    assert seen[-1] == ("/api/chat", 404)


@plain_and_tls
async def test_a_hook_that_reads_replies_leaves_them_to_the_caller(
    anyio_backend: Any, secure: bool
) -> None:
    """A hook may read whole replies, partly, or not at all; connections are used again."""
    tls = server_context() if secure else None
    texts: list[str] = []

    async def read(response: httpx.Response) -> None:
        await response.aread()
        texts.append(response.text)

    options: dict[str, Any] = {"verify": client_context()} if secure else {}
    async with FakeOllama(ssl_context=tls) as fake:
        async with AsyncClient(fake.url, event_hooks={"response": [read]}, **options) as client:
            for _ in range(3):
                assert (await client.version()).version in texts[-1]
                async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                    await exhaust(stream)
                assert stream.result().complete
                assert texts[-1].count("\n") > 5
            assert fake.connections == 1
            assert client.statistics()[4:] == (1, 1)


async def test_a_hook_that_raises(fake: FakeOllama) -> None:
    """What a hook raises is the caller's, and the connection is not lost to anybody."""

    class MineError(Exception):
        pass

    async def fail(response: httpx.Response) -> None:
        raise MineError

    async with AsyncClient(fake.url, event_hooks={"response": [fail]}) as client:
        for _ in range(3):
            with pytest.raises(MineError):
                await client.version()
            assert is_quiet(client)
            statistics = client.statistics()
            assert statistics.open == statistics.idle


async def test_context_reaches_hooks_and_auth_of_every_call(fake: FakeOllama) -> None:
    """Callers side by side: hooks and auth of each see the context of that one."""
    seen: list[tuple[str, str, str]] = []

    async def hook(which: str, request: httpx.Request) -> None:
        seen.append((which, request.headers["x-auth"], who.get()))

    class Auth(httpx.Auth):
        async def async_auth_flow(
            self, request: httpx.Request
        ) -> AsyncGenerator[httpx.Request, httpx.Response]:
            request.headers["X-Auth"] = who.get()
            await anyio.lowlevel.checkpoint()
            yield request

    async def call(name: str) -> None:
        who.set(name)
        await client.version()
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)

    hooks: Any = {
        "request": [lambda request: hook("request", request)],
        "response": [lambda response: hook("response", response.request)],
    }
    async with AsyncClient(fake.url, auth=Auth(), event_hooks=hooks) as client:
        async with anyio.create_task_group() as tasks:
            for name in "abcde":
                tasks.start_soon(call, name)
    assert len(seen) == 20
    assert all(auth == mine for _, auth, mine in seen)
    assert {mine for *_, mine in seen} == set("abcde")


# -- cookies ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["short", "long"])
async def test_cookies_of_the_servers(fake: FakeOllama, way: str) -> None:
    """A cookie that a reply sets is sent from then on, changed and taken away as servers say."""
    cookie = {"Set-Cookie": "sticky=node7; Path=/"}
    fake.script(
        "/api/version",
        Reply.json({"version": "1"}, headers=cookie),
        Reply.json({"version": "1"}),
        Reply.error(500, "no", headers={"Set-Cookie": "sticky=node8; Path=/"}),
        Reply.json({"version": "1"}, headers={"Set-Cookie": "sticky=; Max-Age=0; Path=/"}),
        Reply.json({"version": "1"}),
    )
    options: Any = {} if way == "short" else {"event_hooks": {"request": [nothing]}}
    async with AsyncClient(fake.url, **options) as client:
        await client.version()
        await client.version()
        with pytest.raises(ResponseError):
            await client.version()
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        await client.version()
        await client.version()
    sent = [asked.headers.get("cookie") for asked in fake.requests]
    assert sent == [None, "sticky=node7", "sticky=node7", "sticky=node8", "sticky=node8", None]


async def test_cookies_of_the_users(fake: FakeOllama) -> None:
    """Cookies that the user gives go with every call."""
    async with AsyncClient(fake.url, cookies={"mine": "1"}) as client:
        await one_of_each(client)
    assert {asked.headers["cookie"] for asked in fake.requests} == {"mine=1"}


async def test_a_stream_can_set_a_cookie(fake: FakeOllama) -> None:
    """The head of a stream can set one as well."""
    lines = [LINE % b"true"]
    fake.script("/api/chat", Reply.stream(lines, headers={"Set-Cookie": "a=b; Path=/"}))
    async with AsyncClient(fake.url) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        await client.version()
    assert fake.requests[-1].headers["cookie"] == "a=b"


# -- params, redirects, mounts ---------------------------------------------------------------------


async def test_params_go_with_every_call(anyio_backend: Any) -> None:
    """A query that the user sets is sent."""

    async def handle(peer: Peer) -> None:
        while await peer.request() is not None:
            await peer.send(VERSION)

    async with serving(handle) as server:
        async with AsyncClient(server.url, params={"tenant": "7"}) as client:
            await client.version()
            await client.version()
        assert {asked.target for asked in server.asked} == {"/api/version?tenant=7"}


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


class Counting(httpx.AsyncBaseTransport):
    """A transport of the user's that notes what goes through it."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.closed = 0
        self._below = httpx.AsyncHTTPTransport()

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
    import socket

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
