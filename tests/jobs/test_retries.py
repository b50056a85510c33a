"""What embedding jobs try again, how often, and how long they wait."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import stamina
import trio
import trio.testing
from tests.jobs.support import MODEL, PROBE, QUICK, Two, inputs, texts
from tests.support import ROOT, is_quiet

from ollama_sc import (
    AsyncClient,
    AuthorizationError,
    ConnectError,
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
from ollama_sc._jobs import settings
from ollama_sc.embedding import embed_array
from ollama_sc.testing import FakeOllama, Reply

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_waiting")]

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
    fake.always(QUICK, Reply.default(delay=0.1).replace(reset_at=0))
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
            # Where a job takes minutes, its model is compared.
            times.extend(request.received_at for request in fake.requests if request.body)

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


async def test_a_retry_is_one_line_that_says_what_and_why(
    fake: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    """From the library's own logger, without a key or a text; stamina says nothing of it."""
    caplog.set_level(logging.DEBUG)
    fake.script(
        QUICK, Reply.busy(), Reply.default(), Reply.error(429, "slow", {"Retry-After": "0"})
    )
    async with AsyncClient(fake.url, api_key="sesame") as client:
        await client.embed_array(MODEL, ["a private text"])
    assert not [record for record in caplog.records if record.name.startswith("stamina")]
    told = [record for record in caplog.records if record.name == "ollama_sc"]
    start = f"trying again in 0.0 s (attempt 2 of 8): POST {QUICK}, model '{MODEL}': "
    assert [record.getMessage() for record in told] == [
        f"{start}server busy, please try again.  maximum pending requests exceeded (HTTP 503)",
        f"{start}slow (HTTP 429); ask again in 0 s",
    ]
    shown = repr([vars(record) for record in caplog.records])
    assert "sesame" not in shown
    assert "private" not in shown


async def test_the_last_attempt_is_no_retry(
    fake: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    """What ends the job is not announced as something else; other errors are not either."""
    fake.always(QUICK, Reply.busy())
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ServerBusyError):
            await client.embed_array(MODEL, ["a"], attempts=3)
        assert len(caplog.records) == 2
        for path in (QUICK, "/api/embed"):
            fake.always(path, Reply.error(404, "no"))
        with pytest.raises(OllamaError):
            await client.embed_array(MODEL, ["a"])
        assert len(caplog.records) == 2


async def test_a_retry_says_which_server_it_was(
    anyio_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Where there are several, whatever the error is."""
    async with Two() as two:
        two.fakes[0].always(QUICK, Reply.default(delay=0.05))
        two.fakes[1].script(QUICK, Reply.default(), Reply.busy())

        async def source() -> AsyncIterator[str]:
            for text in texts(20):
                await two.fakes[1].wait_for_requests(1)
                yield text

        await embed_array(
            clients=two.clients, model=MODEL, texts=source(), batch_size=1, max_in_flight=1
        )
        (record,) = [record for record in caplog.records if record.name == "ollama_sc"]
        assert f"; server 2 of 2: <AsyncClient {two.fakes[1].url}, " in record.getMessage()


async def test_retries_of_others_are_logged_as_before(
    fake: FakeOllama, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that uses stamina itself gets its lines, also between those of a job."""
    fake.script(QUICK, Reply.busy())
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, ["a"]) as batches:
            for attempt in stamina.retry_context(on=KeyError, wait_initial=0, wait_jitter=0):
                with attempt:
                    if attempt.num == 1:
                        raise KeyError
            await anext(batches)
    names = [record.name for record in caplog.records]
    assert sorted(names) == ["ollama_sc", "stamina"]


def test_a_program_that_sets_nothing_up_hears_nothing() -> None:
    """And once it has set logging up, one line for each retry."""
    program = """if True:
        import asyncio, logging
        from ollama_sc import AsyncClient
        from ollama_sc._jobs import retries
        from ollama_sc.testing import FakeOllama, Reply
        retries.WAIT_INITIAL = retries.WAIT_JITTER = 0.0
        async def main():
            async with FakeOllama() as fake, AsyncClient(fake.url) as client:
                for told in (False, True):
                    if told:
                        logging.basicConfig()
                    fake.script("/v1/embeddings", Reply.busy())
                    await client.embed_array("nomic-embed-text", ["a"])
        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (0, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("WARNING:ollama_sc:trying again in 0.0 s")


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
    monkeypatch.setattr(settings, "has_stamina", lambda: False)
    monkeypatch.setitem(sys.modules, "stamina", None)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match=r"ollama-sc\[jobs\]"):
            client.embed_many(MODEL, ["a"])
        assert len(await client.embed_array(MODEL, ["a"], attempts=1)) == 1
