"""What is asked of a server, as HTTP needs it. No httpx in here.

The Structs have no part in garbage collection (`gc=False`): what thousands of requests in flight
cost beside each other is, for the most part, the collector's walks over all that they hold.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Protocol

import msgspec


class Upload(msgspec.Struct, frozen=True, gc=False):
    """A body that is read while it is sent.

    Attributes:
        size: in bytes, all of it.
        pieces: begins to read, from the start each time.
    """

    size: int
    pieces: Callable[[], AsyncIterator[bytes]]


class Request(msgspec.Struct, frozen=True, gc=False):
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
