"""The `repr` of what lives inside a client tells its state, as a debugger or a log shows it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient
from ollama_sc.testing import FakeOllama, Reply
from tests.wire import connected, fetch, serving
from tests.support import MESSAGES

pytestmark = pytest.mark.anyio

CHAT = "POST /api/chat, model 'llama3.2'"


def calls(client: AsyncClient) -> list[str]:
    return sorted(map(repr, client._calls.calls()))


def connections(client: AsyncClient) -> list[str]:
    transport = client._shared.sender._direct
    assert transport is not None
    return sorted(map(repr, transport._open))


async def test_a_call_tells_its_phase(fake: FakeOllama) -> None:
    """Waiting, receiving, aborting, aborted, ended; an operation is running."""
    fake.script("/api/chat", Reply.silence())
    async with AsyncClient(fake.url, max_in_flight=1) as client:

        async def ask() -> None:
            with pytest.raises(AbortError):
                await client.chat("llama3.2", MESSAGES)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await fake.wait_for_requests(1)
            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert calls(client) == [f"<Call {CHAT}: receiving>", f"<Call {CHAT}: waiting>"]
            assert repr(client).endswith("open, 2 requests>")
            active = list(client._calls.calls())
            client.abort()
            assert calls(client) == [f"<Call {CHAT}: aborting>"]  # the other one had no task yet
        assert [*map(repr, active)] == [f"<Call {CHAT}: aborted>"] * 2
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await anext(stream)
            call = stream._call
            assert repr(call) in (f"<StreamCall {CHAT}: receiving>", f"<StreamCall {CHAT}: ended>")
        assert repr(call).startswith(f"<StreamCall {CHAT}: ")
        client._calls.start_operation(job := new_call(client), anyio.sleep_forever)
        assert repr(job) == "<Call an operation: running>"


def new_call(client: AsyncClient) -> Any:
    from ollama_sc import Timeouts
    from ollama_sc._calls.call import Call

    return Call(client._calls.runtime, "an operation", Timeouts())


async def test_a_connection_tells_what_it_does(fake: FakeOllama) -> None:
    """Waiting for a reply, receiving, idle, closed; and the pool counts them."""
    fake.script("/api/version", Reply.default(), Reply.silence(), Reply.default(stall_at=60))
    async with AsyncClient(fake.url) as client:
        transport = client._shared.sender._direct
        assert transport is not None
        assert repr(transport) == "<Transport: 0 open, 0 idle>"
        await client.version()
        assert connections(client) == ["<Connection: idle, request 1>"]
        assert repr(transport) == "<Transport: 1 open, 1 idle>"
        (connection,) = transport._open
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.version)
            await fake.wait_for_requests(2)
            await anyio.wait_all_tasks_blocked()
            assert repr(connection) == "<Connection: waiting for the reply, request 2>"
            assert repr(transport) == "<Transport: 1 open, 0 idle>"
            tasks.cancel_scope.cancel()
        assert repr(connection) == "<Connection: closed, request 2>"
        assert repr(transport) == "<Transport: 0 open, 0 idle>"


async def test_a_connection_that_sends_says_so(anyio_backend: Any) -> None:
    """A body that the server does not read keeps it sending."""

    seen = anyio.Event()

    async def handle(peer: Any) -> None:
        await peer.head()
        await seen.wait()
        await peer.gone()

    async with serving(handle) as server, connected() as transport:
        async with anyio.create_task_group() as tasks:
            body = b"x" * 50_000_000
            tasks.start_soon(lambda: fetch(transport, server.url + "/", "POST", content=body))
            while not transport._open or not server.asked:
                await anyio.sleep(0.01)
            (connection,) = transport._open
            assert repr(connection) == "<Connection: sending, request 1>"
            tasks.cancel_scope.cancel()
            seen.set()
