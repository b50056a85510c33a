"""Files and pipes of lines into rows, and the hash that identifies the start of a pipe."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from ollama_sc.cli._bytes import ByteLines
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._inputs import Input
from ollama_sc.cli._rows import Row, not_utf8


class LineFormat(Protocol):
    """How lines become rows.

    Attributes:
        arrays: whether there can be an array of JSON in place of lines.
        learn_rows: how many rows are parsed though they are done: what they are tells of others.
    """

    arrays: bool
    learn_rows: int

    @property
    def key_type(self) -> pa.DataType:
        """See `RowReader`."""
        ...

    def is_row(self, line: bytes) -> bool:
        """Whether a line is a row."""
        ...

    def parse(self, row: Row, line: bytes) -> Row:
        """Fill in the key, and the text or the problem, of the next row."""
        ...

    def finish(self) -> None:
        """Check what can be checked at the end of the input only."""
        ...


class PlainLines:
    """A `LineFormat`: each line is a text, even an empty one."""

    arrays = False
    learn_rows = 0

    @property
    def key_type(self) -> pa.DataType:
        """The row number."""
        return pa.int64()

    def is_row(self, line: bytes) -> bool:
        """All are."""
        del line
        return True

    def parse(self, row: Row, line: bytes) -> Row:
        """Fill in a row; a line may end with CR LF."""
        try:
            return row._replace(key=row.number, text=line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            return row._replace(key=row.number, problem=not_utf8(error))

    def finish(self) -> None:
        """Do nothing."""


class LinesReader:
    """A `RowReader` of lines.

    Args:
        job_input: the files.
        format: how their lines become rows.
        skip: how many rows are done.
        mark: of a pipe, the hash of the rows that are done.
    """

    def __init__(self, job_input: Input, format: LineFormat, skip: int, mark: str | None) -> None:
        self._input = job_input
        self._format = format
        self._skip = skip
        self._mark = mark
        self._files = iter(job_input.files)
        self._lines: ByteLines | None = None
        self._number = 0  # of the next row
        self._hash = hashlib.sha256() if job_input.is_pipe else None

    @property
    def key_type(self) -> pa.DataType:
        """That of the format."""
        return self._format.key_type

    async def next_rows(self) -> Sequence[Row]:
        """See `RowReader`.

        Raises:
            Stopped, Refused: as `ByteLines.next_lines` and `LineFormat.parse` raise them.
            Refused: the pipe does not start with the rows that are done.
        """
        while (lines := await self._next_lines()) is not None:
            if rows := self._rows(*lines):
                return rows
        if self._hash is not None and self._number < self._skip:
            raise self._different_pipe_error()
        self._format.finish()
        return []

    async def aclose(self) -> None:
        """Close the open file."""
        if self._lines is not None:
            await self._lines.aclose()

    async def _next_lines(self) -> tuple[str, int, Sequence[bytes]] | None:
        """The next lines, with their file and the number of the first; None after the last file."""
        while True:
            if self._lines is None:
                file = next(self._files, None)
                if file is None:
                    return None
                self._lines = ByteLines(file, arrays=self._format.arrays)
            first = self._lines.count + 1
            if lines := await self._lines.next_lines():
                return self._lines.file.name, first, lines
            await self._lines.aclose()
            self._lines = None

    def _rows(self, name: str, first: int, lines: Sequence[bytes]) -> list[Row]:
        rows: list[Row] = []
        for line_number, line in enumerate(lines, first):
            if not self._format.is_row(line):
                continue
            number = self._number
            self._number += 1
            mark = self._update_hash(line)
            if number >= self._skip or number < self._format.learn_rows:
                row = Row(number, f"{name}:{line_number}", None, None, None, mark)
                row = self._format.parse(row, line)
                if number >= self._skip:
                    rows.append(row)
            if number == self._skip - 1 and mark != self._mark:
                raise self._different_pipe_error()
        return rows

    def _update_hash(self, line: bytes) -> str | None:
        """Of a pipe, the hash of all rows up to this one, without their line ends as they were."""
        if self._hash is None:
            return None
        self._hash.update(line)
        self._hash.update(b"\n")
        return self._hash.hexdigest() if self._number >= self._skip else None

    def _different_pipe_error(self) -> Refused:
        return Refused(
            f"{self._input.files[0].name} does not begin with the {self._skip:,} rows that are "
            "done: pipe the same input in, or use another folder"
        )
