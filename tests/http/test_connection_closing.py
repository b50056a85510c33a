"""Requests that end before their replies do: their connections are closed with them."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient, OllamaError
from tests.http.support import CHUNKED
from tests.support import MESSAGES, backends, recording
from tests.wire import (
    Peer,
    all_idle,
    answering,
    connected,
    fetch,
    ok,
    plain_and_tls,
    serving,
    settle,
    works,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=backends(debug=True))
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Cancellation is the subject here: asyncio runs in its debug mode."""
    return request.param


# -- cancelled, in every phase ---------------------------------------------------------------------

PHASES = {
    "silence": b"",
    "head": b"HTTP/1.1 200 OK\r\nContent-",
    "informed": b"HTTP/1.1 103 Hints\r\n\r\n",
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "closing": b"HTTP/1.1 200 OK\r\n\r\nhello",
}


@plain_and_tls
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("reused", [False, True], ids=["new", "reused"])
async def test_a_cancelled_request_closes_its_connection(
    anyio_backend: Any, phase: str, reused: bool, secure: bool
) -> None:
    """In whatever phase a request is cancelled, the server sees its connection close."""
    there = anyio.Event()

    async def handle(peer: Peer) -> None:
        await peer.send(PHASES[phase])
        await settle(20)
        there.set()
        await peer.gone()

    async with (
        serving(answering({"/": handle}), tls=secure) as server,
        connected(secure) as transport,
    ):
        if reused:
            await works(transport, server)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch, transport, server.url + "/")
            await there.wait()
            assert transport.connections() == (1, 0)
            tasks.cancel_scope.cancel()
        assert transport.connections() == (0, 0)
        await server.until_open(0)
        await works(transport, server)


async def test_a_cancel_that_comes_with_the_last_byte(anyio_backend: Any) -> None:
    """Cancelled just where the reply ends: the connection is closed or clean, never half-read."""

    async def handle(peer: Peer) -> None:
        await peer.send(ok(b"mine")[:-1])
        await settle()
        await peer.send(b"e")
        scopes[-1].cancel()

    scopes: list[anyio.CancelScope] = []
    async with serving(answering({"/": handle})) as server, connected() as transport:
        for number in range(30):
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await fetch(transport, server.url + "/")
            await works(transport, server, number)
            assert all_idle(transport)
            await server.until_open(transport.connections().open)


# -- closed ----------------------------------------------------------------------------------------


async def test_a_body_that_nobody_reads_to_its_end_costs_its_connection(anyio_backend: Any) -> None:
    """Closing a response half-way closes the connection at once; the server sees it."""
    big = CHUNKED + b"5\r\nhello\r\n"

    async with serving(answering({"/": big})) as server, connected() as transport:
        for read in (False, True):
            response = await transport.handle_async_request(httpx.Request("GET", server.url + "/"))
            assert transport.connections() == (1, 0)
            if read:
                pieces = aiter(response.stream)
                assert await anext(pieces) == b"hello"
            await response.aclose()
            assert transport.connections() == (0, 0)
            await server.until_open(0)
            await works(transport, server)
            await response.aclose()  # once more does no harm
            assert transport.connections() == (1, 1)


async def test_a_closed_reply_is_not_at_its_end(anyio_backend: Any) -> None:
    """Who goes on to read a response that was closed half-way gets an error, and no end."""
    begun = CHUNKED + b"5\r\nhello\r\n"
    async with serving(answering({"/": begun})) as server, connected() as transport:
        response = await transport.handle_async_request(httpx.Request("GET", server.url + "/"))
        pieces = aiter(response.stream)
        assert await anext(pieces) == b"hello"
        await response.aclose()
        with pytest.raises((httpx.TransportError, httpx.StreamError)):
            await anext(pieces)


async def test_closing_the_transport_closes_what_is_in_use(anyio_backend: Any) -> None:
    """Connections in use are closed too; who reads from one gets an error, and no hang."""
    outcomes: list[Any] = []

    async def ask(path: str) -> None:
        try:
            outcomes.append(await fetch(transport, server.url + path))
        except Exception as error:
            outcomes.append(error)

    async with serving(answering({"/silent": b"", "/body": CHUNKED})) as server:
        async with connected() as transport:
            with anyio.fail_after(5):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(ask, "/silent")
                    tasks.start_soon(ask, "/body")
                    while len(server.asked) < 2:
                        await settle()
                    await settle(20)
                    await transport.aclose()
            assert all(isinstance(outcome, httpx.TransportError) for outcome in outcomes), outcomes
            assert len(outcomes) == 2
            await server.until_open(0)


# -- broken ----------------------------------------------------------------------------------------


async def test_a_failing_stream_of_a_client_is_its_own_error(anyio_backend: Any) -> None:
    """A stream that is reset in the middle is an OllamaError, and its sibling goes on."""
    stream = recording("chat-stream")
    half = anyio.Event()

    async def chat(peer: Peer) -> None:
        if peer.number == 0:
            await peer.send(stream[:600])
            await settle()
            await peer.reset()
            half.set()
        else:
            await peer.send(stream[:600])
            await half.wait()
            await peer.send(stream[600:])

    outcomes: list[Any] = []

    async def ask() -> None:
        try:
            async with await client.chat("m", MESSAGES, stream=True) as parts:
                outcomes.append(len([part async for part in parts]))
        except OllamaError as error:
            outcomes.append(error)

    async with serving(answering({"/api/chat": chat})) as server:
        async with AsyncClient(server.url) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(partial(ask))
    assert sum(isinstance(outcome, OllamaError) for outcome in outcomes) == 1
    assert max(outcome for outcome in outcomes if isinstance(outcome, int)) > 5
