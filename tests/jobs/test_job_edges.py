"""Embedding jobs at their edges: a program that ends, wrong arguments, servers that refuse."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import AsyncClient, RequestError
from ollama_sc._jobs import retries
from ollama_sc.embedding import embed_many
from ollama_sc.testing import FakeOllama, Reply
from tests.support import is_quiet

DIMENSIONS = 768  # as the servers have that the tests here make themselves
pytestmark = pytest.mark.anyio
MODEL = "nomic-embed-text"
QUICK = "/v1/embeddings"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try comes soon."""
    monkeypatch.setattr(retries, "WAIT_INITIAL", 0.005)
    monkeypatch.setattr(retries, "WAIT_MAX", 0.02)
    monkeypatch.setattr(retries, "WAIT_JITTER", 0.005)


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


# -- how a job ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["texts", "on_progress"])
async def test_what_ends_the_program_closes_the_client_at_once(
    fake: FakeOllama, where: str
) -> None:
    """A BaseException of the user's code in a job leaves the client, with its connections closed."""

    class Death(BaseException):
        pass

    def die(*_: object) -> None:
        raise Death

    def some() -> Any:
        yield from texts(35)
        if where == "texts":
            die()

    with anyio.fail_after(5):
        with pytest.raises(Death):
            async with AsyncClient(fake.url) as client:
                on_progress = die if where == "on_progress" else None
                async with client.embed_many(
                    MODEL, some(), batch_size=10, on_progress=on_progress
                ) as batches:
                    async for _ in batches:
                        pass
        await fake.wait_all_closed()


# -- arguments ---------------------------------------------------------------------------------------


async def test_clients_that_are_no_list_are_refused(fake: FakeOllama) -> None:
    """A single client, or an iterator of some, draws the same clear error as an empty list."""
    async with AsyncClient(fake.url) as client:
        for clients in (client, iter([client]), {client}, None, []):
            with pytest.raises(RequestError, match="clients must be a list"):
                embed_many(clients=clients, model=MODEL, texts=["a"])  # type: ignore[arg-type]


async def test_an_on_progress_that_would_have_to_be_awaited_is_refused(fake: FakeOllama) -> None:
    """A coroutine function draws an error before any I/O: its coroutines would be dropped."""

    async def on_progress(_: object) -> None: ...

    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="plain function"):
            client.embed_many(MODEL, ["a"], on_progress=on_progress)
    assert not fake.requests


# -- servers -----------------------------------------------------------------------------------------


async def both_at_work(fakes: list[FakeOllama]) -> None:
    """Wait until every server has had its warm-up and a batch."""
    for fake in fakes:
        await fake.wait_for_requests(2)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_server_that_can_take_nothing_leaves_its_batches_to_the_others(
    fake: FakeOllama, status: int
) -> None:
    """Batches that a server refuses for now go to one that takes them, within their tries."""
    async with (
        FakeOllama(embed_seconds=0.01) as other,
        AsyncClient(fake.url) as one,
        AsyncClient(other.url) as two,
    ):
        async with embed_many(
            clients=[one, two], model=MODEL, texts=texts(200), batch_size=2, attempts=3
        ) as batches:
            await both_at_work([fake, other])
            fake.always(QUICK, Reply.error(status, "not now"))
            count = sum([len(batch) async for batch in batches])
        assert is_quiet(one)
    assert count == 200


async def test_a_server_is_not_asked_before_the_time_that_it_said(fake: FakeOllama) -> None:
    """While others take the batches, nothing goes to a server in the time of its Retry-After."""
    busy = Reply.error(429, "slow down", headers={"Retry-After": "3600"})
    async with (
        FakeOllama() as other,
        AsyncClient(fake.url) as one,
        AsyncClient(other.url) as two,
        embed_many(
            clients=[one, two], model=MODEL, texts=texts(200), batch_size=2, max_in_flight=1
        ) as batches,
    ):
        await both_at_work([fake, other])
        fake.always(QUICK, busy)
        before = len(fake.requests)
        count = sum([len(batch) async for batch in batches])
    assert count == 200
    assert len(fake.requests) <= before + 1
