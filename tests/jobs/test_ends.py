"""How jobs end: left, cancelled, dropped, or with any of their clients."""

from __future__ import annotations

import gc
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tests.jobs.support import MODEL, QUICK, Two, Watched, texts
from tests.support import backends, is_quiet

from ollama_sc import AbortError, AsyncClient, ClientClosedError
from ollama_sc.embedding import embed_many
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio


@pytest.fixture(params=backends(debug=True))
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Both event loops; tasks and how they end are the subject here: asyncio in its debug mode."""
    return request.param


@pytest.mark.parametrize("how", ["break", "error", "nothing taken"])
async def test_leaving_ends_the_job(fake: FakeOllama, how: str) -> None:
    """Whatever the reason; an exception of the body comes out as itself."""
    source = Watched(1000)

    async def use(client: AsyncClient) -> None:
        async with client.embed_many(MODEL, source, batch_size=4) as batches:
            fake.script(QUICK, Reply.default(), Reply.silence())
            await fake.wait_for_requests(4)
            if how == "nothing taken":
                return
            async for _ in batches:
                if how == "error":
                    raise KeyError(how)
                break

    async with AsyncClient(fake.url) as client:
        if how == "error":
            with pytest.raises(KeyError):
                await use(client)
        else:
            await use(client)
        assert source.closed
        assert is_quiet(client)


async def test_the_clients_end_is_the_jobs(fake: FakeOllama) -> None:
    """Whoever still iterates elsewhere gets an AbortError that says so."""
    source = Watched(1000)
    entered = anyio.Event()
    async with anyio.create_task_group() as tasks:
        async with AsyncClient(fake.url) as client:

            async def consume() -> None:
                async with client.embed_many(MODEL, source, batch_size=4) as batches:
                    fake.always(QUICK, Reply.silence())
                    await fake.wait_for_requests(5)
                    entered.set()
                    with pytest.raises(AbortError, match="client closed"):
                        await anext(batches)

            tasks.start_soon(consume)
            await entered.wait()
        assert source.closed


async def test_shutdown_lets_a_job_finish(anyio_backend: Any) -> None:
    """Within the grace, the requests of a job that runs already are let in."""
    async with FakeOllama(embed_seconds=0.02) as fake, AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(40), batch_size=2) as batches:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.shutdown, 5)
                assert len([batch async for batch in batches]) == 20
        with pytest.raises(ClientClosedError):
            async with client.embed_many(MODEL, texts(1)):
                raise AssertionError


@pytest.mark.parametrize("where", ["entering", "iterating", "embed_array"])
async def test_a_cancelled_caller_sees_its_own_cancellation(fake: FakeOllama, where: str) -> None:
    """Never an AbortError; and nothing is left."""
    async with AsyncClient(fake.url) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def cancel(requests: int) -> None:
                    await fake.wait_for_requests(requests)
                    scope.cancel()

                if where == "iterating":
                    async with client.embed_many(MODEL, texts(9), batch_size=1) as batches:
                        fake.always(QUICK, Reply.silence())
                        tasks.start_soon(cancel, 5)
                        await anext(batches)
                elif where == "entering":
                    fake.always(QUICK, Reply.silence())
                    tasks.start_soon(cancel, 1)
                    async with client.embed_many(MODEL, texts(9)):
                        raise AssertionError
                else:
                    fake.script(QUICK, Reply.default(), Reply.silence())
                    tasks.start_soon(cancel, 2)
                    await client.embed_array(MODEL, texts(9))
        assert scope.cancelled_caught
        assert is_quiet(client)
        await fake.wait_all_closed()


async def test_a_cancelled_iteration_loses_no_batch(anyio_backend: Any) -> None:
    """The job goes on beside it."""
    async with FakeOllama(embed_seconds=0.02) as fake, AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(30), batch_size=2, max_in_flight=2) as batches:
            starts: list[int] = []
            cancelled = 0
            while len(starts) < 15:
                with anyio.move_on_after(0.004) as scope:
                    starts.append((await anext(batches)).start)
                cancelled += scope.cancelled_caught
            assert starts == list(range(0, 30, 2))
            assert cancelled


async def test_two_tasks_cannot_iterate_one_job(fake: FakeOllama) -> None:
    """The second one is told, and the first goes on."""
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, Watched(9, stall_at=8), batch_size=4) as batches:
            async with anyio.create_task_group() as tasks:

                async def consume() -> None:
                    with pytest.raises(AbortError):
                        async for _ in batches:
                            pass

                tasks.start_soon(consume)
                while batches.progress.texts < 8:
                    await anyio.sleep(0.001)
                await anyio.wait_all_tasks_blocked()
                with pytest.raises(anyio.BusyResourceError):
                    await anext(batches)
                batches.abort()


async def test_a_dropped_job_is_aborted_with_a_warning(fake: FakeOllama) -> None:
    """A job that nobody holds any more ends, and says so."""
    source = Watched(1000)
    async with AsyncClient(fake.url) as client:
        batches: Any = await client.embed_many(MODEL, source).__aenter__()
        await anext(batches)
        with pytest.warns(ResourceWarning, match="embed_many.*without being closed"):
            del batches
            gc.collect()
        with anyio.fail_after(5):
            while any(client._calls.calls()):
                await anyio.sleep(0.001)
        assert source.closed


async def test_a_job_dropped_after_a_cancelled_iteration_is_silent(fake: FakeOllama) -> None:
    """Whoever is cancelled inside an iteration had no chance to close: no warning."""
    async with AsyncClient(fake.url) as client:

        async def consume() -> None:
            async for _ in await client.embed_many(MODEL, Watched(9, stall_at=5)).__aenter__():
                pass

        with anyio.move_on_after(0.1) as scope:
            await consume()
        assert scope.cancelled_caught
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gc.collect()
        with anyio.fail_after(5):
            while any(client._calls.calls()):
                await anyio.sleep(0.001)


async def test_a_job_never_entered_is_nothing(fake: FakeOllama) -> None:
    """No request, no warning, nothing to clean up."""
    source = Watched(3)
    async with AsyncClient(fake.url) as client:
        batches = client.embed_many(MODEL, source)
        assert repr(batches) == "<Batches of a job that was not entered>"
        del batches
        gc.collect()
    assert not fake.requests
    assert not source.read


@pytest.mark.parametrize("end", ["all", "break", "failure"])
async def test_generators_are_closed(fake: FakeOllama, end: str) -> None:
    """Asynchronous and ordinary ones; where the job ends, however it does."""
    closed: list[str] = []

    def generated() -> Iterator[str]:
        try:
            yield from texts(8)
        finally:
            closed.append("ordinary")

    async def generated_later() -> AsyncIterator[str]:
        try:
            for text in texts(8):
                yield text
        finally:
            await anyio.lowlevel.checkpoint()
            closed.append("asynchronous")

    async with AsyncClient(fake.url) as client:
        for source in (generated(), generated_later()):
            if end == "failure":
                fake.script(QUICK, Reply.default(), Reply.html(200))
            try:
                async with client.embed_many(
                    MODEL, source, batch_size=1, max_in_flight=1
                ) as batches:
                    async for _ in batches:
                        if end == "break":
                            break
            except Exception:
                assert end == "failure"
            else:
                assert end != "failure"
    assert closed == ["ordinary", "asynchronous"]


# -- several servers -------------------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("how", ["abort", "group", "leave"])
async def test_any_of_the_clients_ends_the_job(anyio_backend: Any, which: int, how: str) -> None:
    """Aborting or closing one of them is an end for all of it, at all of them."""
    async with Two() as two, AsyncExitStack() as others:
        groups = [await others.enter_async_context(client.group()) for client in two.clients]
        async with embed_many(
            clients=groups, model=MODEL, texts=texts(10_000), batch_size=2
        ) as batches:
            await anext(batches)
            for fake in two.fakes:
                fake.always(QUICK, Reply.silence())
            while any(fake.in_flight < 4 for fake in two.fakes):
                await anyio.sleep(0.001)
            if how == "abort":
                assert two.clients[which].abort("stop") == 1
            elif how == "group":
                assert groups[which].abort("stop") == 1
            else:
                await groups[which].__aexit__(None, None, None)
            with pytest.raises(AbortError) as caught, anyio.fail_after(5):
                async for _ in batches:
                    pass
            assert caught.value.reason == ("group closed" if how == "leave" else "stop")
        assert all(is_quiet(client) for client in two.clients)
        for fake, client in zip(two.fakes, two.clients, strict=True):
            with anyio.fail_after(
                5
            ):  # one that had its reply before the silence is idle, and stays
                while fake.in_flight or fake.open_connections > client.statistics().idle:
                    await anyio.sleep(0.001)


async def test_a_finished_job_is_nothing_to_end(anyio_backend: Any) -> None:
    """At no client is anything of it left."""
    async with Two() as two:
        async with embed_many(clients=two.clients, model=MODEL, texts=texts(6)) as batches:
            assert len([batch async for batch in batches]) == 1
            with anyio.fail_after(5):
                while any(any(client._calls.calls()) for client in two.clients):
                    await anyio.sleep(0.001)
            assert [client.abort() for client in two.clients] == [0, 0]


async def test_all_clients_must_be_open(anyio_backend: Any) -> None:
    """One that is not: nothing is sent anywhere, and nothing is left."""
    async with Two() as two:
        for clients in (
            [two.clients[0], AsyncClient(two.fakes[1].url)],
            [AsyncClient(two.fakes[1].url), two.clients[0]],
        ):
            with pytest.raises(ClientClosedError):
                async with embed_many(clients=clients, model=MODEL, texts=texts(6)):
                    raise AssertionError
        assert is_quiet(two.clients[0])
        await anyio.wait_all_tasks_blocked()
        assert sum(len(fake.requests) for fake in two.fakes) == 0


async def test_a_shutdown_of_any_client_waits_for_the_job(anyio_backend: Any) -> None:
    """Within its grace."""
    async with Two() as two:
        async with embed_many(
            clients=two.clients, model=MODEL, texts=texts(100), batch_size=2
        ) as batches:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(two.clients[1].shutdown, 10)
                assert len([batch async for batch in batches]) == 50
