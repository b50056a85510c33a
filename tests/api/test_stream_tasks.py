"""Streams among tasks: dropped, cancelled, aborted, closed, iterated by two."""

from __future__ import annotations

import gc
import threading
import warnings
from typing import Any

import anyio
import pytest

from ollama_sc import AbortError, AsyncClient, IncompleteStreamError
from ollama_sc._api.stream_call import StreamCall
from ollama_sc.testing import FakeOllama, Reply
from tests.api.support import a_part, chat_stream, no_debug
from tests.support import MESSAGES, backends, exhaust, is_quiet

pytestmark = pytest.mark.anyio


@pytest.fixture(params=backends(debug=True))
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Tasks and cancellation are the subject here: asyncio runs in its debug mode."""
    return request.param


# -- dropped ---------------------------------------------------------------------------------------


async def test_a_dropped_stream_is_aborted_with_a_warning(fake: FakeOllama) -> None:
    """A stream that nobody holds any more ends its request and says so."""
    async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
        stream: Any = await chat_stream(client)
        await anext(stream)
        with pytest.warns(ResourceWarning, match="POST /api/chat.*without being closed"):
            del stream
            gc.collect()
        with anyio.fail_after(5):
            await slow.requests[0].wait_closed()
            while client.statistics().in_flight:
                await anyio.sleep(0.001)
        assert is_quiet(client)


async def test_a_stream_dropped_in_another_thread_is_aborted(fake: FakeOllama) -> None:
    """The garbage collector can run in any thread."""
    async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
        holder: list[Any] = [await chat_stream(client)]

        def drop() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                holder.clear()
                gc.collect()

        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()
        with anyio.fail_after(5):
            await slow.requests[0].wait_closed()
            while client.statistics().in_flight:
                await anyio.sleep(0.001)
        assert is_quiet(client)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_dropped_after_its_loop_is_silent(backend: str) -> None:
    """A stream that outlives its loop has ended with its client: nothing to warn of."""

    async def main() -> Any:
        async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
            return await chat_stream(client)

    stream = anyio.run(main, backend=backend)
    del stream
    gc.collect()


async def test_a_stream_dropped_after_a_cancelled_iteration_is_silent(
    anyio_backend: Any,
) -> None:
    """Whoever is cancelled inside an iteration had no chance to close: no warning."""
    async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:

        async def consume() -> None:
            async for _ in await chat_stream(client):
                pass

        with anyio.move_on_after(0.1) as scope:
            await consume()
        assert scope.cancelled_caught
        gc.collect()
        with anyio.fail_after(5):
            await slow.requests[0].wait_closed()
            while client.statistics().in_flight:
                await anyio.sleep(0.001)


@pytest.mark.parametrize("by", ["stream", "client"])
async def test_an_aborted_stream_may_be_dropped(slow: FakeOllama, by: str) -> None:
    """A stream that was aborted needs no closing: no warning."""
    async with AsyncClient(slow.url) as client:
        stream: Any = await client.chat("llama3.2", MESSAGES, stream=True)
        (stream if by == "stream" else client).abort()
        del stream
        gc.collect()


async def test_failed_streams_are_freed_without_the_garbage_collector(slow: FakeOllama) -> None:
    """An aborted or incomplete stream and its text are gone with their last reference."""
    slow.always("/api/generate", Reply.stream([{"model": "m", "response": "a", "done": False}]))
    async with AsyncClient(slow.url) as client:
        gc.collect()
        gc.disable()
        try:
            stream: Any = await client.chat("llama3.2", MESSAGES, stream=True)
            await anext(stream)
            stream.abort()
            for _ in range(3):
                with pytest.raises(AbortError):
                    await anext(stream)
            stream = await client.generate("llama3.2", "x", stream=True)
            with pytest.raises(IncompleteStreamError):
                await exhaust(stream)
            with pytest.raises(IncompleteStreamError) as caught:
                await anext(stream)
            assert len(caught.traceback) < 10
            del stream, caught
            await anyio.wait_all_tasks_blocked()
            assert not [thing for thing in gc.get_objects() if isinstance(thing, StreamCall)]
        finally:
            gc.enable()


# -- cancelled and shared --------------------------------------------------------------------------


async def test_a_cancelled_iteration_loses_no_part(anyio_backend: Any) -> None:
    """However often an iteration is cancelled, every part comes once and in order."""
    lines = [a_part(str(number)) for number in range(200)] + [a_part("", done=True)]
    async with FakeOllama() as server:
        server.always("/api/chat", Reply.stream(lines).replace(rate=2000))
        async with AsyncClient(server.url) as client, await chat_stream(client) as stream:
            texts: list[str] = []
            cancelled = 0
            while not texts or texts[-1] != "":
                with anyio.CancelScope() as scope:
                    if len(texts) % 3 == cancelled % 3:
                        scope.cancel()
                    texts.append((await anext(stream)).text)
                if scope.cancelled_caught:
                    cancelled += 1
                    with anyio.move_on_after(0.0005):
                        texts.append((await anext(stream)).text)
            assert texts == [*map(str, range(200)), ""]
            assert cancelled > 10


async def test_iterating_an_ended_stream_is_a_checkpoint(slow: FakeOllama) -> None:
    """A cancelled caller sees its cancellation, whatever has become of the stream."""
    async with AsyncClient(slow.url) as client:
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        await stream.aclose()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)
        assert scope.cancelled_caught
        with pytest.raises(AbortError):
            await anext(stream)


async def test_two_tasks_cannot_iterate_one_stream(anyio_backend: Any) -> None:
    """The second one is told that the stream is busy, and the first goes on."""
    async with FakeOllama() as server, AsyncClient(server.url) as client:
        server.always("/api/chat", Reply.default().replace(stall_after=1))
        async with await chat_stream(client) as stream, anyio.create_task_group() as tasks:
            got: list[str] = []

            async def consume() -> None:
                with pytest.raises(AbortError):
                    async for part in stream:
                        got.append(part.text)

            tasks.start_soon(consume)
            while not got:
                await anyio.sleep(0.001)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await anext(stream)
            stream.abort()
        assert len(got) == 1


@no_debug
async def test_other_tasks_run_while_parts_wait(fake: FakeOllama) -> None:
    """Iterating what is already here lets other tasks run at least once for each read."""
    lines = [a_part(str(number)) for number in range(5000)] + [a_part("", done=True)]
    fake.always("/api/chat", Reply.stream(lines).replace(flush=False))
    rounds = 0

    async def other() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await anyio.lowlevel.checkpoint()

    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        async with await chat_stream(client) as stream:
            batches = [batch async for batch in stream.batches()]
        tasks.start_soon(other)
        async with await chat_stream(client) as stream:
            async for _ in stream:
                pass
        tasks.cancel_scope.cancel()
    assert rounds >= len(batches) > 1


# -- closed and aborted ----------------------------------------------------------------------------


async def test_closing_twice_and_after_the_end(fake: FakeOllama) -> None:
    """aclose is safe at any time; iterating afterwards says that the stream was closed."""
    async with AsyncClient(fake.url) as client:
        stream = await chat_stream(client)
        await stream.aclose()
        await stream.aclose()
        if not stream.result().complete:  # it had not arrived whole
            with pytest.raises(AbortError, match="closed"):
                await anext(stream)
        async with await chat_stream(client) as stream:
            async for _ in stream:
                pass
        await stream.aclose()


async def test_closing_under_cancellation_still_closes(anyio_backend: Any) -> None:
    """A cancelled aclose has done its work when it returns or raises."""
    async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
        stream = await chat_stream(client)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        assert is_quiet(client)
        assert client.statistics().open == 0


async def test_stream_abort_ends_one(anyio_backend: Any) -> None:
    """stream.abort ends its own request, once, and no other."""
    async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
        async with await chat_stream(client) as one, await chat_stream(client) as other:
            await anext(one)
            assert one.abort("enough")
            assert not one.abort()
            with pytest.raises(AbortError) as caught:
                await anext(one)
            assert caught.value.reason == "enough"
            assert await anext(other)


async def test_abort_wakes_a_reader_that_is_held_back(fake: FakeOllama) -> None:
    """A request whose consumer takes nothing ends as promptly as any other."""
    fake.always("/api/chat", Reply.default())
    async with FakeOllama(tokens=200_000) as server, AsyncClient(server.url) as client:
        stream = await chat_stream(client)
        with anyio.fail_after(10):
            while stream._call._not_full is None:
                await anyio.sleep(0.001)
        assert client.abort() == 1
        with anyio.fail_after(5):
            await server.requests[0].wait_closed()
        with pytest.raises(AbortError):
            await anext(stream)
        assert stream.result().message.content
