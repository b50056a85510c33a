"""From rows to the texts that are embedded, and from their vectors back to the rows."""

from collections import deque
from collections.abc import Sequence
from typing import Self

from ollama_sc.cli._errors import JobError, Stopped
from ollama_sc.cli._rows import Row, RowReader

_MAX_UNUSABLE_ROWS = 10_000  # rows without a text that may be held behind texts in flight


class Feed:
    """An async iterator of texts that keeps the rows that they are from.

    The iteration ends at the end of the input, at an error, or after `_MAX_UNUSABLE_ROWS` rows
    without a text: these are held until the texts before them have vectors, and memory must stay
    bounded. In that case `has_more` is true, and iterating again goes on.

    Args:
        reader: reads the rows.
        skip_unusable: False makes a row without a text an error.

    Attributes:
        error: what ended the iteration, if it was an error; the feed does not raise it.
    """

    def __init__(self, reader: RowReader, *, skip_unusable: bool) -> None:
        self.error: JobError | None = None
        self._reader = reader
        self._skip_unusable = skip_unusable
        self._read_ahead: deque[Row] = deque()
        self._pending: deque[Row] = deque()  # without vectors yet, and those without a text
        self._unusable_rows = 0
        self._ended = False

    async def has_more(self) -> bool:
        """Whether there are rows left; reads some, if it has to."""
        while not self._read_ahead and not self._ended:
            try:
                rows = await self._reader.next_rows()
            except JobError as error:
                self.error = error
                rows = ()
            self._read_ahead.extend(rows)
            self._ended = not rows
        return bool(self._read_ahead)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while self._unusable_rows < _MAX_UNUSABLE_ROWS and await self.has_more():
            row = self._read_ahead.popleft()
            if row.text is not None:
                self._pending.append(row)
                return row.text
            if not self._skip_unusable:
                self._read_ahead.clear()
                self._ended = True
                self.error = unusable_row_error(row, row.problem or "")
                break
            self._pending.append(row)
            self._unusable_rows += 1
        raise StopAsyncIteration

    def take_rows(self, count: int) -> Sequence[Row]:
        """Take the rows up to that of the last of `count` texts, unusable ones included."""
        rows: list[Row] = []
        while count:
            row = self._pending.popleft()
            rows.append(row)
            if row.text is None:
                self._unusable_rows -= 1
            else:
                count -= 1
        return rows

    def take_rest(self) -> Sequence[Row]:
        """Take the unusable rows behind the last text, once all vectors have arrived."""
        rows = list(self._pending)
        self._pending.clear()
        self._unusable_rows = 0
        return rows


def unusable_row_error(row: Row, reason: str) -> Stopped:
    """The error of a row without a vector, in a job that may not skip it."""
    return Stopped(f"{row.where}: {reason}\n--on-error skip goes on without such rows")
