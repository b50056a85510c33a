"""Requests through `httpx.AsyncClient.send`: where the user's settings need what it does.

Auth, event hooks, cookies, redirects anywhere, parameters; and whatever httpx's own transports are
for: proxies, Unix sockets, HTTP/2, a user's `transport=`. What those hide of their connections is
reached for here; one of a user's own may have none of it, and then there is nothing to tell.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any

import anyio
import httpx
from anyio.lowlevel import checkpoint

from ollama_sc._loop.primitives import CHECKPOINT_INTERVAL
from ollama_sc._loop.shielding import CLEANUP_SECONDS

from .connection import DEAD_WITHIN
from .fetch import FetchTransport
from .messages import RequestEvents, Upload
from .transport import EVENTS, REPEATABLE, REPLY, Connections, ReceivedReply, Transport

_BLOCK_BYTES = 64 * 1024
# More blocks than httpx can have buffered of a body that nobody reads any more.
_BUFFERED_BLOCKS = 100_000
# The transports that take a whole body, tell of events, and count their connections.
_OUR_OWN = (Transport, FetchTransport)


class _Body(httpx.AsyncByteStream):
    """A request's body in blocks, any number of times, so that each has its own limit.

    httpx's own is a generator, which a cancelled upload would leave to the event loop to finish.
    """

    def __init__(self, body: bytes | Upload) -> None:
        self._body = body

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.blocks() if isinstance(self._body, Upload) else _Blocks(self._body)


class _Blocks(AsyncIterator[bytes]):
    def __init__(self, body: bytes) -> None:
        self._body = body
        self._start = 0

    async def __anext__(self) -> bytes:
        start = self._start
        if start >= len(self._body):
            raise StopAsyncIteration
        self._start = start + _BLOCK_BYTES
        return self._body[start : self._start]


class _Trace:
    """What httpx's own transports tell while they work.

    httpx keeps this until the garbage collector finds it, which is why it lets go of the call.
    """

    def __init__(self, events: RequestEvents) -> None:
        self.events: RequestEvents | None = events
        self.connected = False  # by this request: its connection was not there before
        self.sent_at = math.inf  # when the last byte was on its way
        self.started = False
        self._handshaking: Any = None  # a stream that httpx does not close when it is cancelled

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        prefix, _, state = event.rpartition(".")
        name = prefix.rpartition(".")[2]
        if self.events is None:
            return
        if state == "complete":
            if name == "connect_tcp":
                self._handshaking = info.get("return_value")
            elif name == "start_tls":
                self._handshaking = None
        elif state != "started" or getattr(info.get("request"), "method", None) == b"CONNECT":
            return  # what is asked of a proxy is part of connecting
        elif name in ("connect_tcp", "connect_unix_socket"):
            self.connected = True
            self.events.on_connecting()
        elif name == "send_request_headers":
            self._handshaking = None
            self.started = True
            self.events.on_sending()
        elif name == "receive_response_headers":
            self.sent_at = time.monotonic()
            self.events.on_sent()

    async def close(self) -> None:
        """Let go of the call, and of a handshake that was cancelled."""
        self.events = None
        if self._handshaking is not None:
            with anyio.move_on_after(CLEANUP_SECONDS, shield=True), suppress(Exception):
                await self._handshaking.aclose()


class HttpxReply:
    """A reply that httpx gave; `Reply`'s twin."""

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self._own: ReceivedReply | None = response.extensions.get(REPLY)
        self._blocks: AsyncIterator[bytes] | None = None
        self._turns = 0
        # A hook or a transport has read it all.
        self._whole = response.content if response.is_stream_consumed else None

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._response.status_code

    def header(self, name: str) -> str | None:
        """A header, by its name in lower case."""
        if name == "content-encoding" and self._whole is not None:
            return None  # httpx has seen to it
        value: str | None = self._response.headers.get(name)
        return value

    @property
    def is_read(self) -> bool:
        """Whether there is nothing more to receive, where that is known."""
        return self._own is not None and self._own.is_read

    async def receive(self) -> bytes:
        """The next block of the body; empty at its end.

        Raises:
            httpx.HTTPError, httpx.StreamError: the body breaks off.
        """
        if self._whole is not None:
            block, self._whole = self._whole, b""
            return block
        if self._own is not None:
            return await self._own.receive()
        if self._blocks is None:
            # Not `aiter_raw`, which closes the response at its end: another request could have the
            # connection before this reply is decoded.
            stream = self._response.stream
            self._blocks = (
                aiter(stream)
                if isinstance(stream, httpx.AsyncByteStream)
                else self._response.aiter_raw()  # which says what is wrong with it
            )
        self._turns += 1
        if self._turns % CHECKPOINT_INTERVAL == 0:
            await checkpoint()  # one read of the network can be thousands of blocks
        return await anext(self._blocks, b"")

    async def close(self, *, reuse: bool = True) -> None:
        """Give the connection back, or close it where its reply was not read to the end."""
        if self._own is not None:
            self._own.close(reuse=reuse)
        with anyio.move_on_after(CLEANUP_SECONDS, shield=True), suppress(httpx.HTTPError, OSError):
            await _close_response(self._response, reuse=reuse)
        # httpx's body is a generator in a generator in a generator. Left half-way, the event loop
        # would finish them in tasks of its own, with warnings; an exception out of the innermost
        # ends them all, here. After closing, because reading on could save the connection.
        if self._blocks is not None:
            with anyio.CancelScope() as scope, suppress(Exception, StopAsyncIteration):
                scope.cancel()
                for _ in range(_BUFFERED_BLOCKS):
                    await anext(self._blocks)


async def send(
    client: httpx.AsyncClient,
    message: httpx.Request,
    body: bytes | Upload | None,
    events: RequestEvents,
) -> HttpxReply:
    """Send a request, and return when the head of its reply is here.

    A connection that was idle and turns out to be dead before the answer is replaced, once;
    `Transport` does so by itself.

    Raises:
        httpx.HTTPError, httpx.InvalidURL: there is no answer.
    """
    own = isinstance(client._transport_for_url(message.url), _OUR_OWN)
    if isinstance(body, Upload) or (body and not own):
        message.stream = _Body(body)
    if isinstance(body, Upload):
        await close_idle(client)  # it gets a connection of its own, so that it is never sent twice
    repeatable = message.extensions.get(REPEATABLE, True)
    for attempt in (1, 2):
        trace = _Trace(events)
        message.extensions = {**message.extensions, "trace": trace, EVENTS: events}
        try:
            return HttpxReply(await client.send(message, stream=True))
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            late = time.monotonic() > trace.sent_at + DEAD_WITHIN
            if attempt == 2 or trace.connected or not trace.started or late or not repeatable:
                raise
            await close_idle(client)
        except BaseException:
            await _close_orphans(client)
            raise
        finally:
            await trace.close()
    raise AssertionError


# -- what httpx does not tell of its connections -----------------------------------------------


def _transports(client: httpx.AsyncClient) -> list[httpx.AsyncBaseTransport]:
    found = [client._transport, *client._mounts.values()]
    return [transport for transport in found if transport is not None]


def _pools(client: httpx.AsyncClient) -> list[Any]:
    """The pools of httpx's own transports."""
    found = [getattr(transport, "_pool", None) for transport in _transports(client)]
    return [pool for pool in found if hasattr(pool, "connections")]


def _foreign(client: httpx.AsyncClient) -> list[Any]:
    """The connections of httpx's own transports."""
    return [one for pool in _pools(client) for one in pool.connections]


def connections(client: httpx.AsyncClient) -> Connections:
    """How many there are now, of all transports."""
    alive = [connection for connection in _foreign(client) if not connection.is_closed()]
    counted = [Connections(len(alive), sum(bool(one.is_idle()) for one in alive))]
    counted += [one.connections() for one in _transports(client) if isinstance(one, _OUR_OWN)]
    return Connections(*map(sum, zip(*counted, strict=True)))


async def close_idle(client: httpx.AsyncClient) -> None:
    """Close the idle connections of httpx's own transports."""
    with anyio.move_on_after(CLEANUP_SECONDS, shield=True), suppress(Exception):
        for connection in _foreign(client):
            if connection.is_idle():
                await connection.aclose()


async def _close_orphans(client: httpx.AsyncClient) -> None:
    """Close the connections that no request has and that no request can have.

    When a handshake inside of a proxy's tunnel fails or is cancelled, httpx keeps the tunnel for
    ever.
    """
    with anyio.move_on_after(CLEANUP_SECONDS, shield=True):
        for pool in _pools(client):
            with suppress(Exception):
                used = [one.connection for one in pool._requests]
                for one in pool.connections:
                    if one not in used and not (one.is_idle() or one.is_closed()):
                        pool._connections.remove(one)
                        await one.aclose()


async def _close_response(response: httpx.Response, *, reuse: bool) -> None:
    """Close a reply; its connection, too, where that is wanted or bytes came behind the reply.

    httpx keeps such bytes in its parser and would take them for the reply to the next request. A
    connection of HTTP/2, or of a user's own transport, is left to them.
    """
    connection: Any = response.stream
    for name in ("_stream", "_httpcore_stream", "_stream", "_connection"):
        connection = getattr(connection, name, None)
    parser = getattr(connection, "_h11_state", None)
    if parser is None or (reuse and not parser.trailing_data[0]):
        await response.aclose()
        return
    parser.send_failed()  # so that the connection is never idle, not even for a moment
    await response.aclose()
    if not connection.is_closed():  # a hook has read it all, and so given it back before
        await connection.aclose()
