"""From the reader's rows to the texts that are embedded, and back from vectors to rows."""

from collections import deque
from collections.abc import Sequence
from typing import Self

from ollama_sc.cli._errors import JobError, Stopped
from ollama_sc.cli._rows import Reader, Row

_UNUSABLE = 10_000  # rows without a text that may be held while vectors are being waited for


class Feed:
    """An asynchronous iterator of texts that keeps the rows that they are from.

    It ends at the end of the input, at an error, or after very many rows without a text, which
    would otherwise pile up behind the texts in flight. `more` says whether there is more to it.

    Args:
        reader: where rows come from.
        skip_unusable: False ends it at a row without a text.

    Attributes:
        error: what ended it, if it was an error; it has not been raised.
    """

    def __init__(self, reader: Reader, *, skip_unusable: bool) -> None:
        self.error: JobError | None = None
        self._reader = reader
        self._skip_unusable = skip_unusable
        self._ahead: deque[Row] = deque()
        self._given: deque[Row] = deque()  # whose vectors have not come, and unusable ones
        self._unusable = 0
        self._ended = False

    async def more(self) -> bool:
        """Whether there are rows that were not given yet."""
        while not self._ahead and not self._ended:
            try:
                rows = await self._reader.block()
            except JobError as error:
                self.error = error
                rows = ()
            self._ahead.extend(rows)
            self._ended = not rows
        return bool(self._ahead)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while self._unusable < _UNUSABLE and await self.more():
            row = self._ahead.popleft()
            if row.text is not None:
                self._given.append(row)
                return row.text
            if not self._skip_unusable:
                self._ahead.clear()
                self._ended = True
                self.error = unusable(row, row.problem or "")
                break
            self._given.append(row)
            self._unusable += 1
        raise StopAsyncIteration

    def take(self, count: int) -> Sequence[Row]:
        """The rows up to the last one of so many texts, in their order."""
        rows: list[Row] = []
        while count:
            row = self._given.popleft()
            rows.append(row)
            if row.text is None:
                self._unusable -= 1
            else:
                count -= 1
        return rows

    def rest(self) -> Sequence[Row]:
        """The unusable rows behind the last text, when all vectors have come."""
        rows = list(self._given)
        self._given.clear()
        self._unusable = 0
        return rows


def unusable(row: Row, why: str) -> Stopped:
    """What ends a job that may skip nothing."""
    return Stopped(f"{row.where}: {why}\n--on-error skip goes on without such rows")
