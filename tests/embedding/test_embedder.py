"""`Embedder`: batches in and out without an event loop, for the workers of other engines."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import numpy as np
import pytest
from tests.embedding.support import (
    MODEL,
    QUICK,
    Served,
    expected,
    in_flight,
    servers,
    serving,
    texts,
    threads,
)

from ollama_sc import (
    AsyncClient,
    EmbedError,
    ModelNotFoundError,
    ProtocolError,
    RequestError,
    ResponseError,
)
from ollama_sc.embedding import Embedder
from ollama_sc.testing import Reply


def test_texts_become_the_array_that_a_plain_job_makes_of_them(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """In the order of the texts, whatever that of the replies; bit for bit."""
    embed = make(server, batch_size=8)
    array = embed(texts(100))
    assert array.dtype == np.float32
    assert array.shape == (100, 8)
    assert array.tobytes() == expected(server, texts(100)).tobytes()


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


def test_errors_are_those_of_the_library(server: Served, make: Callable[..., Embedder]) -> None:
    """The same as from a client, and the next call is as good as any."""
    embed = make(server)
    server.fake.script(QUICK, Reply.error(404, 'model "nomic-embed-text" not found'))
    server.fake.script("/api/embed", Reply.error(404, 'model "nomic-embed-text" not found'))
    with pytest.raises(ModelNotFoundError):
        embed(["a"])
    assert embed(["a"]).shape == (1, 8)
    assert in_flight(embed) == [0]


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
    assert only.tuner is not None
    measurements = [only.tuner._round]
    for _ in range(3):
        embed(texts(1))
        measurements.append(only.tuner._round)
    assert len(set(measurements)) == 4  # each of them began afresh
    for _ in range(30):
        embed(texts(20))
        if only.tuner.found:  # which it stays
            break
    assert only.tuner.found


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


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"model": ""}, "model"),
        ({"hosts": []}, "hosts must be a host or a list"),
        ({"hosts": 5}, "hosts must be a host or a list"),
        ({"hosts": {"me:s3cret@h"}}, "one host or more, not set$"),
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
