"""What a stream holds while it lasts: thousands can be live at a time, each for minutes."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from ollama_sc import AsyncClient
from ollama_sc._api import arguments
from tests.api.support import chat_stream
from tests.http.support import CHUNKED, LINE

pytestmark = pytest.mark.anyio
LIVE = 100
# Of Python's memory. What an interpreter needs for an object differs by some percent.
BYTES = 11_500


@asynccontextmanager
async def holding() -> AsyncIterator[str]:
    """A server that holds next to nothing itself: one part for each connection, and no more."""
    part = LINE % b"false"
    connections: list[socket.socket] = []

    async def serve(listener: socket.socket) -> None:
        while True:
            await anyio.wait_readable(listener)
            connection, _ = listener.accept()
            connections.append(connection)
            connection.send(b"%b%x\r\n%b\r\n" % (CHUNKED, len(part), part))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, listener)
            try:
                yield f"127.0.0.1:{listener.getsockname()[1]}"
            finally:
                tasks.cancel_scope.cancel()
                for connection in connections:
                    connection.close()


class Body(bytes):
    """A body that says when nobody has it any more."""

    gone: list[int]

    def __del__(self) -> None:
        self.gone.append(len(self))


async def test_its_request_is_not_kept(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt and the reply's headers are let go of when the reply has begun."""
    gone = Body.gone = []
    original = arguments.encode

    def encode(body: object, label: str) -> Any:
        encoded = original(body, label)
        assert isinstance(encoded, bytes)
        return Body(encoded)

    monkeypatch.setattr(arguments, "encode", encode)
    async with holding() as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            assert gone
            await anext(stream)
            transport: Any = client._shared.sender._client._transport
            [connection] = transport._open
            assert not connection.reply.fields
            assert not connection.reply.headers
            assert connection.reply.status == 200


async def test_it_takes_little(anyio_backend: Any) -> None:
    """The memory of a live stream whose consumer is busy elsewhere."""
    async with holding() as url, AsyncClient(url) as client:
        streams: list[Any] = []

        async def open_all() -> None:
            for _ in range(LIVE):
                streams.append(await chat_stream(client))
                await anext(streams[-1])

        await open_all()
        gc.collect()
        tracemalloc.start()
        try:
            await open_all()
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0] / LIVE
        finally:
            tracemalloc.stop()
        print(f"{taken:.0f} bytes for each stream")
        client.abort()
        assert taken < BYTES
