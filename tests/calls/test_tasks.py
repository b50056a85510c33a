"""A request is one task of its client's group, and nothing of it stays."""

from __future__ import annotations

import gc
import threading

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient, ModelNotFoundError, RequestTimeout, Timeouts
from ollama_sc._calls.call import Call
from ollama_sc._http.connection import EncodedRequest
from ollama_sc._http.messages import Request
from ollama_sc.testing import FakeOllama
from tests.calls.support import name_of, running_tasks
from tests.support import MESSAGES, exhaust, is_quiet

pytestmark = pytest.mark.anyio


# -- a task in the client's group ------------------------------------------------------------------


async def test_each_request_is_one_task_of_the_clients_group(slow: FakeOllama) -> None:
    """A request adds one task to the loop, streamed or not, and takes it away again."""
    async with AsyncClient(slow.url) as client:
        before = running_tasks()
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await anext(stream)
            names = {name_of(task) for task in running_tasks() - before}
            assert [name for name in names if name.startswith("ollama_sc ")] == [
                "ollama_sc POST /api/chat, model 'llama3.2'"
            ]
        assert not [t for t in running_tasks() - before if name_of(t).startswith("ollama_sc ")]


async def test_leaving_the_client_leaves_no_task_and_no_thread(fake: FakeOllama) -> None:
    """Tasks and threads are as many after a client as before it."""
    tasks, threads = len(running_tasks()), threading.active_count()
    async with AsyncClient(fake.url) as client:
        for _ in range(3):
            await client.chat("llama3.2", MESSAGES)
        await client.embed("nomic-embed-text", ["a", "b"])
    await fake.wait_all_closed()
    await anyio.wait_all_tasks_blocked()
    assert len(running_tasks()) <= tasks
    assert threading.active_count() == threads


# -- nothing is left when a call ends --------------------------------------------------------------


async def test_a_call_that_ends_gives_its_connection_back(fake: FakeOllama) -> None:
    """Calls one after the other use one connection, errors included."""
    async with AsyncClient(fake.url) as client:
        for _ in range(3):
            await client.chat("llama3.2", MESSAGES)
            with pytest.raises(ModelNotFoundError):
                await client.chat("no-such-model", MESSAGES)
            async with await client.generate("llama3.2", "Hello", stream=True) as stream:
                assert [part async for part in stream][-1].done
        assert fake.connections == 1
        assert client.statistics() == (0, 0, 0, 0, 1, 1)


async def test_a_call_that_is_cut_short_closes_its_connection(slow: FakeOllama) -> None:
    """A connection whose reply was not read to the end is not used again."""
    async with AsyncClient(slow.url) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await anext(stream)
        assert client.statistics().open == 0
        await slow.requests[0].wait_closed()
        assert slow.requests[0].disconnected
        assert is_quiet(client)


async def test_the_registry_is_empty_whatever_happened(slow: FakeOllama) -> None:
    """Success, error, break, cancel, abort and timeout all leave no entry behind."""
    async with AsyncClient(slow.url) as client:
        await client.version()
        assert is_quiet(client)
        with pytest.raises(ModelNotFoundError):
            await client.chat("no-such-model", MESSAGES)
        assert is_quiet(client)
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            async for _ in stream:
                break
        assert is_quiet(client)
        with anyio.move_on_after(0.02):
            await client.chat("llama3.2", MESSAGES)
        assert is_quiet(client)
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        client.abort()
        with pytest.raises(AbortError):
            await exhaust(stream)
        assert is_quiet(client)
        with pytest.raises(RequestTimeout):
            await client.chat("llama3.2", MESSAGES, timeout=Timeouts(total=0.02))
        assert is_quiet(client)
        async with await client.generate(
            "llama3.2", "Hi", stream=True, options={"num_predict": 2}
        ) as stream:
            await exhaust(stream)
            assert is_quiet(client)


async def test_ended_calls_are_freed_without_the_garbage_collector(fake: FakeOllama) -> None:
    """A failed call's traceback keeps no reference cycle alive."""
    async with AsyncClient(fake.url) as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                with pytest.raises(ModelNotFoundError):
                    await client.chat("no-such-model", MESSAGES)
                await client.chat("llama3.2", MESSAGES)
                async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                    await exhaust(stream)
            del stream
            await anyio.wait_all_tasks_blocked()
            alive = [thing for thing in gc.get_objects() if isinstance(thing, Call)]
            assert not alive
        finally:
            gc.enable()


def test_the_collector_passes_over_requests_in_flight() -> None:
    """Those that hold nothing but text and bytes."""
    assert not gc.is_tracked(Request("POST", "/api/chat", "POST /api/chat (llama3.2)", b"{}"))
    assert not gc.is_tracked(EncodedRequest(b"POST", b"{}"))
