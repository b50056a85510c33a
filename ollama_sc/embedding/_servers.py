"""The servers of a job: who is here, who has a place for a request, how each is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import anyio
from anyio.lowlevel import checkpoint

from ollama_sc._base import Calls
from ollama_sc._errors import OllamaError, ProtocolError, ResponseError

from ._auto import Auto
from ._retries import rest_after
from ._settings import InFlight
from ._vectors import not_finite, vectors
from ._wire import VALUE_BYTES, NoBase64Error, Row, Way, check_rows

# Any text would do: it is what shows whether a server takes a text at all.
PROBE = "warm up"

_NO_SUCH_ADDRESS = (404, 405)


class Server:
    """A client, and what is known of the server behind it."""

    def __init__(self, client: Calls, limit: InFlight, ways: Sequence[Way], timeout: Any) -> None:
        self.client = client
        self.auto = Auto() if limit == "auto" else None
        self.in_flight = 0
        self.here = False  # it has answered, and no connection broke since then
        self.gone = anyio.Event()  # the end of that
        self.rest_until = 0.0  # on the event loop's clock: it was busy, and is left alone
        self.dimensions = 0  # how long its vectors are; zero until it has answered
        self._limit = 0 if limit == "auto" else limit
        self._ways = list(ways)  # the first one is taken
        self._fields = {"timeout": timeout}

    @property
    def limit(self) -> int:
        """How many requests may be in flight."""
        return self._limit if self.auto is None else self.auto.level

    async def ask(self, texts: list[str], dimensions: int) -> list[Row]:
        """The vectors of some texts.

        Raises:
            UnicodeEncodeError: a text has no form in UTF-8.
            OllamaError: as every call does.
        """
        way, rows = await self._ask(texts)
        try:
            check_rows(rows, len(texts), dimensions, way.label)
        except ProtocolError:
            self.dimensions = 0  # it may have another model now: a later job asks again
            raise
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
        self.dimensions = dimensions
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


class Place(NamedTuple):
    """A place for one request."""

    server: Server
    token: tuple[int, float] | None  # of the server's `Auto`


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

    @property
    def known(self) -> bool:
        """Whether any of them has ever answered."""
        return any(server.dimensions for server in self.all)

    async def warm_up(self, server: Server) -> int:
        """See to it that a server is ready; how long its vectors are. See `Server.warm_up`."""
        return await server.warm_up()

    def any_here(self, *, but: Server | None = None) -> bool:
        """Whether a request could be sent to anybody, or anybody else."""
        return any(server.here for server in self.all if server is not but)

    async def place(self, *, again: bool = False, at: Server | None = None) -> Place:
        """Wait for a server with a place, and take it; to be given back with `leave`.

        Whoever goes on with something begun comes before those who begin. It is the server that is
        named, as long as that one is here.
        """
        self._again += again
        try:
            await checkpoint()
            while (found := self._free(at)) is None or (self._again and not again):
                await self._changed.wait()
        finally:
            self._again -= again
            if again:
                self.notify()  # those who begin may go on
        found.in_flight += 1
        auto = found.auto
        return Place(found, None if auto is None else auto.begin(anyio.current_time()))

    def _free(self, wanted: Server | None) -> Server | None:
        """The one that is wanted, or else that with the largest part of its places free."""
        asked = [wanted] if wanted is not None and wanted.here else self.all
        free = [server for server in asked if server.here and server.in_flight < server.limit]
        return min(free, key=lambda server: server.in_flight / server.limit, default=None)

    def leave(self, place: Place, *, counts: bool = False) -> None:
        """Give a place back; its request counts if it was one like the others."""
        place.server.in_flight -= 1
        if place.server.auto is not None and place.token is not None:
            place.server.auto.end(place.token, anyio.current_time(), counts=counts)
        self.notify()

    def held_back(self) -> None:
        """No request was begun for a while, for want of room: where there were places for it."""
        for server in self.all:
            if server.auto is not None and server.in_flight < server.limit:
                server.auto.disturb()

    def notify(self) -> None:
        """There may be places now."""
        self._changed.set()
        self._changed = anyio.Event()

    def welcome(self, server: Server) -> None:
        """It answers: requests may go there."""
        if not server.here:
            server.here = True
            server.gone = anyio.Event()
            self.notify()

    def lose(self, server: Server, error: Exception, *, only_if_others: bool) -> None:
        """It may be gone, or busy: no request goes there until it has answered again."""
        if only_if_others and not self.any_here(but=server):
            return
        if server.here:
            server.here = False
            server.rest_until = anyio.current_time() + rest_after(error)
            server.gone.set()

    def name(self, server: Server, error: Exception) -> None:
        """Say in an error which server it was, where there are several."""
        if len(self.all) > 1 and isinstance(error, OllamaError):
            number = self.all.index(server) + 1
            error.add_note(f"server {number} of {len(self.all)}: {server.client!r}")
