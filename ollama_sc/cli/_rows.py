"""The rows of the input, as the readers of all formats return them."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple, Protocol
from uuid import UUID

import pyarrow as pa

Key = int | str | bytes | float | Decimal | UUID | None


class Row(NamedTuple):
    """A row: its text, or why it has none.

    Attributes:
        number: of the row in the whole input, from 0.
        where: for messages: the file, and the line or row in it, from 1.
        key: the value for the key column.
        text: to embed.
        problem: why there is no text; None where there is one.
        mark: of a pipe, the hash of all rows up to this one.
    """

    number: int
    where: str
    key: Key
    text: str | None
    problem: str | None = None
    mark: str | None = None


class RowReader(Protocol):
    """Reads the rows of an input, some at a time."""

    @property
    def key_type(self) -> pa.DataType:
        """The type of the key column; known once a row was returned."""
        ...

    async def next_rows(self) -> Sequence[Row]:
        """Read the next rows, at least one; empty at the end of the input."""
        ...

    async def aclose(self) -> None:
        """Close the input."""
        ...


def not_utf8(error: UnicodeDecodeError) -> str:
    """The problem of a row that is not UTF-8."""
    return f"not UTF-8: {error.reason} (byte {error.object[error.start]:#04x})"
