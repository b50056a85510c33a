"""What the fake server's tests share: a client that is not ours, raw sockets, some bodies.

The server itself is the subject: each test opens the one that it needs.
"""

from __future__ import annotations

import json
import re
import ssl
from typing import Any

import anyio
import httpx
from anyio.abc import SocketStream

from ollama_sc.testing import FakeOllama, Reply

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}]}
GENERATE = {"model": "gemma3:270m", "prompt": "The sky is"}
CLOSE = "Connection: close\r\n"

# What a scripted stream has, and its lines as they are sent.
OBJECTS = [{"n": n, "text": "é<"} for n in range(4)]
LINES = b"".join(b'{"n":%d,"text":"\xc3\xa9\\u003c"}\n' % n for n in range(4))

# httpx makes a context for http, too, and loading the system's certificates is most of a test's CPU.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


# ---------------------------------------------------------------------------------------------
# httpx


def client(fake: FakeOllama, verify: ssl.SSLContext = NO_CERTIFICATES) -> httpx.AsyncClient:
    """A client of the fake; over TLS it trusts what `verify` trusts."""
    return httpx.AsyncClient(base_url=fake.url, timeout=20, trust_env=False, verify=verify)


async def ask(fake: FakeOllama, path: str, body: object) -> httpx.Response:
    """The response to a POST of literal bytes or of JSON."""
    async with client(fake) as http:
        if isinstance(body, bytes):
            return await http.post(path, content=body)
        return await http.post(path, json=body)


async def get(fake: FakeOllama, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    """The response to a request without a body."""
    async with client(fake) as http:
        return await http.request(method, path, headers=headers)


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    """The objects of a stream."""
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


async def ps(fake: FakeOllama) -> list[dict[str, Any]]:
    """What `/api/ps` lists."""
    async with client(fake) as http:
        return (await http.get("/api/ps")).json()["models"]


def statuses(progress: list[dict[str, Any]]) -> list[str]:
    """The statuses of some progress, repeated ones once."""
    found: list[str] = []
    for line in progress:
        if not found or found[-1] != line["status"]:
            found.append(line["status"])
    return found


# ---------------------------------------------------------------------------------------------
# Raw sockets


def post(path: str, body: object, *, version: str = "1.1", extra: str = "") -> bytes:
    """The bytes of a POST of literal bytes or of JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n{extra}\r\n"
    return head.encode() + data


async def connect(fake: FakeOllama, request: bytes = b"") -> SocketStream:
    """A connection to the fake, over which the request has been sent."""
    stream = await anyio.connect_tcp(fake.host, fake.port)
    if request:
        await stream.send(request)
    return stream


async def read_all(stream: SocketStream) -> tuple[bytes, bool]:
    """All bytes until the end, and whether that was a clean one."""
    data = b""
    try:
        while True:
            data += await stream.receive()
    except anyio.EndOfStream:
        return data, True
    except anyio.BrokenResourceError:
        return data, False


async def exchange(fake: FakeOllama, request: bytes) -> tuple[bytes, bool]:
    """Send one request over a connection of its own, read until the server closes."""
    async with await connect(fake, request) as stream:
        return await read_all(stream)


async def draw(reply: Reply, *, request: bytes | None = None) -> tuple[bytes, bool]:
    """What a scripted reply sends until it closes, and whether it closed cleanly."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", reply)
        return await exchange(fake, request or post("/api/chat", CHAT, extra=CLOSE))


async def head_and_body(stream: SocketStream) -> tuple[bytes, bytes]:
    """One response with Content-Length or chunks, from a connection that stays open."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while (len(body) < int(length[1])) if length else (not body.endswith(b"0\r\n\r\n")):
        body += await stream.receive()
    return head, body


async def leave_at(fake: FakeOllama, path: str, body: object, pattern: bytes) -> bytes:
    """Ask, read until the pattern has come, and leave; returns what had come."""
    seen = b""
    async with await connect(fake, post(path, body)) as stream:
        while not re.search(pattern, seen):
            seen += await stream.receive()
    return seen


def body_of(raw: bytes) -> bytes:
    """What follows the head of a raw response."""
    return raw.partition(b"\r\n\r\n")[2]


def without_chunks(raw: bytes) -> bytes:
    """The body of a raw response of whole chunks, without their sizes."""
    return b"".join(re.findall(rb"[0-9a-f]+\r\n(.*\n?)\r\n", body_of(raw)))
