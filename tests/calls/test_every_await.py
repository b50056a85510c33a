"""Cancelled, aborted, and cut off at each await of a call: not by luck, but one after the other.

A call's own coroutines are stepped through. At the n-th place where one of them suspends, something
happens; n goes up until the call ends before it is reached.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from ollama_sc import AbortError, AsyncClient, ConnectError, OllamaError
from ollama_sc._calls.call import Call
from tests.support import (
    MESSAGES,
    in_the_calls_task,
    is_quiet,
    let_connecting_wait,
    raw_server,
    read_request,
    recorded_body,
    stepped,
)

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]

TURNS = 10  # of the loop, until the client has read a packet and waits for the next
KINDS = ["version", "chat", "stream", "embed", "error"]


class Server:
    """Answers each request with a recorded body, in two packets, and knows its connections."""

    def __init__(self) -> None:
        self.streams: list[Any] = []
        self.closed = 0

    async def handle(self, stream: Any) -> None:
        self.streams.append(stream)
        try:
            while request := await read_request(stream):
                for piece in self._reply(request):
                    await stream.send(piece)
                    for _ in range(TURNS):
                        await anyio.lowlevel.checkpoint()
        finally:
            self.closed += 1
            self.streams.remove(stream)

    def _reply(self, request: bytes) -> list[bytes]:
        path = request.split(b" ")[1]
        status, body = b"200 OK", b'{"version":"1"}'
        if path == b"/api/embed":
            body = recorded_body("embed-single")
        elif b"no-such-model" in request:
            status, body = b"404 Not Found", recorded_body("chat-missing-model")
        elif path == b"/api/chat" and b'"stream":true' in request:
            body = recorded_body("chat-stream")
        elif path == b"/api/chat":
            body = recorded_body("chat-single")
        half = len(body) // 2
        head = b"HTTP/1.1 %s\r\nTransfer-Encoding: chunked\r\n\r\n" % status
        return [
            head,
            b"%x\r\n%s\r\n" % (half, body[:half]),
            b"%x\r\n%s\r\n" % (len(body) - half, body[half:]),
            b"0\r\n\r\n",
        ]

    def break_all(self) -> None:
        """Shut every connection, from outside of any task; the client may have reset it."""
        for stream in self.streams:
            raw = stream.extra(SocketAttribute.raw_socket)
            raw = getattr(raw, "_sock", raw)
            with suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)


async def make(client: AsyncClient, kind: str) -> Any:
    if kind == "version":
        return await client.version()
    if kind == "chat":
        return await client.chat("m", MESSAGES)
    if kind == "embed":
        return await client.embed("m", "hello")
    if kind == "error":
        return await client.chat("no-such-model", MESSAGES)
    async with await client.chat("m", MESSAGES, stream=True) as stream:
        parts = [part async for part in stream]
    assert parts[-1].done
    return parts


async def clean(client: AsyncClient, server: Server) -> None:
    """Nothing is left, no place is lost, and the client goes on."""
    assert is_quiet(client)
    assert client._shared.limiter.available == 1
    statistics = client.statistics()
    assert statistics.open == statistics.idle
    transport: Any = client._shared.sender._client._transport
    assert all(connection._socket._sock.fileno() >= 0 for connection in transport._open)
    with anyio.fail_after(5):
        while len(server.streams) != statistics.open:
            await anyio.sleep(0.001)
        assert (await client.version()).version == "1"


@pytest.mark.parametrize("connection", ["new", "away", "reused"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["cancelled", "aborted", "woken", "broken", "timed out"])
async def test_at_each_await_of_the_task(
    monkeypatch: pytest.MonkeyPatch, what: str, kind: str, connection: str
) -> None:
    """Whatever await of its task a call is ended at, its caller hears of it and nothing is left.

    What is aborted when it has been woken is so before its task runs on.
    """
    if connection == "away":
        let_connecting_wait(monkeypatch)
    ended = 0
    for at in range(1, 200):
        server = Server()
        seen: list[int] = []
        outcome: Any = None
        async with raw_server(server.handle) as url:
            async with AsyncClient(url, max_in_flight=1, verify=False) as client:
                if connection == "reused":
                    await client.version()
                scope = anyio.CancelScope()

                def happens(call: Call[Any]) -> None:
                    if what == "cancelled":
                        scope.cancel()
                    elif what in ("aborted", "woken"):
                        client.abort("here")
                    elif what == "timed out":
                        call._scope.deadline = anyio.current_time() - 1
                    else:
                        server.break_all()

                with in_the_calls_task(happens, at, seen, woken=what == "woken"):
                    try:
                        with scope:
                            outcome = await make(client, kind)
                    except OllamaError as error:
                        outcome = error
                if what == "cancelled" and len(seen) >= at:
                    assert scope.cancelled_caught or outcome is not None
                elif what in ("aborted", "woken") and isinstance(outcome, AbortError):
                    assert outcome.reason == "here"
                    assert not isinstance(outcome.__cause__, ConnectError)
                elif what == "timed out" and isinstance(outcome, TimeoutError):
                    pass
                ended += scope.cancelled_caught or isinstance(outcome, OllamaError)
                await clean(client, server)
        if len(seen) < at:
            break
    else:
        pytest.fail("the call never ended")
    assert at > 3, "it suspends at several places"
    if what == "woken":  # by the reply's end, after which there is nothing to abort
        assert ended
    elif what != "broken":  # a reply can be here before the connection breaks
        assert ended >= at // 2


@pytest.mark.parametrize("kind", KINDS)
async def test_at_each_await_of_the_caller(kind: str) -> None:
    """Wherever a caller is cancelled, its cancellation is what it sees, and nothing is left."""
    for at in range(1, 200):
        server = Server()
        seen: list[int] = []
        async with raw_server(server.handle) as url:
            async with AsyncClient(url, max_in_flight=1, verify=False) as client:
                with anyio.CancelScope() as scope:
                    try:
                        await stepped(make(client, kind), scope.cancel, at, seen)
                        # What is left then is closing, which is shielded.
                        await anyio.lowlevel.checkpoint()
                    except OllamaError:
                        assert kind == "error"
                assert scope.cancelled_caught or len(seen) < at or kind == "error"
                await clean(client, server)
        if len(seen) < at:
            break
    assert at > 1


@pytest.mark.parametrize("what", ["cancelled", "broken"])
async def test_at_each_await_of_leaving_the_client(what: str) -> None:
    """Wherever the exit is cancelled or cut off, it ends all and raises the body's exception."""
    for at in range(1, 200):
        server = Server()
        seen: list[int] = []
        async with raw_server(server.handle) as url:
            client = AsyncClient(url, verify=False)
            scope = anyio.CancelScope()
            happens = scope.cancel if what == "cancelled" else server.break_all
            with scope:
                await client.__aenter__()
                stream = await client.chat("m", MESSAGES, stream=True)
                try:
                    raise ValueError("mine")
                except ValueError as error:
                    leaving = client.__aexit__(type(error), error, error.__traceback__)
                    assert not await stepped(leaving, happens, at, seen)
            assert is_quiet(client)
            with anyio.fail_after(5):
                while server.streams:
                    await anyio.sleep(0.001)
            await stream.aclose()
        if len(seen) < at:
            break
    assert at > 1
