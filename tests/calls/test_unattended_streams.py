"""A stream goes on while its consumer is busy elsewhere, or never comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from tests.support import MESSAGES, is_quiet

from ollama_sc import AsyncClient, IncompleteStreamError, RequestTimeout, Timeouts
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio

MODEL = "llama3.2"
TEN = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]
SECONDS = 10  # for what takes a tenth of one


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(SECONDS):
        while not condition():
            await anyio.sleep(0.001)


@pytest.mark.parametrize("taken", [0, 1, 3])
async def test_a_reply_comes_to_its_end(fake: FakeOllama, taken: int) -> None:
    """Its place and its connection are free then, and `result` is whole, though nobody iterates."""
    fake.always("/api/chat", Reply.chat_text(TEN).replace(rate=100))
    async with AsyncClient(fake.url, max_in_flight=1) as client:
        stream = await client.chat(MODEL, MESSAGES, stream=True)
        for _ in range(taken):
            await anext(stream)
        await until(lambda: stream.result().complete)
        with anyio.fail_after(SECONDS):
            await client.version()
        assert client.statistics().open == 1
        assert [part.text async for part in stream][:-1] == TEN[taken:]


@pytest.mark.parametrize("taken", [0, 2])
async def test_a_reply_that_breaks_off_frees_its_place(fake: FakeOllama, taken: int) -> None:
    """The consumer hears of it when it comes back, after the parts that it has not taken."""
    fake.script("/api/chat", Reply.chat_text(TEN).replace(rate=100, reset_after=5))
    async with AsyncClient(fake.url, max_in_flight=1) as client:
        stream = await client.chat(MODEL, MESSAGES, stream=True)
        texts = [(await anext(stream)).text for _ in range(taken)]
        with anyio.fail_after(SECONDS):
            await client.version()
        with pytest.raises(IncompleteStreamError):
            async for part in stream:
                texts.append(part.text)
        assert texts == TEN[: len(texts)]
        assert is_quiet(client)


async def test_the_total_timeout_is_for_a_busy_consumer_too(slow: FakeOllama) -> None:
    """It frees the place, and the consumer hears of it when it comes back."""
    async with AsyncClient(slow.url, max_in_flight=1, timeout=Timeouts(total=0.3)) as client:
        stream = await client.chat(MODEL, MESSAGES, stream=True)
        await anext(stream)
        with anyio.fail_after(SECONDS):
            await client.version(timeout=Timeouts())
        with pytest.raises(RequestTimeout):
            async for _ in stream:
                pass


@pytest.mark.parametrize("taken", [0, 1])
async def test_what_has_arrived_whole_is_finished(fake: FakeOllama, taken: int) -> None:
    """An abort finds nothing to end, even if nobody had looked at what had come."""
    fake.script("/api/chat", Reply.chat_text(TEN))
    async with AsyncClient(fake.url) as client:
        stream = await client.chat(MODEL, MESSAGES, stream=True)
        for _ in range(taken):
            await anext(stream)
        await fake.requests[0].wait_finished()
        time.sleep(0.01)  # noqa: ASYNC251 - it arrives, and no task runs meanwhile
        complete = stream.result().complete
        assert stream.abort() is not complete
        if complete:
            assert [part.text async for part in stream][:-1] == TEN[taken:]


async def test_a_look_at_the_result_takes_no_part_from_a_waiting_consumer(
    fake: FakeOllama,
) -> None:
    """Where `result` reads what has come, the consumer that waited for it has it at once."""
    fake.script("/api/chat", Reply.chat_text(TEN).replace(rate=50, stall_after=4))
    texts: list[str] = []
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        stream = await client.chat(MODEL, MESSAGES, stream=True)

        async def consume() -> None:
            async for part in stream:
                texts.append(part.text)

        tasks.start_soon(consume)
        with anyio.fail_after(SECONDS):
            while len(texts) < 4:
                stream.result()
                await checkpoint()
        assert "".join(texts) == stream.result().text
        tasks.cancel_scope.cancel()


async def test_consumers_that_come_and_go_lose_nothing(fake: FakeOllama) -> None:
    """Cancelled at any moment, and busy for any time: each part comes once, in order."""
    fake.script("/api/chat", Reply.chat_text([*map(str, range(200))]).replace(rate=1000))
    texts: list[str] = []
    async with AsyncClient(fake.url) as client:
        stream = await client.chat(MODEL, MESSAGES, stream=True)
        over = False
        number = 0
        with anyio.fail_after(30):
            while not over:
                number += 1
                with anyio.move_on_after(0.0005 * (number % 7)):
                    over = True
                    async for part in stream:
                        texts.append(part.text)
                        over = False
                        if number % 5 == 0:
                            await anyio.sleep(0)
                        over = True
                    continue
                over = False
                if number % 11 == 0:
                    await anyio.sleep(0.02)
        assert texts[:-1] == [*map(str, range(200))]


async def test_nothing_is_left_of_what_reads_for_busy_consumers(
    anyio_backend: Any, fake: FakeOllama
) -> None:
    """With the last stream it ends, also by an abort; more streams have it again."""
    fake.always("/api/chat", Reply.chat_text(TEN).replace(rate=200, stall_after=5))
    async with AsyncClient(fake.url) as client:
        for _ in range(3):
            streams = [await client.chat(MODEL, MESSAGES, stream=True) for _ in range(3)]
            for stream in streams:
                await anext(stream)
            assert client.abort() == 3
            await until(lambda: is_quiet(client))
            nursery = client._shared.tasks._nursery
            if nursery is not None:
                await until(lambda nursery=nursery: not nursery.child_tasks)
        started = time.monotonic()
    assert time.monotonic() - started < 5


async def test_the_next_reply_on_its_connection_is_its_own(fake: FakeOllama) -> None:
    """A consumer that waited at the end of one never gets what follows it."""
    fake.always("/api/chat", Reply.chat_text(["a", "b"]))
    async with AsyncClient(fake.url, max_in_flight=1) as client:

        async def consume() -> None:
            stream = await client.chat(MODEL, MESSAGES, stream=True)
            assert [part.text async for part in stream] == ["a", "b", ""]

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(100):
                    tasks.start_soon(consume)
        assert client.statistics().open == 1
