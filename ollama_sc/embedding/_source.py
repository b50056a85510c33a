"""Texts into batches, read only as far as they are asked for. Knows nothing of requests."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sized
from contextlib import suppress
from inspect import isasyncgen, isgenerator
from typing import NamedTuple, cast

import anyio

from ollama_sc._calls import CLEANUP_SECONDS
from ollama_sc._errors import RequestError

Texts = Iterable[str] | AsyncIterable[str]


class Chunk(NamedTuple):
    """The texts of one request."""

    number: int  # of the batch
    start: int  # the place of its first text
    texts: list[str]


def _length(texts: Texts) -> int | None:
    """How many there are, where they say so; what can have a length need not have one."""
    if isinstance(texts, Sized):
        with suppress(TypeError):
            return len(texts)
    return None


class Source:
    """The batches of a job.

    A batch closes at so many texts or characters, whichever comes first; a text with more
    characters than that is a batch of its own.
    """

    def __init__(self, texts: Texts, batch_size: int, batch_chars: int | None) -> None:
        self.total = _length(texts)
        self._texts = _checked(texts)
        self._size = batch_size
        self._most = batch_chars
        self._iterator: Iterator[object] | None = None
        self._async_iterator: AsyncIterator[object] | None = None
        self._gathered: list[str] = []  # of the batch that is not closed yet
        self._characters = 0
        self._read = 0  # texts
        self._closed = 0  # texts, in batches that are closed
        self._batches = 0

    async def next(self) -> Chunk | None:
        """The next batch; none at the end. What the texts raise comes out as it is."""
        if self._iterator is None and self._async_iterator is None:
            if isinstance(self._texts, AsyncIterable):
                self._async_iterator = aiter(self._texts)
            else:
                self._iterator = iter(self._texts)
        if self._async_iterator is not None:
            async for text in self._async_iterator:
                if chunk := self._add(text):
                    return chunk
        else:
            for text in cast("Iterator[object]", self._iterator):
                if chunk := self._add(text):
                    return chunk
        return self._close() if self._gathered else None

    def _add(self, text: object) -> Chunk | None:
        """Take one more text; the batch that it closes."""
        if not isinstance(text, str):
            raise RequestError(f"texts[{self._read}] must be text, not {type(text).__name__}")
        self._read += 1
        closed: Chunk | None = None
        if self._gathered and self._exceeds(len(text)):
            closed = self._close()
        self._gathered.append(text)
        self._characters += len(text)
        if closed is None and (len(self._gathered) >= self._size or self._exceeds(1)):
            closed = self._close()
        return closed

    def _exceeds(self, more: int) -> bool:
        return self._most is not None and self._characters + more > self._most

    def _close(self) -> Chunk:
        texts, self._gathered, self._characters = self._gathered, [], 0
        chunk = Chunk(self._batches, self._closed, texts)
        self._batches += 1
        self._closed += len(texts)
        return chunk

    async def close(self) -> None:
        """Nothing more will be read: a generator gets the chance to clean up."""
        if isasyncgen(self._async_iterator):
            with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
                await self._async_iterator.aclose()
        elif isgenerator(self._iterator):
            self._iterator.close()


def _checked(texts: object) -> Texts:
    if isinstance(texts, str | bytes | bytearray):
        raise RequestError("texts must be many: write [text] for a single one")
    if not isinstance(texts, Iterable | AsyncIterable):
        raise RequestError(
            f"texts must be an iterable or an async iterable of texts, not {type(texts).__name__}"
        )
    return cast("Texts", texts)
