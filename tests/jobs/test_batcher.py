"""How a job reads its texts and makes batches of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.jobs.support import MODEL, texts
from tests.support import is_quiet

from ollama_sc import AsyncClient, RequestError
from ollama_sc.testing import FakeOllama

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("lengths", "size", "chars", "expected"),
    [
        ([1, 1, 1, 1, 1], 2, None, [2, 2, 1]),
        ([3, 3, 3, 3], 10, 6, [2, 2]),
        ([3, 4, 3, 3], 10, 6, [1, 1, 2]),
        ([50, 1, 1, 50, 50], 10, 6, [1, 2, 1, 1]),
        ([1, 50, 1], 10, 6, [1, 1, 1]),
        ([0, 0, 0], 2, 1, [2, 1]),
        ([6, 6], 1, 6, [1, 1]),
        ([], 2, None, []),
    ],
)
async def test_a_batch_closes_at_whichever_limit_comes_first(
    fake: FakeOllama, lengths: list[int], size: int, chars: int | None, expected: list[int]
) -> None:
    """So many texts or characters; a text that is longer is a batch of its own."""
    given = ["x" * length for length in lengths]
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, given, batch_size=size, batch_chars=chars) as batches:
            found = [batch async for batch in batches]
    assert [len(batch) for batch in found] == expected
    assert [text for batch in found for text in batch.inputs] == given


async def test_texts_that_have_no_length_after_all(fake: FakeOllama) -> None:
    """What wraps an iterator can have a ``__len__`` that fails: the total is unknown then."""

    class Wrapped:
        def __init__(self, number: int | None) -> None:
            self._number = number

        def __len__(self) -> int:
            return self._number  # type: ignore[return-value]

        def __iter__(self) -> Iterator[str]:
            return iter(texts(3))

    async with AsyncClient(fake.url) as client:
        for number, total in ((None, None), (3, 3)):
            async with client.embed_many(MODEL, Wrapped(number)) as batches:
                assert batches.progress.total == total
                assert [len(batch.inputs) async for batch in batches] == [3]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ("one text", "write \\[text\\] for a single one"),
        (b"bytes", "write \\[text\\] for a single one"),
        (None, "texts must be an iterable or an async iterable of texts, not NoneType"),
        (5, "texts must be an iterable"),
    ],
)
async def test_texts_that_cannot_be_right(fake: FakeOllama, given: Any, match: str) -> None:
    """The same."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match=match):
            client.embed_many(MODEL, given)


async def test_what_is_no_text_ends_the_job(fake: FakeOllama) -> None:
    """With an error that says where it is, after the batches before it."""
    given: Any = ["a", "b", "c", None, "e"]
    async with AsyncClient(fake.url) as client:
        async with client.embed_many(MODEL, given, batch_size=1, max_in_flight=1) as batches:
            assert (await anext(batches)).start == 0
            with pytest.raises(RequestError, match=r"texts\[3\] must be text, not NoneType"):
                async for _ in batches:
                    pass


async def test_what_the_texts_raise_comes_out_as_it_is(fake: FakeOllama) -> None:
    """Wherever they come from."""

    class OddError(Exception):
        pass

    def broken() -> Iterator[str]:
        yield "a"
        raise OddError

    async def broken_later() -> AsyncIterator[str]:
        yield "a"
        raise OddError

    async with AsyncClient(fake.url) as client:
        for source in (broken(), broken_later()):
            with pytest.raises(OddError):
                await client.embed_array(MODEL, source)
        assert is_quiet(client)
