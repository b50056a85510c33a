"""What comes out of a job: each text with its vector, in batches or in one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tests.jobs.support import MODEL, later, texts
from tests.support import is_quiet

from ollama_sc import AsyncClient, RequestTimeout
from ollama_sc.embedding import Batches, embed_array, embed_many
from ollama_sc._jobs import delivery
from ollama_sc.testing import FakeOllama

pytestmark = pytest.mark.anyio
DIMENSIONS = 768  # of the fixture `fake`: as the model has


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


def test_batches_have_no_surprises() -> None:
    """The handle is documented, and is what the method returns."""
    assert Batches.__doc__
    assert delivery.Batch.__doc__
    assert RequestTimeout
