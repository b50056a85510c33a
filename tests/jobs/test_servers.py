"""Embedding jobs on several servers: sharing, going away, and coming back."""

from __future__ import annotations

import base64
from typing import Any

import anyio
import numpy as np
import pytest
from tests.jobs.support import MODEL, QUICK, Two, texts
from tests.support import LONG, is_quiet

from ollama_sc import (
    AsyncClient,
    ConnectError,
    ModelNotFoundError,
    ProtocolError,
    RequestError,
    ResponseError,
    Timeouts,
)
from ollama_sc.embedding import embed_array, embed_many
from ollama_sc.testing import FakeOllama, Reply

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]
DEAD = "127.0.0.1:1"


@pytest.fixture
async def expected(anyio_backend: Any) -> Any:
    """The vectors of a hundred texts, and of fewer."""
    async with FakeOllama(dimensions=16) as fake, AsyncClient(fake.url) as client:
        yield await client.embed_array(MODEL, texts(100))


# -- sharing ---------------------------------------------------------------------------------------


async def test_servers_share_a_job(expected: Any) -> None:
    """All vectors are there, in order; each server got requests, with its own client's headers."""
    async with Two() as two:
        found = await embed_array(clients=two.clients, model=MODEL, texts=texts(100), batch_size=5)
        for number, fake in enumerate(two.fakes):
            assert len(fake.requests) > 5
            assert {r.headers["x-which"] for r in fake.requests} == {str(number)}
            assert len(fake.requests[0].json["input"]) == 1
            assert is_quiet(two.clients[number])
    assert found.tobytes() == expected.tobytes()


async def test_each_server_has_its_own_number_in_flight(anyio_backend: Any) -> None:
    """A list has one for each; a number is each one's."""
    async with Two(embed_seconds=0.02) as two:
        for in_flight, peaks in (([1, 3], [1, 3]), (2, [2, 2])):
            for fake in two.fakes:
                fake.peak_in_flight = 0
            await embed_array(
                clients=two.clients,
                model=MODEL,
                texts=texts(60),
                batch_size=2,
                max_in_flight=in_flight,
            )
            assert [fake.peak_in_flight for fake in two.fakes] == peaks
        with pytest.raises(RequestError, match="3 numbers for 2 servers"):
            embed_many(clients=two.clients, model=MODEL, texts=[], max_in_flight=[1, 2, 3])


async def test_a_slow_server_gets_less(anyio_backend: Any) -> None:
    """Whoever has a free place gets the next batch; in the long form, of twice as many."""
    async with Two() as two:
        two.fakes[1].always(QUICK, Reply.default(delay=0.2))
        await embed_array(
            clients=two.clients,
            model=MODEL,
            texts=texts(100 if LONG else 50),
            batch_size=2,
            max_in_flight=1,
        )
        first, second = (len(fake.requests) for fake in two.fakes)
    assert first > 2 * second


# -- going away and coming back --------------------------------------------------------------------


async def test_the_others_take_over(expected: Any) -> None:
    """A server that goes away loses no batch, whatever was in flight there."""
    async with Two() as two:
        found: list[Any] = []
        async with embed_many(
            clients=two.clients, model=MODEL, texts=texts(100), batch_size=2
        ) as batches:
            async for batch in batches:
                found.append(batch)
                if len(found) == 10:
                    await two.kill(1)
        assert np.concatenate([batch.vectors for batch in found]).tobytes() == expected.tobytes()
        assert [batch.start for batch in found] == list(range(0, 100, 2))


async def test_a_server_that_comes_back_is_used_again(expected: Any) -> None:
    """It is asked for one text first: its model has to be loaded again."""
    async with Two() as two:
        found: list[Any] = []
        async with embed_many(
            clients=two.clients, model=MODEL, texts=texts(100), batch_size=1, max_in_flight=1
        ) as batches:
            async for batch in batches:
                found.append(batch)
                if len(found) == 10:
                    await two.kill(1)
                elif len(found) == 20:
                    back = await two.revive(1)
                elif len(found) == 25:
                    with anyio.fail_after(10):
                        await back.wait_for_requests(1)
        assert np.concatenate([batch.vectors for batch in found]).tobytes() == expected.tobytes()
        assert back.requests[0].json["input"] == ["warm up"]
        assert len(back.requests) > 5


async def test_all_of_them_can_be_away_for_a_while(expected: Any) -> None:
    """The job waits for the first one that comes back."""
    async with Two() as two:
        found: list[Any] = []
        async with embed_many(
            clients=two.clients, model=MODEL, texts=texts(100), batch_size=2, attempts=1000
        ) as batches:
            async for batch in batches:
                found.append(batch)
                if len(found) == 10:
                    await two.kill(0)
                    await two.kill(1)
                    await anyio.sleep(0.1)
                    await two.revive(0)
        assert np.concatenate([batch.vectors for batch in found]).tobytes() == expected.tobytes()


async def test_all_of_them_can_be_away_too_long(anyio_backend: Any) -> None:
    """The job ends when trying again has come to its end for each; the error says for whom."""
    async with Two() as two:
        async with embed_many(
            clients=two.clients, model=MODEL, texts=texts(100), batch_size=2, attempts=4
        ) as batches:
            await anext(batches)
            await two.kill(0)
            await two.kill(1)
            with pytest.raises(ConnectError) as caught, anyio.fail_after(20):
                async for _ in batches:
                    pass
        assert all(is_quiet(client) for client in two.clients)
    assert any("of 2: <AsyncClient http://127.0.0.1:" in note for note in caught.value.__notes__)


async def test_a_server_that_is_away_from_the_beginning(expected: Any) -> None:
    """The others do all of the work; where there are none, entering fails."""
    async with Two() as two, AsyncClient(DEAD) as dead:
        found = await embed_array(
            clients=[dead, *two.clients], model=MODEL, texts=texts(100), batch_size=5
        )
        assert found.tobytes() == expected.tobytes()
        with pytest.raises(ConnectError), anyio.fail_after(20):
            async with embed_many(clients=[dead, dead], model=MODEL, texts=texts(1)):
                raise AssertionError


async def test_a_server_that_hangs_is_one_that_is_away(expected: Any) -> None:
    """Where requests have a time limit, batches that were sent there go to the others."""
    async with Two() as two:
        found: list[Any] = []
        async with embed_many(
            clients=two.clients,
            model=MODEL,
            texts=texts(100),
            batch_size=5,
            timeout=Timeouts(first_chunk=0.3),
        ) as batches:
            two.fakes[1].always(QUICK, Reply.silence())
            async for batch in batches:
                found.append(batch)
        assert np.concatenate([batch.vectors for batch in found]).tobytes() == expected.tobytes()
        hung = [r.json["input"] for r in two.fakes[1].requests if not r.finished_at]
        assert hung


# -- servers that are wrong ------------------------------------------------------------------------


async def test_all_servers_need_the_model(anyio_backend: Any) -> None:
    """One that lacks it is an error that says which."""
    async with Two() as two:
        two.fakes[1].models.remove(MODEL)
        with pytest.raises(ModelNotFoundError) as caught:
            await embed_array(clients=two.clients, model=MODEL, texts=texts(1000))
    (note,) = caught.value.__notes__
    assert note.startswith(f"server 2 of 2: <AsyncClient {two.fakes[1].url}, ")


async def test_all_servers_need_the_same_model(anyio_backend: Any) -> None:
    """Vectors of another length are another model's."""
    async with Two() as two, FakeOllama(dimensions=8) as other, AsyncClient(other.url) as client:
        with pytest.raises(ProtocolError, match="dimensions, those of another one"):
            await embed_array(
                clients=[two.clients[0], client], model=MODEL, texts=texts(1000), batch_size=1
            )


async def test_servers_that_are_ready_at_the_same_time_are_compared(anyio_backend: Any) -> None:
    """Both have given their vectors before either is asked which model that was."""
    async with Two() as two, FakeOllama(dimensions=8) as other, AsyncClient(other.url) as client:
        for fake in (two.fakes[0], other):
            fake.always("/api/tags", Reply.default(delay=0.2))
        with pytest.raises(ProtocolError, match="dimensions, those of another one"):
            await embed_array(
                clients=[two.clients[0], client], model=MODEL, texts=texts(1000), batch_size=1
            )


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("broken", ["refuses", "not finite"])
async def test_no_text_is_blamed_for_a_broken_server(
    anyio_backend: Any, on_error: str, broken: str
) -> None:
    """Whether it is the text's fault is asked of the server that failed, though others are free."""
    nan = base64.b64encode(np.full(16, np.nan, np.float32).tobytes()).decode()
    data = [{"object": "embedding", "index": 0, "embedding": nan}]
    reply = (
        Reply.error(400, "broken")
        if broken == "refuses"
        else Reply.json({"object": "list", "model": MODEL, "data": data})
    )
    async with Two(embed_seconds=0) as two:
        two.fakes[0].script(QUICK, Reply.default())  # its warm-up
        two.fakes[0].always(QUICK, reply.replace(delay=0.05))
        error = ResponseError if broken == "refuses" else ProtocolError
        with pytest.raises(error, match="broken|not finite"):
            await embed_array(
                clients=two.clients,
                model=MODEL,
                texts=texts(4),
                batch_size=1,
                max_in_flight=2,
                on_error=on_error,
            )
