"""The servers of a job: who is here, who has a place for a request, how each is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from ollama_sc._base import Calls
from ollama_sc._errors import OllamaError, ProtocolError, ResponseError

from ._vectors import not_finite, vectors
from ._wire import VALUE_BYTES, NoBase64Error, Row, Way, check_rows

# Any text would do: it is what shows whether a server takes a text at all.
PROBE = "warm up"

_NO_SUCH_ADDRESS = (404, 405)


class Server:
    """A client, and what the job knows of the server behind it."""

    def __init__(self, client: Calls, limit: int, ways: Sequence[Way], timeout: Any) -> None:
        self.client = client
        self.limit = limit  # how many requests may be in flight
        self.in_flight = 0
        self.here = False  # it has answered, and no connection broke since then
        self.gone = anyio.Event()  # the end of that
        self.error: Exception | None = None  # what it failed with for longer than it may
        self._ways = list(ways)  # the first one is taken
        self._fields = {"timeout": timeout}

    async def ask(self, texts: list[str], dimensions: int) -> list[Row]:
        """The vectors of some texts.

        Raises:
            UnicodeEncodeError: a text has no form in UTF-8.
            OllamaError: as every call does.
        """
        way, rows = await self._ask(texts)
        check_rows(rows, len(texts), dimensions, way.label)
        return rows

    async def warm_up(self) -> int:
        """Let it load the model, and find the way that it knows; how long its vectors are.

        Raises:
            ProtocolError: it does not answer one text with one sound vector.
            OllamaError: as every call does.
        """
        way, rows = await self._ask([PROBE])
        dimensions = len(rows[0]) // VALUE_BYTES if rows else 0
        if not dimensions:
            raise ProtocolError("one text was answered with no vector", request=way.label)
        check_rows(rows, 1, dimensions, way.label)
        if not_finite(vectors(rows, dimensions)):
            raise ProtocolError("the vector is not finite", request=way.label)
        return dimensions

    async def _ask(self, texts: list[str]) -> tuple[Way, list[Row]]:
        """By the first way that the server knows; those that it does not are given up."""
        while True:
            way = self._ways[0]
            request = way.request(texts)
            try:
                status, body = await self.client._fetch(request, self._fields)
                return way, way.read(body, status)
            except NoBase64Error:
                pass
            except ResponseError as error:
                if error.status_code not in _NO_SUCH_ADDRESS or way is self._ways[-1]:
                    raise
            if way is self._ways[0]:
                del self._ways[0]

    def __repr__(self) -> str:
        state = "here" if self.here else "away"
        return f"<Server {self.client!r}, {state}, {self.in_flight} of {self.limit} in flight>"


class Servers:
    """All of them, and the places that they have."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.all = tuple(servers)
        self._changed = anyio.Event()
        self._again = 0  # how many wait for a place to go on with what they have begun

    @property
    def capacity(self) -> int:
        """How many requests may be in flight."""
        return sum(server.limit for server in self.all)

    def any_here(self) -> bool:
        """Whether a request could be sent to anybody."""
        return any(server.here for server in self.all)

    async def place(self, *, again: bool = False) -> Server:
        """Wait for a server with a place, and take it; to be given back with `leave`.

        Whoever goes on with something begun comes before those who begin.
        """
        self._again += again
        try:
            await checkpoint()
            while (found := self._free()) is None or (self._again and not again):
                await self._changed.wait()
        finally:
            self._again -= again
        found.in_flight += 1
        return found

    def _free(self) -> Server | None:
        """The server with the largest part of its places free."""
        free = [server for server in self.all if server.here and server.in_flight < server.limit]
        return min(free, key=lambda server: server.in_flight / server.limit, default=None)

    def leave(self, server: Server) -> None:
        """Give a place back."""
        server.in_flight -= 1
        self.notify()

    def notify(self) -> None:
        """There may be places now."""
        self._changed.set()
        self._changed = anyio.Event()

    def welcome(self, server: Server) -> None:
        """It answers: requests may go there."""
        server.error = None
        server.here = True
        server.gone = anyio.Event()
        self.notify()

    def lose(self, server: Server, *, only_if_others: bool) -> None:
        """It may be gone: no request goes there until it has answered again."""
        if only_if_others and not any(other.here for other in self.all if other is not server):
            return
        if server.here:
            server.here = False
            server.gone.set()

    def name(self, server: Server, error: Exception) -> None:
        """Say in an error which server it was, where there are several."""
        if len(self.all) > 1 and isinstance(error, OllamaError):
            number = self.all.index(server) + 1
            error.add_note(f"server {number} of {len(self.all)}: {server.client!r}")
