"""Connecting to an address, or to the first of a name's addresses that answers."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from .lookup import Address, Lookups, literal
from .sockets import ERROR, Socket

# How long an attempt may take before the next address is tried beside it (RFC 8305, section 5).
_ATTEMPT_DELAY = 0.25
# A connection whose other end has vanished without a word (a laptop's sleep, a NAT's timeout) is
# noticed after about two minutes: these are seconds until the first probe, between probes, and how
# many. Not every platform has them.
_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}

_UNDER_WAY = {errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK, errno.EINTR}


async def connect(
    host: str, port: int, lookups: Lookups, before_waiting: Callable[[], object]
) -> Socket:
    """Connect to an address, or to the first of a name's addresses that answers.

    `before_waiting` is called once, unless there is nothing to wait for.

    Raises:
        OSError: there is no connection; where several addresses were tried, its cause has all.
    """
    addresses = literal(host, port)
    if len(addresses) != 1:
        before_waiting()
        before_waiting = _nothing
        addresses = addresses or await lookups.find(host, port)
    if len(addresses) == 1:
        sock = await _connect_one(*addresses[0], before_waiting)
    else:
        sock = await _connect_any(_interleaved(addresses))
    try:
        return fitting(sock)
    except BaseException:
        sock.close()
        raise


def _nothing() -> None:
    pass


async def _connect_one(
    family: socket.AddressFamily,
    address: Any,
    before_waiting: Callable[[], object],
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if (option := getattr(socket, name, None)) is not None:
                sock.setsockopt(socket.IPPROTO_TCP, option, value)
        code = sock.connect_ex(address)
        if code in _UNDER_WAY:
            # A server on this machine has answered by now, and need not be waited for.
            code = sock.connect_ex(address)
        if code in _UNDER_WAY:
            before_waiting()
            await anyio.wait_writable(sock)
            code = sock.getsockopt(*ERROR)
        if code not in (0, errno.EISCONN):
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_any(addresses: Sequence[Address]) -> socket.socket:
    """Try addresses one after the other, the next one as soon as one fails or takes its time."""
    connected: list[socket.socket] = []
    failures: list[Exception] = []

    async def attempt(address: Address, failed: anyio.Event, scope: anyio.CancelScope) -> None:
        try:
            connected.append(await _connect_one(*address, _nothing))
            scope.cancel()
        except OSError as error:
            failures.append(error)
            failed.set()

    try:
        async with anyio.create_task_group() as attempts:
            for address in addresses:
                failed = anyio.Event()
                attempts.start_soon(attempt, address, failed, attempts.cancel_scope)
                with anyio.move_on_after(_ATTEMPT_DELAY):
                    await failed.wait()
    except BaseException:
        _close_all(connected)
        raise
    if not connected:
        raise OSError("no address answers") from ExceptionGroup("tried", failures)
    _close_all(connected[1:])
    return connected[0]


def _close_all(socks: Sequence[socket.socket]) -> None:
    for sock in socks:
        sock.close()


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """The families in turn, beginning with the resolver's first (RFC 8305, section 4)."""
    first = addresses[0][0]
    ours = [address for address in addresses if address[0] == first]
    others = [address for address in addresses if address[0] != first]
    mixed = [each for pair in zip(ours, others, strict=False) for each in pair]
    rest = max(ours, others, key=len)[min(len(ours), len(others)) :]
    return mixed + rest


def fitting(sock: socket.socket) -> Socket:
    """The class that reads it with the fewest system calls on the running event loop."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        from .socket_trio import TrioSocket  # noqa: PLC0415 - only who runs on it has it

        return TrioSocket(sock)
    from .socket_asyncio import AsyncioSocket  # noqa: PLC0415

    try:
        return AsyncioSocket(sock)
    except NotImplementedError:  # Windows' default loop
        return Socket(sock)
