"""What a job tells of its progress."""

from __future__ import annotations

from typing import Any

import pytest
from tests.jobs.support import MODEL, texts
from tests.support import is_quiet

from ollama_sc import AsyncClient
from ollama_sc.embedding import Progress
from ollama_sc.testing import FakeOllama

pytestmark = pytest.mark.anyio


async def test_progress(anyio_backend: Any) -> None:
    """Counts, rate and time left, after each batch; the total where the texts have a length."""
    async with FakeOllama(embed_seconds=0.02) as fake, AsyncClient(fake.url) as client:
        seen: list[Progress] = []
        async with client.embed_many(
            MODEL, texts(50), batch_size=10, max_in_flight=1, on_progress=seen.append
        ) as batches:
            assert batches.progress.texts == 0
            assert batches.progress.total == 50
            assert batches.progress.seconds_left is None
            async for _ in batches:
                pass
            assert batches.progress.texts == 50
        assert [at.texts for at in seen] == [10, 20, 30, 40, 50]
        assert [at.batches for at in seen] == [1, 2, 3, 4, 5]
        assert {at.total for at in seen} == {50}
        assert all(0 < at.rate <= 10 / 0.019 for at in seen)
        lefts = [at.seconds_left for at in seen]
        assert lefts == [pytest.approx((50 - at.texts) / at.rate) for at in seen]
        assert seen[-1].elapsed >= 5 * 0.019
        await client.embed_array(MODEL, iter(texts(3)), on_progress=seen.append)
        assert seen[-1].total is None
        assert seen[-1].seconds_left is None


async def test_what_on_progress_raises_ends_the_job(fake: FakeOllama) -> None:
    """And comes out as it is, after the batch that it was told of."""

    def tell(progress: Progress) -> None:
        raise KeyError(progress.texts)

    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, texts(9), batch_size=3, on_progress=tell) as batches:
            with pytest.raises(KeyError):
                async for _ in batches:
                    pass
        assert is_quiet(client)
