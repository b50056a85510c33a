"""A consumer that takes its time holds the server back, and a flood holds nobody up."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from ollama_sc import AsyncClient, RequestTimeout, Timeouts
from ollama_sc._api import stream_call as stream_module
from tests.api.support import chat_stream, no_debug
from tests.support import LONG, exhaust, raw_server, read_request

pytestmark = pytest.mark.anyio


def waiting_parts(call: Any) -> int:
    return sum(len(parts) for parts, _ in call._blocks)


def waiting_bytes(call: Any) -> int:
    return call._enqueued - call._taken


async def test_a_slow_consumer_slows_the_server(anyio_backend: Any) -> None:
    """What waits is bounded by number and by bytes, and the server is made to wait."""
    sent = 0
    line = b'{"model":"m","created_at":"","message":{"role":"assistant","content":"%d"},"done":false}\n'

    async def handle(stream: Any) -> None:
        nonlocal sent
        await read_request(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n")
        while True:
            block = b"".join(line % (sent + number) for number in range(100))
            await stream.send(block)
            sent += 100

    async with raw_server(handle) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            before = -1
            while sent != before:  # until the server is stuck
                before = sent
                await anyio.sleep(0.1)
            call = stream._call
            most = stream_module.MAX_WAITING_BYTES
            assert most <= waiting_bytes(call)
            assert 0.8 * 1024 < waiting_parts(call) < 1024 + 2500
            stuck = sent
            for number in range(stuck + 5000):
                assert int((await anext(stream)).text) == number
            assert sent > stuck


async def test_big_parts_are_bounded_by_bytes(anyio_backend: Any) -> None:
    """A few huge parts stop the reader as many small ones do."""
    part = b'{"model":"m","message":{"role":"assistant","content":"%s"},"done":false}\n' % (
        b"x" * 300_000
    )
    sent = 0

    async def handle(stream: Any) -> None:
        nonlocal sent
        await read_request(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(part)
            sent += 1

    async with raw_server(handle) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            before = -1
            while sent != before:
                before = sent
                await anyio.sleep(0.1)
            assert waiting_parts(stream._call) < 20
            for _ in range(sent + 20):
                assert len((await anext(stream)).text) == 300_000
            # The server goes on: closing must not wait for it to pause.
            start = anyio.current_time()
            await stream.aclose()
            assert anyio.current_time() - start < 3


@pytest.fixture
def flood(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of its own process, which sends parts of a stream as fast as it can."""
    characters, at_once = request.param
    part = b'{"model":"m","message":{"role":"assistant","content":"%s"},"done":false}\n' % (
        b"x" * characters
    )
    with subprocess.Popen(
        [sys.executable, "-c", FLOOD, (part * at_once).decode()], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.kill()


FLOOD = """
import socket, sys, threading

def flood(connection):
    try:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
        while True:
            connection.sendall(data)
    except OSError:
        pass

data = sys.argv[1].encode()
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=flood, args=[server.accept()[0]], daemon=True).start()
"""


@no_debug
@pytest.mark.parametrize("flood", [(10, 1), (10, 20), (30_000, 1)], indirect=True, ids=str)
async def test_a_flood_does_not_drown_a_cancellation(flood: str) -> None:
    """Whoever is cancelled ends, though the next part is always there.

    In its short form once in each way, and five times in the long one.
    """
    async with AsyncClient(flood) as client:
        for _ in range(5 if LONG else 1):
            with anyio.fail_after(3), anyio.move_on_after(0.1) as scope:
                async with await chat_stream(client) as stream:
                    await exhaust(stream)
            assert scope.cancelled_caught
            async with await chat_stream(client) as stream:
                with anyio.fail_after(3), anyio.move_on_after(0.1) as scope:
                    await exhaust(stream)
                assert scope.cancelled_caught
                with anyio.fail_after(3):
                    await anext(stream)
                    client.abort()
                    await stream._call.ended.wait()
            with anyio.fail_after(3), pytest.raises(RequestTimeout):
                await exhaust(await chat_stream(client, timeout=Timeouts(total=0.1)))
