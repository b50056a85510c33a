"""One way for all requests of a client or group, and what can be done to all of them at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar, overload

from . import _request
from ._calls import Call
from ._errors import IncompleteStreamError, RequestError
from ._fields import CallFields
from ._groups import CallGroup, Slots, Statistics
from ._http import Http, Request
from ._join import Shape
from ._ndjson import check_type, decode_reply
from ._owner import TaskOwner
from ._stream import Stream, open_stream
from ._timeouts import Timeouts

T = TypeVar("T")


class Shared:
    """What a client and the groups below it have in common."""

    def __init__(
        self,
        owner: TaskOwner,
        http: Http,
        slots: Slots,
        timeouts: Timeouts,
        max_line_bytes: int,
        max_body_bytes: int,
        hosted: Callable[[], Http | None],
    ) -> None:
        self.owner = owner
        self.http = http
        self.slots = slots
        self.timeouts = timeouts
        self.max_line_bytes = max_line_bytes
        self.max_body_bytes = max_body_bytes
        self._make_hosted = hosted
        self._hosted: Http | None = None

    def hosted(self) -> Http | None:
        """Connections to ollama.com for web searches, where there is a key; made when needed."""
        if self._hosted is None:
            self._hosted = self._make_hosted()
        return self._hosted

    async def close(self) -> None:
        """Close every connection."""
        for http in (self.http, self._hosted):
            if http is not None:
                await http.close()


class Calls:
    """What a client and a group both have: one way for all requests, and their common fate.

    Every call runs as one task in the client's task group and in a cancel scope of its own. These
    hold for each of them:

    * It ends by its caller's cancellation, an abort, a time limit or the client's closing. When it
      returns or raises, nothing of it is running, and its connection is closed or ready for reuse.
    * It raises `RequestError` for arguments that cannot be right and `ClientClosedError` where the
      client is not open, both before anything is sent; then `ConnectError`, `RequestTimeout`,
      `ResponseError` and the classes below it, `ProtocolError`, `AbortError`.
    """

    def __init__(self, shared: Shared, calls: CallGroup) -> None:
        self._shared = shared
        self._calls = calls

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        type: type[T],
        timeout: Timeouts | float | None = None,
    ) -> T: ...

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        type: None,
        timeout: Timeouts | float | None = None,
    ) -> None: ...

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        timeout: Timeouts | float | None = None,
    ) -> Any: ...

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        type: Any = Any,
        timeout: Timeouts | float | None = None,
    ) -> Any:
        """Ask any endpoint, as a call like the others, with an answer in one piece.

        Args:
            method: ``"GET"``, ``"HEAD"``, ``"POST"``, ``"PUT"``, ``"PATCH"`` or ``"DELETE"``.
            path: with its leading slash, below the client's host and its prefix.
            json: the body: whatever msgspec can write as JSON.
            type: what to read the reply into: anything that msgspec can decode, ``bytes`` for the
                body as it is, ``None`` to ignore it. Where it is left out: dictionaries, lists and
                plain values, or ``None`` for an empty body.
            timeout: as in every call.
        """
        request = _request.plain(method, path, json)
        check_type(type)
        status, body = await self._fetch(request, {"timeout": timeout})
        if type is bytes:
            return body
        if type is None or (type is Any and not body):
            return None
        return decode_reply(type, body, status=status, request=request.label)

    # -- the calls' life ---------------------------------------------------------------------

    def abort(self, reason: object = None) -> int:
        """End every request in flight now, in whatever phase it is; not a coroutine.

        Their callers get `AbortError` with this reason. The connections are closed, which makes
        the server stop. More requests can be made right after. Call it in the event loop's thread.

        Returns:
            How many requests that were.
        """
        return self._calls.abort(reason)

    async def shutdown(self, grace: float = 5.0) -> int:
        """Let no new request in, wait for those in flight, and abort what is left.

        The client's connections are closed then. A call that is cancelled aborts the rest at once.
        Do not wait for it inside a request, such as in one of httpx's hooks: it waits for that too.

        Args:
            grace: how many seconds to wait; 0 aborts at once.

        Returns:
            How many requests had to be aborted.
        """
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not grace >= 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RequestError(f"grace must be zero or more seconds, not {grace!r}")
        self._calls.refuse(f"the {self._calls.name} was shut down", draining=True)
        try:
            return await self._calls.drain(grace)
        finally:
            await self._close_connections()

    async def _close_connections(self) -> None:
        """What a shutdown does in the end; a group's connections are its client's."""

    def statistics(self) -> Statistics:
        """How many requests are in which phase now, and how many connections there are."""
        return Statistics(**self._calls.phases(), **self._shared.http.connections()._asdict())

    # -- one way for all endpoints -----------------------------------------------------------

    async def _generate(
        self, request: Request, shape: Shape[T], fields: Mapping[str, Any], *, stream: bool
    ) -> T | Stream[T]:
        if stream:
            shared = self._shared
            timeouts = self._timeouts(fields)
            return await open_stream(
                self._calls, shared.http, request, shape, timeouts, shared.max_line_bytes
            )
        reply = await self._ask(request, shape.type, fields)
        if not shape.is_terminal(reply):
            raise IncompleteStreamError(
                "the reply says that it is not done", partial=reply, request=request.label
            )
        return reply

    async def _get(self, path: str, type_: type[T], fields: Mapping[str, Any]) -> T:
        _request.known(fields, CallFields)
        return await self._ask(_request.plain("GET", path), type_, fields)

    async def _ask(
        self,
        request: Request,
        type_: type[T],
        fields: Mapping[str, Any],
        http: Http | None = None,
    ) -> T:
        status, body = await self._fetch(request, fields, http)
        return decode_reply(type_, body, status=status, request=request.label)

    def _fetch(
        self, request: Request, fields: Mapping[str, Any], http: Http | None = None
    ) -> Awaitable[tuple[int, bytes]]:
        """Start a call that is answered in one piece; its status and its body, to be awaited."""
        call = Call[tuple[int, bytes]](self._calls, request.label, self._timeouts(fields))
        self._calls.start(call, partial(self._exchange, call, request, http or self._shared.http))
        return call.outcome()

    async def _exchange(self, call: Call[Any], request: Request, http: Http) -> tuple[int, bytes]:
        """The work of a call that is answered in one piece."""
        async with http.exchange(call, request, "application/json") as exchange:
            return exchange.status, await exchange.read(self._shared.max_body_bytes)

    def _timeouts(self, fields: Mapping[str, Any]) -> Timeouts:
        given = fields.get("timeout")
        return self._shared.timeouts if given is None else Timeouts.of(given)
