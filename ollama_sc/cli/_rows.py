"""A row of the input, as the readers of all formats give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa

Key = int | str | bytes | None


class Row(NamedTuple):
    """A row: its text, or why it has none.

    Attributes:
        number: of the row in the whole input, from 0.
        where: the file with the line or the row in it, from 1, for messages.
        key: what its key column holds.
        text: what is embedded.
        problem: why there is no text; None where there is one.
        mark: of a pipe, the hash of all rows up to this one.
    """

    number: int
    where: str
    key: Key
    text: str | None
    problem: str | None = None
    mark: str | None = None


class Reader(Protocol):
    """What reads an input, a block of rows at a time."""

    @property
    def key_type(self) -> pa.DataType:
        """The type of the key column; known once a row was read."""
        ...

    async def block(self) -> Sequence[Row]:
        """The next rows, never none; nothing at the end of the input."""
        ...

    async def aclose(self) -> None:
        """Close the input."""
        ...


def not_utf8(error: UnicodeDecodeError) -> str:
    """What the problem of such a row is."""
    return f"not UTF-8: {error.reason} (byte {error.object[error.start]:#04x})"
