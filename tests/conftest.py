"""What all tests share: both backends, recordings, servers that send literal bytes."""

from __future__ import annotations

import gc
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import hypothesis  # noqa: F401 - before the freeze below: its import asks who refers to what
import pytest
from anyio.abc import SocketStream, TaskStatus

from ollama_sc import AsyncClient
from ollama_sc.testing import FakeOllama

RECORDINGS = Path(__file__).parent / "recordings"
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"debug": True}), id="asyncio"),
        pytest.param(("trio", {"restrict_keyboard_interrupt_to_checkpoints": True}), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Every async test runs on both."""
    return request.param


def pytest_collection_finish() -> None:
    """What is imported stays: collecting after each test need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_garbage_is_left() -> Any:
    """What a test leaves behind is collected in that test, so that its warnings fail it."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that this machine's environment says changes a test."""
    for name in ("OLLAMA_HOST", "OLLAMA_API_KEY", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def fake(anyio_backend: Any) -> AsyncIterator[FakeOllama]:
    """A fake server in the test's own loop."""
    async with FakeOllama() as server:
        yield server


@pytest.fixture
async def slow(anyio_backend: Any) -> AsyncIterator[FakeOllama]:
    """A fake server whose replies take as long as a test wants."""
    async with FakeOllama(token_rate=20, tokens=100_000) as server:
        yield server


def recording(name: str) -> bytes:
    """A real server's reply, with its head."""
    return (RECORDINGS / f"{name}.http").read_bytes()


def recorded_request(name: str) -> dict[str, Any]:
    """The request that drew it."""
    index = json.loads((RECORDINGS / "index.json").read_text())
    return next(entry for entry in index["responses"] if entry["name"] == name)


def recorded_body(name: str) -> bytes:
    """A real server's reply without its head and without chunk sizes."""
    head, _, body = recording(name).partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    parts: list[bytes] = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(parts)


async def read_request(stream: SocketStream) -> bytes:
    """One whole request off a raw socket; empty where the client has gone."""
    data = b""
    while True:
        head, found, body = data.partition(b"\r\n\r\n")
        if found:
            length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
            if len(body) >= (int(length[1]) if length else 0):
                return data
        try:
            data += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return b""


@asynccontextmanager
async def raw_server(handle: Callable[[SocketStream], Any]) -> AsyncIterator[str]:
    """A server that is nothing but `handle(stream)` for each connection; yields its URL."""

    async def guarded(stream: SocketStream) -> None:
        async with stream:
            try:
                await handle(stream)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                pass

    async def serve(*, task_status: TaskStatus[int]) -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            task_status.started(listener.extra(anyio.abc.SocketAttribute.local_port))
            await listener.serve(guarded)

    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve)
        try:
            yield f"http://127.0.0.1:{port}"
        except BaseException as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def replying(*replies: bytes) -> Callable[[SocketStream], Any]:
    """Handle a connection by one literal reply for each request, then close it."""

    async def handle(stream: SocketStream) -> None:
        for reply in replies:
            if not await read_request(stream):
                return
            await stream.send(reply)

    return handle


def plain_reply(body: bytes, status: str = "200 OK", type_: str = "application/json") -> bytes:
    """An HTTP reply around a body."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {type_}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def is_quiet(client: AsyncClient) -> bool:
    """Whether nothing of any request is left in a client."""
    return not any(client._calls.calls()) and sum(client.statistics()[:4]) == 0
