"""Abort ends calls in every phase, and leaves everything else alone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import sniffio

from ollama_sc import AbortError, AsyncClient, ClientClosedError, Timeouts
from ollama_sc.testing import FakeOllama, Reply
from tests.calls.support import chat, running_tasks
from tests.support import MESSAGES, Outcome, exhaust, is_quiet, raw_server, until

pytestmark = pytest.mark.anyio
LOCAL = "127.0.0.1"


# -- every phase -----------------------------------------------------------------------------------


async def test_abort_while_waiting_for_a_place(slow: FakeOllama) -> None:
    """A request that waits for the limit ends without having been sent."""
    async with AsyncClient(slow.url, max_in_flight=1) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            async with anyio.create_task_group() as tasks:
                ended = Outcome(tasks, client.version)
                await until(lambda: client.statistics().waiting == 1)
                assert client.abort("enough") == 2
            assert isinstance(ended.error, AbortError)
            with pytest.raises(AbortError):
                await anext(stream)
        assert len(slow.requests) == 1
        assert (await client.version()).version


async def test_abort_while_connecting(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request whose connection is being opened ends at once."""
    connecting = anyio.Event()

    async def never(*args: Any, **options: Any) -> Any:
        connecting.set()
        await anyio.sleep_forever()

    monkeypatch.setattr("ollama_sc._http.transport.connect", never)
    async with AsyncClient(f"{LOCAL}:1") as client, anyio.create_task_group() as tasks:
        ended = Outcome(tasks, client.version)
        await connecting.wait()
        assert client.statistics().connecting == 1
        assert client.abort() == 1
        await ended.event.wait()
        assert isinstance(ended.error, AbortError)


async def test_abort_in_the_tls_handshake(anyio_backend: Any) -> None:
    """A handshake that the server never answers ends at once, and its connection closes."""
    closed = anyio.Event()
    greeted = anyio.Event()

    async def silent(stream: Any) -> None:
        try:
            await stream.receive()
            greeted.set()
            await stream.receive()
        finally:
            closed.set()

    async with raw_server(silent) as url:
        async with AsyncClient(url.replace("http:", "https:")) as client:
            async with anyio.create_task_group() as tasks:
                ended = Outcome(tasks, client.version)
                await greeted.wait()
                assert client.statistics().connecting == 1
                assert client.abort() == 1
                with anyio.fail_after(5):
                    await closed.wait()
            assert isinstance(ended.error, AbortError)


async def test_abort_while_sending(anyio_backend: Any) -> None:
    """An upload that the server does not read ends at once, and its connection closes."""
    with socket.create_server((LOCAL, 0)) as server:  # it accepts, and reads nothing
        port = server.getsockname()[1]
        async with AsyncClient(f"{LOCAL}:{port}") as client:
            async with anyio.create_task_group() as tasks:
                ended = Outcome(tasks, client.generate, "m", "x" * 50_000_000)
                await until(lambda: client.statistics().sending == 1)
                await anyio.sleep(0.2)
                assert client.statistics().sending == 1
                assert client.abort() == 1
            assert isinstance(ended.error, AbortError)
            assert client.statistics().open == 0
        connection, _ = server.accept()
        with connection, contextlib.suppress(ConnectionError):
            connection.settimeout(2)
            while connection.recv(1_000_000):
                pass


@pytest.mark.parametrize("call", ["chat", "embed", "stream"])
async def test_abort_while_waiting_for_headers(fake: FakeOllama, call: str) -> None:
    """A request that the server thinks about ends at once, and the server sees it go."""
    fake.always("/api/chat", Reply.silence())
    fake.always("/api/embed", Reply.silence())
    async with AsyncClient(fake.url) as client:
        async with anyio.create_task_group() as tasks:
            if call == "embed":
                ended = Outcome(tasks, client.embed, "nomic-embed-text", "hello")
            else:
                ended = Outcome(tasks, chat, client, call == "stream")
            await fake.wait_for_requests(1)
            await until(lambda: client.statistics().receiving == 1)
            started = anyio.current_time()
            assert client.abort("because") == 1
            with anyio.fail_after(5):
                await fake.requests[0].wait_closed()
        assert isinstance(ended.error, AbortError)
        assert ended.error.reason == "because"
        assert "because" in str(ended.error)
        assert "/api/chat" in str(ended.error) or "/api/embed" in str(ended.error)
        assert fake.requests[0].closed_at is not None
        assert fake.requests[0].closed_at - started < 5
        assert is_quiet(client)


async def test_abort_in_the_body_of_a_reply_in_one_piece(fake: FakeOllama) -> None:
    """A body that is half here ends at once."""
    fake.always("/api/version", Reply.json({"version": "x" * 100}).replace(stall_at=180))
    async with AsyncClient(fake.url) as client:
        async with anyio.create_task_group() as tasks:
            ended = Outcome(tasks, client.version)
            await fake.wait_for_requests(1)
            await fake.requests[0].wait_headers_sent()
            await anyio.wait_all_tasks_blocked()
            assert client.abort() == 1
        assert isinstance(ended.error, AbortError)
        await fake.requests[0].wait_closed()


@pytest.mark.parametrize("consumer", ["iterating", "busy elsewhere"])
async def test_abort_of_a_stream(slow: FakeOllama, consumer: str) -> None:
    """The server sees the connection close, whatever the consumer is doing."""
    async with AsyncClient(slow.url) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await anext(stream)
            async with anyio.create_task_group() as tasks:
                if consumer == "iterating":
                    ended = Outcome(tasks, exhaust, stream)
                    await anyio.wait_all_tasks_blocked()
                started = anyio.current_time()
                assert client.abort("stop") == 1
                await slow.requests[0].wait_closed()
                assert slow.requests[0].closed_at is not None
                assert slow.requests[0].closed_at - started < 5
            if consumer == "iterating":
                assert isinstance(ended.error, AbortError)
            for _ in range(2):
                with pytest.raises(AbortError) as caught:
                    await anext(stream)
                assert caught.value.reason == "stop"


# -- operations ------------------------------------------------------------------------------------


async def test_abort_between_the_requests_of_an_operation(fake: FakeOllama) -> None:
    """What lies between two requests of one operation ends like a request."""
    between = anyio.Event()
    async with AsyncClient(fake.url) as client:

        async def work() -> None:
            await client.version()
            between.set()
            await anyio.sleep_forever()

        async def operation() -> None:
            await client._calls.operation("an operation", Timeouts(), work)

        async with anyio.create_task_group() as tasks:
            ended = Outcome(tasks, operation)
            await between.wait()
            assert client.statistics().in_flight == 0
            assert client.abort("stop") == 1
        assert isinstance(ended.error, AbortError)
        assert is_quiet(client)


async def test_an_operation_and_its_request_end_together(slow: FakeOllama) -> None:
    """Abort ends the operation and the request that it is waiting for."""
    async with AsyncClient(slow.url, max_in_flight=1) as client:
        async with anyio.create_task_group() as tasks:

            async def operation() -> None:
                await client._calls.operation(
                    "an operation", Timeouts(), lambda: client.chat("llama3.2", MESSAGES)
                )

            ended = Outcome(tasks, operation)
            await slow.wait_for_requests(1)
            assert client.abort() == 1
        assert isinstance(ended.error, AbortError)
        await slow.requests[0].wait_closed()


async def test_an_operation_counts_once(fake: FakeOllama) -> None:
    """abort() says how many calls it ended; an operation and its request are one."""
    fake.always("/api/generate", Reply.silence())
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        ended = Outcome(tasks, client.load, "llama3.2")
        await fake.wait_for_requests(1)
        assert client.abort() == 1
        await ended.event.wait()
        assert isinstance(ended.error, AbortError)


@pytest.mark.parametrize("by", ["abort", "cancel"])
@pytest.mark.parametrize("phase", ["hashing", "sending"])
async def test_an_upload_stops(
    anyio_backend: Any, tmp_path: Path, phase: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that is aborted or cancelled stops promptly, and its file is closed."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2 * 1024**3)
    opened: list[Any] = []
    monkeypatch.setattr(
        "ollama_sc._api.files.open_source",
        lambda source: opened.append(source.open("rb")) or opened[0],
    )
    reading = anyio.Event()

    async def handle(stream: Any) -> None:
        request = await stream.receive(4096)
        if request.startswith(b"HEAD"):
            await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await stream.receive(4096)
        reading.set()
        await anyio.sleep_forever()

    if phase == "sending":

        async def quick(file: Any) -> tuple[str, int]:
            return "sha256:" + "0" * 64, 2 * 1024**3

        monkeypatch.setattr("ollama_sc._api.files.digest_of", quick)
    async with raw_server(handle) as url, AsyncClient(url) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                ended = Outcome(tasks, client.create_blob, path)
                if phase == "sending":
                    await reading.wait()
                    await until(lambda: client.statistics().sending == 1)
                else:
                    await until(lambda: opened and opened[0].tell() > 0)
                started = anyio.current_time()
                if by == "abort":
                    assert client.abort("enough") >= 1
                else:
                    scope.cancel()
        took = anyio.current_time() - started
        print(f"{phase} stopped {took * 1000:.1f} ms after the {by}")
        assert took < 1.5, took  # 100 ms, and room for a busy machine
        if by == "abort":
            assert isinstance(ended.error, AbortError)
        assert opened[0].closed
        assert is_quiet(client)


# -- the number, and what goes on ------------------------------------------------------------------


async def test_abort_returns_the_number_and_leaves_the_client_usable(slow: FakeOllama) -> None:
    """Abort counts what it ended, once, and the next request works."""
    async with AsyncClient(slow.url) as client:
        assert client.abort() == 0
        streams = [await client.generate("llama3.2", "Hi", stream=True) for _ in range(5)]
        assert client.abort() == 5
        assert client.abort() == 0
        for stream in streams:
            await stream.aclose()
        assert (await client.version()).version
        assert is_quiet(client)


@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])  # asyncio's debug mode is slow
async def test_an_abort_from_elsewhere_is_refused(slow: FakeOllama) -> None:
    """In another thread it says so and ends nothing, in no phase; afterwards the loop can end it all."""

    def elsewhere() -> str:
        with pytest.raises(ClientClosedError, match="from_thread") as caught:
            client.abort("from a thread")
        with pytest.raises(ClientClosedError, match="from_thread"):
            stream.abort("from a thread")
        return str(caught.value)

    async with AsyncClient(slow.url, max_in_flight=1) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            async with anyio.create_task_group() as tasks:
                ended = Outcome(tasks, client.version)
                await until(lambda: client.statistics().waiting == 1)
                assert "outside of the event loop" in await anyio.to_thread.run_sync(elsewhere)
                await anext(stream)
                in_loop = functools.partial(anyio.from_thread.run_sync, client.abort, "enough")
                assert await anyio.to_thread.run_sync(in_loop) == 2
            assert isinstance(ended.error, AbortError)
            with pytest.raises(AbortError, match="enough"):
                await anext(stream)
        assert is_quiet(client)
    assert await anyio.to_thread.run_sync(client.abort) == 0  # there is nothing to end


def test_an_abort_between_two_runs_of_the_loop() -> None:
    """Where the loop stands still, as between the cells of some shells, it is refused as well."""
    with FakeOllama() as fake:
        fake.always("/api/generate", Reply.silence())
        loop = asyncio.new_event_loop()
        try:
            client = loop.run_until_complete(AsyncClient(fake.url).open())
            task = loop.create_task(client.generate("llama3.2", "Hi"))
            loop.run_until_complete(fake.wait_for_requests(1))
            with pytest.raises(ClientClosedError, match="outside of the event loop"):
                client.abort("too early")

            async def abort() -> int:
                return client.abort("now")

            assert loop.run_until_complete(abort()) == 1
            with pytest.raises(AbortError, match="now"):
                loop.run_until_complete(task)
            loop.run_until_complete(client.aclose())
        finally:
            loop.close()


async def test_500_live_streams_aborted(anyio_backend: Any) -> None:
    """The server sees 500 streams close, and no task, connection or registry entry is left."""
    count = 500
    # More tokens a second would keep a busy machine from ever getting all of them started.
    async with FakeOllama(token_rate=0.2, tokens=1000) as server:
        tasks_before = len(running_tasks())
        async with AsyncClient(server.url) as client:
            errors: list[BaseException] = []

            async def consume() -> None:
                try:
                    async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                        async for _ in stream:
                            pass
                except AbortError as error:
                    errors.append(error)

            async with anyio.create_task_group() as tasks:
                for _ in range(count):
                    tasks.start_soon(consume)
                await server.wait_for_requests(count)
                for request in server.requests:
                    await request.wait_headers_sent()
                await until(lambda: client.statistics().receiving == count)
                started = anyio.current_time()
                assert client.abort("all of them") == count
            await server.wait_all_closed()
            last = max(request.closed_at or 0 for request in server.requests)
            assert len(errors) == count
            assert all(request.disconnected for request in server.requests)
            print(f"the server saw the last of {count} streams close after {last - started:.3f} s")
            assert last - started < 5, f"the server saw the last one after {last - started:.2f} s"
            assert is_quiet(client)
            assert client.statistics().open == 0
            assert (await client.version()).version
        await server.wait_all_closed()
        await anyio.wait_all_tasks_blocked()
        assert len(running_tasks()) <= tasks_before


async def test_abort_leaves_the_body_of_the_client_alone(slow: FakeOllama) -> None:
    """Code in the client's body is not cancelled by an abort, nor are its other awaits."""
    async with AsyncClient(slow.url) as client, anyio.create_task_group() as tasks:
        ended = Outcome(tasks, chat, client, True)
        await slow.wait_for_requests(1)
        client.abort()
        await anyio.sleep(0.01)
        await anyio.lowlevel.checkpoint()
        await ended.event.wait()
        owner = client._shared.tasks
        if owner._nursery is not None:
            assert not owner._nursery.cancel_scope.cancel_called
        else:
            assert not owner._group._aborting
