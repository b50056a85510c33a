"""What servers and proxies can answer, and what users can configure on httpx."""

from __future__ import annotations

import contextvars
import gzip
import pickle
import random
import ssl
from typing import Any

import anyio
import httpx
import pytest
import trustme
from conftest import (
    MESSAGES,
    is_quiet,
    plain_reply,
    raw_server,
    read_request,
    recording,
    replying,
)
from test_life import exhaust

from ollama_sc import (
    AbortError,
    AsyncClient,
    AuthorizationError,
    ConnectError,
    ModelNotFoundError,
    OllamaError,
    ProtocolError,
    RateLimitError,
    RequestError,
    ResponseError,
    ServerBusyError,
)
from ollama_sc._http import Transport
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio
no_debug = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


# -- errors of the server --------------------------------------------------------------------------

ERRORS = [
    (Reply.error(400, "model is required"), ResponseError, 400, "model is required"),
    (Reply.error(404, "model 'x' not found"), ModelNotFoundError, 404, "model 'x' not found"),
    (Reply.error(401, "unauthorized"), AuthorizationError, 401, "unauthorized"),
    (Reply.empty(403), AuthorizationError, 403, "Host"),
    (Reply.error(429, "weekly limit reached"), RateLimitError, 429, "weekly limit reached"),
    (Reply.busy(), ServerBusyError, 503, "server busy, please try again."),
    (
        Reply.error(500, '{"error":{"code":400,"message":"too long"}}'),
        ResponseError,
        500,
        "too long",
    ),
    (Reply.error(400, {"message": "bad", "type": "api_error"}), ResponseError, 400, "bad"),
    (Reply.html(502), ResponseError, 502, "502"),
    (Reply.text("404 page not found", 404), ResponseError, 404, "404 page not found"),
    (Reply.json(42, 500), ResponseError, 500, "42"),
    (Reply.json(None, 500), ResponseError, 500, "500"),
    (Reply.json([], 400), ResponseError, 400, "400"),
    (Reply.json({"error": ""}, 500), ResponseError, 500, "500"),
    (Reply.empty(500), ResponseError, 500, "Internal Server Error"),
    (Reply.text("<html", 500), ResponseError, 500, "500"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", ERRORS, ids=[f"{case[2]} {case[3][:12]}" for case in ERRORS])
async def test_error_replies(fake: FakeOllama, case: Any, stream: bool) -> None:
    """Each is the right exception with the server's text, raised by the call itself."""
    reply, kind, status, text = case
    fake.always("/api/chat", reply)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.chat("llama3.2", MESSAGES, stream=stream)
        error = caught.value
        assert type(error) is kind
        assert error.status_code == status
        assert text in error.error
        assert text in str(error)
        assert "POST /api/chat, model 'llama3.2'" in str(error)
        assert pickle.loads(pickle.dumps(error)).__dict__ == error.__dict__
        assert is_quiet(client)
        assert client.statistics().open == client.statistics().idle
        assert (await client.version()).version


async def test_what_errors_carry(fake: FakeOllama) -> None:
    """The sign-in address and the time to wait are attributes."""
    fake.script(
        "/api/chat",
        Reply.error(401, "unauthorized", signin_url="https://ollama.com/connect?name=x"),
        Reply.error(429, "slow down", headers={"Retry-After": "7"}),
        Reply.json({"StatusCode": 429, "Status": "429 Too Many", "error": "weekly"}, 429),
    )
    async with AsyncClient(fake.url) as client:
        with pytest.raises(AuthorizationError) as unauthorized:
            await client.chat("llama3.2", MESSAGES)
        assert unauthorized.value.signin_url == "https://ollama.com/connect?name=x"
        with pytest.raises(RateLimitError) as limited:
            await client.chat("llama3.2", MESSAGES)
        assert limited.value.retry_after == 7
        with pytest.raises(RateLimitError) as stub:
            await client.chat("llama3.2", MESSAGES)
        assert stub.value.retry_after is None


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("chat-missing-model", ModelNotFoundError, 404),
        ("chat-bad-think", ResponseError, 400),
        ("chat-bad-option", ResponseError, 500),
        ("chat-tools-unsupported", ResponseError, 400),
        ("embed-too-long", ResponseError, 400),
        ("embed-unsupported", ResponseError, 501),
        ("not-found", ResponseError, 404),
        ("wrong-method", ResponseError, 405),
    ],
)
async def test_recorded_errors(anyio_backend: Any, name: str, kind: Any, status: int) -> None:
    """A real server's error replies are the right exceptions."""
    async with raw_server(replying(recording(name))) as url, AsyncClient(url) as client:
        with pytest.raises(kind) as caught:
            await client.chat("m", MESSAGES)
        assert type(caught.value) is kind
        assert caught.value.status_code == status


async def test_an_endless_error_page(fake: FakeOllama) -> None:
    """An error reply that never ends is an error all the same."""

    async def endless(stream: Any) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 500 Oops\r\n\r\n")
        while True:
            await stream.send(b"x" * 10_000)

    async with raw_server(endless) as url, AsyncClient(url) as client:
        with anyio.fail_after(5), pytest.raises(ResponseError) as caught:
            await client.version()
        assert len(str(caught.value)) < 1000
        assert client.statistics().open == 0


# -- replies that are none -------------------------------------------------------------------------

NO_HTTP = [
    (b"", ConnectError),
    (b"garbage\r\n\r\n", ProtocolError),
    (b"HTTP/9.9 200 OK\r\n\r\n", ProtocolError),
    (b"HTTP/1.1 200", ConnectError),
    (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", ProtocolError),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", ConnectError),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ProtocolError),
    (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", ProtocolError),
    (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd", ProtocolError),
    (plain_reply(b"<html>hello</html>"), ProtocolError),
    (plain_reply(b"not json"), ProtocolError),
    (plain_reply(b'{"version":'), ProtocolError),
    (plain_reply(b'{"version":5}'), ProtocolError),
    (plain_reply(b"[]"), ProtocolError),
    (plain_reply(b"17"), ProtocolError),
    (plain_reply(b"\xff\xfe\x00"), ProtocolError),
    (plain_reply(b'{"version":"\xff"}'), ProtocolError),
    (plain_reply(b""), ProtocolError),
    (b"HTTP/1.1 204 No Content\r\n\r\n", ProtocolError),
    (b"HTTP/1.1 301 Moved\r\nLocation: /api/version\r\nContent-Length: 0\r\n\r\n", OllamaError),
]


@pytest.mark.parametrize(("reply", "kind"), NO_HTTP, ids=[repr(r[:40]) for r, _ in NO_HTTP])
async def test_replies_that_are_none(anyio_backend: Any, reply: bytes, kind: Any) -> None:
    """Whatever bytes come, the exception is one of ours, and says what came."""
    async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
        with pytest.raises(kind) as caught:
            await client.version()
        assert isinstance(caught.value, OllamaError)
        assert "GET /api/version" in str(caught.value)
        assert is_quiet(client)


async def test_random_bytes(anyio_backend: Any) -> None:
    """Random replies give nothing but this library's errors."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    good = recording("chat-stream-logprobs")
    for _ in range(60):
        reply = bytearray(good)
        for _ in range(chance.randrange(1, 20)):
            reply[chance.randrange(len(reply))] = chance.randrange(256)
        async with raw_server(replying(bytes(reply))) as url:
            async with AsyncClient(url, verify=False) as client:
                for stream in (True, False):
                    try:
                        async with await client.chat("m", MESSAGES, stream=True) as parts:
                            await exhaust(parts)
                    except OllamaError:
                        assert stream or True
                    break
                assert is_quiet(client)


async def test_a_reply_compressed_by_a_proxy(anyio_backend: Any) -> None:
    """A gzip body is read, streamed or whole."""
    body = gzip.compress(recording("chat-single").partition(b"\r\n\r\n")[2])
    reply = (
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    ) + body
    async with raw_server(replying(reply, reply)) as url, AsyncClient(url) as client:
        assert (await client.chat("m", MESSAGES)).text.startswith("Why is the sky")
        async with await client.chat("m", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        assert stream.result().text.startswith("Why is the sky")


# -- settings of httpx -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Name": "Zoë"},
        {"X-Näme": "x"},
        {"X-Name": "a\r\nX-Other: b"},
        {"X-Name": 5},
        {"a b": "c"},
    ],
)
def test_headers_that_cannot_be(headers: Any) -> None:
    """A header that is not printable ASCII is a RequestError that does not show its value."""
    with pytest.raises(RequestError, match="headers") as caught:
        AsyncClient(headers=headers)
    assert "Zoë" not in str(caught.value)


def test_a_key_that_cannot_be_is_not_shown() -> None:
    """An API key with a bad character is refused without being shown."""
    with pytest.raises(RequestError) as caught:
        AsyncClient(api_key="sécret")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["http://", "ftp://x", "h:99999", "a b", "::1:8080", "http://u:pw@a b"]
)
def test_hosts_that_cannot_be(host: str) -> None:
    """An unusable host is a RequestError, before any I/O; an empty name is this machine."""
    if host == "http://":
        AsyncClient(host)
        return
    with pytest.raises(RequestError) as caught:
        AsyncClient(host)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"max_in_flight": 0},
        {"max_in_flight": True},
        {"max_in_flight": "4"},
        {"max_in_flight": 1.5},
        {"max_line_bytes": 0},
        {"max_body_bytes": -1},
        {"timeout": -1},
        {"timeout": "10"},
        {"proxy": "nonsense://x"},
    ],
)
def test_settings_that_cannot_be(options: Any) -> None:
    """Bad settings are a RequestError when the client is made."""
    with pytest.raises(RequestError):
        AsyncClient(**options)


@pytest.mark.parametrize("name", ["limits", "base_url", "no_such_option"])
def test_options_that_are_not_for_httpx(name: str) -> None:
    """An option that this library does not pass on is a TypeError that names it."""
    with pytest.raises(TypeError, match=name):
        AsyncClient(**{name: None})  # type: ignore[misc]


async def test_what_is_sent(fake: FakeOllama) -> None:
    """Headers of the user's, the key, and what the API wants to see."""
    async with AsyncClient(fake.url, api_key="k1", headers={"X-Mine": "1"}) as client:
        await client.chat("llama3.2", MESSAGES)
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        await client.version()
    whole, streamed, version = fake.requests
    assert whole.headers["authorization"] == "Bearer k1"
    assert whole.headers["x-mine"] == "1"
    assert whole.headers["content-type"] == "application/json"
    assert whole.headers["accept"] == "application/json"
    assert streamed.headers["accept"] == "application/x-ndjson"
    assert whole.headers["user-agent"].startswith("ollama-sc/")
    assert whole.json == {"model": "llama3.2", "messages": MESSAGES, "stream": False}
    assert streamed.json["stream"] is True
    assert version.body == b""


async def test_the_environments_host(fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    """OLLAMA_HOST is where requests go, and its key goes to ollama.com only."""
    monkeypatch.setenv("OLLAMA_HOST", fake.url.removeprefix("http://"))
    monkeypatch.setenv("OLLAMA_API_KEY", "secret-key")
    async with AsyncClient() as client:
        await client.version()
        assert "secret-key" not in repr(client)
    assert "authorization" not in fake.requests[0].headers
    hosted = AsyncClient("ollama.com")
    assert hosted._shared.http._client.headers["authorization"] == "Bearer secret-key"
    assert "secret-key" not in repr(hosted)


async def test_user_info_in_the_host_becomes_basic_auth(fake: FakeOllama) -> None:
    """User and password are sent as basic auth and shown nowhere."""
    async with AsyncClient(fake.url.replace("//", "//ann:s3cret@")) as client:
        await client.version()
        assert "s3cret" not in repr(client)
        with pytest.raises(ModelNotFoundError) as caught:
            await client.chat("no-such-model", MESSAGES)
        assert "s3cret" not in repr(caught.value) + str(caught.value)
    assert fake.requests[0].headers["authorization"] == "Basic YW5uOnMzY3JldA=="
    async with AsyncClient("http://ann:s3cret@127.0.0.1:9") as client:
        with pytest.raises(ConnectError) as refused:
            await client.version()
        assert "s3cret" not in str(refused.value)


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


async def test_redirects(fake: FakeOllama) -> None:
    """Redirects are followed unless the user says otherwise."""
    async with AsyncClient(fake.url) as client:
        assert (await client.request("GET", "/api/version/"))["version"]
    async with AsyncClient(fake.url, follow_redirects=False) as client:
        with pytest.raises(ResponseError) as caught:
            await client.request("GET", "/api/version/")
        assert caught.value.status_code == 301


async def test_a_path_prefix(anyio_backend: Any) -> None:
    """A prefix in the host stands before every path."""
    seen: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={"version": "7"})

    async with AsyncClient("h:1/a/b/", transport=httpx.MockTransport(answer)) as client:
        await client.version()
    assert seen == ["http://h:1/a/b/api/version"]


async def test_a_transport_of_the_users(anyio_backend: Any) -> None:
    """A stream through a user's transport works as any other."""

    async def answer(request: httpx.Request) -> httpx.Response:
        body = recording("chat-single").partition(b"\r\n\r\n")[2]
        return httpx.Response(200, content=body)

    async with AsyncClient(transport=httpx.MockTransport(answer)) as client:
        async with await client.chat("m", MESSAGES, stream=True) as stream:
            await exhaust(stream)
        assert stream.result().complete


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


async def test_tls(anyio_backend: Any, authority: trustme.CA) -> None:
    """The same over TLS: calls, streams, abort, and a certificate that nobody knows."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    known = ssl.create_default_context()
    authority.configure_trust(known)
    async with FakeOllama(ssl_context=server, token_rate=50, tokens=1000) as fake:
        async with AsyncClient(fake.url, verify=known) as client:
            assert (await client.version()).version
            async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                assert await anext(stream)
                assert client.abort() == 1
                with pytest.raises(AbortError):
                    await exhaust(stream)
            with anyio.fail_after(2):
                await fake.requests[-1].wait_closed()
            assert (await client.version()).version
        async with AsyncClient(fake.url) as client:
            with pytest.raises(ConnectError, match=r"(?i)certificate"):
                await client.version()


# -- request ---------------------------------------------------------------------------------------


async def test_request_reaches_any_endpoint(fake: FakeOllama) -> None:
    """Any method and path, any type, as a call like the others."""
    async with AsyncClient(fake.url) as client:
        assert (await client.request("get", "/api/version"))["version"]
        assert await client.request("GET", "/", type=bytes) == b"Ollama is running"
        assert await client.request("HEAD", "/api/version", type=None) is None
        assert await client.request("HEAD", "/api/version") is None
        found = await client.request("GET", "/api/tags", type=dict[str, list[dict[str, Any]]])
        assert found["models"]
        reply = await client.request(
            "POST",
            "/api/embed",
            json={"model": "nomic-embed-text", "input": "x"},
            type=dict[str, Any],
        )
        assert len(reply["embeddings"]) == 1
        with pytest.raises(ModelNotFoundError, match="POST /api/chat, model 'nope'"):
            await client.request("POST", "/api/chat", json={"model": "nope"})
        with pytest.raises(ProtocolError):
            await client.request("GET", "/")


@pytest.mark.parametrize(
    ("method", "path"),
    [("BREW", "/"), ("GET", "api"), ("GET", ""), ("GET", "/a b"), ("GET", "/\n"), ("", "/")],
)
async def test_requests_that_cannot_be(fake: FakeOllama, method: str, path: str) -> None:
    """A method or path that cannot be is a RequestError, and nothing is sent."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError):
            await client.request(method, path)
    assert fake.connections == 0


# -- churn -----------------------------------------------------------------------------------------


@no_debug
async def test_random_cancels_for_ten_seconds(anyio_backend: Any) -> None:
    """Cancels and aborts of single requests from many tasks; then 100 in a row succeed."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    chance = random.Random(seed)
    outcomes = {"whole": 0, "cancelled": 0, "aborted": 0}
    async with FakeOllama(token_rate=500, tokens=20) as server:
        async with AsyncClient(server.url, max_in_flight=10) as client:

            async def worker() -> None:
                while anyio.current_time() < end:
                    with anyio.move_on_after(chance.random() * 0.1) as scope:
                        try:
                            async with client.group() as group:
                                if chance.random() < 0.3:
                                    tasks.start_soon(abort_later, group)
                                await one(group)
                            outcomes["whole"] += 1
                        except AbortError:
                            outcomes["aborted"] += 1
                    outcomes["cancelled"] += scope.cancelled_caught

            async def abort_later(group: Any) -> None:
                await anyio.sleep(chance.random() * 0.02)
                group.abort("chance")

            async def one(group: Any) -> None:
                kind = chance.randrange(4)
                if kind == 0:
                    await group.version()
                elif kind == 1:
                    await group.embed("nomic-embed-text", "x")
                elif kind == 2:
                    await group.chat("llama3.2", MESSAGES)
                else:
                    async with await group.chat("llama3.2", MESSAGES, stream=True) as stream:
                        async for _ in stream:
                            if chance.random() < 0.02:
                                break

            end = anyio.current_time() + 10
            async with anyio.create_task_group() as tasks:
                for _ in range(30):
                    tasks.start_soon(worker)
            print(outcomes)
            assert all(outcomes.values())
            assert is_quiet(client)
            assert client._shared.slots.free == 10
            statistics = client.statistics()
            assert statistics.open == statistics.idle <= 10
            for _ in range(100):
                assert (await client.version(timeout=5)).version
        await server.wait_all_closed()


# -- two at a time -----------------------------------------------------------------------------------


async def test_replies_are_never_mixed_up(anyio_backend: Any) -> None:
    """With cancels in between, each caller gets the reply to its own request."""
    async with FakeOllama(dimensions=8) as server:
        async with AsyncClient(server.url) as client:
            expected = {
                str(n): (await client.embed("nomic-embed-text", str(n))).embeddings[0]
                for n in range(20)
            }

            async def worker(number: int) -> None:
                for round_ in range(20):
                    text = str((number + round_) % 20)
                    with anyio.move_on_after(0.0005 * (round_ % 7)):
                        await client.embed("nomic-embed-text", text)
                    reply = await client.embed("nomic-embed-text", text)
                    assert reply.embeddings[0] == expected[text]

            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(worker, number)


# -- which way a request goes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({}, "short"),
        ({"verify": False}, "short"),
        ({"trust_env": False}, "short"),
        ({"follow_redirects": False}, "short"),
        ({"api_key": "key", "headers": {"X-Team": "weather"}}, "short"),
        ({"auth": ("user", "password")}, "httpx"),
        ({"cookies": {"a": "b"}}, "httpx"),
        ({"params": {"a": "b"}}, "httpx"),
        ({"follow_redirects": True}, "httpx"),
        ({"event_hooks": {"request": [anyio.sleep]}}, "httpx"),
        ({"mounts": {"all://": httpx.MockTransport(httpx.Response)}}, "foreign"),
        ({"transport": httpx.MockTransport(httpx.Response)}, "foreign"),
        ({"proxy": "http://127.0.0.1:1"}, "foreign"),
        ({"http1": False, "http2": False}, "foreign"),
    ],
    ids=lambda value: "-".join(value) or "none" if isinstance(value, dict) else value,
)
@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "http://example.com"])
def test_the_way_of_a_request(options: dict[str, Any], way: str, host: str) -> None:
    """Only what needs httpx goes through it, and only what needs its transports over these."""
    http = AsyncClient(host, **options)._shared.http
    transport = http._client._transport_for_url(httpx.URL(host))
    assert isinstance(transport, Transport) == (way != "foreign")
    assert http._short is (transport if way == "short" else None)


async def test_a_cookie_changes_the_way(anyio_backend: Any) -> None:
    """A cookie that a server sets is sent back from then on."""
    seen: list[bytes] = []
    reply = plain_reply(b'{"version":"1"}').replace(b"\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n", 1)

    async def handle(stream: Any) -> None:
        while request := await read_request(stream):
            seen.append(request.lower())
            await stream.send(reply)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        for _ in range(3):
            await client.version()
        assert is_quiet(client)
    assert [b"cookie: a=b" in request for request in seen] == [False, True, True]
