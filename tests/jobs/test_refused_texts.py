"""How embedding jobs find the text that a server refuses, and whose fault a failure is."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from tests.jobs.support import MODEL, PROBE, QUICK, inputs, texts
from tests.support import is_quiet

from ollama_sc import AsyncClient, EmbedError, ProtocolError, ResponseError
from ollama_sc.testing import FakeOllama, Reply

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_waiting")]


def refusing(*bad: str, status: int = 400, reason: str = "this text is odd") -> Any:
    return lambda text: (status, reason) if text in bad else None


@pytest.mark.parametrize("status", [400, 500, 413, 422])
@pytest.mark.parametrize("size", [1, 4, 7, 64])
async def test_one_bad_text_does_not_lose_its_batch(
    anyio_backend: Any, status: int, size: int
) -> None:
    """The others have their vectors; its own row is NaN, and its index and reason are told."""
    given = texts(20)
    bad = refusing("text 5", "text 13", status=status)
    async with FakeOllama(embed_error=bad, dimensions=16) as fake:
        async with AsyncClient(fake.url) as client:
            async with client.embed_many(MODEL, given, batch_size=size, on_error="skip") as batches:
                found = [batch async for batch in batches]
                assert batches.progress.failed == 2
    failures = {index: why for batch in found for index, why in batch.failures.items()}
    assert list(failures) == [5, 13]
    assert failures[5] == f"this text is odd (HTTP {status})"
    whole = np.concatenate([batch.vectors for batch in found])
    assert np.isnan(whole[[5, 13]]).all()
    async with FakeOllama(dimensions=16) as fake, AsyncClient(fake.url) as client:
        expected = await client.embed_array(MODEL, given)
    others = [number for number in range(20) if number not in (5, 13)]
    assert whole[others].tobytes() == expected[others].tobytes()


async def test_halving_asks_no_more_than_it_must(anyio_backend: Any) -> None:
    """One text of 64 that is bad takes two requests for each halving, and two to be sure."""
    async with FakeOllama(embed_error=refusing("text 40"), dimensions=4) as fake:
        async with AsyncClient(fake.url) as client:
            found = await client.embed_array(MODEL, texts(64), on_error="skip")
    assert np.isnan(found).any(axis=1).nonzero()[0].tolist() == [40]
    # The beginning, the whole batch, 2 for each of 6 halvings, the probe, the bad text once more.
    assert len(fake.requests) == 1 + 1 + 12 + 1 + 1


async def test_a_500_is_asked_once_more_first(anyio_backend: Any) -> None:
    """It can be an accident of the model's runner: then nothing is halved."""
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        fake.script(QUICK, Reply.default(), Reply.error(500, "the runner has stopped"))
        assert not np.isnan(await client.embed_array(MODEL, texts(8))).any()
    assert inputs(fake) == [PROBE, texts(8), texts(8)]


async def test_a_500_that_persists_is_the_texts(anyio_backend: Any) -> None:
    """Twice for the whole batch and for the text that stands alone, also between two probes."""
    async with FakeOllama(embed_error=refusing("text 1", status=500)) as fake:
        async with AsyncClient(fake.url) as client:
            await client.embed_array(MODEL, texts(4), on_error="skip")
    assert inputs(fake) == [
        PROBE,
        texts(4),
        texts(4),
        ["text 0", "text 1"],
        ["text 0"],
        ["text 1"],
        ["text 1"],
        PROBE,
        ["text 1"],
        ["text 1"],
        PROBE,
        ["text 2", "text 3"],
    ]


async def test_the_error_names_the_text(anyio_backend: Any) -> None:
    """By default the job ends there, with the text's index and what the server said."""
    async with FakeOllama(embed_error=refusing("text 5", "text 6")) as fake:
        async with AsyncClient(fake.url) as client:
            async with client.embed_many(MODEL, texts(20), batch_size=4) as batches:
                with pytest.raises(EmbedError) as caught:
                    async for batch in batches:
                        assert batch.start == 0
            assert is_quiet(client)
    error = caught.value
    assert error.index == 5
    assert error.reason == "this text is odd (HTTP 400)"
    assert str(error) == (
        f"embed_many, model '{MODEL}': text 5 cannot be embedded: this text is odd (HTTP 400)"
    )
    assert isinstance(error.__cause__, ResponseError)
    assert error.__cause__.status_code == 400


@pytest.mark.parametrize("status", [400, 500])
async def test_what_no_text_explains_ends_the_job(anyio_backend: Any, status: int) -> None:
    """Where the server refuses everything from some point on, a job stops after a few requests."""
    broken = False

    def error(text: str) -> tuple[int, str] | None:
        return (status, "the GPU is lost") if broken else None

    async with (
        FakeOllama(embed_error=error, dimensions=16) as fake,
        AsyncClient(fake.url) as client,
    ):
        async with client.embed_many(
            MODEL, texts(1000), batch_size=64, max_in_flight=1, on_error="skip"
        ) as batches:
            await anext(batches)
            broken = True
            before = len(fake.requests)
            with pytest.raises(ResponseError, match="the GPU is lost") as caught:
                async for batch in batches:
                    assert not batch.failures
            # At most two batches get down to a single text, and ask whether it is the text's fault.
            assert len(fake.requests) - before <= 2 * (2 + 6 + 1 + 4)
    assert type(caught.value) is ResponseError


async def test_wrong_options_end_the_job_at_once(fake: FakeOllama) -> None:
    """They are a 500 of the server, whatever the text: that is seen before any is read."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError, match='option "num_ctx" must be of type integer'):
            async with client.embed_many(MODEL, texts(1000), options={"num_ctx": "x"}):
                raise AssertionError
    assert len(fake.requests) == 1


async def test_texts_that_are_too_long(anyio_backend: Any) -> None:
    """The server cuts them in silence, unless truncate=False makes them errors."""
    given = ["short", "long " * 3000, "short too"]
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        assert not np.isnan(await client.embed_array(MODEL, given)).any()
        with pytest.raises(EmbedError, match="exceeds the context length") as caught:
            await client.embed_array(MODEL, given, truncate=False)
        assert caught.value.index == 1
        found = await client.embed_array(MODEL, given, truncate=False, on_error="skip")
        assert np.isnan(found).any(axis=1).tolist() == [False, True, False]


async def test_texts_that_are_no_unicode(fake: FakeOllama) -> None:
    """Half of a surrogate pair has no form in JSON: it fails without a request."""
    given = ["fine", "half \ud800 a pair", "fine too"]
    async with AsyncClient(fake.url) as client:
        with pytest.raises(EmbedError, match="surrogates not allowed") as caught:
            await client.embed_array(MODEL, given)
        assert caught.value.index == 1
        async with client.embed_many(MODEL, given, on_error="skip") as batches:
            batch = await anext(batches)
        assert list(batch.failures) == [1]
        assert np.isnan(batch.vectors).any(axis=1).tolist() == [False, True, False]
        async with client.embed_many(MODEL, ["\udfff"], on_error="skip") as batches:
            assert list((await anext(batches)).failures) == [0]


# -- vectors that are not finite -------------------------------------------------------------------


def quick_reply(*vectors: Any) -> Reply:

    data = [
        {
            "object": "embedding",
            "embedding": base64.b64encode(np.array(vector, "<f4").tobytes()).decode(),
            "index": index,
        }
        for index, vector in enumerate(vectors)
    ]
    return Reply.json({"object": "list", "data": data})


async def test_a_vector_that_is_not_finite_is_its_texts_failure(anyio_backend: Any) -> None:
    """Infinity and NaN are never handed out; the server is asked whether it does that always."""
    nan, inf = float("nan"), float("inf")
    async with FakeOllama(dimensions=2) as fake, AsyncClient(fake.url) as client:
        reply = quick_reply([1, 0], [nan, 1], [0, 1], [1, -inf])
        again = quick_reply([nan, nan], [-inf, 1])
        fake.script(QUICK, Reply.default(), reply, Reply.default(), again)
        async with client.embed_many(MODEL, texts(4), on_error="skip") as batches:
            batch = await anext(batches)
        assert batch.failures == dict.fromkeys((1, 3), "its vector is not finite")
        assert batch.vectors[[0, 2]].tolist() == [[1, 0], [0, 1]]
        assert np.isnan(batch.vectors[[1, 3]]).all()
        assert inputs(fake) == [PROBE, texts(4), PROBE, ["text 1", "text 3"]]
        fake.script(QUICK, Reply.default(), reply, Reply.default(), again)
        with pytest.raises(EmbedError, match="text 1 cannot be embedded: its vector is not finite"):
            await client.embed_array(MODEL, texts(4))


async def test_a_server_of_nothing_but_nan_ends_the_job(anyio_backend: Any) -> None:
    """That is no text's fault."""
    nan = float("nan")
    async with FakeOllama(dimensions=2) as fake, AsyncClient(fake.url) as client:
        fake.script(QUICK, Reply.default(), quick_reply([nan, nan]), quick_reply([nan, nan]))
        with pytest.raises(ProtocolError, match="not finite"):
            await client.embed_array(MODEL, texts(1), on_error="skip")
        fake.script(QUICK, quick_reply([nan, nan]))
        with pytest.raises(ProtocolError, match="not finite"):
            await client.embed_array(MODEL, texts(1), on_error="skip")


async def test_numbers_beyond_float32_are_not_finite(anyio_backend: Any) -> None:
    """JSON has no infinity, but larger numbers than float32 has."""
    async with FakeOllama(dimensions=2) as fake, AsyncClient(fake.url) as client:
        reply = Reply.json({"embeddings": [[1.0, 0.0], [1e39, 0.0]]})
        again = Reply.json({"embeddings": [[1e39, 0.0]]})
        fake.script("/api/embed", Reply.default(), reply, Reply.default(), again)
        found = await client.embed_array(MODEL, texts(2), truncate=False, on_error="skip")
        assert np.isnan(found).any(axis=1).tolist() == [False, True]
