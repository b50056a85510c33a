"""What arrives is handed over as soon as it does, by a call of the loop itself where it can be."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from tests.support import backends

from ollama_sc._http.connecting import fitting
from ollama_sc._http.sockets import READ_BYTES, Socket, socket_errors

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[*backends(debug=True), pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two connected sockets."""
    one, other = socket.socketpair()
    one.setblocking(False)
    with one, other:
        yield one, other


async def until(condition: Any) -> None:
    with anyio.fail_after(10):
        while not condition():
            await checkpoint()


async def test_all_is_handed_over_until_the_end(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Also where what takes it would have more: nothing comes behind the end, and it is told once."""
    found: list[bytes] = []
    sock = fitting(ends[0])
    async with anyio.create_task_group() as tasks:

        async def pump() -> None:
            await sock.pump(lambda data: not found.append(data))

        tasks.start_soon(pump)
        for number in range(3):
            ends[1].send(b"%d" % number)
            await until(lambda number=number: len(found) == number + 1)
        ends[1].close()
    assert found == [b"0", b"1", b"2", b""]
    sock.close()


async def test_what_comes_after_the_last_that_was_wanted_stays(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """It is what the next read or pump gets."""
    sock = fitting(ends[0])
    found: list[bytes] = []

    def take(data: bytes) -> bool:
        found.append(data)
        return False

    with anyio.fail_after(10):
        for number in range(4):
            ends[1].send(b"%d" % number)
            if number % 2:
                found.append(await sock.receive())
            else:
                await sock.pump(take)
    assert found == [b"0", b"1", b"2", b"3"]
    sock.close()


class Odd(BaseException):
    """No Exception, as KeyboardInterrupt is none."""


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration(), Odd()])
async def test_what_taking_raises_is_raised_where_it_is_pumped(
    ends: tuple[socket.socket, socket.socket], error: BaseException
) -> None:
    """As itself, once; and the socket is as good as before."""
    sock = fitting(ends[0])

    def take(data: bytes) -> bool:
        raise error

    ends[1].send(b"x")
    with pytest.raises((type(error), RuntimeError)) as caught, anyio.fail_after(10):
        await sock.pump(take)
    assert error in (caught.value, caught.value.__cause__)
    ends[1].send(b"y")
    with anyio.fail_after(10):
        assert await sock.receive() == b"y"
    sock.close()


async def test_cancelling_loses_nothing(ends: tuple[socket.socket, socket.socket]) -> None:
    """What arrived before was handed over, what arrives after it is read by the next one."""
    sock = fitting(ends[0])
    found: list[bytes] = []
    for number in range(50):
        async with anyio.create_task_group() as tasks:

            async def pump() -> None:
                await sock.pump(lambda data: not found.append(data))

            tasks.start_soon(pump)
            if number % 3:
                await checkpoint()
            ends[1].send(b"%d;" % number)
            for _ in range(number % 5):
                await checkpoint()
            tasks.cancel_scope.cancel()
    ends[1].close()
    with anyio.fail_after(10):
        await sock.pump(lambda data: not found.append(data))
    assert b"".join(found) == b"".join(b"%d;" % number for number in range(50))
    sock.close()


async def test_closing_ends_it(ends: tuple[socket.socket, socket.socket]) -> None:
    """Whoever pumps is told that somebody closed the socket, unless all was there already."""
    sock = fitting(ends[0])
    async with anyio.create_task_group() as tasks:

        async def pump() -> None:
            with pytest.raises(socket_errors()):
                await sock.pump(lambda _: True)

        tasks.start_soon(pump)
        await anyio.wait_all_tasks_blocked()
        sock.close()
    with pytest.raises(socket_errors()):
        await sock.pump(lambda _: True)


async def test_closing_ends_what_waits_to_send(ends: tuple[socket.socket, socket.socket]) -> None:
    """It is told that the socket was closed, and so is who waits to receive meanwhile."""
    sock = fitting(ends[0])
    told: list[str] = []

    async def end(what: str, wait: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises((anyio.ClosedResourceError, trio.ClosedResourceError)):
            await wait()
        told.append(what)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end, "sending", partial(sock.send, b"x" * 10_000_000))
            tasks.start_soon(end, "receiving", sock.receive)
            await anyio.wait_all_tasks_blocked()
            sock.close()
    assert sorted(told) == ["receiving", "sending"]


async def test_a_flood_leaves_others_their_turn(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """While one socket always has more, another task runs, and can cancel it."""
    sock = fitting(ends[0])
    size = 0
    ends[1].setblocking(False)

    def take(data: bytes) -> bool:
        nonlocal size
        size += len(data)
        with suppress(BlockingIOError):
            ends[1].send(b"x" * READ_BYTES)
        return True

    ends[1].send(b"x" * READ_BYTES)
    with anyio.fail_after(10), anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sock.pump, take)
            for _ in range(100):
                await checkpoint()
            scope.cancel()
    assert size
    sock.close()


async def test_data_before_a_reset_comes_first() -> None:
    """The last words are handed over; then the reset is raised."""
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    with listener, ours:
        ours.setblocking(False)
        sock: Socket = fitting(ours)
        found: list[bytes] = []
        theirs.send(b"last words")
        await until(lambda: _has_arrived(ours))
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        theirs.close()
        with anyio.fail_after(10):
            try:
                await sock.pump(lambda data: not found.append(data))
            except OSError as error:
                assert error.errno == errno.ECONNRESET
            else:
                raise AssertionError
        assert b"" not in found
        sock.close()


def _has_arrived(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False
