"""What is asked of a server, as HTTP needs it. No httpx in here.

Structs, because the garbage collector need not look at one that holds only text and bytes: what
thousands of requests in flight cost is, for the most part, its walks over all that they hold.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from ollama_sc._calls.call import Disconnects


class Upload(msgspec.Struct, frozen=True):
    """A body that is read while it is sent.

    Attributes:
        size: in bytes, all of it.
        blocks: begins to read, from the start each time.
    """

    size: int
    blocks: Callable[[], AsyncIterator[bytes]]


class UploadError(Exception):
    """Carries an error of the file past HTTP, which would take it for its own."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


class Request(msgspec.Struct, frozen=True):
    """What is asked of the server.

    Attributes:
        label: how errors name it: endpoint and model.
        body: the bytes, or a function that reads files for them, which runs in a thread.
        repeatable: whether it may be sent again where a connection has died that was idle before:
            not where doing it twice is another thing than doing it once.
    """

    method: str
    path: str
    label: str
    body: bytes | Upload | Callable[[], bytes] | None = None
    repeatable: bool = True


class RequestEvents(Protocol):
    """What is called as a request proceeds; none of these may raise."""

    def on_connecting(self) -> None:
        """A connection is being opened for it."""

    def on_sending(self, connection: Disconnects | None = None) -> None:
        """There is a connection, which can be closed at once where it is known."""

    def on_sent(self) -> None:
        """All of it is on its way: the response is next."""

    def on_released(self) -> None:
        """The connection is no longer its own."""
