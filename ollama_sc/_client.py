"""The client: opening and closing, and one short method for each endpoint."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from . import _request
from ._calls import Call, CallGroup, Slots, Statistics
from ._errors import IncompleteStreamError, RequestError
from ._host import parse_host
from ._http import Http, HttpxOptions, Request
from ._join import CHAT, GENERATE, Shape
from ._ndjson import decode_reply
from ._owner import TaskOwner
from ._stream import Stream, open_stream
from ._timeouts import Timeouts
from .types import (
    CallFields,
    ChatFields,
    ChatResponse,
    EmbedFields,
    EmbedResponse,
    GenerateFields,
    GenerateResponse,
    ListResponse,
    MessageLike,
    VersionResponse,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")

MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_BODY_BYTES = 128 * 1024 * 1024


class _Shared:
    """What a client and the groups below it have in common."""

    def __init__(
        self,
        owner: TaskOwner,
        http: Http,
        slots: Slots,
        timeouts: Timeouts,
        max_line_bytes: int,
        max_body_bytes: int,
    ) -> None:
        self.owner = owner
        self.http = http
        self.slots = slots
        self.timeouts = timeouts
        self.max_line_bytes = max_line_bytes
        self.max_body_bytes = max_body_bytes


class Requests:
    """The calls that a client and a group both have.

    Every call runs as one task in the client's task group and in a cancel scope of its own. These
    hold for each of them:

    * It ends by its caller's cancellation, an abort, a time limit or the client's closing. When it
      returns or raises, nothing of it is running, and its connection is closed or ready for reuse.
    * It raises `RequestError` for arguments that cannot be right and `ClientClosedError` where the
      client is not open, both before anything is sent; then `ConnectError`, `RequestTimeout`,
      `ResponseError` and the classes below it, `ProtocolError`, `AbortError`.
    """

    def __init__(self, shared: _Shared, calls: CallGroup) -> None:
        self._shared = shared
        self._calls = calls

    # -- endpoints ---------------------------------------------------------------------------

    @overload
    async def chat(
        self,
        model: str,
        messages: Sequence[MessageLike] | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[ChatFields],
    ) -> ChatResponse: ...

    @overload
    async def chat(
        self,
        model: str,
        messages: Sequence[MessageLike] | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[ChatFields],
    ) -> Stream[ChatResponse]: ...

    @overload
    async def chat(
        self,
        model: str,
        messages: Sequence[MessageLike] | None = None,
        *,
        stream: bool,
        **fields: Unpack[ChatFields],
    ) -> ChatResponse | Stream[ChatResponse]: ...

    @_request.accepts(ChatFields)
    async def chat(
        self,
        model: str,
        messages: Sequence[MessageLike] | None = None,
        *,
        stream: bool = False,
        **fields: Unpack[ChatFields],
    ) -> ChatResponse | Stream[ChatResponse]:
        """Let a model answer a conversation: ``POST /api/chat``.

        Without messages, the server loads the model and answers with nothing.

        Args:
            model: its name, such as ``"llama3.2"``.
            messages: each a `Message`, a mapping with ``role`` and ``content``, or an earlier
                `ChatResponse`.
            stream: whether the answer comes in parts, as a `Stream`. The call returns when the
                server begins to answer, which can take as long as loading the model does.
            **fields: see `ChatFields`.

        Raises:
            IncompleteStreamError: the reply says that it is not done. (A stream raises this, and
                whatever comes after its beginning, where it is iterated.)
        """
        request = _request.build(
            "/api/chat",
            model,
            ChatFields,
            fields,
            messages=_request.messages(messages),
            stream=bool(stream),
        )
        return await self._generate(request, CHAT, fields, stream=stream)

    @overload
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[GenerateFields],
    ) -> GenerateResponse: ...

    @overload
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[GenerateFields],
    ) -> Stream[GenerateResponse]: ...

    @overload
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: bool,
        **fields: Unpack[GenerateFields],
    ) -> GenerateResponse | Stream[GenerateResponse]: ...

    @_request.accepts(GenerateFields)
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: bool = False,
        **fields: Unpack[GenerateFields],
    ) -> GenerateResponse | Stream[GenerateResponse]:
        """Let a model continue a text: ``POST /api/generate``.

        Without a prompt, the server loads the model and answers with nothing.

        Args:
            model: its name, such as ``"llama3.2"``.
            prompt: the text.
            suffix: what comes after the text that the model writes, for models that can insert.
            stream: as in `chat`.
            **fields: see `GenerateFields`.

        Raises:
            IncompleteStreamError: as in `chat`.
        """
        request = _request.build(
            "/api/generate",
            model,
            GenerateFields,
            fields,
            prompt=_request.text("prompt", prompt),
            suffix=_request.text("suffix", suffix),
            stream=bool(stream),
        )
        return await self._generate(request, GENERATE, fields, stream=stream)

    @_request.accepts(EmbedFields)
    async def embed(
        self, model: str, input: str | Sequence[str] = "", **fields: Unpack[EmbedFields]
    ) -> EmbedResponse:
        """Turn texts into vectors: ``POST /api/embed``.

        Args:
            model: its name, such as ``"nomic-embed-text"``.
            input: a text or a list of them. The server cuts one that is too long, in silence,
                unless ``truncate=False`` makes that an error. With an empty text or list it loads
                the model and answers with no vector.
            **fields: see `EmbedFields`.

        Returns:
            One vector for each text, in order, in `embeddings`.
        """
        request = _request.build(
            "/api/embed", model, EmbedFields, fields, input=_request.embed_input(input)
        )
        return await self._ask(request, EmbedResponse, fields)

    @_request.accepts(CallFields)
    async def list(self, **fields: Unpack[CallFields]) -> ListResponse:
        """The models that the server has: ``GET /api/tags``."""
        return await self._ask(_request.plain("GET", "/api/tags"), ListResponse, fields)

    @_request.accepts(CallFields)
    async def version(self, **fields: Unpack[CallFields]) -> VersionResponse:
        """The server's version: ``GET /api/version``."""
        return await self._ask(_request.plain("GET", "/api/version"), VersionResponse, fields)

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

    def group(self) -> Group:
        """Requests that can be aborted together: ``async with client.group() as group``.

        The group makes requests as the client does, over the same connections and under the same
        limit. Its `abort` reaches its own requests; leaving it ends what is left of them; what
        ends the client's requests ends its own. Groups can have groups.
        """
        return Group(self._shared, self._calls)

    async def shutdown(self, grace: float = 5.0) -> int:
        """Let no new request in, wait for those in flight, and abort what is left.

        The client's connections are closed then. A call that is cancelled aborts the rest at once.

        Args:
            grace: how many seconds to wait; 0 aborts at once.

        Returns:
            How many requests had to be aborted.
        """
        if isinstance(grace, bool) or not isinstance(grace, int | float) or not grace >= 0:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RequestError(f"grace must be zero or more seconds, not {grace!r}")
        self._calls.refuse(f"the {self._calls.name} was shut down")
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

    async def _ask(self, request: Request, type_: type[T], fields: Mapping[str, Any]) -> T:
        status, body = await self._fetch(request, fields)
        return decode_reply(type_, body, status=status, request=request.label)

    async def _fetch(self, request: Request, fields: Mapping[str, Any]) -> tuple[int, bytes]:
        call = Call[tuple[int, bytes]](self._calls, request.label, self._timeouts(fields))
        self._calls.start(call, partial(self._exchange, call, request))
        return await call.outcome()

    async def _exchange(self, call: Call[Any], request: Request) -> tuple[int, bytes]:
        """The work of a call that is answered in one piece."""
        async with self._shared.http.exchange(call, request, "application/json") as exchange:
            return exchange.status, await exchange.read(self._shared.max_body_bytes)

    def _timeouts(self, fields: Mapping[str, Any]) -> Timeouts:
        given = fields.get("timeout")
        return self._shared.timeouts if given is None else Timeouts.of(given)


class AsyncClient(Requests):
    """A client of one Ollama server, on trio or asyncio.

    ::

        async with AsyncClient() as client:
            reply = await client.chat("llama3.2", [{"role": "user", "content": "Hello"}])
            print(reply.message.content)

    ``async with`` opens a task group that every request runs in. Leaving it ends what still runs,
    whose callers elsewhere get `AbortError`; an exception leaves as itself, never in a group of
    ours. A client is opened once.

    Args:
        host: where the server is: ``"192.168.1.5"``, ``"host:8080"``, ``"https://example.com/ollama"``.
            ``None`` takes ``OLLAMA_HOST`` from the environment, or ``127.0.0.1:11434``.
        api_key: sent as ``Authorization: Bearer ...``. ``None`` takes ``OLLAMA_API_KEY`` from the
            environment for ``https://ollama.com``, and for no other host.
        headers: sent with every request; printable ASCII.
        timeout: a number of seconds or `Timeouts`; ``None`` limits connecting alone, to 10 seconds.
        max_in_flight: how many requests may run at the same time, streams included; others wait in
            order. ``None`` is no limit.
        max_line_bytes: how long a line of a stream may be.
        max_body_bytes: how long a whole reply may be.
        **httpx_options: passed on to httpx as they are: ``auth``, ``verify``, ``proxy``,
            ``transport``, ``event_hooks`` and others. Redirects are followed unless
            ``follow_redirects=False``.

    Raises:
        RequestError: an argument cannot be right.
    """

    def __init__(
        self,
        host: str | None = None,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: Timeouts | float | None = None,
        max_in_flight: int | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_body_bytes: int = MAX_BODY_BYTES,
        **httpx_options: Unpack[HttpxOptions],
    ) -> None:
        where = parse_host(os.environ.get("OLLAMA_HOST") if host is None else host)
        if api_key is None and where.is_ollama_com:
            api_key = os.environ.get("OLLAMA_API_KEY") or None
        for name, value in (
            ("max_in_flight", max_in_flight),
            ("max_line_bytes", max_line_bytes),
            ("max_body_bytes", max_body_bytes),
        ):
            if value is not None and (type(value) is not int or value < 1):
                raise RequestError(f"{name} must be a whole number above zero, not {value!r}")
        owner = TaskOwner()
        slots = Slots(max_in_flight)
        shared = _Shared(
            owner,
            Http(where, api_key=api_key, headers=headers, options=httpx_options),
            slots,
            Timeouts() if timeout is None else Timeouts.of(timeout),
            max_line_bytes,
            max_body_bytes,
        )
        super().__init__(shared, CallGroup(owner, slots, "client"))
        self._url = where.url

    async def __aenter__(self) -> Self:
        self._calls.open()
        try:
            await self._shared.http.open()
            await self._shared.owner.open()
        except BaseException:
            self._calls.refuse("the client could not be opened: make another one")
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.refuse("the client is closed: make another one")
        try:
            await self._shared.owner.close(
                partial(self._calls.abort, "client closed"), exc_type, exc, traceback
            )
        finally:
            self._calls.settle()
            try:
                await self._shared.http.close()
            except BaseException:
                if exc is None:  # nothing replaces the body's exception
                    raise

    def __repr__(self) -> str:
        return f"<AsyncClient {self._url}, {self._calls.state}, {len(self._calls.live)} requests>"

    async def _close_connections(self) -> None:
        await self._shared.http.close()


class Group(Requests):
    """Requests of a client that can be aborted together; see `AsyncClient.group`.

    It is a handle on requests, no task group for tasks of yours.
    """

    def __init__(self, shared: _Shared, parent: CallGroup) -> None:
        super().__init__(shared, CallGroup(shared.owner, shared.slots, "group"))
        self._parent = parent

    async def __aenter__(self) -> Self:
        self._calls.open(self._parent)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._calls.leave()

    def __repr__(self) -> str:
        return f"<Group of a client, {self._calls.state}, {len(self._calls.live)} requests>"
