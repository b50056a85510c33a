"""A run is cancelled, aborted, and its connection broken at each await of its task and its tools."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio
import pytest
from anyio.abc import SocketAttribute

from ollama_sc import AbortError, AsyncClient, OllamaError, ToolStream
from ollama_sc._calls.call import Call
from ollama_sc._tools.events import RunCall
from ollama_sc._tools.rounds import Caller
from ollama_sc.testing import FakeOllama
from tests.support import LONG, is_quiet, new_seed, raw_server, read_request, stepped
from tests.tools.support import USER, answer, calls

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])]


@contextmanager
def in_the_tasks_of_the_run(
    happens: Any, at: int, seen: list[int], kind: type[Call[Any]] = RunCall
) -> Iterator[None]:
    """Let something happen at the n-th suspension of the run's task, or of one of its tools.

    It happens when the task waits: it may set the very event that is waited for. With `Call` as
    the kind, those of the run's requests count, too.
    """
    run, one = Call.run, Caller._run
    token: Any = anyio.lowlevel.current_token().native_token
    schedule = getattr(token, "run_sync_soon", None) or token.call_soon_threadsafe

    async def stepped_run(self: Any, *args: Any) -> None:
        if isinstance(self, kind):
            await stepped(run(self, *args), lambda: schedule(happens), at, seen)
        else:
            await run(self, *args)

    async def stepped_one(self: Any, *args: Any) -> None:
        await stepped(one(self, *args), lambda: schedule(happens), at, seen)

    Call.run, Caller._run = stepped_run, stepped_one  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Call.run, Caller._run = run, one  # type: ignore[method-assign]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("what", ["cancelled", "aborted", "timed out"])
async def test_at_each_await(what: str, stream: bool, anyio_backend: Any) -> None:
    """Its caller hears of it, no tool is running, no place is lost, and the client goes on."""
    ended = 0
    for at in range(1, 300):
        running: set[str] = set()

        async def slow(n: int) -> int:
            running.add(f"slow {n}")
            try:
                for _ in range(3):
                    await anyio.lowlevel.checkpoint()
            finally:
                running.discard(f"slow {n}")
            return n

        def threaded(n: int) -> int:
            running.add(f"threaded {n}")
            running.discard(f"threaded {n}")
            return n

        async def approve(call: Any) -> bool:
            await anyio.lowlevel.checkpoint()
            return True

        async with FakeOllama() as fake, AsyncClient(fake.url, max_in_flight=1) as client:
            wanted = [("slow", {"n": 1}), ("threaded", {"n": 2}), ("slow", {"n": 3})]
            fake.script("/api/chat", calls(*wanted), answer())
            seen: list[int] = []
            outcome: Any = None
            scope = anyio.CancelScope()

            def happens() -> None:
                if what == "cancelled":
                    scope.cancel()
                elif what == "aborted":
                    client.abort("here")
                else:
                    for call in client._calls.calls():
                        if isinstance(call, RunCall):
                            call._scope.deadline = anyio.current_time() - 1

            with in_the_tasks_of_the_run(happens, at, seen):
                try:
                    with scope:
                        outcome = await client.run_tools(
                            "qwen3", [USER], [slow, threaded], stream=stream, approve=approve
                        )
                        if isinstance(outcome, ToolStream):
                            async with outcome:
                                async for _ in outcome:
                                    pass
                            outcome = outcome.result()
                except OllamaError as error:
                    outcome = error
                assert not running
            if what == "aborted" and isinstance(outcome, AbortError):
                assert outcome.reason == "here"
            elif not scope.cancelled_caught and not isinstance(outcome, OllamaError):
                roles = [message.role for message in outcome.messages]
                assert roles == ["user", "assistant", "tool", "tool", "tool", "assistant"]
            ended += scope.cancelled_caught or isinstance(outcome, OllamaError)
            assert is_quiet(client)
            assert client._shared.limiter.available == 1
            assert (await client.version()).version
        if len(seen) < at:
            break
    assert at > 5
    assert ended > 5


class Server:
    """Lets a model call two tools and then answer, in two packets each; it can break all off."""

    def __init__(self) -> None:
        self.sockets: set[Any] = set()

    async def handle(self, stream: Any) -> None:
        raw = stream.extra(SocketAttribute.raw_socket)
        raw = getattr(raw, "_sock", raw)
        self.sockets.add(raw)
        try:
            while request := await read_request(stream):
                body = self._body(request)
                half = len(body) // 2
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                await stream.send(head + body[:half])
                for _ in range(10):  # turns, until the client has read a packet
                    await anyio.lowlevel.checkpoint()
                await stream.send(body[half:])
        finally:
            self.sockets.discard(raw)

    def _body(self, request: bytes) -> bytes:
        if request.startswith(b"GET"):
            return b'{"version":"1"}'
        call = b'{"function":{"name":"%s","arguments":{}}}'
        calls = b",".join([call % b"asks", call % b"threaded"])
        content, extra = b"", b',"tool_calls":[%s]' % calls
        if b'"role":"tool"' in request:
            content, extra = b"It rains.", b""
        message = b'{"role":"assistant","content":"%s"%s}' % (content, extra)
        last = b'{"message":%s,"done":true,"done_reason":"stop"}\n'
        if b'"stream":true' not in request:
            return last % message
        return b'{"message":%s,"done":false}\n' % message + last % b'{"role":"assistant"}'

    def break_all(self) -> None:
        """Shut every connection; the client may have reset it."""
        for raw in self.sockets:
            with suppress(OSError):
                raw.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_connection_breaks_at_each_await(stream: bool, anyio_backend: Any) -> None:
    """Of the run, its requests and its tools: it fails as a whole, or goes on with another one."""
    ended = whole = 0
    server = Server()
    running: set[str] = set()
    async with raw_server(server.handle) as url:
        for at in range(1, 300):
            seen: list[int] = []
            async with AsyncClient(url, max_in_flight=1) as client:

                async def asks() -> str:
                    running.add("asks")
                    try:
                        return (await client.version()).version
                    finally:
                        running.discard("asks")

                def threaded() -> None:
                    running.add("threaded")
                    running.discard("threaded")

                handle: ToolStream | None = None
                outcome: Any = None
                with in_the_tasks_of_the_run(server.break_all, at, seen, Call):
                    try:
                        outcome = await client.run_tools(
                            "m", [USER], [asks, threaded], stream=stream
                        )
                        if isinstance(outcome, ToolStream):
                            handle = outcome
                            async with handle:
                                async for _ in handle:
                                    pass
                            outcome = handle.result()
                    except OllamaError as error:
                        outcome = error
                    assert not running
                found = outcome if handle is None else handle.result()
                if not isinstance(found, OllamaError):
                    roles = [message.role for message in found.messages]
                    whole_rounds = ["user", "assistant", "tool", "tool", "assistant"]
                    assert roles in (whole_rounds[:1], whole_rounds[:4], whole_rounds)
                    assert isinstance(outcome, OllamaError) or roles == whole_rounds
                ended += isinstance(outcome, OllamaError)
                whole += not isinstance(outcome, OllamaError)
                assert is_quiet(client)
                assert client._shared.limiter.available == 1
                assert (await client.version()).version == "1"
            if len(seen) < at:
                break
        else:
            pytest.fail("the run never ended")
    assert at > 10
    assert ended > 3
    assert whole > 1  # the last one, of which nothing was broken, and others


async def test_runs_that_are_ended_at_random(anyio_backend: Any) -> None:
    """By an abort of theirs, one of the client's, or a cancelled consumer: nothing is left of any."""
    seed = new_seed()
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def slow(n: int) -> int:
        await anyio.sleep(chance.random() * 0.005)
        return n

    def threaded(n: int) -> int:
        return n

    async def end(scope: anyio.CancelScope, stream: ToolStream, client: AsyncClient) -> None:
        await anyio.sleep(chance.random() * 0.02)
        chance.choice([stream.abort, client.abort, scope.cancel])()

    for _ in range(500 if LONG else 15):
        async with FakeOllama() as fake, AsyncClient(fake.url, max_in_flight=1) as client:
            wanted = [("slow", {"n": 1}), ("threaded", {"n": 2}), ("slow", {"n": 3})]
            fake.script("/api/chat", calls(*wanted), calls(("threaded", {"n": 4})), answer())
            stream = await client.run_tools("qwen3", [USER], [slow, threaded], stream=True)
            async with anyio.create_task_group() as tasks:
                with anyio.CancelScope() as scope, suppress(AbortError):
                    tasks.start_soon(end, scope, stream, client)
                    async with stream:
                        async for _ in stream:
                            pass
            assert is_quiet(client)
            assert client._shared.limiter.available == 1
            roles = [message.role for message in stream.result().messages]
            assert roles.count("tool") in (0, 3, 4)
