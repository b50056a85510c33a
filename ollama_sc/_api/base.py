"""How every request of a client or group is made, and what can be done to all of them at once."""

from __future__ import annotations

import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

import httpx

from ollama_sc._calls.call import Call
from ollama_sc._calls.group import CallGroup, Statistics
from ollama_sc._calls.limiter import Limiter
from ollama_sc._errors import IncompleteStreamError, RequestError
from ollama_sc._http.exchange import Exchange
from ollama_sc._http.messages import Request
from ollama_sc._http.sender import Sender
from ollama_sc._loop.primitives import Event
from ollama_sc._loop.task_group import NativeTaskGroup
from ollama_sc._replies.join import StreamSpec
from ollama_sc._replies.ndjson import check_type, decode_reply, raise_error_object, says_done
from ollama_sc._timeouts import Timeouts

from . import arguments
from .fields import CallFields
from .stream import Stream, open_stream

if TYPE_CHECKING:
    from ollama_sc._http.socket_trio import Sweeper

    from .outputs import Output

T = TypeVar("T")

_UNSTOPPABLE = {getattr(signal, name, None) for name in ("SIGKILL", "SIGSTOP")}


class ClientState:
    """What a client and the groups below it have in common."""

    def __init__(
        self,
        tasks: NativeTaskGroup,
        sender: Sender,
        limiter: Limiter,
        timeouts: Timeouts,
        max_line_bytes: int,
        max_body_bytes: int,
        hosted: Callable[[], Sender | None],
    ) -> None:
        self.tasks = tasks
        self.sender = sender
        self.limiter = limiter
        self.timeouts = timeouts
        self.max_line_bytes = max_line_bytes
        self.max_body_bytes = max_body_bytes
        self._make_hosted = hosted
        self._hosted: Sender | None = None
        self._sweeper: Sweeper | None = None

    def hosted(self) -> Sender | None:
        """Connections to ollama.com for web searches, where there is a key; made when needed."""
        if self._hosted is None:
            self._hosted = self._make_hosted()
        return self._hosted

    def sweeper(self) -> Sweeper:
        """What reads on trio for streams whose consumers are busy; made when needed."""
        if self._sweeper is None:
            from ollama_sc._http.socket_trio import Sweeper  # noqa: PLC0415

            self._sweeper = Sweeper(self.tasks)
        return self._sweeper

    async def aclose(self) -> None:
        """Close every connection."""
        for sender in (self.sender, self._hosted):
            if sender is not None:
                await sender.aclose()


class BaseClient:
    """What a client and a group both have: how requests are made, and how all of them end.

    Every call runs as one task in the client's task group and in a cancel scope of its own. These
    hold for each of them:

    * It ends by its caller's cancellation, an abort, a timeout or the client's closing. When it
      returns or raises, nothing of it is running, and its connection is closed or ready for reuse.
    * It raises `RequestError` for arguments that cannot be right and `ClientClosedError` where the
      client is not open, both before anything is sent; then `ConnectError`, `RequestTimeout`,
      `ResponseError` and the classes below it, `ProtocolError`, `AbortError`.
    """

    def __init__(self, shared: ClientState, calls: CallGroup) -> None:
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
        timeout: Timeouts | httpx.Timeout | float | None = None,
    ) -> T: ...

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        type: None,
        timeout: Timeouts | httpx.Timeout | float | None = None,
    ) -> None: ...

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        timeout: Timeouts | httpx.Timeout | float | None = None,
    ) -> Any: ...

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        type: Any = Any,
        timeout: Timeouts | httpx.Timeout | float | None = None,
    ) -> Any:
        """Ask any endpoint, as a call like the others, with an answer in one piece.

        Args:
            method: ``"GET"``, ``"HEAD"``, ``"POST"``, ``"PUT"``, ``"PATCH"`` or ``"DELETE"``.
            path: with its leading slash, below the client's host and its prefix.
            json: the body: whatever msgspec can write as JSON.
            type: what to read the reply into: anything that msgspec can decode, ``bytes`` for the
                body as it is, ``None`` to ignore it. Where it is left out: dictionaries, lists and
                plain values, or ``None`` for an empty body. An error object is an error for each.
            timeout: as in every call.
        """
        request = arguments.raw_request(method, path, json)
        check_type(type)

        return await self._fetch(request, {"timeout": timeout}, _read_as, type)

    # -- the calls' life ---------------------------------------------------------------------

    def abort(self, reason: object = None) -> int:
        """End every request in flight now, in whatever phase it is; not a coroutine.

        Their callers get `AbortError` with this reason. The connections are closed when it returns,
        which makes the server stop. More requests can be made right after. Call it in the event
        loop's thread.

        Returns:
            How many requests that were.

        Raises:
            ClientClosedError: this is another thread, or the loop does not run; nothing was ended.
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
        _check_grace(grace)
        self._calls.stop_accepting(f"the {self._calls.name} was shut down", draining=True)
        try:
            return await self._calls.drain(grace)
        finally:
            await self._close_connections()

    async def _close_connections(self) -> None:
        """What a shutdown does in the end; a group's connections are its client's."""

    @asynccontextmanager
    async def shutdown_on_signals(
        self, grace: float = 5.0, signals: Iterable[int] = (signal.SIGINT, signal.SIGTERM)
    ) -> AsyncGenerator[None]:
        """Inside of this block, a signal shuts the client down: see `shutdown`.

        ::

            async with AsyncClient() as client, client.shutdown_on_signals(grace=5):
                ...

        The handler that was there before is called, too. So a web server goes on to stop as it
        does, and meanwhile its generations end: open this in the application's lifespan, around
        its ``yield``. What stands behind the ``yield`` comes too late: servers run it when all
        responses are over.

        Where nobody handled a signal, its default action, which ends the process, is left out the
        first time: requests raise `ClientClosedError` or `AbortError`, and the program ends by
        that. The second time it ends the process. Ctrl-C keeps raising KeyboardInterrupt in a
        program that has no handler of its own. Signals that are ignored stay so. Outside of the
        main thread this does nothing, as Python gives signals to no other thread. A server that
        sets its handlers after the application has started, such as hypercorn, is not heard: it
        has an option for the grace.

        Leaving the block restores the handlers, where nobody has replaced them meanwhile, and
        waits for a shutdown that has begun. An exception in the block does not wait.

        Args:
            grace: as in `shutdown`.
            signals: the signals.
        """
        from ollama_sc._loop.signals import SignalWatch  # noqa: PLC0415 - few programs do this

        _check_grace(grace)
        watched = _signals(signals)
        self._calls.check_open()
        ended: Event | None = None

        async def shut_down(event: Event) -> None:
            try:
                await self.shutdown(grace)
            finally:
                event.set()

        def heard() -> None:
            nonlocal ended
            if ended is None:
                ended = event = self._calls.runtime.new_event()
                tasks = self._shared.tasks
                try:
                    tasks.start(
                        shut_down, event, name="ollama_sc shutdown", ended=lambda _: event.set()
                    )
                except RuntimeError:  # the client's tasks are gone
                    event.set()

        watch = SignalWatch(watched, heard)
        watch.start()
        try:
            yield
        finally:
            watch.stop()
        if ended is not None:
            await ended.wait()

    def statistics(self) -> Statistics:
        """How many requests are in which phase now, and how many connections there are."""
        return Statistics(**self._calls.phases(), **self._shared.sender.connections()._asdict())

    # -- for all endpoints ----------------------------------------------------------------------

    async def _generate(
        self,
        request: Request,
        spec: StreamSpec[T],
        fields: Mapping[str, Any],
        output: Output[Any] | None = None,
        *,
        stream: bool,
    ) -> T | Stream[T, Any]:
        if stream:
            shared = self._shared
            timeouts = self._timeouts(fields)
            return await open_stream(
                self._calls,
                shared.sender,
                request,
                spec,
                timeouts,
                shared.max_line_bytes,
                shared.sweeper,
                output,
            )

        return await self._fetch_whole(request, spec, fields)

    def _fetch_whole(
        self, request: Request, spec: StreamSpec[T], fields: Mapping[str, Any]
    ) -> Awaitable[T]:
        """A reply in one piece that could have been a stream."""
        return self._fetch(request, fields, _read_whole, spec)

    async def _get(self, path: str, type_: type[T], fields: Mapping[str, Any]) -> T:
        arguments.reject_unknown(fields, CallFields)
        return await self._ask(arguments.raw_request("GET", path), type_, fields)

    async def _ask(
        self,
        request: Request,
        type_: type[T],
        fields: Mapping[str, Any],
        sender: Sender | None = None,
    ) -> T:
        """The reply of a call that is answered in one piece."""
        return await self._fetch(request, fields, _read_reply, type_, sender=sender)

    def _fetch(
        self,
        request: Request,
        fields: Mapping[str, Any],
        read: Callable[..., T],
        *context: object,
        sender: Sender | None = None,
    ) -> Awaitable[T]:
        """Start a call that is answered in one piece; what `read` makes of it, to be awaited.

        `read` gets the body, the status, the request and the context. It is called before the
        connection is released: a reply that it refuses may be another request's, and then the next
        one on it would be, too. It is a function with a context and no closure, because what
        thousands of waiting requests hold is what the garbage collector walks over.
        """
        call: Call[T] = Call(self._calls.runtime, request.label, self._timeouts(fields))
        sender = sender or self._shared.sender
        work = partial(self._exchange, call, request, sender, read, context)
        self._calls.start(call, work, subject=(request, sender.base))
        return call.outcome()

    async def _exchange(
        self,
        call: Call[T],
        request: Request,
        sender: Sender,
        read: Callable[..., T],
        context: tuple[object, ...],
    ) -> T:
        """The work of a call that is answered in one piece."""
        async with Exchange(sender, call, request, "application/json") as exchange:
            body = await exchange.read(self._shared.max_body_bytes)
            return read(body, exchange.status, request, *context)

    def _timeouts(self, fields: Mapping[str, Any]) -> Timeouts:
        given = fields.get("timeout")
        return self._shared.timeouts if given is None else Timeouts.of(given)


def _check_grace(grace: object) -> None:
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not grace >= 0:
        raise RequestError(f"grace must be zero or more seconds, not {grace!r}")


def _signals(given: Iterable[int]) -> list[int]:
    """The signals, where all of them can be handled."""
    possible = signal.valid_signals() - _UNSTOPPABLE
    try:
        numbers = list(given)
    except TypeError:
        numbers = []
    if not numbers or not all(isinstance(n, int) and n in possible for n in numbers):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RequestError(f"signals must be signals that can be handled, not {given!r}")
    return numbers


def _read_reply(body: bytes, status: int, request: Request, type_: type[T]) -> T:
    return decode_reply(type_, body, status, request.label)


def _read_whole(body: bytes, status: int, request: Request, spec: StreamSpec[T]) -> T:
    """Read what could have been a stream, and be whole as that would be."""
    reply = decode_reply(spec.type, body, status, request.label)
    if not spec.is_whole(reply):
        if not spec.says_done or says_done(body):
            raise IncompleteStreamError(
                f"the reply says that it is not done{spec.why_incomplete(reply)}",
                partial=reply,
                request=request.label,
            )
        # HTTP says that it is whole, and it says nothing else.
        reply.done = True  # type: ignore[attr-defined]
    return reply


def _read_as(body: bytes, status: int, request: Request, type: Any) -> Any:
    """Read what the user has a type for, or wants as it is, or not at all."""
    if type is bytes or type is None or (type is Any and not body):
        raise_error_object(body, status, request.label)
        return body if type is bytes else None
    return decode_reply(type, body, status, request.label)
