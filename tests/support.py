"""What the tests of several folders share: recordings, servers of literal bytes, calls in tasks."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import socket
import types
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
import sniffio
from anyio.abc import SocketStream, TaskStatus

from ollama_sc import AsyncClient
from ollama_sc._calls.call import Call

ROOT = Path(__file__).parent.parent
RECORDINGS = Path(__file__).parent / "recordings"
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]

# `make soak` takes the long form of everything: more kills, larger uploads, debug mode everywhere.
LONG = bool(os.environ.get("SOAK"))


def new_seed() -> int:
    """For what is random in a test, which prints it: another one each time in the long form.

    The ordinary run has always the same, so that it fails for what has changed.
    """
    return int(os.environ.get("SOAK_SEED", random.randrange(1 << 30) if LONG else 1))


def backends(*, debug: bool) -> list[Any]:
    """Both event loops, for the fixture `anyio_backend`; asyncio in debug mode or not."""
    return [
        pytest.param(("asyncio", {"debug": debug or LONG}), id="asyncio"),
        pytest.param(("trio", {"restrict_keyboard_interrupt_to_checkpoints": True}), id="trio"),
    ]


def recording(name: str) -> bytes:
    """A real server's reply, with its head."""
    return (RECORDINGS / f"{name}.http").read_bytes()


def recorded_request(name: str) -> dict[str, Any]:
    """The request that drew it."""
    index = json.loads((RECORDINGS / "index.json").read_text())
    return next(entry for entry in index["responses"] if entry["name"] == name)


def recorded_body(name: str) -> bytes:
    """A real server's reply without its head and without chunk sizes."""
    head, _, body = recording(name).partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return body
    parts: list[bytes] = []
    while body:
        size, _, body = body.partition(b"\r\n")
        parts.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return b"".join(parts)


async def read_request(stream: SocketStream) -> bytes:
    """One whole request off a raw socket; empty where the client has gone."""
    data = b""
    while True:
        head, found, body = data.partition(b"\r\n\r\n")
        if found:
            length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
            if len(body) >= (int(length[1]) if length else 0):
                return data
        try:
            data += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return b""


@asynccontextmanager
async def raw_server(handle: Callable[[SocketStream], Any]) -> AsyncIterator[str]:
    """A server that is nothing but `handle(stream)` for each connection; yields its URL."""

    async def guarded(stream: SocketStream) -> None:
        async with stream:
            try:
                await handle(stream)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream):
                pass

    async def serve(*, task_status: TaskStatus[int]) -> None:
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            task_status.started(listener.extra(anyio.abc.SocketAttribute.local_port))
            await listener.serve(guarded)

    failure: BaseException | None = None
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(serve)
        try:
            yield f"http://127.0.0.1:{port}"
        except BaseException as error:
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure


def replying(*replies: bytes) -> Callable[[SocketStream], Any]:
    """Handle a connection by one literal reply for each request, then close it."""

    async def handle(stream: SocketStream) -> None:
        for reply in replies:
            if not await read_request(stream):
                return
            await stream.send(reply)

    return handle


def plain_reply(body: bytes, status: str = "200 OK", type_: str = "application/json") -> bytes:
    """An HTTP reply around a body."""
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {type_}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def is_quiet(client: AsyncClient) -> bool:
    """Whether nothing of any request is left in a client."""
    return not any(client._calls.calls()) and sum(client.statistics()[:4]) == 0


class Outcome:
    """A call in a task of its own, and how it ended."""

    def __init__(self, tasks: Any, function: Any, *args: Any) -> None:
        self.event = anyio.Event()
        self.error: BaseException | None = None
        self.value: Any = None
        tasks.start_soon(self._run, function, *args)

    async def _run(self, function: Any, *args: Any) -> None:
        try:
            self.value = await function(*args)
        except Exception as error:
            self.error = error
        finally:
            self.event.set()


async def exhaust(stream: Any) -> None:
    """Take all parts of a stream."""
    async for _ in stream:
        pass


async def until(condition: Any) -> None:
    """Wait for something that has no event, one scheduler round at a time."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.001)


def once_suspended(happens: Callable[[], None]) -> None:
    """Let something happen as soon as the running task waits for what it is about to wait for.

    On trio: before that, it is registered with the loop and does not sleep yet, a state in which no
    other code ever runs, and in which nothing can wake it. On asyncio, where it happens at once, it
    is as if the task itself did it.
    """
    if sniffio.current_async_library() != "trio":
        happens()
        return
    import trio  # noqa: PLC0415

    class AfterStep(trio.abc.Instrument):
        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            trio.lowlevel.remove_instrument(self)
            happens()

    trio.lowlevel.add_instrument(AfterStep())


@types.coroutine
def stepped(
    coroutine: Any, happens: Callable[[], None], at: int, seen: list[int], *, woken: bool = False
) -> Any:
    """Run a coroutine; let something happen at its `at`-th suspension, or when that is over."""
    step, value = coroutine.send, None
    while True:
        try:
            trap = step(value)
        except StopIteration as result:
            return result.value
        seen.append(len(seen))
        if len(seen) == at and not woken:
            once_suspended(happens)
        try:
            value = yield trap
            step = coroutine.send
        except BaseException as error:
            step, value = coroutine.throw, error
        if len(seen) == at and woken:
            happens()


def let_connecting_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let connecting take a wait, as it does to other machines, and to this one mostly not."""

    class Socket(socket.socket):
        def connect_ex(self, address: Any, /) -> int:
            code = super().connect_ex(address)
            return errno.EALREADY if code in (0, errno.EISCONN) else code

    monkeypatch.setattr(socket, "socket", Socket)


@contextmanager
def in_the_calls_task(
    happens: Callable[[Call[Any]], None], at: int, seen: list[int], *, woken: bool = False
) -> Iterator[None]:
    """Let something happen at the n-th suspension of the next call's task, or when that is over."""
    original = Call.run

    async def run(self: Call[Any], *args: Any) -> None:
        Call.run = original  # type: ignore[method-assign]
        await stepped(original(self, *args), lambda: happens(self), at, seen, woken=woken)

    Call.run = run  # type: ignore[method-assign]
    try:
        yield
    finally:
        Call.run = original  # type: ignore[method-assign]
