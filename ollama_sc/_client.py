"""The client and its groups: opening and closing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import anyio

from ._base import Shared
from ._calls import CLEANUP_SECONDS, CallGroup, Slots
from ._errors import RequestError
from ._generation import Generation
from ._host import Host, parse_host
from ._http import Http, HttpxOptions
from ._jobs import EmbeddingJobs
from ._models import Models
from ._owner import TaskOwner, insist, leave
from ._server import Server
from ._timeouts import Timeouts

if TYPE_CHECKING:
    from typing_extensions import Unpack

HOSTED = "https://ollama.com"
MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_BODY_BYTES = 128 * 1024 * 1024


class Requests(Generation, EmbeddingJobs, Models, Server):
    """The calls that a client and a group both have."""

    def group(self) -> Group:
        """Requests that can be aborted together: ``async with client.group() as group``.

        The group makes requests as the client does, over the same connections and under the same
        limit. Its `abort` reaches its own requests; leaving it ends what is left of them; what
        ends the client's requests ends its own. Groups can have groups.
        """
        return Group(self._shared, self._calls)


def _hosted(where: Host, mine: Http, options: HttpxOptions) -> Http | None:
    """What web searches go through: ollama.com, with a key that is meant for it, or nothing."""
    if where.is_ollama_com:
        return mine
    key = os.environ.get("OLLAMA_API_KEY")
    if not key:
        return None
    # The way out of the house is the same; who is asking is not.
    shared = ("verify", "proxy", "mounts", "transport", "trust_env", "http1", "http2")
    way = cast("HttpxOptions", {name: value for name, value in options.items() if name in shared})
    return Http(parse_host(HOSTED), api_key=key, headers=None, options=way)


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
            ``transport``, ``event_hooks`` and others. Redirects are followed within the server's
            own origin; ``follow_redirects`` lets httpx follow all of them, or none.

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
            api_key = os.environ.get("OLLAMA_API_KEY")
        for name, value in (
            ("max_in_flight", max_in_flight),
            ("max_line_bytes", max_line_bytes),
            ("max_body_bytes", max_body_bytes),
        ):
            if value is not None and (type(value) is not int or value < 1):
                raise RequestError(f"{name} must be a whole number above zero, not {value!r}")
        mine = Http(where, api_key=api_key or None, headers=headers, options=httpx_options)
        owner = TaskOwner()
        slots = Slots(max_in_flight)
        shared = Shared(
            owner,
            mine,
            slots,
            Timeouts() if timeout is None else Timeouts.of(timeout),
            max_line_bytes,
            max_body_bytes,
            partial(_hosted, where, mine, httpx_options),
        )
        super().__init__(shared, CallGroup(owner, slots, "client"))
        self._url = where.url
        self._close_error: Exception | None = None

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
            # As a task of the group, which waits for it even if asyncio cancels the one who leaves.
            await self._shared.owner.close(
                self._close, 2 * CLEANUP_SECONDS, exc_type, exc, traceback
            )
        finally:
            self._calls.settle()
        if self._close_error is not None and exc is None:  # nothing replaces the body's exception
            raise self._close_error

    async def _close(self) -> None:
        """Tell all requests to end, and close the connections when they have."""
        self._calls.abort("client closed")
        with anyio.CancelScope(shield=True):
            try:
                with anyio.move_on_after(CLEANUP_SECONDS):
                    await self._calls.all_ended()
                await self._shared.close()
            except Exception as error:  # noqa: BLE001 - the one who leaves gets it
                self._close_error = error

    def __repr__(self) -> str:
        return f"<AsyncClient {self._url}, {self._calls.state}, {len(self._calls.live)} requests>"

    async def _close_connections(self) -> None:
        await insist(self._shared.owner.last_task(self._close), CLEANUP_SECONDS)


class Group(Requests):
    """Requests of a client that can be aborted together; see `AsyncClient.group`.

    It is a handle on requests, no task group for tasks of yours.
    """

    def __init__(self, shared: Shared, parent: CallGroup) -> None:
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
        await leave(self._calls.leave, exc)

    def __repr__(self) -> str:
        return f"<Group of a client, {self._calls.state}, {len(self._calls.live)} requests>"
