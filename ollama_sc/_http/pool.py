"""What httpx does not tell of its connections: this goes down to where it keeps them.

A user's own transport may have none of it; then there is nothing to tell.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import httpx

from ollama_sc._calls import CLEANUP_SECONDS


def connections(client: httpx.AsyncClient) -> list[Any]:
    """The connections that httpx has."""
    transports = [client._transport, *client._mounts.values()]
    pools = [getattr(transport, "_pool", None) for transport in transports]
    return [connection for pool in pools for connection in getattr(pool, "connections", ())]


async def close_idle(client: httpx.AsyncClient) -> None:
    with anyio.move_on_after(CLEANUP_SECONDS, shield=True), suppress(Exception):
        for connection in connections(client):
            if connection.is_idle():
                await connection.aclose()


async def close_polluted(response: httpx.Response) -> None:
    """Close a reply's connection if bytes behind the reply were read with it.

    httpx keeps them in its parser and would take them for the reply to the next request.
    """
    connection: Any = response.stream
    for name in ("_stream", "_httpcore_stream", "_stream", "_connection"):
        connection = getattr(connection, name, None)
    parser = getattr(connection, "_h11_state", None)
    if parser is not None and parser.trailing_data[0]:
        await connection.aclose()


def keep_reading(stream: Any) -> None:
    """Let a new connection read while it writes, for an answer that comes before its time.

    On asyncio, anyio reads only when asked to; a write that fails then loses what had arrived.
    """
    stream = getattr(stream, "_stream", None)
    transport = getattr(getattr(stream, "transport_stream", stream), "_transport", None)
    if transport is not None and not transport.is_closing():
        transport.resume_reading()
