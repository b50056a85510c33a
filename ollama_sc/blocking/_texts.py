"""The texts of a job, read in a thread: a generator of a blocking program may wait for anything.

The job's event loop, which all requests of the client share, must not wait for it. And a generator
may well ask the same client.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator, Sized
from contextlib import suppress
from inspect import isgenerator
from typing import Any, cast

import anyio
import anyio.to_thread


def readable(texts: object, batch_size: object, batch_chars: object) -> Any:
    """Texts as a job takes them: those that may have to be waited for, as an async iterator."""
    if isinstance(texts, Sized) or not isinstance(texts, Iterable):
        return texts  # all is there; or it is asynchronous, or for the job to refuse
    size = batch_size if isinstance(batch_size, int) else 1
    chars = batch_chars if isinstance(batch_chars, int) else None
    return _read(cast("Iterable[object]", texts), size, chars)


async def _read(
    texts: Iterable[object], batch_size: int, batch_chars: int | None
) -> AsyncIterator[object]:
    """Read texts in a thread, in each visit no more than a batch still lacks."""
    limiter = anyio.CapacityLimiter(1)  # many readers that wait must not keep files from being read
    reader = _Reader(texts, batch_chars)
    lacking = batch_size
    try:
        while True:
            found = await anyio.to_thread.run_sync(
                reader.read, lacking, abandon_on_cancel=True, limiter=limiter
            )
            for text in found:
                yield text
            if reader.error is not None:
                raise reader.error
            if reader.exhausted:
                return
            lacking = lacking - len(found) or batch_size
    finally:
        # Where the thread is reading still, nothing can stop it: it closes them itself then.
        reader.closing = True
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(reader.close)


class _Reader:
    """Reads in a thread.

    Attributes:
        error: what the texts raised, after what was read before.
        exhausted: whether they are over.
        closing: whether nobody wants more.
    """

    def __init__(self, texts: Iterable[object], batch_chars: int | None) -> None:
        self._texts = texts
        self._batch_chars = math.inf if batch_chars is None else batch_chars
        self._iterator: Iterator[object] | None = None
        self.error: BaseException | None = None
        self.exhausted = False
        self.closing = False

    def read(self, count: int) -> list[object]:
        """So many texts, or fewer where they are over, fail, or fill a batch by their length."""
        found: list[object] = []
        chars = 0
        try:
            if self._iterator is None:
                self._iterator = iter(self._texts)
            while len(found) < count and chars <= self._batch_chars and not self.closing:
                text = next(self._iterator)
                found.append(text)
                chars += len(text) if isinstance(text, str) else 0
        except StopIteration:
            self.exhausted = True
        except BaseException as error:  # noqa: BLE001 - the job raises it
            self.error = error
        if self.closing:
            self.close()
        return found

    def close(self) -> None:
        """Close them, if they are a generator that is not being read."""
        if isgenerator(self._iterator):
            with suppress(ValueError):  # it is
                self._iterator.close()
