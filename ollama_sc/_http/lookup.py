"""Names into addresses, by the system's resolver, which cannot be stopped.

A lookup runs in a thread that holds nothing but the name, and outlives the call that asked for it
where that is cancelled. So lookups are shared: requests to one host and port wait for one lookup,
as long as it runs; nothing is kept after it. At most `MAX_THREADS` run for each event loop, so that
a resolver which hangs cannot fill the process with threads; the threads are none of the pools that
users' own come from.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from threading import Thread
from typing import Any

import anyio

MAX_THREADS = 4

# Family and socket address, as `socket.connect` takes them.
Address = tuple[socket.AddressFamily, Any]


@cache
def _limiter() -> anyio.lowlevel.RunVar[anyio.Semaphore]:
    return anyio.lowlevel.RunVar("ollama_sc lookups")


@lru_cache(64)
def literal(host: str, port: int) -> Sequence[Address]:
    """The address that a host is, without a lookup; empty where it is a name."""
    try:
        return tuple(_addresses(host, port, socket.AI_NUMERICHOST))
    except (socket.gaierror, UnicodeError):
        return ()


def _addresses(host: str, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


class Lookups:
    """The lookups of one client that run now."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], _Lookup] = {}

    async def find(self, host: str, port: int) -> list[Address]:
        """The addresses of a name, in the resolver's order. A cancelled wait ends no lookup.

        Raises:
            OSError: there is none.
        """
        key = host, port
        lookup = self._running.get(key)
        if lookup is None:
            lookup = self._running[key] = _Lookup()
            try:
                await self._start(key, lookup)
            except BaseException:
                # It has not begun, and those that wait for it begin anew.
                del self._running[key]
                lookup.ended.set()
                raise
        await lookup.ended.wait()
        if lookup.error is not None:
            raise OSError(*lookup.error.args) from lookup.error
        if lookup.addresses is None:
            return await self.find(host, port)
        return lookup.addresses

    async def _start(self, key: tuple[str, int], lookup: _Lookup) -> None:
        try:
            limiter = _limiter().get()
        except LookupError:
            limiter = anyio.Semaphore(MAX_THREADS, fast_acquire=True)
            _limiter().set(limiter)
        await limiter.acquire()

        def finish(addresses: list[Address], error: OSError | None) -> None:
            limiter.release()
            lookup.addresses, lookup.error = addresses, error
            self._running.pop(key, None)
            lookup.ended.set()

        native: Any = anyio.lowlevel.current_token().native_token
        schedule = getattr(native, "run_sync_soon", None) or native.call_soon_threadsafe
        try:
            Thread(
                target=_look_up, args=(*key, schedule, finish), name="ollama_sc lookup", daemon=True
            ).start()
        except BaseException:
            limiter.release()
            raise


class _Lookup:
    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.addresses: list[Address] | None = None
        self.error: OSError | None = None


def _look_up(
    host: str,
    port: int,
    schedule: Callable[..., object],
    finish: Callable[[list[Address], OSError | None], None],
) -> None:
    """The thread."""
    addresses: list[Address] = []
    error: OSError | None = None
    try:
        try:
            addresses = _addresses(host, port)
        except socket.gaierror:
            if not host.endswith("."):
                raise
            # The file of hosts has its names without the dot that ends a full name.
            addresses = _addresses(host.removesuffix("."), port)
    except OSError as failed:
        error = failed
    except UnicodeError:
        error = OSError(f"{host!r} cannot be looked up")
    with suppress(RuntimeError):  # that loop is gone
        schedule(finish, addresses, error)
