"""The client and its groups: opening and closing."""

from __future__ import annotations

import os
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio
import httpx

from ._api.base import ClientState
from ._api.generation import Generation
from ._api.models import Models
from ._api.server import Server
from ._calls import observing
from ._calls.group import CallGroup
from ._calls.limiter import Limiter
from ._errors import ClientClosedError, RequestError
from ._http.host import Host, parse_host, refuse_endpoint
from ._http.options import HeadersLike, HttpxOptions
from ._http.sender import Sender
from ._http.settings import for_hosted
from ._jobs.methods import EmbeddingJobs
from ._loop.primitives import is_trio
from ._loop.shielding import CLEANUP_SECONDS, aclose_on_exit, wait_shielded
from ._loop.task_group import NativeTaskGroup
from ._platform import BROWSER_CONNECTIONS, in_browser
from ._timeouts import Timeouts
from ._tools.methods import ToolRuns

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._loop.holder import Holder

HOSTED = "https://ollama.com"
MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_BODY_BYTES = 128 * 1024 * 1024


class Requests(Generation, ToolRuns, EmbeddingJobs, Models, Server):
    """The calls that a client and a group both have."""

    def group(self) -> Group:
        """Requests that can be aborted together: ``async with client.group() as group``.

        The group makes requests as the client does, over the same connections and under the same
        limit. Its `abort` reaches its own requests; leaving it ends what is left of them; what
        ends the client's requests ends its own. Groups can have groups.
        """
        return Group(self._shared, self._calls)


def _where(host: str | None) -> Host:
    """The server that is given, or else the environment's, which an error names."""
    try:
        where = parse_host(os.environ.get("OLLAMA_HOST") if host is None else host)
        refuse_endpoint(where)
    except RequestError as error:
        if host is not None:
            raise
        raise RequestError(f"OLLAMA_HOST: {error}") from None
    return where


def _environments_key() -> str | None:
    """The key for ollama.com; what it is made of is checked under the name that people know."""
    key = os.environ.get("OLLAMA_API_KEY", "").strip()
    if not (key.isascii() and key.isprintable()):
        raise RequestError("OLLAMA_API_KEY must be printable ASCII")
    return key or None


def _hosted(where: Host, mine: Sender, options: HttpxOptions) -> Sender | None:
    """What web searches go through: ollama.com, with a key that is meant for it, or nothing."""
    if where.is_ollama_com:
        return mine
    key = _environments_key()
    if not key:
        return None
    return Sender(parse_host(HOSTED), api_key=key, headers=None, options=for_hosted(options))


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
        headers: sent with every request, as a mapping or pairs; printable ASCII. ``None`` as a
            value is as if the header were not given.
        timeout: a number of seconds or `Timeouts`, or httpx's own ``Timeout``; ``None`` limits
            connecting alone, to 10 seconds.
        max_in_flight: how many requests may run at the same time, streams included; others wait in
            order. ``None`` is no limit; in a browser 6, which is how many it sends to one server.
        max_line_bytes: how long a line of a stream may be.
        max_body_bytes: how long a whole reply may be.
        **httpx_options: passed on to httpx as they are: ``auth``, ``verify``, ``proxy``,
            ``transport``, ``event_hooks`` and others; in a browser, what is the browser's to decide
            is refused. Redirects are followed within the server's
            own origin; ``follow_redirects`` lets httpx follow all of them, or none.

    Raises:
        RequestError: an argument cannot be right.
    """

    def __init__(
        self,
        host: str | None = None,
        *,
        api_key: str | None = None,
        headers: HeadersLike | None = None,
        timeout: Timeouts | httpx.Timeout | float | None = None,
        max_in_flight: int | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_body_bytes: int = MAX_BODY_BYTES,
        **httpx_options: Unpack[HttpxOptions],
    ) -> None:
        where = _where(host)
        if api_key is None and where.is_ollama_com:
            api_key = _environments_key()
        for name, value in (
            ("max_in_flight", max_in_flight),
            ("max_line_bytes", max_line_bytes),
            ("max_body_bytes", max_body_bytes),
        ):
            if value is not None and (type(value) is not int or value < 1):
                raise RequestError(f"{name} must be a whole number above zero, not {value!r}")
        mine = Sender(where, api_key=api_key or None, headers=headers, options=httpx_options)
        tasks = NativeTaskGroup()
        if max_in_flight is None and in_browser():
            max_in_flight = BROWSER_CONNECTIONS
        limiter = Limiter(max_in_flight)
        shared = ClientState(
            tasks,
            mine,
            limiter,
            Timeouts() if timeout is None else Timeouts.of(timeout),
            max_line_bytes,
            max_body_bytes,
            partial(_hosted, where, mine, httpx_options),
        )
        super().__init__(shared, CallGroup(tasks, limiter, "client"))
        self._url = where.url
        self._close_error: Exception | None = None
        self._holder: Holder | None = None  # where it was opened without `async with`

    async def open(self) -> Self:
        """Open the client without ``async with``, where a program has no place for it: on asyncio.

        For the cells of a notebook, and for frameworks that call one function at the start and
        another one at the end::

            client = await AsyncClient().open()
            ...
            await client.aclose()

        A task of its own opens and closes it. One that is not closed is closed when the event loop
        ends its tasks, as `asyncio.run` does.

        Raises:
            RequestError: the event loop is trio's, where a task group cannot be left in another
                place than it was entered: use ``async with``.
        """
        if is_trio(anyio.lowlevel.current_token()):
            raise RequestError(
                "open() is for asyncio: on trio use `async with AsyncClient() as client:`, because "
                "a nursery cannot be left elsewhere than where it was entered"
            )
        from ._loop.holder import Holder  # noqa: PLC0415 - it is asyncio's

        holder = Holder(self)
        await holder.open(2 * CLEANUP_SECONDS)
        self._holder = holder
        return self

    async def aclose(self) -> None:
        """End what still runs and close the connections, as leaving ``async with`` does.

        Callers elsewhere get `AbortError`. It can be called more than once. For a client that
        ``async with`` opened it is the same as `shutdown` without any grace.
        """
        if self._holder is not None:
            if not self._holder.is_here:
                raise ClientClosedError("the client was opened in another event loop")
            await self._holder.aclose(2 * CLEANUP_SECONDS)
        elif self._calls.runtime.token is not None:
            await self.shutdown(0)

    async def close(self) -> None:
        """Close the client: `aclose`, by the name that ollama-python has for it."""
        await self.aclose()

    async def __aenter__(self) -> Self:
        self._calls.open()
        observing.look_for_telemetry()
        try:
            await self._shared.sender.open()
            await self._shared.tasks.open()
        except BaseException:
            self._calls.stop_accepting("the client could not be opened: make another one")
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._calls.stop_accepting("the client is closed: make another one")
        try:
            # As a task of the group, which waits for it even if asyncio cancels whoever leaves.
            await self._shared.tasks.close(
                self._close, 2 * CLEANUP_SECONDS, exc_type, exc, traceback
            )
        finally:
            self._calls.finalize()
        if self._close_error is not None and exc is None:  # nothing replaces the body's exception
            raise self._close_error

    async def _close(self) -> None:
        """Tell all requests to end, and close the connections when they have."""
        self._calls.abort("client closed")
        with anyio.CancelScope(shield=True):
            try:
                with anyio.move_on_after(self._calls.cleanup_seconds()):
                    await self._calls.all_ended()
                await self._shared.aclose()
            except Exception as error:  # noqa: BLE001 - whoever leaves the client gets it
                self._close_error = error

    def __repr__(self) -> str:
        return f"<AsyncClient {self._url}, {self._calls.state}, {len(self._calls.active)} requests>"

    async def _close_connections(self) -> None:
        seconds = self._calls.cleanup_seconds()
        await wait_shielded(self._shared.tasks.start_cleanup(self._close), seconds)


class Group(Requests):
    """Requests of a client that can be aborted together; see `AsyncClient.group`.

    It is a handle on requests, no task group for tasks of yours.
    """

    def __init__(self, shared: ClientState, parent: CallGroup) -> None:
        super().__init__(shared, CallGroup(shared.tasks, shared.limiter, "group"))
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
        await aclose_on_exit(self._calls.aclose, exc)

    def __repr__(self) -> str:
        return f"<Group of a client, {self._calls.state}, {len(self._calls.active)} requests>"
