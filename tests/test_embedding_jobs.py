"""`embed_many` and `embed_array` on one server: batches, order, back-pressure, and how jobs end."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from conftest import is_quiet
from test_every_await import in_the_calls_task

from ollama_sc import (
    AbortError,
    AsyncClient,
    ClientClosedError,
    ConnectError,
    EmbedManyFields,
    Group,
    ModelNotFoundError,
    RequestError,
    RequestTimeout,
    Timeouts,
)
from ollama_sc.embedding import Batches, Progress, _delivery, embed_array, embed_many
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio
MODEL = "nomic-embed-text"
QUICK = "/v1/embeddings"


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


async def later(items: list[str]) -> AsyncIterator[str]:
    for item in items:
        await anyio.lowlevel.checkpoint()
        yield item


class Watched:
    """An async source that counts what is read, and knows whether its generator was closed."""

    def __init__(self, count: int, stall_at: int | None = None) -> None:
        self.count = count
        self.read = 0
        self.entered = self.closed = False
        self.stalled = anyio.Event()
        self.stall_at = stall_at

    async def __aiter__(self) -> AsyncIterator[str]:
        self.entered = True
        try:
            for number in range(self.count):
                if number == self.stall_at:
                    self.stalled.set()
                    await anyio.sleep_forever()
                await anyio.lowlevel.checkpoint()
                self.read += 1
                yield f"text {number}"
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            self.closed = True


# -- what comes out --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list", "iterator", "async"])
async def test_batches_come_in_order_with_their_texts_and_vectors(
    fake: FakeOllama, kind: str
) -> None:
    """Every text comes once, at its place, with the vector that `embed` gives for it."""
    given = texts(23)
    source = {"list": given, "iterator": iter(given), "async": later(given)}[kind]
    async with AsyncClient(fake.url) as client:
        expected = np.array((await client.embed(MODEL, given)).embeddings, np.float32)
        found: list[Any] = []
        async with client.embed_many(MODEL, source, batch_size=5) as batches:
            assert batches.dimensions == 768
            found = [batch async for batch in batches]
    assert [batch.start for batch in found] == [0, 5, 10, 15, 20]
    assert [text for batch in found for text in batch.inputs] == given
    assert [len(batch) for batch in found] == [5, 5, 5, 5, 3]
    whole = np.concatenate([batch.vectors for batch in found])
    assert whole.dtype == np.float32
    assert whole.tobytes() == expected.tobytes()
    assert not any(batch.failures for batch in found)
    assert repr(found[1]) == "<Batch of texts 5 to 9, 0 failed>"


async def test_arrays_can_be_changed(fake: FakeOllama) -> None:
    """The vectors are the consumer's own."""
    async with AsyncClient(fake.url) as client, client.embed_many(MODEL, ["a"]) as batches:
        batch = await anext(batches)
        batch.vectors[:] = 0
    assert not batch.vectors.any()


@pytest.mark.parametrize(
    ("lengths", "size", "chars", "expected"),
    [
        ([1, 1, 1, 1, 1], 2, None, [2, 2, 1]),
        ([3, 3, 3, 3], 10, 6, [2, 2]),
        ([3, 4, 3, 3], 10, 6, [1, 1, 2]),
        ([50, 1, 1, 50, 50], 10, 6, [1, 2, 1, 1]),
        ([1, 50, 1], 10, 6, [1, 1, 1]),
        ([0, 0, 0], 2, 1, [2, 1]),
        ([6, 6], 1, 6, [1, 1]),
        ([], 2, None, []),
    ],
)
async def test_a_batch_closes_at_whichever_limit_comes_first(
    fake: FakeOllama, lengths: list[int], size: int, chars: int | None, expected: list[int]
) -> None:
    """So many texts or characters; a text that is longer is a batch of its own."""
    given = ["x" * length for length in lengths]
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, given, batch_size=size, batch_chars=chars) as batches:
            found = [batch async for batch in batches]
    assert [len(batch) for batch in found] == expected
    assert [text for batch in found for text in batch.inputs] == given


async def test_batches_as_they_are_done(fake: FakeOllama) -> None:
    """With ordered=False a batch that takes long does not hold up the others."""
    fake.script(QUICK, Reply.default(), Reply.default(delay=0.3))
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(40), batch_size=10, ordered=False) as batches:
            starts = [batch.start async for batch in batches]
    assert starts[-1] == 0
    assert sorted(starts) == [0, 10, 20, 30]


async def test_a_batch_that_takes_longer_is_waited_for(fake: FakeOllama) -> None:
    """In order, whatever is done first."""
    fake.script(QUICK, Reply.default(), Reply.default(delay=0.3))
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(40), batch_size=10) as batches:
            assert [batch.start async for batch in batches] == [0, 10, 20, 30]


async def test_one_array(fake: FakeOllama) -> None:
    """`embed_array` gives all vectors in order, also of texts that have no length."""
    given = texts(37)
    async with AsyncClient(fake.url) as client:
        expected = np.array((await client.embed(MODEL, given)).embeddings, np.float32)
        for source in (given, iter(given), later(given)):
            found = await client.embed_array(MODEL, source, batch_size=7)
            assert found.dtype == np.float32
            assert found.shape == (37, 768)
            assert found.flags.owndata
            assert found.tobytes() == expected.tobytes()
        assert is_quiet(client)


async def test_nothing_gives_nothing(fake: FakeOllama) -> None:
    """Without texts there is no batch, and an array of none by d."""
    async with AsyncClient(fake.url) as client:
        assert (await client.embed_array(MODEL, [])).shape == (0, 768)
        assert (await client.embed_array(MODEL, iter(()))).shape == (0, 768)


async def test_groups_and_the_function_do_the_same(fake: FakeOllama) -> None:
    """A group has the same calls; `embed_many` and `embed_array` take clients."""
    async with AsyncClient(fake.url) as client, client.group() as group:
        for one in (client, group):
            async with embed_many(clients=[one], model=MODEL, texts=["a"]) as batches:
                assert len([batch async for batch in batches]) == 1
            found = await embed_array(clients=[one], model=MODEL, texts=["a"])
            assert (found == await one.embed_array(MODEL, ["a"])).all()


async def test_dimensions_are_asked_for(fake: FakeOllama) -> None:
    """Fewer dimensions are the server's to make."""
    async with AsyncClient(fake.url) as client:
        assert (await client.embed_array(MODEL, ["a"], dimensions=10)).shape == (1, 10)


# -- how it works ----------------------------------------------------------------------------------


async def test_the_model_is_warmed_up_by_one_request(fake: FakeOllama) -> None:
    """One text goes first, alone; entering returns when it is answered, and no text was read."""
    fake.script(QUICK, Reply.default(delay=0.1))
    source = Watched(20)
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, source, batch_size=5) as batches:
            assert len(fake.requests) == 1
            assert len(fake.requests[0].json["input"]) == 1
            assert source.read == 0
            assert len([batch async for batch in batches]) == 4
        assert len(fake.requests) == 5


@pytest.mark.parametrize("in_flight", [1, 3])
async def test_so_many_requests_are_in_flight(anyio_backend: Any, in_flight: int) -> None:
    """All places are used, and no more."""
    async with FakeOllama(embed_seconds=0.02) as fake, AsyncClient(fake.url) as client:
        async with client.embed_many(
            MODEL, texts(60), batch_size=4, max_in_flight=in_flight
        ) as batches:
            async for _ in batches:
                assert client.statistics().in_flight <= in_flight
        assert fake.peak_in_flight == in_flight


async def test_a_slow_consumer_stops_the_reading_and_the_sending(fake: FakeOllama) -> None:
    """What is read and not taken is bounded by the number in flight; taking goes on with it."""
    source = Watched(100_000)
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, source, batch_size=4, max_in_flight=3) as batches:
            await until_still(fake)
            most = (2 * 3 + 1) * 4
            assert source.read == most
            assert len(fake.requests) == 1 + 2 * 3
            assert fake.in_flight == 0
            for _ in range(5):
                await anext(batches)
            await until_still(fake)
            assert source.read == most + 5 * 4
        assert source.closed


async def until_still(fake: FakeOllama) -> None:
    """Wait until nothing has changed for a while."""
    before = -1
    while before != len(fake.requests) or fake.in_flight:
        before = len(fake.requests)
        await anyio.sleep(0.05)
        await anyio.wait_all_tasks_blocked()


async def test_memory_stays_the_same(anyio_backend: Any) -> None:
    """However many texts there were, those that are alive are the few that are on their way."""
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    arrays: list[Any] = []

    class Text(str):
        __slots__ = ("__weakref__",)
        __hash__ = object.__hash__

    def generated() -> Iterator[str]:
        for number in range(2000):
            text = Text(f"text {number}")
            alive.add(text)
            yield text

    async with FakeOllama(dimensions=8) as fake, AsyncClient(fake.url) as client:
        async with client.embed_many(
            MODEL, generated(), batch_size=10, max_in_flight=3, ordered=False
        ) as batches:
            most = 0
            async for batch in batches:
                arrays.append(weakref.ref(batch.vectors))
                most = max(most, len(alive))
                assert sum(array() is not None for array in arrays[-20:]) <= 2
    assert most <= (2 * 3 + 2) * 10  # the consumer's own, too


async def test_progress(anyio_backend: Any) -> None:
    """Counts, rate and time left, after each batch; the total where the texts have a length."""
    async with FakeOllama(embed_seconds=0.02) as fake, AsyncClient(fake.url) as client:
        seen: list[Progress] = []
        async with client.embed_many(
            MODEL, texts(50), batch_size=10, max_in_flight=1, on_progress=seen.append
        ) as batches:
            assert batches.progress.texts == 0
            assert batches.progress.total == 50
            assert batches.progress.seconds_left is None
            async for _ in batches:
                pass
            assert batches.progress.texts == 50
        assert [at.texts for at in seen] == [10, 20, 30, 40, 50]
        assert [at.batches for at in seen] == [1, 2, 3, 4, 5]
        assert {at.total for at in seen} == {50}
        assert all(0 < at.rate <= 10 / 0.019 for at in seen)
        lefts = [at.seconds_left for at in seen]
        assert lefts == [pytest.approx((50 - at.texts) / at.rate) for at in seen]
        assert seen[-1].elapsed >= 5 * 0.019
        await client.embed_array(MODEL, iter(texts(3)), on_progress=seen.append)
        assert seen[-1].total is None
        assert seen[-1].seconds_left is None


async def test_texts_that_have_no_length_after_all(fake: FakeOllama) -> None:
    """What wraps an iterator can have a ``__len__`` that fails: the total is unknown then."""

    class Wrapped:
        def __init__(self, number: int | None) -> None:
            self._number = number

        def __len__(self) -> int:
            return self._number  # type: ignore[return-value]

        def __iter__(self) -> Iterator[str]:
            return iter(texts(3))

    async with AsyncClient(fake.url) as client:
        for number, total in ((None, None), (3, 3)):
            async with client.embed_many(MODEL, Wrapped(number)) as batches:
                assert batches.progress.total == total
                assert [len(batch.inputs) async for batch in batches] == [3]


async def test_the_clients_own_limit_counts(anyio_backend: Any) -> None:
    """A client that lets through one request at a time does so for a job too."""
    async with FakeOllama(embed_seconds=0.01) as fake:
        async with AsyncClient(fake.url, max_in_flight=1) as client:
            assert len(await client.embed_array(MODEL, texts(20), batch_size=2)) == 20
        assert fake.peak_in_flight == 1


async def test_a_time_limit_is_each_requests(anyio_backend: Any) -> None:
    """The job may take longer than one request may."""
    async with FakeOllama(embed_seconds=0.05) as fake, AsyncClient(fake.url) as client:
        limits = Timeouts(total=0.25)
        given = texts(10)
        found = await client.embed_array(
            MODEL, given, batch_size=1, max_in_flight=1, timeout=limits
        )
        assert len(found) == 10


# -- abort -----------------------------------------------------------------------------------------


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


# -- other ends ------------------------------------------------------------------------------------


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


# -- errors ----------------------------------------------------------------------------------------


async def test_errors_of_the_model_come_out_as_they_are(fake: FakeOllama) -> None:
    """Where the job is entered, before a text is read."""
    source = Watched(3)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ModelNotFoundError, match="POST /api/embed, model 'no-such-model'"):
            async with client.embed_many("no-such-model", source):
                raise AssertionError
        with pytest.raises(ModelNotFoundError):
            await client.embed_array("no-such-model", ["a"])
        assert is_quiet(client)
    assert not source.read


async def test_a_job_needs_an_open_client(fake: FakeOllama) -> None:
    """The usual error, before anything is sent."""
    client = AsyncClient(fake.url)
    with pytest.raises(ClientClosedError):
        async with client.embed_many(MODEL, ["a"]):
            raise AssertionError
    async with client:
        batches = client.embed_many(MODEL, ["a"])
    with pytest.raises(ClientClosedError):
        await batches.__aenter__()


async def test_what_is_no_text_ends_the_job(fake: FakeOllama) -> None:
    """With an error that says where it is, after the batches before it."""
    given: Any = ["a", "b", "c", None, "e"]
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, given, batch_size=1, max_in_flight=1) as batches:
            assert (await anext(batches)).start == 0
            with pytest.raises(RequestError, match=r"texts\[3\] must be text, not NoneType"):
                async for _ in batches:
                    pass


async def test_what_the_texts_raise_comes_out_as_it_is(fake: FakeOllama) -> None:
    """Wherever they come from."""

    class OddError(Exception):
        pass

    def broken() -> Iterator[str]:
        yield "a"
        raise OddError

    async def broken_later() -> AsyncIterator[str]:
        yield "a"
        raise OddError

    async with AsyncClient(fake.url) as client:
        for source in (broken(), broken_later()):
            with pytest.raises(OddError):
                await client.embed_array(MODEL, source)
        assert is_quiet(client)


async def test_what_on_progress_raises_ends_the_job(fake: FakeOllama) -> None:
    """And comes out as it is, after the batch that it was told of."""

    def tell(progress: Progress) -> None:
        raise KeyError(progress.texts)

    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(9), batch_size=3, on_progress=tell) as batches:
            with pytest.raises(KeyError):
                async for _ in batches:
                    pass
        assert is_quiet(client)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"batch_size": 0}, "batch_size must be above zero, not 0"),
        ({"batch_size": None}, "batch_size must be a whole number above zero, not None"),
        ({"batch_size": 2.0}, "batch_size must be a whole number, not 2.0"),
        ({"batch_chars": -1}, "batch_chars must be above zero"),
        ({"max_in_flight": 0}, "max_in_flight must be above zero"),
        ({"max_in_flight": "many"}, "max_in_flight must be a whole number, not 'many'"),
        ({"max_in_flight": [1, 2]}, "max_in_flight has 2 numbers for 1 servers"),
        ({"ordered": 1}, "ordered must be True or False"),
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'skip'"),
        ({"on_progress": 5}, "on_progress must be a function"),
        ({"attempts": 0}, "attempts must be above zero"),
        ({"retry_timeout": 0}, "retry_timeout must be above zero seconds"),
        ({"retry_timeout": True}, "retry_timeout must be above zero seconds"),
        ({"timeout": -1}, "timeout: connect must be above zero"),
        ({"truncate": "no"}, "truncate must be True or False"),
        ({"options": 5}, "options must be a mapping"),
        ({"keep_alive": True}, "keep_alive must be seconds"),
        ({"dimensions": "8"}, "dimensions must be a whole number"),
        ({"extra": {"input": "x"}}, "extra cannot decide on input"),
    ],
)
async def test_arguments_that_cannot_be_right(
    fake: FakeOllama, fields: dict[str, Any], match: str
) -> None:
    """A RequestError at the call, before any I/O."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match=match):
            client.embed_many(MODEL, ["a"], **fields)
        with pytest.raises(RequestError, match=match):
            await client.embed_array(MODEL, ["a"], **fields)
    assert not fake.requests


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("one text", "write \\[text\\] for a single one"),
        (b"bytes", "write \\[text\\] for a single one"),
        (None, "texts must be an iterable or an async iterable of texts, not NoneType"),
        (5, "texts must be an iterable"),
    ],
)
async def test_texts_that_cannot_be_right(fake: FakeOllama, given: Any, match: str) -> None:
    """The same."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match=match):
            client.embed_many(MODEL, given)


async def test_other_mistakes(fake: FakeOllama) -> None:
    """Names, clients, and the order of things."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(TypeError, match="unexpected keyword argument 'batchsize'"):
            client.embed_many(MODEL, ["a"], batchsize=3)  # type: ignore[call-arg]
        with pytest.raises(RequestError, match="the model must be a name"):
            client.embed_many("", ["a"])
        for clients in ([], [None]):
            with pytest.raises(RequestError, match="clients must be a list"):
                embed_many(clients=clients, model=MODEL, texts=["a"])  # type: ignore[arg-type]
        batches = client.embed_many(MODEL, ["a"])
        with pytest.raises(RequestError, match="inside of `async with"):
            await anext(batches)
        with pytest.raises(RequestError, match="inside of `async with"):
            batches.dimensions  # noqa: B018
        async with batches:
            assert repr(batches) == f"<Batches: embed_many, model '{MODEL}', running>"
            with pytest.raises(RequestError, match="only once"):
                await batches.__aenter__()
        assert repr(batches) == f"<Batches: embed_many, model '{MODEL}', ended>"


async def test_nobody_answers(anyio_backend: Any) -> None:
    """A server that cannot be reached at all is soon an error."""
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(ConnectError), anyio.fail_after(20):
            await client.embed_array(MODEL, ["a"], attempts=1)


def test_the_signatures_show_every_field() -> None:
    """`help` and `inspect.signature` show the fields with their defaults."""
    for function in (AsyncClient.embed_many, AsyncClient.embed_array, embed_many, embed_array):
        parameters = inspect.signature(function).parameters
        assert set(EmbedManyFields.__annotations__) <= set(parameters)
        assert parameters["batch_size"].default == 64
        assert parameters["attempts"].default == 8
        assert parameters["truncate"].default is None


def test_batches_have_no_surprises() -> None:
    """The handle is documented, and is what the method returns."""
    assert Batches.__doc__
    assert _delivery.Batch.__doc__
    assert RequestTimeout


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_of_a_job_that_is_cancelled_from_outside(fake: FakeOllama) -> None:
    """asyncio can cancel any task: then a batch is missing, and the job says so."""
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(40), batch_size=4) as batches:
            fake.always(QUICK, Reply.silence())
            await fake.wait_for_requests(5)
            ours = [task for task in asyncio.all_tasks() if "_guarded" in task.get_name()]
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
