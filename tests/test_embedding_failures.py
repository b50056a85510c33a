"""What embedding jobs try again, and how they find the text that a server refuses."""

from __future__ import annotations

import logging
import sys
from typing import Any

import anyio
import numpy as np
import pytest
import stamina
import trio
import trio.testing
from conftest import is_quiet

from ollama_sc import (
    AsyncClient,
    AuthorizationError,
    ConnectError,
    EmbedError,
    ModelNotFoundError,
    OllamaError,
    ProtocolError,
    RateLimitError,
    RequestError,
    RequestTimeout,
    ResponseError,
    ServerBusyError,
    Timeouts,
)
from ollama_sc.embedding import _retries, _settings
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio
MODEL = "nomic-embed-text"
QUICK = "/v1/embeddings"
PROBE = ["warm up"]


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


def inputs(fake: FakeOllama) -> list[list[str]]:
    return [request.json["input"] for request in fake.requests]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try comes at once."""
    monkeypatch.setattr(_retries, "FIRST_WAIT", 0.0)
    monkeypatch.setattr(_retries, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(_retries, "JITTER", 0.0)


# -- trying again ----------------------------------------------------------------------------------

PASSING = {
    "reset": (Reply.default(reset_at=0), ConnectError),
    "cut": (Reply.default(cut_at=300), ConnectError),
    "503": (Reply.busy(), ServerBusyError),
    "429": (Reply.error(429, "slow down"), RateLimitError),
    "429, after": (Reply.error(429, "slow down", {"Retry-After": "0"}), RateLimitError),
    "502": (Reply.html(502), ResponseError),
    "504": (Reply.html(504), ResponseError),
    "silence": (Reply.silence(), RequestTimeout),
}


@pytest.mark.parametrize("failure", PASSING)
async def test_what_can_pass_is_tried_again_for_its_batch_alone(
    fake: FakeOllama, failure: str
) -> None:
    """The others are sent once, and all vectors are there in the end."""
    reply, _ = PASSING[failure]
    given = texts(12)
    async with AsyncClient(fake.url) as client:
        expected = await client.embed_array(MODEL, given)
        fake.requests.clear()
        fake.script(QUICK, Reply.default(), Reply.default(), reply)
        found = await client.embed_array(
            MODEL, given, batch_size=3, max_in_flight=1, timeout=Timeouts(first_chunk=0.2)
        )
    assert found.tobytes() == expected.tobytes()
    sent = [asked for asked in inputs(fake) if asked != PROBE]
    assert [sent.count(given[start : start + 3]) for start in (0, 3, 6, 9)] == [1, 2, 1, 1]


@pytest.mark.parametrize("failure", PASSING)
async def test_trying_again_comes_to_an_end(fake: FakeOllama, failure: str) -> None:
    """After so many attempts the job fails with what the last one failed with."""
    reply, error = PASSING[failure]
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(
            MODEL, texts(3), attempts=3, timeout=Timeouts(first_chunk=0.1)
        ) as batches:
            fake.always(QUICK, reply)
            with pytest.raises(error), anyio.fail_after(20):
                await anext(batches)
        assert is_quiet(client)
    sent = [asked for asked in inputs(fake) if asked != PROBE]
    # Where a connection breaks, one text is sent until that succeeds. (And what a reused connection
    # breaks at goes out once more by itself.)
    assert len(sent) in ((1, 2) if error is ConnectError else (3,))


@pytest.mark.parametrize("failure", PASSING)
async def test_the_first_request_of_all_is_tried_again_too(fake: FakeOllama, failure: str) -> None:
    """A server that is busy or loads a model says 503 to that one, too."""
    reply, _ = PASSING[failure]
    fake.script(QUICK, reply, reply)
    async with AsyncClient(fake.url) as client:
        limits = Timeouts(first_chunk=0.2)
        assert len(await client.embed_array(MODEL, ["a"], timeout=limits)) == 1
    assert len(fake.requests) == 4


async def test_one_attempt_is_one(fake: FakeOllama) -> None:
    """With attempts=1 nothing is tried again, and stamina is not needed."""
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(3), attempts=1) as batches:
            fake.always(QUICK, Reply.busy())
            with pytest.raises(ServerBusyError):
                await anext(batches)
    assert len(fake.requests) == 2


async def test_the_time_for_trying_again_is_limited(fake: FakeOllama) -> None:
    """Whatever the number of attempts."""
    fake.always(QUICK, Reply.default(delay=0.1).but(reset_at=0))
    async with AsyncClient(fake.url) as client:
        fake.script(QUICK, Reply.default())
        async with client.embed_many(MODEL, texts(3), attempts=1000, retry_timeout=0.3) as batches:
            with pytest.raises(ConnectError), anyio.fail_after(20):
                await anext(batches)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply.error(404, "model 'm' not found"), ModelNotFoundError),
        (Reply.error(401, "unauthorized"), AuthorizationError),
        (Reply.error(501, "this model does not support embeddings"), ResponseError),
        (Reply.text("<html>hello</html>"), ProtocolError),
        (Reply.json({"error": "odd"}), ResponseError),
    ],
)
async def test_what_cannot_pass_ends_the_job(
    fake: FakeOllama, reply: Reply, error: type[OllamaError]
) -> None:
    """It is sent once, by each way that there is, and comes out as it is."""
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(3)) as batches:
            fake.always(QUICK, reply)
            fake.always("/api/embed", reply)
            for _ in range(2):
                with pytest.raises(error) as caught:
                    await anext(batches)
                assert type(caught.value) is error
    assert len(fake.requests) == 3 if error is ModelNotFoundError else 2


async def test_the_batches_before_a_failure_are_delivered(fake: FakeOllama) -> None:
    """What was ready is there, then the error."""
    fake.script(QUICK, *[Reply.default()] * 3, Reply.html(200))
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(9), batch_size=1, max_in_flight=2) as batches:
            with anyio.fail_after(10):
                while any(client._calls.calls()):
                    await anyio.sleep(0.001)
            starts: list[int] = []
            with pytest.raises(ProtocolError):
                async for batch in batches:
                    starts.append(batch.start)
    assert starts == [0, 1]


def test_waiting_as_long_as_the_server_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retry-After counts, with some jitter on top; other waits double, up to a limit."""
    monkeypatch.undo()
    times: list[float] = []

    async def main() -> None:
        async with FakeOllama() as fake, AsyncClient(fake.url) as client:
            fake.script(
                QUICK,
                Reply.default(),
                Reply.error(429, "slow down", {"Retry-After": "100"}),
                *[Reply.busy()] * 6,
            )
            await client.embed_array(MODEL, texts(3))
            times.extend(request.received_at for request in fake.requests)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))
    waits = [after - before for before, after in zip(times[1:], times[2:], strict=False)]
    bounds = [(100, 101), *[(0.5 * 2**n, 0.5 * 2**n + 1) for n in range(1, 6)], (30, 30)]
    assert len(waits) == 7
    for wait, (least, most) in zip(waits, bounds, strict=True):
        assert least <= wait <= most + 0.5, (waits, bounds)


async def test_a_wait_that_is_longer_than_allowed_is_an_error(fake: FakeOllama) -> None:
    """A server that wants to be asked in an hour is not waited for, where that is too long."""
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(3)) as batches:
            fake.always(QUICK, Reply.error(429, "slow down", {"Retry-After": "3600"}))
            with pytest.raises(RateLimitError) as caught, anyio.fail_after(20):
                await anext(batches)
    assert caught.value.retry_after == 3600
    assert len(fake.requests) == 2


async def test_logs_of_retries_show_no_secret(
    fake: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    """stamina logs each wait: neither the key nor a text is in there."""
    caplog.set_level(logging.DEBUG)
    fake.script(QUICK, Reply.busy())
    async with AsyncClient(fake.url, api_key="sesame") as client:
        await client.embed_array(MODEL, ["a private text"])
    retries = [record for record in caplog.records if record.name.startswith("stamina")]
    assert retries
    shown = repr([vars(record) for record in caplog.records])
    assert "sesame" not in shown
    assert "private" not in repr([vars(record) for record in retries])


async def test_stamina_can_be_switched_off(fake: FakeOllama) -> None:
    """Programs that test themselves so get the first error."""
    stamina.set_active(False)
    try:
        fake.always(QUICK, Reply.busy())
        async with AsyncClient(fake.url) as client:
            with pytest.raises(ServerBusyError):
                await client.embed_array(MODEL, ["a"])
    finally:
        stamina.set_active(True)
    assert len(fake.requests) == 1


async def test_without_stamina_there_is_a_clear_error(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the extra; a job that does not try again works."""
    monkeypatch.setattr(_settings, "has_stamina", lambda: False)
    monkeypatch.setitem(sys.modules, "stamina", None)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match=r"ollama-sc\[jobs\]"):
            client.embed_many(MODEL, ["a"])
        assert len(await client.embed_array(MODEL, ["a"], attempts=1)) == 1


# -- texts that are refused ------------------------------------------------------------------------


def refusing(*bad: str, status: int = 400, reason: str = "this text is odd") -> Any:
    return lambda text: (status, reason) if text in bad else None


@pytest.mark.parametrize("status", [400, 500, 413])
@pytest.mark.parametrize("size", [1, 4, 7, 64])
async def test_one_bad_text_does_not_lose_its_batch(
    anyio_backend: Any, status: int, size: int
) -> None:
    """The others have their vectors; its own row is NaN, and its index and reason are told."""
    given = texts(20)
    async with FakeOllama(embed_error=refusing("text 5", "text 13", status=status)) as fake:
        async with AsyncClient(fake.url) as client:
            async with client.embed_many(MODEL, given, batch_size=size, on_error="skip") as batches:
                found = [batch async for batch in batches]
                assert batches.progress.failed == 2
    failures = {index: why for batch in found for index, why in batch.failures.items()}
    assert list(failures) == [5, 13]
    assert failures[5] == f"this text is odd (HTTP {status})"
    whole = np.concatenate([batch.vectors for batch in found])
    assert np.isnan(whole[[5, 13]]).all()
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        expected = await client.embed_array(MODEL, given)
    others = [number for number in range(20) if number not in (5, 13)]
    assert whole[others].tobytes() == expected[others].tobytes()


async def test_halving_asks_no_more_than_it_must(anyio_backend: Any) -> None:
    """One text of 64 that is bad takes two requests for each halving, and one to be sure."""
    async with FakeOllama(embed_error=refusing("text 40"), dimensions=4) as fake:
        async with AsyncClient(fake.url) as client:
            found = await client.embed_array(MODEL, texts(64), on_error="skip")
    assert np.isnan(found).any(axis=1).nonzero()[0].tolist() == [40]
    # The beginning, the whole batch, 2 for each of 6 halvings, the bad text once more, the probe.
    assert len(fake.requests) == 1 + 1 + 12 + 1


async def test_a_500_is_asked_once_more_first(anyio_backend: Any) -> None:
    """It can be an accident of the model's runner: then nothing is halved."""
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        fake.script(QUICK, Reply.default(), Reply.error(500, "the runner has stopped"))
        assert not np.isnan(await client.embed_array(MODEL, texts(8))).any()
    assert inputs(fake) == [PROBE, texts(8), texts(8)]


async def test_a_500_that_persists_is_the_texts(anyio_backend: Any) -> None:
    """Twice for the whole batch and for the text that stands alone, once between."""
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

    async with FakeOllama(embed_error=error) as fake, AsyncClient(fake.url) as client:
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
            assert len(fake.requests) - before <= 2 * (2 + 6 + 1 + 2)
    assert type(caught.value) is ResponseError


async def test_wrong_options_end_the_job_at_once(fake: FakeOllama) -> None:
    """They are a 500 of the server, whatever the text: that is seen before any is read."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError, match='option "num_ctx" must be of type integer'):
            async with client.embed_many(MODEL, texts(1000), options={"num_ctx": "x"}):
                raise AssertionError
    assert len(fake.requests) == 2


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


def quick_reply(*vectors: Any) -> Reply:
    import base64

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
        fake.script(QUICK, Reply.default(), reply)
        async with client.embed_many(MODEL, texts(4), on_error="skip") as batches:
            batch = await anext(batches)
        assert batch.failures == dict.fromkeys((1, 3), "its vector is not finite")
        assert batch.vectors[[0, 2]].tolist() == [[1, 0], [0, 1]]
        assert np.isnan(batch.vectors[[1, 3]]).all()
        assert inputs(fake) == [PROBE, texts(4), PROBE]
        fake.script(QUICK, Reply.default(), reply)
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
        fake.script("/api/embed", Reply.default(), reply)
        found = await client.embed_array(MODEL, texts(2), truncate=False, on_error="skip")
        assert np.isnan(found).any(axis=1).tolist() == [False, True]
