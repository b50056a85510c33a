"""Auth and event hooks of httpx: they see each request in its caller's context, may change it."""

from __future__ import annotations

import base64
import contextvars
from collections.abc import AsyncGenerator, Generator
from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient, ModelNotFoundError, RequestError, ResponseError
from ollama_sc.testing import FakeOllama
from tests.http.support import LINE, VERSION, exhaust, one_of_each
from tests.support import MESSAGES, is_quiet
from tests.wire import Peer, client_context, ok, plain_and_tls, server_context, serving

pytestmark = pytest.mark.anyio

who = contextvars.ContextVar("who", default="nobody")


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


async def test_hooks_that_are_not_asynchronous(fake: FakeOllama) -> None:
    """They are called as others are, and what they raise is the caller's."""
    seen: list[str] = []

    def before(request: httpx.Request) -> None:
        request.headers["X-Hook"] = "was here"

    def after(response: httpx.Response) -> None:
        seen.append(response.request.url.path)
        response.raise_for_status()

    hooks = {"request": [before], "response": [after]}
    async with AsyncClient(fake.url, event_hooks=hooks) as client:
        await client.version()
        with pytest.raises(httpx.HTTPStatusError):
            await client.chat("no-such-model", MESSAGES)
        await exhaust(await client.chat("llama3.2", MESSAGES, stream=True))
    assert {asked.headers["x-hook"] for asked in fake.requests} == {"was here"}
    assert len(seen) == len(fake.requests)


@pytest.mark.parametrize(
    "options",
    [
        {"event_hooks": {"request": ["before"]}},
        {"event_hooks": {"response": [None]}},
        {"event_hooks": {"request": len}},
        {"transport": httpx.HTTPTransport()},
        {"mounts": {"http://": httpx.WSGITransport(lambda *_: [])}},
        {"transport": object()},
    ],
    ids=["text", "None", "function", "transport", "mounted", "object"],
)
def test_what_can_be_no_hook_or_transport(options: dict[str, Any]) -> None:
    """It is refused where it is given, and not by the first call."""
    with pytest.raises(RequestError, match="hook|transport|iterable"):
        AsyncClient("127.0.0.1:1", **options)


async def test_a_hook_that_reads_the_reply(fake: FakeOllama) -> None:
    """A hook may read a whole reply before the caller does."""

    async def hook(response: httpx.Response) -> None:
        await response.aread()

    async with AsyncClient(fake.url, event_hooks={"response": [hook]}) as client:
        assert (await client.chat("llama3.2", MESSAGES)).done
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        assert stream.result().complete
        with pytest.raises(ModelNotFoundError, match="not found"):
            await client.chat("no-such-model", MESSAGES)


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


async def test_context_variables_reach_hooks(fake: FakeOllama) -> None:
    """A hook sees the context of the task that made the call."""
    who = contextvars.ContextVar("who", default="nobody")
    seen: list[str] = []

    async def hook(request: httpx.Request) -> None:
        seen.append(who.get())

    async with AsyncClient(fake.url, event_hooks={"request": [hook]}) as client:
        who.set("me")
        await client.version()
    assert seen == ["me"]


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
