"""A model that is replaced while a job runs, by one with vectors of the same length."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from tests.jobs.support import MODEL, QUICK, Two, texts

from ollama_sc import AsyncClient, ProtocolError
from ollama_sc._jobs.served_model import find_digest, short
from ollama_sc._jobs.start import make_job
from ollama_sc.embedding import embed_many
from ollama_sc.testing import FakeOllama, Reply

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_waits")]
OTHER = "b" * 64


def tags(name: str = f"{MODEL}:latest", digest: str = OTHER) -> Reply:
    """A list of models with this one."""
    return Reply.json({"models": [{"name": name, "model": name, "digest": digest}]})


async def digest_of(fake: FakeOllama) -> str:
    async with AsyncClient(fake.url) as client:
        found = await find_digest(client, MODEL)
    assert found is not None
    return found


async def test_servers_with_other_models_of_one_name(anyio_backend: Any) -> None:
    """The job ends, and the error says which server has which digest."""
    async with Two() as two:
        mine = await digest_of(two.fakes[0])
        two.fakes[1].always("/api/tags", tags())
        with pytest.raises(ProtocolError, match="another model of this name now") as caught:
            async with embed_many(clients=two.clients, model=MODEL, texts=texts(500)) as batches:
                async for _ in batches:
                    pass
    assert "bbbbbbbbbbbb" in str(caught.value)
    assert short(mine) in str(caught.value)
    (note,) = caught.value.__notes__
    assert "of 2: <AsyncClient" in note


async def test_a_model_that_is_replaced_meanwhile(anyio_backend: Any) -> None:
    """With several servers it is noticed at the end, at the latest; the batches are delivered."""
    async with Two() as two:
        found = 0
        with pytest.raises(ProtocolError, match="another model"):
            async with embed_many(
                clients=two.clients, model=MODEL, texts=texts(60), batch_size=5
            ) as batches:
                async for batch in batches:
                    found += len(batch)
                    two.fakes[found % 2].always("/api/tags", tags())
        assert found == 60


async def test_a_server_that_comes_back_with_another_model(anyio_backend: Any) -> None:
    """No text is sent to it, but for the one that warms it up."""
    async with Two(embed_seconds=0.005) as two:
        with pytest.raises(ProtocolError, match="another model"):
            async with embed_many(
                clients=two.clients, model=MODEL, texts=texts(2000), batch_size=1, max_in_flight=1
            ) as batches:
                found = 0
                async for _ in batches:
                    found += 1
                    if found == 10:
                        await two.kill(1)
                        back = await two.revive(1)
                        back.always("/api/tags", tags())
        assert {r.path for r in back.requests} == {QUICK, "/api/tags"}
        assert [r.json["input"] for r in back.requests if r.body] == [["warm up"]]


async def test_one_server_and_a_known_digest(fake: FakeOllama) -> None:
    """A job that was given the digest compares at the beginning and at the end."""
    digest = await digest_of(fake)
    async with AsyncClient(fake.url) as client:
        async with make_job([client], MODEL, texts(5), {}, digest=digest) as batches:
            assert len([batch async for batch in batches]) == 1
        with pytest.raises(ProtocolError, match="another model"):
            async with make_job([client], MODEL, texts(5), {}, digest="c" * 64):
                raise AssertionError
        with pytest.raises(ProtocolError, match="another model"):
            async with make_job([client], MODEL, texts(5), {}, digest=digest) as batches:
                fake.always("/api/tags", tags())
                async for _ in batches:
                    pass


async def test_a_short_job_on_one_server_asks_nothing_more(fake: FakeOllama) -> None:
    """Its model is the one that it begins with."""
    async with AsyncClient(fake.url) as client:
        await client.embed_array(MODEL, texts(5))
    assert {request.path for request in fake.requests} == {QUICK}


@pytest.mark.parametrize(
    "reply",
    [Reply.text("404 page not found", 404), Reply.error(401, "no"), Reply.busy(), Reply.html(200),
     Reply.json({"models": []}), Reply.json({"models": None}), Reply.json([]),
     Reply.json({"models": [{"name": MODEL}]}), tags("other:latest"), Reply.default(reset_at=0)],
)  # fmt: skip
async def test_servers_that_tell_no_digest(anyio_backend: Any, reply: Reply) -> None:
    """They are used as they are: what cannot be compared is no difference."""
    async with Two(embed_seconds=0) as two:
        for fake in two.fakes:
            fake.always("/api/tags", reply)
        async with embed_many(clients=two.clients, model=MODEL, texts=texts(9)) as batches:
            assert sum([len(batch) async for batch in batches]) == 9


def test_every_few_minutes() -> None:
    """A long job on one server notices it while it runs, long before its end."""

    async def main() -> None:
        async with FakeOllama(dimensions=4, embed_seconds=6) as fake:
            async with AsyncClient(fake.url) as client:
                started = trio.current_time()
                with pytest.raises(ProtocolError, match="another model"):
                    async with client.embed_many(
                        MODEL, texts(200), batch_size=1, max_in_flight=1
                    ) as batches:
                        async for batch in batches:
                            if batch.start == 30:  # in the fourth minute
                                fake.always("/api/tags", tags())
                assert trio.current_time() - started < 7 * 60

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0.01))


@given(st.text(max_size=20))
def test_a_digest_is_harmless(digest: str) -> None:
    """Whatever a server says it is."""
    assert short(digest).isprintable()
    assert short(digest).isascii()


@pytest.mark.parametrize(
    ("asked", "listed", "same"),
    [("m", "m:latest", True), ("M", "m:latest", True), ("m:1", "m:1", True), ("m", "m", True),
     ("library/m", "m:latest", True), ("registry.ollama.ai/library/m:1", "m:1", True),
     ("m:1", "m:latest", False), ("u/m", "m:latest", False), ("h:5/u/m", "h:5/u/m:latest", True)],
)  # fmt: skip
async def test_names_of_one_model(fake: FakeOllama, asked: str, listed: str, same: bool) -> None:
    """As the server takes them."""
    fake.always("/api/tags", tags(listed))
    async with AsyncClient(fake.url) as client:
        assert (await find_digest(client, asked)) == (OTHER if same else None)
