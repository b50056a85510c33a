"""Files and pipes of lines into rows, and the hash by which a pipe is known again."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from ollama_sc.cli._bytes import Lines
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._inputs import Input
from ollama_sc.cli._rows import Row, not_utf8


class LineFormat(Protocol):
    """What lines are."""

    @property
    def key_type(self) -> pa.DataType:
        """See `Reader`."""
        ...

    def is_row(self, line: bytes) -> bool:
        """Whether a line is a row."""
        ...

    def row(self, row: Row, line: bytes) -> Row:
        """Fill in the key, and the text or the problem, of the next row."""
        ...

    def end(self) -> None:
        """There are no more of them."""
        ...


class PlainLines:
    """Each line is a text, an empty one too. See `LineFormat`."""

    @property
    def key_type(self) -> pa.DataType:
        """The row number."""
        return pa.int64()

    def is_row(self, line: bytes) -> bool:
        """All are."""
        del line
        return True

    def row(self, row: Row, line: bytes) -> Row:
        """Fill in a row; a line may end with CR LF."""
        try:
            return row._replace(key=row.number, text=line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            return row._replace(key=row.number, problem=not_utf8(error))

    def end(self) -> None:
        """Nothing is to be done."""


class LinesReader:
    """Reads lines. See `Reader`.

    Args:
        source: which files.
        format: what the lines are.
        skip: how many rows are done.
        mark: of a pipe, the hash of these.
    """

    def __init__(self, source: Input, format: LineFormat, skip: int, mark: str | None) -> None:
        self._input = source
        self._format = format
        self._skip = skip
        self._mark = mark
        self._sources = iter(source.sources)
        self._lines: Lines | None = None
        self._number = 0  # of the next row
        self._hash = hashlib.sha256() if source.is_pipe else None

    @property
    def key_type(self) -> pa.DataType:
        """That of the format."""
        return self._format.key_type

    async def block(self) -> Sequence[Row]:
        """See `Reader`.

        Raises:
            Refused: the pipe does not begin with the rows that are done.
        """
        while (lines := await self._next_lines()) is not None:
            if rows := self._rows(*lines):
                return rows
        if self._hash is not None and self._number < self._skip:
            raise self._another_pipe()
        self._format.end()
        return []

    async def aclose(self) -> None:
        """Close what is open."""
        if self._lines is not None:
            await self._lines.aclose()

    async def _next_lines(self) -> tuple[str, int, Sequence[bytes]] | None:
        """The next lines with their file and the number of the first; None at the end of all."""
        while True:
            if self._lines is None:
                source = next(self._sources, None)
                if source is None:
                    return None
                self._lines = Lines(source)
            first = self._lines.count + 1
            if lines := await self._lines.next():
                return self._lines.source.name, first, lines
            await self._lines.aclose()
            self._lines = None

    def _rows(self, name: str, first: int, lines: Sequence[bytes]) -> list[Row]:
        rows: list[Row] = []
        for place, line in enumerate(lines, first):
            if not self._format.is_row(line):
                continue
            number = self._number
            self._number += 1
            mark = self._add_to_hash(line)
            if number >= self._skip:
                row = Row(number, f"{name}:{place}", None, None, None, mark)
                rows.append(self._format.row(row, line))
            elif number == self._skip - 1 and mark != self._mark:
                raise self._another_pipe()
        return rows

    def _add_to_hash(self, line: bytes) -> str | None:
        """Of a pipe, the hash up to this row; the end of the line is not in it."""
        if self._hash is None:
            return None
        self._hash.update(line)
        self._hash.update(b"\n")
        return self._hash.hexdigest() if self._number >= self._skip else None

    def _another_pipe(self) -> Refused:
        return Refused(
            f"{self._input.sources[0].name} does not begin with the {self._skip:,} rows that are "
            "done: pipe the same input in, or use another folder"
        )
