"""One request and its reply, through the public client: whatever comes, and many at a time."""

from __future__ import annotations

import contextlib
import random
import ssl
from typing import Any

import anyio
import pytest
import trustme

from ollama_sc import (
    AbortError,
    AsyncClient,
    ConnectError,
    ModelNotFoundError,
    OllamaError,
    ProtocolError,
    ResponseError,
)
from ollama_sc.testing import FakeOllama
from tests import wire
from tests.http.support import exhaust
from tests.support import (
    LONG,
    MESSAGES,
    is_quiet,
    new_seed,
    plain_reply,
    raw_server,
    recording,
    replying,
)
from tests.wire import quick

pytestmark = pytest.mark.anyio


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
    seed = new_seed()
    print("seed", seed)
    chance = random.Random(seed)
    good = recording("chat-stream-logprobs")
    for _ in range(60):
        reply = bytearray(good)
        for _ in range(chance.randrange(1, 20)):
            reply[chance.randrange(len(reply))] = chance.randrange(256)
        async with raw_server(replying(bytes(reply))) as url:
            async with AsyncClient(url, verify=False) as client:
                with contextlib.suppress(OllamaError):
                    async with await client.chat("m", MESSAGES, stream=True) as parts:
                        await exhaust(parts)
                with contextlib.suppress(OllamaError):
                    await client.chat("m", MESSAGES)
                assert is_quiet(client)


# -- replies that are right ------------------------------------------------------------------------


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


async def test_redirects(fake: FakeOllama) -> None:
    """Redirects are followed unless the user says otherwise."""
    async with AsyncClient(fake.url) as client:
        assert (await client.request("GET", "/api/version/"))["version"]
    async with AsyncClient(fake.url, follow_redirects=False) as client:
        with pytest.raises(ResponseError) as caught:
            await client.request("GET", "/api/version/")
        assert caught.value.status_code == 301


@pytest.fixture
def authority() -> trustme.CA:
    """Who vouches for the server here, and is not among those that every client knows."""
    return wire.authority()


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
            with anyio.fail_after(5):
                await fake.requests[-1].wait_closed()
            assert (await client.version()).version
        async with AsyncClient(fake.url) as client:
            with pytest.raises(ConnectError, match=r"(?i)certificate"):
                await client.version()


# -- many at a time --------------------------------------------------------------------------------


@quick
async def test_random_cancels_for_ten_seconds(anyio_backend: Any) -> None:
    """Cancels and aborts of single requests from many tasks; then 100 in a row succeed.

    Ten seconds in the long form. The ordinary run ends after two if all has happened by then.
    """
    seed = new_seed()
    print("seed", seed)
    chance = random.Random(seed)
    outcomes = {"whole": 0, "cancelled": 0, "aborted": 0}
    async with FakeOllama(token_rate=500, tokens=20) as server:
        async with AsyncClient(server.url, max_in_flight=10) as client:

            def goes_on() -> bool:
                seconds = anyio.current_time() - started
                return seconds < (10 if LONG or not all(outcomes.values()) else 2)

            async def worker() -> None:
                while goes_on():
                    # A few have time enough, or none would come through where the machine is busy.
                    limit = 5 if chance.random() < 0.05 else chance.random() * 0.1
                    with anyio.move_on_after(limit) as scope:
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

            started = anyio.current_time()
            async with anyio.create_task_group() as tasks:
                for _ in range(30):
                    tasks.start_soon(worker)
            print(outcomes)
            assert all(outcomes.values())
            assert is_quiet(client)
            assert client._shared.limiter.available == 10
            statistics = client.statistics()
            assert statistics.open == statistics.idle <= 10
            for _ in range(100):
                assert (await client.version(timeout=5)).version
        await server.wait_all_closed()


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
