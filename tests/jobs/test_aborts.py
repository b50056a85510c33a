"""A job that is aborted, or cancelled from outside: at whatever moment, nothing of it is left."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.support import in_the_calls_task
from tests.jobs.support import MODEL, QUICK, Watched, texts, until_still
from tests.support import backends, is_quiet

from ollama_sc import AbortError, AsyncClient, Group
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio


@pytest.fixture(params=backends(debug=True))
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Both event loops; tasks and how they end are the subject here: asyncio in its debug mode."""
    return request.param


async def test_abort_while_the_model_is_loaded(fake: FakeOllama) -> None:
    """Entering raises it; the one request is gone."""
    fake.always(QUICK, Reply.silence())
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:

        async def enter() -> None:
            with pytest.raises(AbortError) as caught:
                async with client.embed_many(MODEL, texts(3)):
                    raise AssertionError
            assert caught.value.reason == "stop"

        tasks.start_soon(enter)
        await fake.wait_for_requests(1)
        assert client.abort("stop") == 1
        await fake.wait_all_closed()
        assert is_quiet(client)
        assert len(fake.requests) == 1


@pytest.mark.parametrize("how", ["client", "batches", "group"])
async def test_abort_with_requests_in_flight(fake: FakeOllama, how: str) -> None:
    """The job is one operation: it counts once, its requests are gone, its source is closed."""
    source = Watched(1000)
    async with AsyncClient(fake.url) as client, client.group() as group:
        one: AsyncClient | Group = group if how == "group" else client
        async with one.embed_many(MODEL, source, batch_size=4) as batches:
            fake.always(QUICK, Reply.silence())
            await fake.wait_for_requests(5)
            if how == "batches":
                assert batches.abort("stop")
                assert not batches.abort("again")
            else:
                assert one.abort("stop") == 1
            for _ in range(2):
                with pytest.raises(AbortError) as caught:
                    await anext(batches)
                assert caught.value.reason == "stop"
            assert source.closed
            assert is_quiet(client)
            await fake.wait_all_closed()
        fake.always(QUICK, None)
        assert len(await client.embed_array(MODEL, ["a"])) == 1
        assert len(fake.requests) == 7  # nothing was tried again


async def test_abort_while_the_job_waits_for_its_consumer(fake: FakeOllama) -> None:
    """Between requests too; what waits for the consumer is discarded."""
    source = Watched(1000)
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, source, batch_size=4) as batches:
            await until_still(fake)
            assert client.statistics().in_flight == 0
            assert client.abort() == 1
            with pytest.raises(AbortError):
                await anext(batches)
            assert source.closed
            assert is_quiet(client)


async def test_abort_while_the_job_waits_for_texts(fake: FakeOllama) -> None:
    """A source that gives nothing is cancelled where it waits."""
    source = Watched(1000, stall_at=3)
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, source) as batches, anyio.create_task_group() as tasks:

            async def consume() -> None:
                with pytest.raises(AbortError):
                    await anext(batches)

            tasks.start_soon(consume)
            await source.stalled.wait()
            assert client.abort() == 1
        assert source.closed
        assert is_quiet(client)


async def test_abort_in_a_retrys_sleep(fake: FakeOllama) -> None:
    """The wait before another try ends at once, and there is no other try."""
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(4)) as batches:
            fake.always(QUICK, Reply.error(429, "slow down", {"Retry-After": "100"}))
            await fake.wait_for_requests(2)
            await until_still(fake)
            with anyio.fail_after(5):
                assert client.abort() == 1
                with pytest.raises(AbortError):
                    await anext(batches)
            assert is_quiet(client)
        assert len(fake.requests) == 2


async def test_abort_at_any_moment(fake: FakeOllama) -> None:
    """After however many steps: nothing is left, and the source is closed."""
    for steps in range(0, 100, 7):
        source = Watched(40)
        async with AsyncClient(fake.url) as client:
            try:
                async with client.embed_many(MODEL, source, batch_size=4) as batches:
                    async with anyio.create_task_group() as tasks:

                        async def stop() -> None:
                            for _ in range(steps):
                                await anyio.lowlevel.checkpoint()
                            batches.abort(steps)

                        tasks.start_soon(stop)
                        try:
                            got = [batch.start async for batch in batches]
                            assert got == list(range(0, 40, 4))
                        except AbortError as error:
                            assert error.reason == steps
            finally:
                assert is_quiet(client)
            assert source.closed == source.entered
            assert client.statistics().in_flight == 0


async def test_a_finished_job_is_not_aborted(fake: FakeOllama) -> None:
    """When the last vector is here, its batches are still delivered."""
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(3), batch_size=1) as batches:
            while any(client._calls.calls()):
                await anyio.sleep(0.001)
            assert not batches.abort()
            assert client.abort() == 0
            assert [batch.start async for batch in batches] == [0, 1, 2]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_of_a_job_that_is_cancelled_from_outside(fake: FakeOllama) -> None:
    """asyncio can cancel any task: then a batch is missing, and the job says so."""
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(40), batch_size=4) as batches:
            fake.always(QUICK, Reply.silence())
            await fake.wait_for_requests(5)
            ours = [task for task in asyncio.all_tasks() if "_fail_job_on_error" in task.get_name()]
            assert len(ours) == 5  # four batches, and the keeper of the server
            ours[-1].cancel()
            with pytest.raises(AbortError, match="cancelled"), anyio.fail_after(5):
                async for _ in batches:
                    pass
        assert is_quiet(client)


@pytest.mark.parametrize("what", ["abort", "cancel"])
async def test_at_each_await_of_the_jobs_task(fake: FakeOllama, what: str) -> None:
    """Whatever await of its own a job is ended at, its consumer hears of it, nothing is left."""
    for at in range(1, 200):
        source = Watched(12)
        seen: list[int] = []
        got: list[int] = []
        async with AsyncClient(fake.url) as client:
            with anyio.CancelScope() as scope:

                def happens(call: Any) -> None:
                    if what == "abort":
                        client.abort("here")
                    else:
                        scope.cancel()

                with in_the_calls_task(happens, at, seen):
                    try:
                        async with client.embed_many(
                            MODEL, source, batch_size=4, max_in_flight=1
                        ) as batches:
                            got = [batch.start async for batch in batches]
                            await anyio.lowlevel.checkpoint()
                    except AbortError as error:
                        assert error.reason == "here"
                        assert what == "abort"
            assert is_quiet(client)
            assert scope.cancelled_caught == (what == "cancel" and len(seen) >= at)
        assert source.closed == source.entered
        if len(seen) < at:
            assert got == [0, 4, 8]
            break
    assert at > 10
