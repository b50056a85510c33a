"""No good text is blamed for a server that fails for a while, or for what a gateway says."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import trio
import trio.testing
from tests.jobs.support import MODEL, NATIVE, PROBE, QUICK, inputs, texts
from tests.support import LONG

from ollama_sc import AsyncClient, ResponseError, ServerBusyError
from ollama_sc._jobs import retries
from ollama_sc.embedding import embed_many
from ollama_sc.testing import FakeOllama, Reply


def under_mock_clock(main: Any) -> None:
    """Run it on a clock that jumps over waits."""
    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))


@pytest.mark.parametrize(
    ("status", "seconds"),
    [(500, 0.3), (500, 2.0), (400, 2.0), (413, 1.0)]
    + [(status, seconds) for status in (500, 400, 408) for seconds in (1.0, 1.5, 3.0) if LONG],
)
def test_a_runner_that_fails_for_a_while(status: int, seconds: float) -> None:
    """Whatever it answers in that time, each text has its vector in the end."""

    async def main() -> None:
        begin = None

        def outage(text: str) -> tuple[int, str] | None:
            nonlocal begin
            if text == "warm up" and begin is None:
                begin = trio.current_time()
                return None
            broken = begin is not None and trio.current_time() < begin + seconds
            return (status, "llama runner process has terminated") if broken else None

        async with FakeOllama(dimensions=4, embed_error=outage) as fake:
            async with AsyncClient(fake.url) as client:
                async with client.embed_many(
                    MODEL, texts(90), batch_size=20, on_error="skip"
                ) as batches:
                    found = [batch async for batch in batches]
        assert [batch.failures for batch in found] == [{}] * 5
        assert all(np.isfinite(batch.vectors).all() for batch in found)

    under_mock_clock(main)


@pytest.mark.parametrize("seconds", [1.0, 2.0] + [0.0, 0.5, 1.5, 3.0] * LONG)
@pytest.mark.parametrize("bad", [[37], [37, 44], [38, 39]])
@pytest.mark.parametrize("seed", [25, 56])
@pytest.mark.parametrize("status", [500, 400])
def test_texts_that_take_the_runner_down(
    bad: list[int], seconds: float, seed: int, status: int
) -> None:
    """They alone have no vector, however often those beside them were refused, and the job ends.

    With these seeds of the waits, what asks whether the server is well is struck four times. Ollama
    answers 400 where the runner itself has said nothing.
    """
    random.seed(seed)

    async def main() -> None:
        down_until = 0.0

        def crash(text: str) -> tuple[int, str] | None:
            nonlocal down_until
            if text in {f"text {number}" for number in bad}:
                down_until = trio.current_time() + seconds
            elif trio.current_time() >= down_until:
                return None
            return status, "llama runner process has terminated"

        async with FakeOllama(dimensions=4, embed_error=crash) as fake:
            async with AsyncClient(fake.url) as client:
                async with client.embed_many(
                    MODEL, texts(90), batch_size=8, on_error="skip"
                ) as batches:
                    found = [batch async for batch in batches]
        assert sorted(index for batch in found for index in batch.failures) == bad

    under_mock_clock(main)


@pytest.mark.parametrize("status", [500, 400, 413, 422])
def test_nothing_is_in_flight_beside_a_text_that_may_be_blamed(status: int) -> None:
    """Whatever takes the runner down, it is not another text of the job."""
    bad = {f"text {number}" for number in (3, 21, 30)}

    async def main() -> None:
        def refuse(text: str) -> tuple[int, str] | None:
            return (status, "no") if text in bad else None

        async with FakeOllama(dimensions=4, embed_seconds=0.3, embed_error=refuse) as fake:
            async with AsyncClient(fake.url) as client:
                async with client.embed_many(
                    MODEL, texts(200), batch_size=8, on_error="skip"
                ) as batches:
                    failed = [index async for batch in batches for index in batch.failures]
        assert failed == [3, 21, 30]
        asked = [request for request in fake.requests if request.body]
        for text in bad:  # from the probe before it is asked for the last time
            last = max(n for n, request in enumerate(asked) if request.json["input"] == [text])
            first = max(n for n in range(last) if asked[n].json["input"] == PROBE)
            begin, end = asked[first].received_at, asked[last].finished_at
            assert begin is not None
            assert end is not None
            for other in (*asked[:first], *asked[last + 1 :]):
                assert (other.finished_at or 0) <= begin or (other.received_at or 0) >= end

    under_mock_clock(main)


def test_another_server_goes_on_while_a_text_may_be_blamed() -> None:
    """Only the server that refused the text waits for what it says of it alone."""

    async def main() -> None:
        def refuse(text: str) -> tuple[int, str] | None:
            return (400, "no") if text == "text 3" else None

        options: dict[str, Any] = {"dimensions": 4, "embed_seconds": 0.3, "embed_error": refuse}
        async with FakeOllama(**options) as one, FakeOllama(**options) as two:
            async with AsyncClient(one.url) as first, AsyncClient(two.url) as second:
                async with embed_many(
                    clients=[first, second],
                    model=MODEL,
                    texts=texts(1200),
                    batch_size=8,
                    on_error="skip",
                    ordered=False,
                ) as batches:
                    failed = [index async for batch in batches for index in batch.failures]
        assert failed == [3]
        asked = [request for fake in (one, two) for request in fake.requests if request.body]
        alone = max(
            (request for request in asked if request.json["input"] == ["text 3"]),
            key=lambda request: request.received_at or 0,
        )
        begin, end = alone.received_at or 0, alone.finished_at or 0
        beside = [r for r in asked if (r.received_at or 0) < end and (r.finished_at or 0) > begin]
        assert len(beside) == 5  # and the four of the other server

    under_mock_clock(main)


def test_a_runner_that_starts_while_the_job_does() -> None:
    """The job begins a little later."""

    async def main() -> None:
        start = trio.current_time()

        def outage(text: str) -> tuple[int, str] | None:
            return (500, "not yet") if trio.current_time() < start + 2 else None

        async with FakeOllama(dimensions=4, embed_error=outage) as fake:
            async with AsyncClient(fake.url) as client:
                assert np.isfinite(await client.embed_array(MODEL, texts(3))).all()

    under_mock_clock(main)


@pytest.mark.anyio
@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("status", [400, 413, 422, 500])
async def test_a_text_is_asked_for_once_more_before_it_is_blamed(
    fake: FakeOllama, status: int
) -> None:
    """After the probe has succeeded: what was an accident is none of its failures."""
    refusal = Reply.error(status, "an accident")
    async with AsyncClient(fake.url) as client:
        fake.script(QUICK, Reply.default(), *[refusal] * (2 if status == 500 else 1))
        found = await client.embed_array(MODEL, ["good"])
    assert np.isfinite(found).all()
    assert inputs(fake)[-2:] == [PROBE, ["good"]]


@pytest.mark.anyio
@pytest.mark.usefixtures("no_waiting")
async def test_a_vector_that_was_odd_once(fake: FakeOllama) -> None:
    """A NaN, or no vector, that the same text does not get again is not its failure."""
    async with AsyncClient(fake.url) as client:
        expected = await client.embed_array(MODEL, texts(2), truncate=False)
        width = len(expected[0])
        for odd in ([None] * width, None, [], [1e39] * width):
            reply = Reply.json({"embeddings": [expected[0].tolist(), odd]})
            fake.script(NATIVE, Reply.default(), reply)
            found = await client.embed_array(MODEL, texts(2), truncate=False)
            assert found.tobytes() == expected.tobytes()


# -- gateways --------------------------------------------------------------------------------------

GATEWAYS = [408, 425, 429, 502, 503, 504, *range(520, 528), 529, 530]


@pytest.mark.anyio
@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("status", GATEWAYS)
async def test_what_gateways_say_is_retried(fake: FakeOllama, status: int) -> None:
    """The first request and a later one: none ends the job, none costs a text its vector."""
    odd = Reply.error(status, "in a moment")
    fake.script(QUICK, odd, Reply.default(), odd, odd)
    async with AsyncClient(fake.url) as client:
        assert len(await client.embed_array(MODEL, texts(3), on_error="skip")) == 3
    assert [asked for asked in inputs(fake) if asked != PROBE] == [texts(3)] * 3


@pytest.mark.parametrize("status", GATEWAYS if LONG else [429, 502, 503, 504, 529])
def test_retry_after_is_heeded(status: int) -> None:
    """Whatever the status is that it comes with; also where it is longer than a retry's own wait."""
    times: list[float] = []

    async def main() -> None:
        async with FakeOllama(dimensions=4) as fake, AsyncClient(fake.url) as client:
            for after in ("77", "0"):
                later = Reply.error(status, "later", {"Retry-After": after})
                fake.script(QUICK, Reply.default(), later)
                await client.embed_array(MODEL, texts(3))
            times.extend(request.received_at for request in fake.requests)

    under_mock_clock(main)
    long, short = times[2] - times[1], times[5] - times[4]
    assert 77 <= long <= 79
    assert retries.WAIT_INITIAL <= short <= 2  # "0" is no order to hurry


@pytest.mark.anyio
@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("status", [429, 503])
async def test_what_a_busy_server_has_turned_away_comes_first(
    fake: FakeOllama, status: int
) -> None:
    """No new batch takes its place: where there is room for a few only, some would never get it."""
    busy = Reply.error(status, "in a moment")
    fake.script(QUICK, Reply.default(), Reply.default(), busy, busy, Reply.default(), busy)
    async with AsyncClient(fake.url) as client:
        await client.embed_array(MODEL, texts(5), batch_size=1, max_in_flight=1)
    asked = [inputs(fake)[place][0] for place in range(1, 9)]
    assert asked == [f"text {number}" for number in (0, 1, 1, 1, 2, 2, 3, 4)]


@pytest.mark.anyio
@pytest.mark.parametrize("status", [429, 502, 503, 504, 529])
async def test_a_retry_after_beyond_the_limit_is_an_error(fake: FakeOllama, status: int) -> None:
    """Its text and `retry_after` say what the server wants."""
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(3)) as batches:
            fake.always(QUICK, Reply.error(status, "later", {"Retry-After": "86400"}))
            with pytest.raises(ResponseError, match="ask again in 86400 s") as caught:
                await anext(batches)
    assert caught.value.retry_after == 86400
    assert isinstance(caught.value, ServerBusyError) is (status == 503)
    assert len(fake.requests) == 2


@pytest.mark.parametrize("after", ["999999999999", "Fri, 31 Dec 9999 23:59:59 GMT"][: 1 + LONG])
def test_a_wait_without_limit_is_capped(after: str) -> None:
    """With `retry_timeout=None` the server is asked again within an hour or so."""

    async def main() -> None:
        async with FakeOllama(dimensions=4) as fake, AsyncClient(fake.url) as client:
            fake.script(QUICK, Reply.default(), Reply.error(503, "later", {"Retry-After": after}))
            await client.embed_array(MODEL, texts(3), retry_timeout=None)
            first, second = (r.received_at for r in fake.requests[1:] if r.path == QUICK)
            assert 3600 <= second - first <= 3602

    under_mock_clock(main)
