"""`Embedder`: batches in and out without an event loop, for the workers of other engines."""

from __future__ import annotations

import dis
import gc
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import anyio
import dask
import dask.bag
import dask.dataframe
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from ollama_sc import (
    AbortError,
    AsyncClient,
    ClientClosedError,
    ConnectError,
    EmbedError,
    ModelNotFoundError,
    ProtocolError,
    RequestError,
    ResponseError,
)
from ollama_sc.embedding import Embedder, _embedder, _retries
from ollama_sc.embedding._plan import plan
from ollama_sc.embedding._servers import PROBE, Server, Servers
from ollama_sc.embedding._worker import LastingServers
from ollama_sc.testing import FakeOllama, Reply

MODEL = "nomic-embed-text"
QUICK = "/v1/embeddings"
THREAD = "ollama_sc embedder"


class Served:
    """A fake server in a thread of its own."""

    def __init__(self, fake: FakeOllama, portal: BlockingPortal) -> None:
        self.fake = fake
        self.url = fake.url
        self._portal = portal

    def inputs(self) -> list[list[str]]:
        """The texts of each request so far."""
        return [request.json["input"] for request in self.fake.requests]

    def warm_ups(self) -> int:
        return self.inputs().count([PROBE])

    def wait_for_requests(self, count: int) -> None:
        self._portal.call(self.fake.wait_for_requests, count)

    def wait_all_closed(self) -> None:
        self._portal.call(self.fake.wait_all_closed)


@contextmanager
def serving(**settings: Any) -> Iterator[Served]:
    with start_blocking_portal() as portal:
        fake = portal.call(partial(FakeOllama, **{"dimensions": 8, **settings}))
        with portal.wrap_async_context_manager(fake):
            yield Served(fake, portal)


@pytest.fixture
def server() -> Iterator[Served]:
    with serving() as served:
        yield served


@pytest.fixture(params=["asyncio", "trio"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[..., Embedder]]:
    """Makes embedders on each event loop, and closes them."""
    made: list[Embedder] = []

    def make(hosts: Any, **settings: Any) -> Embedder:
        hosts = hosts.url if isinstance(hosts, Served) else hosts
        made.append(Embedder(MODEL, hosts, backend=request.param, **settings))
        return made[-1]

    yield make
    for embedder in made:
        embedder.close()
    assert not threads()


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_retries, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(_retries, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(_retries, "JITTER", 0.01)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD]


class Gate:
    """Holds up a fake server, its whole thread, with a text to embed."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, text: str) -> None:
        assert self.open.wait(30)


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.001)


def texts(count: int, start: int = 0) -> list[str]:
    return [f"text {number}" for number in range(start, start + count)]


def expected(server: Served, wanted: list[str]) -> Any:
    """What a plain job makes of the same texts."""

    async def run() -> Any:
        async with AsyncClient(server.url) as client:
            return await client.embed_array(MODEL, wanted)

    return anyio.run(run)


def servers(embedder: Embedder) -> Sequence[Server]:
    """What it knows of its servers."""
    assert embedder._worker is not None
    assert embedder._worker._servers is not None
    return embedder._worker._servers.all


def in_flight(embedder: Embedder) -> list[int]:
    """The places that are taken, of each server."""
    return [each.in_flight for each in servers(embedder)]


# -- batches ---------------------------------------------------------------------------------------


def test_texts_become_the_array_that_a_plain_job_makes_of_them(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """In the order of the texts, whatever that of the replies; bit for bit."""
    embed = make(server, batch_size=8)
    array = embed(texts(100))
    assert array.dtype == np.float32
    assert array.shape == (100, 8)
    assert array.tobytes() == expected(server, texts(100)).tobytes()


def test_a_mapping_comes_back_with_one_more_column(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """The other columns are as they were, and so is the mapping that was given."""
    embed = make(server, text_column="body", output_column="vector")
    batch = {"id": np.arange(5), "body": np.array(texts(5), dtype=object)}
    result = embed(batch)
    assert list(batch) == ["id", "body"]
    assert list(result) == ["id", "body", "vector"]
    assert result["id"] is batch["id"]
    assert np.array_equal(result["vector"], expected(server, texts(5)))


def test_a_frame_comes_back_with_one_more_column(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """It has an array in each row; index and other columns stay, and so does what was given."""
    embed = make(server)
    frame = pd.DataFrame({"id": [1, 2, 3], "text": texts(3)}, index=[7, 5, 5])
    result = embed(frame)
    assert list(frame.columns) == ["id", "text"]
    assert list(result.columns) == ["id", "text", "embedding"]
    assert list(result.index) == [7, 5, 5]
    assert [row.dtype for row in result["embedding"]] == [np.float32] * 3
    assert np.array_equal(np.stack(list(result["embedding"])), expected(server, texts(3)))


@pytest.mark.parametrize(
    "kind",
    [
        tuple,
        iter,
        np.array,
        partial(np.array, dtype=object),
        partial(np.array, dtype=np.dtypes.StringDType()),
        pd.Series,
        partial(pd.Series, dtype=object),
        partial(pd.Series, dtype="string[pyarrow]"),
        partial(pd.Series, dtype="category"),
        pd.Index,
        pa.array,
        lambda some: pa.chunked_array([some[:1], some[1:]]),
        lambda some: pa.array(some).dictionary_encode(),
        lambda some: pa.array(some, pa.large_string()),
        lambda some: dict.fromkeys(some).keys(),
    ],
)
def test_texts_come_in_all_kinds_of_arrays(server: Served, kind: Callable[[Any], Any]) -> None:
    """Whatever engines hold texts in."""
    with Embedder(MODEL, server.url) as embed:
        array = embed(kind(texts(3)))
        assert np.array_equal(array, embed(texts(3)))
        assert array.shape == (3, 8)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (["a", None], r"\['text'\]\[1\] is null \(None\): drop such rows"),
        (np.array(["a", np.nan], dtype=object), r"\[1\] is null \(nan\)"),
        (pd.Series(["a", None]), r"\[1\] is null"),
        (pd.Series(["a", pd.NA], dtype="string[pyarrow]"), r"\[1\] is null \(<NA>\)"),
        (pd.Series([pd.NaT]), r"\[0\] is null \(NaT\)"),
        (pa.array(["a", None]), r"\[1\] is null \(None\)"),
        (np.array([1.5]), r"\[0\] must be text, not float"),
        (np.array([b"a"]), r"\[0\] must be text, not bytes"),
        (np.array([["a", "b"]]), r"must have one dimension, not the shape \(1, 2\)"),
        (np.array("a"), "must have one dimension"),
        ("a text", "must be many texts, not one str"),
        (5, "must be texts, not int"),
    ],
)
def test_what_is_no_text_is_refused_before_anything_is_sent(
    server: Served, column: Any, problem: str
) -> None:
    """The error says which row it is and what to do."""
    with Embedder(MODEL, server.url) as embed, pytest.raises(RequestError, match=problem):
        embed({"text": column})
    assert not server.fake.requests


def test_columns_that_cannot_be_right_are_refused_before_anything_is_sent(server: Served) -> None:
    """A column that is missing, and one that would be lost."""
    with Embedder(MODEL, server.url) as embed:
        with pytest.raises(RequestError, match="no column 'text', only 'id', 'body'"):
            embed({"id": [1], "body": ["a"]})
        with pytest.raises(RequestError, match="no column 'text', only none"):
            embed(pd.DataFrame())
        with pytest.raises(RequestError, match="there is a column 'embedding' already"):
            embed(pd.DataFrame({"text": ["a"], "embedding": [5]}))
    assert not server.fake.requests


def test_an_empty_batch_is_one_of_0_by_d(server: Served, make: Callable[..., Embedder]) -> None:
    """The first call asks how long vectors are, and no other."""
    embed = make(server)
    for batch in ([], np.array([], dtype=object), pa.array([], pa.string()), iter(())):
        array = embed(batch)
        assert (array.shape, array.dtype) == ((0, 8), np.float32)
    assert embed({"text": []})["embedding"].shape == (0, 8)
    frame = embed(pd.DataFrame({"text": []}))
    assert list(frame.columns) == ["text", "embedding"]
    assert frame["embedding"].dtype == object
    assert server.inputs() == [[PROBE]]


def test_a_text_that_is_refused_is_named_by_its_row(make: Callable[..., Embedder]) -> None:
    """Or its row is NaN and the others are right; the next batch is not disturbed."""

    def refuse(text: str) -> tuple[int, str] | None:
        return (400, "no") if text == "bad" else None

    with serving(embed_error=refuse) as server:
        strict, lenient = make(server), make(server, on_error="skip", batch_size=2)
        batch = [*texts(5), "bad", *texts(5)]
        with pytest.raises(EmbedError) as caught:
            strict(batch)
        assert caught.value.index == 5
        assert isinstance(caught.value.__cause__, ResponseError)
        array = lenient(batch)
        assert np.isnan(array[5]).all()
        assert np.array_equal(np.delete(array, 5, axis=0), strict([*texts(5), *texts(5)]))
        assert in_flight(strict) == in_flight(lenient) == [0]


# -- one client for many batches -------------------------------------------------------------------


def test_a_small_batch_is_one_request(server: Served, make: Callable[..., Embedder]) -> None:
    """On one connection; the model is warmed up once, and not by each batch."""
    embed = make(server)
    for number in range(50):
        embed(texts(3, number))
    assert len(server.fake.requests) == 51
    assert server.warm_ups() == 1
    assert server.fake.connections == 1


def test_several_threads_call_at_once(server: Served, make: Callable[..., Embedder]) -> None:
    """Each gets its own vectors; together they have `max_in_flight` requests in flight, and one
    warm-up."""
    embed = make(server, batch_size=4, max_in_flight=3)
    together = threading.Barrier(8)

    def work(number: int) -> Any:
        together.wait()
        return embed(texts(40, number))

    with ThreadPoolExecutor(8) as pool:
        arrays = list(pool.map(work, range(8)))
    whole = expected(server, texts(48))
    for number, array in enumerate(arrays):
        assert np.array_equal(array, whole[number : number + 40])
    assert server.fake.peak_in_flight <= 4  # the plain job's
    assert server.warm_ups() == 2  # one of them the plain job's
    assert in_flight(embed) == [0]
    assert len(threads()) == 1


def test_the_number_in_flight_can_be_found(server: Served, make: Callable[..., Embedder]) -> None:
    """Over many batches; the time between them, in which there is nothing to do, does not count."""
    embed = make(server, batch_size=1, max_in_flight="auto")
    embed(texts(20))
    (only,) = servers(embed)
    assert only.auto is not None
    measurements = [only.auto._round]
    for _ in range(3):
        embed(texts(1))
        measurements.append(only.auto._round)
    assert len(set(measurements)) == 4  # each of them began afresh
    for _ in range(30):
        embed(texts(20))
    assert only.auto.found


def test_it_can_be_called_in_the_middle_of_another_operation(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """It is no part of the job, in another event loop, that its thread is working for."""
    embed = make(server)

    def source() -> Iterator[str]:
        yield str(embed(texts(2)).shape)

    async def run() -> list[str]:
        async with AsyncClient(server.url) as client:
            async with client.embed_many(MODEL, source()) as batches:
                return [text async for batch in batches for text in batch.inputs]

    assert anyio.run(run) == ["(2, 8)"]


def test_it_cannot_be_called_in_its_own_event_loop(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """That is an error where it would wait for itself."""

    def again(progress: object) -> None:
        embed(["a"])

    embed = make(server, on_progress=again)
    with pytest.raises(RequestError, match="cannot be called in its own event loop"):
        embed(["a"])
    assert in_flight(embed) == [0]


# -- servers that fail -----------------------------------------------------------------------------


def test_errors_are_those_of_the_library(server: Served, make: Callable[..., Embedder]) -> None:
    """The same as from a client, and the next call is as good as any."""
    embed = make(server)
    server.fake.script(QUICK, Reply.error(404, 'model "nomic-embed-text" not found'))
    server.fake.script("/api/embed", Reply.error(404, 'model "nomic-embed-text" not found'))
    with pytest.raises(ModelNotFoundError):
        embed(["a"])
    assert embed(["a"]).shape == (1, 8)
    assert in_flight(embed) == [0]


def test_a_server_that_is_not_there_is_an_error(
    make: Callable[..., Embedder], quick_retries: None
) -> None:
    """With and without trying again."""
    with serving() as server:
        pass
    for attempts in (1, 8):
        embed = make(server.url, attempts=attempts)
        with pytest.raises(ConnectError):
            embed(["a"])
        with pytest.raises(ConnectError):
            embed([])


def test_a_server_that_comes_back_is_waited_for(
    make: Callable[..., Embedder], quick_retries: None
) -> None:
    """Once it has answered, a call in its absence tries as long as any."""
    with serving() as first:
        embed = make(first.url, attempts=1000)
        before = embed(texts(3))
        port = first.fake.port
    asked = 0
    warm_up = servers(embed)[0].warm_up

    async def count() -> int:
        nonlocal asked
        asked += 1
        return await warm_up()

    servers(embed)[0].warm_up = count  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        outcomes = [pool.submit(embed, texts(3))]
        wait_until(lambda: not servers(embed)[0].here)
        outcomes.append(pool.submit(embed, texts(3)))  # it has never seen the server
        wait_until(lambda: asked > 20)
        with serving(port=port) as second:
            for outcome in outcomes:
                assert np.array_equal(outcome.result(), before)
            assert second.warm_ups() == 1


@pytest.mark.anyio
async def test_the_loss_of_a_server_reaches_all_jobs_that_use_it(fake: FakeOllama) -> None:
    """Also those that found it ready before another one did."""
    async with AsyncClient(fake.url) as client:
        known = plan(MODEL, {}, 1).servers([client])
        (only,) = known.all
        known.welcome(only)
        gone = only.gone
        known.welcome(only)
        known.lose(only, ConnectError("gone"), only_if_others=False)
        assert gone.is_set()
        assert not only.here


def test_others_take_over_what_a_server_leaves(
    make: Callable[..., Embedder], quick_retries: None
) -> None:
    """In the call in which it goes away, and in those that follow."""
    with serving() as stays:
        with serving() as goes:
            goes.fake.script(QUICK, Reply.default())
            goes.fake.always(QUICK, Reply.default(stall_at=0))
            embed = make([goes.url, stays.url], batch_size=4)
            outcome: list[Any] = []
            caller = threading.Thread(target=lambda: outcome.append(embed(texts(100))))
            caller.start()
            goes.wait_for_requests(2)  # it holds a batch
        caller.join()
        whole = expected(stays, texts(100))
        assert np.array_equal(outcome[0], whole)
        assert np.array_equal(embed(texts(100)), whole)
        assert in_flight(embed) == [0, 0]


def test_a_server_that_takes_longer_to_be_ready_than_a_batch_takes_gets_ready(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """Its warm-up outlives the calls that other servers answer: it is one, and not cut off."""
    gate = Gate()
    with serving(embed_error=gate) as slow:
        embed = make([server.url, slow.url], batch_size=1)
        for _ in range(20):
            embed(texts(8))
        gate.open.set()

        def is_used() -> bool:
            embed(texts(8))
            return len(slow.fake.requests) > 1

        wait_until(is_used)
        assert slow.warm_ups() == 1
        assert slow.fake.connections == slow.fake.open_connections  # nobody broke off


# -- how it ends -----------------------------------------------------------------------------------


def test_closing_leaves_nothing(server: Served, make: Callable[..., Embedder]) -> None:
    """No thread and no connection; calls are refused then, and closing again does nothing."""
    with make(server) as embed:
        embed(texts(3))
        assert len(threads()) == 1
        assert repr(embed) == "<Embedder of 'nomic-embed-text' at 1 server, open>"
    assert not threads()
    server.wait_all_closed()
    embed.close()
    assert "closed" in repr(embed)
    for batch in (["a"], []):
        with pytest.raises(ClientClosedError, match="make another one"):
            embed(batch)


def test_one_that_was_never_called_has_nothing_to_close(make: Callable[..., Embedder]) -> None:
    """It has no thread; it can be closed, and then not be called."""
    embed = make("127.0.0.1:1")
    assert not threads()
    assert "idle" in repr(embed)
    embed.close()
    with pytest.raises(ClientClosedError):
        embed(["a"])


@pytest.mark.parametrize("answered", [0, 1])
def test_closing_ends_the_calls_of_other_threads(
    server: Served, make: Callable[..., Embedder], answered: int
) -> None:
    """They get `AbortError`, in the warm-up and after it."""
    server.fake.script(QUICK, *[Reply.default()] * answered)
    server.fake.always(QUICK, Reply.default(stall_at=0))
    embed = make(server)
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(embed, ["a"])
        server.wait_for_requests(answered + 1)
        embed.close()
        with pytest.raises(AbortError, match="the embedder was closed"):
            outcome.result()
    server.wait_all_closed()


@pytest.mark.parametrize("first", ["close", "wake"])
def test_closing_while_a_call_begins_ends_it(
    server: Served, make: Callable[..., Embedder], first: str
) -> None:
    """It gets `AbortError`, whether the event loop still heard of it or was gone already."""
    embed = make(server)
    embed(["a"])
    server.fake.always(QUICK, Reply.default(stall_at=0))
    worker = embed._start()
    schedule = worker._schedule
    assert schedule is not None

    def close_meanwhile(function: Callable[[], object]) -> None:
        worker._schedule = schedule
        if first == "wake":
            schedule(function)
        embed.close()
        if first == "close":
            schedule(function)

    worker._schedule = close_meanwhile
    with pytest.raises(AbortError, match="the embedder was closed"):
        embed(["a"])
    assert not worker._asked
    with pytest.raises(ClientClosedError):
        embed(["a"])
    server.wait_all_closed()


@pytest.mark.parametrize("moment", ["makes clients", "waits"])
def test_a_signals_handler_can_close_it_in_its_first_call(
    server: Served, make: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Nothing that `close` needs is held by the thread that it interrupts."""
    server.fake.always(QUICK, Reply.default(stall_at=0))
    embed = make(server)
    if moment == "makes clients":
        embed._clients = None

        def interrupted() -> list[AsyncClient]:
            embed.close()
            return []

        monkeypatch.setattr(embed, "_make_clients", interrupted)
        with pytest.raises(ClientClosedError):
            embed(["a"])
        return

    def interrupt() -> None:
        server.wait_for_requests(1)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: embed.close())
    try:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(interrupt)
            with pytest.raises(AbortError, match="the embedder was closed"):
                embed(["a"])
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_one_that_cannot_start_says_why_and_can_try_again(
    server: Served, make: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits gets the reason; the next call starts afresh."""
    embed = make(server)
    with monkeypatch.context() as patched, ThreadPoolExecutor(2) as pool:

        async def broken(self: AsyncClient) -> AsyncClient:
            raise OSError("no more files")

        patched.setattr(AsyncClient, "__aenter__", broken)
        outcomes = [pool.submit(embed, ["a"]) for _ in range(2)]
        for outcome in outcomes:
            with pytest.raises(OSError, match="no more files"):
                outcome.result()
    assert embed(["a"]).shape == (1, 8)


def test_it_can_be_closed_from_its_own_thread(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """Where it cannot wait for itself: what runs ends all the same."""
    embed = make(server, batch_size=1, on_progress=lambda _: embed.close())
    with pytest.raises(AbortError):
        embed(texts(10))
    with pytest.raises(ClientClosedError):
        embed(["a"])
    server.wait_all_closed()
    embed.close()  # which waits


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_who_comes_while_a_warm_up_is_given_up_gets_another(backend: str) -> None:
    """It is not told that nobody waited."""

    class Slow:
        here = False
        dimensions = 0

        def __init__(self) -> None:
            self.asked = 0
            self.ending = anyio.Event()

        async def warm_up(self) -> None:
            self.asked += 1
            if self.asked == 1:
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await self.ending.wait()
            self.dimensions = 8

    async def main() -> None:
        server: Any = Slow()
        found: list[int] = []

        async def wait() -> None:
            found.append(await servers.warm_up(server))

        async with anyio.create_task_group() as tasks:
            servers = LastingServers([], tasks)
            with anyio.move_on_after(0.01):
                await wait()
            tasks.start_soon(servers.stop_warming_up)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            server.ending.set()
        assert found == [8]
        assert not servers._warming

    with patch.object(Servers, "welcome"):
        anyio.run(main, backend=backend)


def test_a_model_that_was_replaced_costs_one_call(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """The next one asks again how long the vectors are."""
    embed = make(server)
    assert embed(["a"]).shape == (1, 8)
    server.fake.models.dimensions = 16
    with pytest.raises(ProtocolError, match="16 dimensions"):
        embed(["a"])
    assert embed(["a"]).shape == (1, 16)
    assert server.warm_ups() == 2


def test_one_that_is_dropped_ends(server: Served, make: Callable[..., Embedder]) -> None:
    """Its thread does, and its connections close, though nobody closed it."""
    embed = Embedder(MODEL, server.url, backend=make("127.0.0.1:1")._backend)  # type: ignore[arg-type]
    embed(["a"])
    (thread,) = threads()
    del embed
    gc.collect()
    thread.join()
    server.wait_all_closed()


@pytest.mark.parametrize("answered", [0, 1])
def test_an_interrupt_ends_the_requests(
    server: Served, make: Callable[..., Embedder], answered: int
) -> None:
    """It leaves as itself when they are gone, in the warm-up and after it; the next call works."""
    server.fake.script(QUICK, *[Reply.default()] * answered, *[Reply.default(stall_at=0)] * 4)
    embed = make(server, batch_size=1)

    def interrupt() -> None:
        server.wait_for_requests(answered * 5 or 1)
        os.kill(os.getpid(), signal.SIGINT)

    other = threading.Thread(target=interrupt)
    other.start()
    with pytest.raises(KeyboardInterrupt):
        embed(texts(4))
    other.join()
    assert embed._worker is not None
    assert all(not any(client._calls.calls()) for client in embed._worker._clients)
    assert in_flight(embed) == [0]
    server.wait_all_closed()
    server.fake._scripts.clear()
    assert embed(texts(4)).shape == (4, 8)


def test_an_interrupt_of_one_call_does_not_end_another(
    make: Callable[..., Embedder],
) -> None:
    """Nor the warm-up that the other one waits for too."""
    gate = Gate()
    with serving(embed_error=gate) as server, ThreadPoolExecutor(2) as pool:
        embed = make(server)
        embed._start()

        def interrupt() -> None:
            wait_until(lambda: embed._worker._calls == 2)  # type: ignore[union-attr]
            os.kill(os.getpid(), signal.SIGINT)

        outcome = pool.submit(embed, texts(4))
        interrupted = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            embed(texts(4))
        interrupted.result()
        gate.open.set()
        assert outcome.result().shape == (4, 8)
        assert server.warm_ups() == 1


def interrupted_at(step: int, work: Callable[[], Any]) -> bool:
    """Do some work, and interrupt it at that step of this thread's bytecode; if it gets so far.

    Steps are where Python looks for signals: after calls, where functions begin, where loops do.
    """
    left = step
    before = sys.gettrace()
    last: dict[Any, str] = {}  # by frame: the operation that is done

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            done = last.get(frame, "")
            last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            left -= done.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))
            if left == 0:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_at_any_point_leaves_it_usable(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """Nothing that the event loop needs stays locked, and no place stays taken."""
    embed = make(server)
    call = embed._start().embed
    call(["a"])
    step = 1
    while interrupted_at(step, lambda: call(["a"])):
        assert call(["a"]).shape == (1, 8)
        assert in_flight(embed) == [0]
        step += 1
    assert step > 10  # it went through all of a call


def run_program(server: Served, backend: str, program: str) -> None:
    """Run a program that has an embedder; it must end well and say nothing."""
    start = f"""
        import os, sys, threading
        from ollama_sc.embedding import Embedder
        embed = Embedder({MODEL!r}, {server.url!r}, backend={backend!r})
    """
    code = textwrap.dedent(start) + textwrap.dedent(program)
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    server.wait_all_closed()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_ends_without_closing_it(server: Served, backend: str) -> None:
    """It does not hang, and nothing is said."""
    run_program(server, backend, "assert embed(['a', 'b']).shape == (2, 8)")
    run_program(server, backend, "pass")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_is_closed_when_a_program_ends(server: Served, backend: str) -> None:
    """Its thread is gone before what was there first ends."""
    program = """
        import atexit
        def check():
            assert [thread.name for thread in threading.enumerate()] == ["MainThread"]
        atexit.register(check)
        embed(["a"])
        assert threading.active_count() == 2
    """
    run_program(server, backend, program)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_ends_while_a_call_is_running(server: Served, backend: str) -> None:
    """A call in a daemon thread, which nobody waits for, is ended with the program."""
    server.fake.script(QUICK, Reply.default(), Reply.default(stall_at=0))
    program = """
        embed([])
        from ollama_sc import AbortError
        def call():
            try:
                embed(["a"])
            except AbortError:
                pass
        threading.Thread(target=call, daemon=True).start()
        while not embed._worker._servers.all[0].in_flight:
            pass
    """
    run_program(server, backend, program)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_it_starts_afresh_in_a_process_that_was_forked(server: Served, backend: str) -> None:
    """What the parent has open is left alone: both go on, and both end."""
    program = """
        import warnings
        first = embed(["a", "b"])
        warnings.simplefilter("ignore", DeprecationWarning)  # for programs with threads
        child = os.fork()
        assert (embed(["a", "b"]) == first).all()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            assert (embed(["a", "b"]) == first).all()
        else:
            embed.close()
    """
    run_program(server, backend, program)
    assert server.fake.connections == 2


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_fork_while_another_thread_starts_it(server: Served, backend: str) -> None:
    """What that thread holds is not held in the child."""
    program = """
        import warnings
        warnings.simplefilter("ignore", DeprecationWarning)  # for programs with threads
        held, forked = threading.Event(), threading.Event()

        def hold():
            with embed._lock:
                held.set()
                forked.wait()

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait()
        child = os.fork()
        if child:
            forked.set()
            assert os.waitpid(child, 0)[1] == 0
            thread.join()
        assert embed(["a", "b"]).shape == (2, 8)
        embed.close()
    """
    run_program(server, backend, program)


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"model": ""}, "model"),
        ({"hosts": []}, "hosts must be a host or a list"),
        ({"hosts": 5}, "hosts must be a host or a list"),
        ({"hosts": ["http://a b"]}, "host"),
        ({"text_column": ""}, "text_column"),
        ({"text_column": "embedding"}, "output_column must be another one"),
        ({"backend": "curio"}, "backend must be"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_in_flight": [1, 2]}, "2 numbers for 1 servers"),
        ({"client_options": {"timeout": -1}}, "timeout"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused_at_once(
    arguments: dict[str, Any], problem: str
) -> None:
    """Where it is made, which is before any worker has it."""
    with pytest.raises(RequestError, match=problem):
        Embedder(**{"model": MODEL, **arguments})


def test_arguments_that_there_are_not_are_a_type_error() -> None:
    """As of every call."""
    with pytest.raises(TypeError, match="prompt"):
        Embedder(MODEL, prompt="a")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="color"):
        Embedder(MODEL, client_options={"color": "red"})


def test_the_client_and_the_requests_are_as_it_is_told(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """Options for the client, and fields for the requests."""
    embed = make(server, client_options={"headers": {"X-Key": "k"}}, dimensions=4, truncate=False)
    assert embed(["a"]).shape == (1, 4)
    request = server.fake.requests[-1]
    assert request.path == "/api/embed"
    assert request.headers["x-key"] == "k"
    assert request.json == {"model": MODEL, "input": ["a"], "truncate": False, "dimensions": 4}


# -- pickling --------------------------------------------------------------------------------------


def test_a_closed_one_does_not_stay_where_they_arrive(server: Served) -> None:
    """One that was closed just when it arrived is replaced by the next."""
    embed = Embedder(MODEL, server.url)
    some = pickle.dumps(embed)
    embed.close()
    _embedder._arrived[embed._key] = embed
    with pickle.loads(some) as arrived:
        assert arrived(["a"]).shape == (1, 8)
        assert pickle.loads(some) is arrived


def test_it_arrives_as_what_it_was_made_with(server: Served, make: Callable[..., Embedder]) -> None:
    """In another process, with all arguments, and one copy however often it arrives."""
    embed = make(server, text_column="body", client_options={"headers": {"X-Key": "k"}})
    first = embed(texts(3))
    program = f"""
        import pickle
        some = bytes.fromhex({pickle.dumps(embed).hex()!r})
        one, two = pickle.loads(some), pickle.loads(some)
        assert one is two
        assert one._backend == {embed._backend!r}
        result = one({{"body": {texts(3)!r}}})
        assert result["embedding"].tobytes().hex() == {first.tobytes().hex()!r}
    """
    run_program_alone(program)
    assert server.fake.requests[-1].headers["x-key"] == "k"


def run_program_alone(program: str) -> None:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_copy_in_the_same_process_is_the_same(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """Until that is closed: then it is a new one."""
    embed = make(server)
    some = pickle.dumps(embed)
    assert pickle.loads(some) is embed
    embed.close()
    with pickle.loads(some) as another:
        assert another is not embed
        assert pickle.loads(some) is another
        assert another(["a"]).shape == (1, 8)


def test_copies_that_arrive_are_not_kept_for_ever() -> None:
    """Of many embedders, a process keeps the ones that arrived last."""
    before = len(_embedder._arrived)
    some = [pickle.dumps(Embedder(MODEL, "127.0.0.1:1")) for _ in range(_embedder._KEPT + 5)]
    gc.collect()
    copies = [pickle.loads(each) for each in some]
    assert before <= len(_embedder._arrived) == _embedder._KEPT
    assert pickle.loads(some[-1]) is copies[-1]
    for copy in copies:
        copy.close()
    assert len(_embedder._arrived) == 0


# -- Dask ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
def test_dask_maps_the_partitions_of_a_frame(
    server: Served, make: Callable[..., Embedder], scheduler: str
) -> None:
    """The result is that of a plain job; its partitions share one client and one warm-up."""
    embed = make(server, batch_size=8)
    frame = pd.DataFrame({"id": range(200), "text": texts(200)})
    parts = dask.dataframe.from_pandas(frame, npartitions=10)
    mapped = parts.map_partitions(embed, meta={**parts.dtypes, "embedding": object})
    assert not server.fake.requests  # building the graph asks for nothing
    result = mapped.compute(scheduler=scheduler)
    assert list(result["id"]) == list(range(200))
    assert server.warm_ups() == 1
    assert np.array_equal(np.stack(list(result["embedding"])), expected(server, texts(200)))


# Dask's own way of writing Parquet, which pandas 3.1 warns of.
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.set_index")
def test_dask_writes_what_comes_out(
    server: Served, make: Callable[..., Embedder], tmp_path: Path
) -> None:
    """Vectors become lists of float32 in Parquet, as the README has it."""
    pd.DataFrame({"body": texts(20)}).to_parquet(tmp_path / "corpus.parquet")
    rows = dask.dataframe.read_parquet(tmp_path / "corpus.parquet")
    embed = make(server, text_column="body")
    embedded = rows.map_partitions(embed, meta={**rows.dtypes, "embedding": object})
    embedded.to_parquet(tmp_path / "vectors", schema=None)
    written = pq.read_table(tmp_path / "vectors")["embedding"]
    assert written.type == pa.list_(pa.float32())
    assert np.array_equal(np.stack(written.to_numpy()), expected(server, texts(20)))


def test_dask_maps_the_partitions_of_a_bag(server: Served, make: Callable[..., Embedder]) -> None:
    """Texts without columns: a partition becomes an array."""
    embed = make(server)
    bag = dask.bag.from_sequence(texts(30), npartitions=3)
    arrays = bag.map(str.upper).map_partitions(lambda part: [embed(part)])
    whole = np.concatenate(arrays.compute(scheduler="threads"))
    assert np.array_equal(whole, expected(server, [text.upper() for text in texts(30)]))


def test_dask_sends_it_to_processes(server: Served, make: Callable[..., Embedder]) -> None:
    """It is pickled for each task, and each process has one."""
    embed = make(server)
    bag = dask.bag.from_sequence(texts(60), npartitions=12)
    parts = bag.map_partitions(embed).to_delayed()
    whole = np.concatenate(dask.compute(*parts, scheduler="processes", num_workers=2))
    assert 1 <= server.warm_ups() <= 2
    assert np.array_equal(whole, expected(server, texts(60)))
