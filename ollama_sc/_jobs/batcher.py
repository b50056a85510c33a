"""Texts into batches, read no further than the next batch needs. Knows nothing of requests."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from contextlib import suppress
from inspect import isasyncgen, isgenerator
from typing import NamedTuple, cast

import anyio

from ollama_sc._errors import RequestError
from ollama_sc._loop.shielding import CLEANUP_SECONDS

Texts = Iterable[str] | AsyncIterable[str]


class TextBatch(NamedTuple):
    """Some consecutive texts of a job.

    Attributes:
        number: of the batch in the job, from zero.
        start: the index of its first text in the job, from zero.
        texts: at least one.
    """

    number: int
    start: int
    texts: list[str]


def _known_length(texts: Texts) -> int | None:
    """How many there are; ``None`` where that is unknown, even to an object with a ``__len__``."""
    if isinstance(texts, Sized):
        with suppress(TypeError):
            return len(texts)
    return None


class Batcher:
    """Reads the texts of a job in batches.

    A batch is complete at `batch_size` texts or `batch_chars` characters, whichever comes first; a
    text with more characters than that is a batch of its own.

    Raises:
        RequestError: the texts are a single text, or no iterable.
    """

    def __init__(self, texts: Texts, batch_size: int, batch_chars: int | None) -> None:
        self.total = _known_length(texts)
        self._texts = _check_texts(texts)
        self._batch_size = batch_size
        self._batch_chars = batch_chars
        self._iterator: Iterator[object] | None = None
        self._async_iterator: AsyncIterator[object] | None = None
        self._pending: list[str] = []  # of the batch that is not complete yet
        self._pending_chars = 0
        self._texts_read = 0
        self._texts_batched = 0  # in complete batches
        self._next_number = 0

    async def next_batch(self) -> TextBatch | None:
        """Read the next batch; ``None`` at the end of the texts.

        Cancelling it cancels the texts' own `__anext__`; texts that it had read by then are kept.

        Raises:
            RequestError: something among the texts is no text.
            Exception: what the iterable raises, unchanged.
        """
        if self._iterator is None and self._async_iterator is None:
            if isinstance(self._texts, AsyncIterable):
                self._async_iterator = aiter(self._texts)
            else:
                self._iterator = iter(self._texts)
        if self._async_iterator is not None:
            async for text in self._async_iterator:
                if batch := self._add_text(text):
                    return batch
        else:
            for text in cast("Iterator[object]", self._iterator):
                if batch := self._add_text(text):
                    return batch
        return self._close_batch() if self._pending else None

    def _add_text(self, text: object) -> TextBatch | None:
        """Take one more text; the batch that it completes, if any.

        There are two cases: the text no longer fits, and completes the batch before it; or it fits,
        and fills its own batch. Where it does both, its own stays pending until the next text.
        """
        if not isinstance(text, str):
            raise RequestError(f"texts[{self._texts_read}] must be text, not {type(text).__name__}")
        self._texts_read += 1
        batch: TextBatch | None = None
        if self._pending and self._exceeds(len(text)):
            batch = self._close_batch()
        self._pending.append(text)
        self._pending_chars += len(text)
        if batch is None and (len(self._pending) >= self._batch_size or self._exceeds(1)):
            batch = self._close_batch()
        return batch

    def _exceeds(self, more: int) -> bool:
        return self._batch_chars is not None and self._pending_chars + more > self._batch_chars

    def _close_batch(self) -> TextBatch:
        texts, self._pending, self._pending_chars = self._pending, [], 0
        batch = TextBatch(self._next_number, self._texts_batched, texts)
        self._next_number += 1
        self._texts_batched += len(texts)
        return batch

    async def aclose(self) -> None:
        """Close the texts, if they are a generator, so that it can clean up.

        An async generator gets `CLEANUP_SECONDS` for that, shielded from cancellation.
        """
        if isasyncgen(self._async_iterator):
            with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
                await self._async_iterator.aclose()
        elif isgenerator(self._iterator):
            self._iterator.close()


def _check_texts(texts: object) -> Texts:
    if isinstance(texts, str | bytes | bytearray):
        raise RequestError("texts must be many: write [text] for a single one")
    if not isinstance(texts, Iterable | AsyncIterable):
        raise RequestError(
            f"texts must be an iterable or an async iterable of texts, not {type(texts).__name__}"
        )
    return cast("Texts", texts)
