"""No reply reaches another request's caller: a reply that fails its caller takes its connection along.

The server owes: at one request it sends a reply that nobody asked for, and from then on every reply on that
connection is the one before's. It sends what it owes only when the next request is here, so that
an idle connection shows nothing of it.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient, OllamaError, VersionResponse
from ollama_sc.embedding import embed_many
from tests.support import is_quiet, recording
from tests.wire import Asked, Peer, answering, client_context, ok, plain_and_tls, quick, serving

pytestmark = [pytest.mark.anyio, quick]

JSON = b"Content-Type: application/json"
# Replies that no request here asks for. Each makes the call fail that gets it.
SURPLUS = {
    "object": ok(b"{}", JSON),
    "list": ok(b"[]", JSON),
    "text": ok(b"OK"),
    "empty": ok(b""),
    "page": ok(b"<html><title>Welcome</title></html>"),
    "cut": ok(b'{"model":"m","embeddings":[[1', JSON),
    "no-utf8": ok(b'{"version":"\xff"}', JSON),
    "error-object": ok(b'{"error":"no"}', JSON),
    "no-content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "error-page": ok(b"<h1>Bad Request</h1>", status=b"400 Bad Request"),
    "error-text": ok(b"busy", status=b"503 Service Unavailable"),
    "error-without": ok(b'{"detail":"no"}', JSON, status=b"500 Internal Server Error"),
    "bad-gzip": ok(b"no gzip", b"Content-Encoding: gzip"),
    "unasked-coding": ok(b"br", b"Content-Encoding: br"),
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
}


def answer(asked: Asked) -> bytes:
    """The reply to a request, which says what was asked."""
    if asked.target.startswith("/api/version"):
        return ok(b'{"version":"%d"}' % len(asked.target), JSON)
    body = json.loads(asked.body)
    if "messages" in body:
        text = body["messages"][-1]["content"]
        part = {"message": {"role": "assistant", "content": text}, "done": True}
        return ok(json.dumps(part).encode() + b"\n" * body["stream"], JSON)
    numbers = [float(text) if text.isdigit() else 0.5 for text in body["input"]]
    if "encoding_format" in body:
        data = [{"embedding": base64.b64encode(struct.pack("<f", n)).decode()} for n in numbers]
        return ok(json.dumps({"data": data}).encode(), JSON)
    return ok(json.dumps({"embeddings": [[n] for n in numbers]}).encode(), JSON)


class Owing:
    """Sends a reply too many at one request, and is one behind on that connection ever after."""

    def __init__(self, surplus: bytes, at: int) -> None:
        self.surplus = surplus
        self.at = at
        self.requests = 0

    async def __call__(self, peer: Peer) -> None:
        owed: list[bytes] = []
        while (asked := await peer.request()) is not None:
            self.requests += 1
            owed.append(answer(asked))
            if self.requests == self.at:
                owed.insert(0, self.surplus)
            await peer.send(owed.pop(0))


async def embed(client: AsyncClient, number: int) -> bool:
    reply = await client.embed("m", [str(number)])
    return list(reply.embeddings[0]) == [number]


async def embed_two(client: AsyncClient, number: int) -> bool:
    reply = await client.embed("m", [str(number), str(number + 1)])
    return [list(row) for row in reply.embeddings] == [[number], [number + 1]]


async def chat(client: AsyncClient, number: int) -> bool:
    reply = await client.chat("m", [{"role": "user", "content": str(number)}])
    return bool(reply.message.content == str(number))


async def stream(client: AsyncClient, number: int) -> bool:
    messages = [{"role": "user", "content": str(number)}]
    async with await client.chat("m", messages, stream=True) as parts:
        return "".join([part.message.content async for part in parts]) == str(number)


async def request(client: AsyncClient, number: int) -> bool:
    path = f"/api/version?{'x' * number}"
    found = await client.request("GET", path, type=VersionResponse)
    return bool(found.version == str(len(path)))


CALLS: dict[str, Callable[[AsyncClient, int], Awaitable[bool]]] = {
    "embed": embed,
    "embed-two": embed_two,
    "chat": chat,
    "stream": stream,
    "request": request,
}


async def nothing(_: Any) -> None: ...


async def read_it(response: httpx.Response) -> None:
    await response.aread()


def options_of(way: str, *, secure: bool) -> dict[str, Any]:
    """A client's settings for a way that its requests take."""
    verify: Any = client_context() if secure else True
    if way == "own":
        return {"verify": verify}
    if way == "own-under-httpx":
        return {"verify": verify, "event_hooks": {"response": [nothing]}}
    if way == "read-by-a-hook":
        return {"verify": verify, "event_hooks": {"response": [read_it]}}
    if way == "httpx":
        return {"transport": httpx.AsyncHTTPTransport(verify=verify)}
    assert way == "httpx-read-by-a-hook"
    transport = httpx.AsyncHTTPTransport(verify=verify)
    return {"transport": transport, "event_hooks": {"response": [read_it]}}


WAYS = ["own", "own-under-httpx", "read-by-a-hook", "httpx", "httpx-read-by-a-hook"]


async def asked_in_a_row(
    call: Callable[[AsyncClient, int], Awaitable[bool]], surplus: bytes, way: str, *, secure: bool
) -> None:
    """The second of four requests gets the reply too many, and fails; no other is disturbed."""
    async with (
        serving(Owing(surplus, at=2), tls=secure) as server,
        AsyncClient(server.url, **options_of(way, secure=secure)) as client,
    ):
        with anyio.fail_after(10):
            assert await call(client, 1)
            with pytest.raises(OllamaError):
                await call(client, 2)
            assert await call(client, 3)
            assert await call(client, 4)
        assert server.accepted == 2
        assert is_quiet(client)
        assert client.statistics().open == client.statistics().idle


@plain_and_tls
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_reply_too_many_reaches_one_caller_at_most(
    anyio_backend: Any, way: str, name: str, secure: bool
) -> None:
    """Whichever way a request takes, plain or over TLS, the call after a failed one gets its own reply."""
    await asked_in_a_row(CALLS[name], SURPLUS["object"], way, secure=secure)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("way", ["own", "httpx"])
async def test_whatever_is_wrong_with_it(anyio_backend: Any, way: str, name: str) -> None:
    """Text, pages, errors, bodies that are compressed, cut or empty: each costs its connection."""
    for surplus in SURPLUS.values():
        await asked_in_a_row(CALLS[name], surplus, way, secure=False)


@plain_and_tls
@pytest.mark.parametrize("way", ["own", "httpx"])
@pytest.mark.parametrize("name", ["chat", "stream"])
async def test_the_terminal_object_decides(
    anyio_backend: Any, way: str, name: str, secure: bool
) -> None:
    """A reply that is the API's and not whole (`done: false`, no terminal object) costs it, too."""
    surplus = ok(b'{"message":{"role":"assistant","content":"half"},"done":false}\n', JSON)
    await asked_in_a_row(CALLS[name], surplus, way, secure=secure)


@pytest.mark.parametrize("surplus", ["object", "text", "error-object", "error-text", "cut"])
@pytest.mark.parametrize("way", ["own", "httpx"])
async def test_jobs_get_each_text_its_own_vector(
    anyio_backend: Any, way: str, surplus: str
) -> None:
    """A job that meets a reply too many ends with an error, or has every row right."""
    for at in (2, 3, 5):
        await a_job(SURPLUS[surplus], at, way)


async def a_job(surplus: bytes, at: int, way: str) -> None:
    async with (
        serving(Owing(surplus, at=at)) as server,
        AsyncClient(server.url, **options_of(way, secure=False)) as client,
    ):
        rows: dict[int, float] = {}
        try:
            async with embed_many(
                clients=[client],
                model="m",
                texts=map(str, range(20)),
                batch_size=1,
                max_in_flight=1,
                attempts=1,
            ) as batches:
                async for batch in batches:
                    rows[batch.start] = float(batch.vectors[0][0])
        except OllamaError:
            pass
        assert all(row == start for start, row in rows.items()), rows
        # Whatever became of the job, the client asks on.
        assert await embed(client, 7)


@pytest.mark.parametrize("way", ["own", "httpx"])
async def test_a_hundred_at_once(anyio_backend: Any, way: str) -> None:
    """Of many requests over few connections, each gets its own reply or an error."""
    async with (
        serving(Owing(SURPLUS["object"], at=40)) as server,
        AsyncClient(server.url, max_in_flight=5, **options_of(way, secure=False)) as client,
    ):
        right = failed = 0

        async def one(number: int) -> None:
            nonlocal right, failed
            try:
                assert await embed(client, number)
                right += 1
            except OllamaError:
                failed += 1

        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one, number)
        assert (right, failed) == (99, 1)


async def test_an_error_of_the_api_is_an_answer(anyio_backend: Any) -> None:
    """A status and an error object leave the connection as good as a success does; a page does not."""
    replies = {
        "/api/embed": ok(b'{"error":"no"}', JSON, status=b"404 Not Found"),
        "/api/generate": ok(b"<p>no</p>", status=b"404 Not Found"),
    }
    async with serving(answering(replies)) as server, AsyncClient(server.url) as client:
        for _ in range(3):
            with pytest.raises(OllamaError):
                await client.embed("m", "x")
        assert server.accepted == 1
        for _ in range(2):
            with pytest.raises(OllamaError):
                await client.generate("m", "x")
        assert server.accepted == 2


async def test_a_recorded_reply_of_another_endpoint(anyio_backend: Any) -> None:
    """The bytes of a real server's reply to something else are no reply to this."""
    await asked_in_a_row(embed, recording("version"), "own", secure=False)
