"""What is asked of a server, as HTTP needs it. No httpx in here.

Structs, because the garbage collector need not look at one that holds only text and bytes: what
thousands of requests in flight cost is, for the most part, its walks over all that they hold.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec


class Upload(msgspec.Struct, frozen=True):
    """A body that is read while it is sent.

    Attributes:
        size: in bytes, all of it.
        pieces: begins to read, from the start each time.
    """

    size: int
    pieces: Callable[[], AsyncIterator[bytes]]


class Request(msgspec.Struct, frozen=True):
    """What is asked of the server.

    Attributes:
        label: how errors name it: endpoint and model.
        body: the bytes, or a function that reads files for them, which runs in a thread.
    """

    method: str
    path: str
    label: str
    body: bytes | Upload | Callable[[], bytes] | None = None


class Progress(Protocol):
    """Who is told how far a request has come; none of these must raise."""

    def connecting(self) -> None:
        """A connection is being opened for it."""

    def sending(self) -> None:
        """There is a connection."""

    def sent(self) -> None:
        """All of it is on its way: the answer is next."""
