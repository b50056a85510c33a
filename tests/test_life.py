"""The life of a request: lines 1 to 8 of the contract."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from typing import Any

import anyio
import httpx
import pytest
import sniffio
from conftest import MESSAGES, is_quiet, plain_reply, raw_server, read_request, replying

from ollama_sc import (
    AbortError,
    AsyncClient,
    ClientClosedError,
    ConnectError,
    ModelNotFoundError,
    OllamaError,
    RequestTimeout,
    ResponseError,
    Timeouts,
)
from ollama_sc._calls import Call
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio
asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])
LOCAL = "127.0.0.1"


def running_tasks() -> set[Any]:
    """The tasks of this loop, by whatever each backend calls them."""
    if sniffio.current_async_library() == "asyncio":
        return {task for task in asyncio.all_tasks() if not task.done()}
    import trio  # noqa: PLC0415

    found: set[Any] = set()
    todo = [trio.lowlevel.current_root_task()]
    while todo:
        task = todo.pop()
        if task is not None and task not in found:
            found.add(task)
            todo += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


# -- 1: a task in the client's group -------------------------------------------------------------


async def test_each_request_is_one_task_of_the_clients_group(slow: FakeOllama) -> None:
    """A request adds one task to the loop, streamed or not, and takes it away again."""
    async with AsyncClient(slow.url) as client:
        before = running_tasks()
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await anext(stream)
            names = {_name(task) for task in running_tasks() - before}
            assert [name for name in names if name.startswith("ollama_sc ")] == [
                "ollama_sc POST /api/chat, model 'llama3.2'"
            ]
        assert not [t for t in running_tasks() - before if _name(t).startswith("ollama_sc ")]


def _name(task: Any) -> str:
    return str(task.get_name() if hasattr(task, "get_name") else task.name)


async def test_leaving_the_client_leaves_no_task_and_no_thread(fake: FakeOllama) -> None:
    """Tasks and threads are as many after a client as before it."""
    tasks, threads = len(running_tasks()), threading.active_count()
    async with AsyncClient(fake.url) as client:
        for _ in range(3):
            await client.chat("llama3.2", MESSAGES)
        await client.embed("nomic-embed-text", ["a", "b"])
    await fake.wait_all_closed()
    await anyio.wait_all_tasks_blocked()
    assert len(running_tasks()) <= tasks
    assert threading.active_count() == threads


# -- 2: nothing is left when a call ends ----------------------------------------------------------


async def test_a_call_that_ends_gives_its_connection_back(fake: FakeOllama) -> None:
    """Calls one after the other use one connection, errors included."""
    async with AsyncClient(fake.url) as client:
        for _ in range(3):
            await client.chat("llama3.2", MESSAGES)
            with pytest.raises(ModelNotFoundError):
                await client.chat("no-such-model", MESSAGES)
            async with await client.generate("llama3.2", "Hello", stream=True) as stream:
                assert [part async for part in stream][-1].done
        assert fake.connections == 1
        assert client.statistics() == (0, 0, 0, 0, 1, 1)


async def test_a_call_that_is_cut_short_closes_its_connection(slow: FakeOllama) -> None:
    """A connection whose reply was not read to the end is not used again."""
    async with AsyncClient(slow.url) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            await anext(stream)
        assert client.statistics().open == 0
        await slow.requests[0].wait_closed()
        assert slow.requests[0].disconnected
        assert is_quiet(client)


# -- 3: abort reaches every phase -----------------------------------------------------------------


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

    monkeypatch.setattr(anyio, "connect_tcp", never)
    if sniffio.current_async_library() == "trio":
        monkeypatch.setattr("trio.open_tcp_stream", never)
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
                with anyio.fail_after(1):
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
        assert fake.requests[0].closed_at - started < 1
        assert is_quiet(client)


async def test_abort_in_the_body_of_a_reply_in_one_piece(fake: FakeOllama) -> None:
    """A body that is half here ends at once."""
    fake.always("/api/version", Reply.json({"version": "x" * 100}).but(stall_at=180))
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
                assert slow.requests[0].closed_at - started < 1
            if consumer == "iterating":
                assert isinstance(ended.error, AbortError)
            for _ in range(2):
                with pytest.raises(AbortError) as caught:
                    await anext(stream)
                assert caught.value.reason == "stop"


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
async def test_500_live_streams_aborted(anyio_backend: Any) -> None:
    """The server sees 500 streams close, and no task, connection or registry entry is left."""
    count = 500
    async with FakeOllama(token_rate=2, tokens=1000) as server:
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
            assert last - started < 2, f"the server saw the last one after {last - started:.2f} s"
            assert is_quiet(client)
            assert client.statistics().open == 0
            assert (await client.version()).version
        await server.wait_all_closed()
        await anyio.wait_all_tasks_blocked()
        assert len(running_tasks()) <= tasks_before


# -- 4: the code inside `async with` goes on ------------------------------------------------------


async def test_abort_leaves_the_body_of_the_client_alone(slow: FakeOllama) -> None:
    """Code in the client's body is not cancelled by an abort, nor are its other awaits."""
    async with AsyncClient(slow.url) as client, anyio.create_task_group() as tasks:
        ended = Outcome(tasks, chat, client, True)
        await slow.wait_for_requests(1)
        client.abort()
        await anyio.sleep(0.01)
        await anyio.lowlevel.checkpoint()
        await ended.event.wait()
        owner = client._shared.owner
        if owner._nursery is not None:
            assert not owner._nursery.cancel_scope.cancel_called
        else:
            assert not owner._group._aborting


# -- 5: what ends a call, and what does not --------------------------------------------------------


async def test_a_shielded_call_completes_although_the_surroundings_are_cancelled(
    fake: FakeOllama,
) -> None:
    """Cleanup code under the user's shield can still make requests."""
    replies: list[Any] = []
    with anyio.CancelScope() as surroundings:
        async with AsyncClient(fake.url) as client:
            try:
                surroundings.cancel()
                await anyio.sleep_forever()
            finally:
                with anyio.CancelScope(shield=True):
                    replies.append(await client.chat("llama3.2", MESSAGES))
                    async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                        replies += [part async for part in stream]
    assert surroundings.cancelled_caught
    assert replies[0].done
    assert replies[-1].done


async def test_a_call_from_elsewhere_outlives_the_cancellation_around_the_client(
    fake: FakeOllama,
) -> None:
    """A request of another task does not end because the client's surroundings are cancelled."""
    fake.always("/api/version", Reply.json({"version": "1"}).but(delay=0.1))
    ready = anyio.Event()
    clients: list[AsyncClient] = []
    scope = anyio.CancelScope()
    ended: list[Outcome] = []

    async def own() -> None:
        with scope:
            async with AsyncClient(fake.url) as client:
                clients.append(client)
                ready.set()
                try:
                    await anyio.sleep_forever()
                finally:
                    with anyio.CancelScope(shield=True):
                        await ended[0].event.wait()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(own)
        await ready.wait()
        ended.append(Outcome(tasks, clients[0].version))
        await fake.wait_for_requests(1)
        scope.cancel()
    assert ended[0].error is None
    assert ended[0].value.version == "1"


async def test_a_caller_that_is_cancelled_sees_its_own_cancellation(slow: FakeOllama) -> None:
    """Cancel scopes compose with calls: the scope catches, and nothing of the call is left."""
    async with AsyncClient(slow.url) as client:
        with anyio.move_on_after(0.05) as scope:
            await client.chat("llama3.2", MESSAGES)
        assert scope.cancelled_caught
        assert is_quiet(client)
        with pytest.raises(TimeoutError), anyio.fail_after(0.05):
            async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                async for _ in stream:
                    pass
        assert is_quiet(client)
        await slow.wait_all_closed()


async def test_cancellation_wins_over_an_abort(slow: FakeOllama) -> None:
    """A caller that is cancelled and aborted at the same time sees its cancellation."""
    async with AsyncClient(slow.url) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def both() -> None:
                    await slow.wait_for_requests(1)
                    scope.cancel()
                    client.abort()

                tasks.start_soon(both)
                await client.chat("llama3.2", MESSAGES)
        assert scope.cancelled_caught


@asyncio_only
async def test_a_native_cancel_of_a_caller_leaves_nothing(slow: FakeOllama) -> None:
    """asyncio's own Task.cancel, timeout and wait_for end the call as anyio's scopes do."""
    async with AsyncClient(slow.url) as client:
        for number, streamed in enumerate((False, True), 1):
            task = asyncio.create_task(chat(client, streamed))
            await slow.wait_for_requests(number)
            task.cancel("mine")
            with pytest.raises(asyncio.CancelledError):
                await task
            assert task.cancelled()
            assert is_quiet(client)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.chat("llama3.2", MESSAGES)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.chat("llama3.2", MESSAGES), 0.05)
        assert is_quiet(client)
        await slow.wait_all_closed()
        assert (await client.version()).version


@asyncio_only
async def test_a_native_cancel_of_a_requests_task_ends_that_request_alone(
    slow: FakeOllama,
) -> None:
    """Whoever cancels our task with asyncio's means neither ends the client nor its siblings."""
    async with AsyncClient(slow.url) as client:
        sibling = await client.generate("llama3.2", "Hi", stream=True)
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        for task in asyncio.all_tasks():
            if "ollama_sc POST /api/chat" in task.get_name():
                task.cancel()
        with pytest.raises(AbortError):
            await exhaust(stream)
        assert await anext(sibling)
        await sibling.aclose()
        assert (await client.version()).version


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@asyncio_only
async def test_a_native_cancel_before_the_first_step_still_gives_an_outcome(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that asyncio never runs leaves no caller waiting and no registry entry."""
    calls: list[Call[Any]] = []
    monkeypatch.setattr("ollama_sc._client.CLEANUP_SECONDS", 0.1)
    async with AsyncClient(fake.url) as client:
        call = Call[str](client._calls, "a call", Timeouts())
        calls.append(call)

        async def work() -> str:
            return "done"

        client._calls.start(call, work)
        for task in asyncio.all_tasks():
            if task.get_name() == "ollama_sc a call":
                task.cancel()
    assert calls[0].ended.is_set()
    with pytest.raises(AbortError):
        await calls[0].outcome()


# -- 6: siblings -----------------------------------------------------------------------------------


async def test_a_failure_reaches_its_own_caller_alone(slow: FakeOllama) -> None:
    """Requests side by side are not disturbed by the one that fails."""
    slow.always("/api/embed", Reply.error(500, "no"))
    async with AsyncClient(slow.url) as client:
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            with pytest.raises(ResponseError) as caught:
                await client.embed("nomic-embed-text", "hello")
            assert caught.value.error == "no"
            assert (await anext(stream)).message.role == "assistant"


async def test_an_exception_of_the_users_hook_arrives_as_it_was_raised(fake: FakeOllama) -> None:
    """What a user's own code raises inside a request is what the caller gets."""
    boom = KeyError("mine")

    async def hook(request: Any) -> None:
        raise boom

    async with AsyncClient(fake.url, event_hooks={"request": [hook]}) as client:
        for streamed in (False, True):
            with pytest.raises(KeyError) as caught:
                await chat(client, streamed)
            assert caught.value is boom
        assert is_quiet(client)


# -- 7: what leaves `async with` -------------------------------------------------------------------


@pytest.mark.parametrize("live", [False, True], ids=["idle", "a stream lives"])
async def test_an_exception_leaves_as_itself(slow: FakeOllama, live: bool) -> None:
    """The body's exception is the one that leaves, with or without live requests."""
    boom = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught:
        async with AsyncClient(slow.url) as client:
            if live:
                stream = await client.chat("llama3.2", MESSAGES, stream=True)
                await anext(stream)
            raise boom
    assert caught.value is boom
    assert boom.__cause__ is None
    await slow.wait_all_closed()


async def test_a_users_own_exception_group_arrives_as_it_was(slow: FakeOllama) -> None:
    """A group that the user raised is not wrapped in another and keeps its exceptions."""
    boom = ExceptionGroup("mine", [ValueError(1), KeyError(2)])
    with pytest.raises(ExceptionGroup) as caught:
        async with AsyncClient(slow.url) as client:
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            raise boom
    assert caught.value is boom
    assert [type(error) for error in boom.exceptions] == [ValueError, KeyError]
    await stream.aclose()


async def test_a_cancellation_leaves_as_itself(slow: FakeOllama) -> None:
    """A cancelled body ends the client's requests, and its scope catches the cancellation."""
    with anyio.move_on_after(0.1) as scope:
        async with AsyncClient(slow.url) as client:
            stream = await client.chat("llama3.2", MESSAGES, stream=True)
            async for _ in stream:
                pass
    assert scope.cancelled_caught
    await slow.wait_all_closed()
    assert client.statistics().in_flight == 0


async def test_a_cancellation_during_the_exit_does_not_replace_the_exception(
    slow: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body's exception leaves even though the exit is cancelled while it waits."""
    with anyio.CancelScope() as scope:
        with pytest.raises(ValueError, match="mine"):
            async with AsyncClient(slow.url) as client:
                stream = await client.chat("llama3.2", MESSAGES, stream=True)
                monkeypatch.setattr(
                    client._calls, "abort", _then(client._calls.abort, scope.cancel)
                )
                raise ValueError("mine")
        assert scope.cancel_called
    await stream.aclose()


def _then(first: Any, second: Any) -> Any:
    def both(*args: Any) -> Any:
        result = first(*args)
        second()
        return result

    return both


@asyncio_only
async def test_a_native_cancel_during_the_exit(slow: FakeOllama) -> None:
    """asyncio's own cancel during the exit: an exception wins, a normal body gives way."""

    streams = []

    async def body(error: Exception | None) -> None:
        async with AsyncClient(slow.url) as client:
            streams.append(await client.chat("llama3.2", MESSAGES, stream=True))
            me = asyncio.current_task()
            assert me is not None
            client._calls.abort = _then(client._calls.abort, me.cancel)  # type: ignore[method-assign]
            if error is not None:
                raise error

    boom = ValueError("mine")
    with pytest.raises(ValueError, match="mine"):
        await asyncio.create_task(body(boom))
    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(body(None))
    await slow.wait_all_closed()


async def test_a_normal_end_ends_what_lives_elsewhere(slow: FakeOllama) -> None:
    """Callers in other tasks get AbortError("client closed") when the client is left."""
    async with anyio.create_task_group() as tasks:
        async with AsyncClient(slow.url) as client:
            ended = [Outcome(tasks, chat, client, streamed) for streamed in (False, True)]
            await slow.wait_for_requests(2)
        for outcome in ended:
            await outcome.event.wait()
            assert isinstance(outcome.error, AbortError)
            assert outcome.error.reason == "client closed"
    await slow.wait_all_closed()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("where", ["body", "request"])
def test_a_keyboard_interrupt_leaves_as_itself(backend: str, where: str) -> None:
    """A KeyboardInterrupt ends the client and leaves as it is, wherever it lands."""
    seen: list[BaseException | None] = []

    async def hook(request: Any) -> None:
        if where == "request":
            raise KeyboardInterrupt

    async def main() -> None:
        async with FakeOllama(token_rate=20, tokens=10_000) as server:
            try:
                async with AsyncClient(server.url, event_hooks={"request": [hook]}) as client:
                    stream = await client.chat("llama3.2", MESSAGES, stream=True)
                    async for _ in stream:
                        raise KeyboardInterrupt
            except BaseException as error:
                seen.append(error)
                raise

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend=backend)
    if backend == "trio":
        # asyncio leaves its loop at once, and cancels what is left on its way out.
        assert isinstance(seen[0], KeyboardInterrupt)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_keyboard_interrupt_in_a_request_is_not_wrapped_by_us(backend: str) -> None:
    """Without a group of the user's, the bare KeyboardInterrupt comes out of `async with`."""
    seen: list[str] = []

    async def hook(request: Any) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        try:
            async with AsyncClient("127.0.0.1:1", event_hooks={"request": [hook]}) as client:
                try:
                    await client.version()
                finally:
                    seen.append("body left")
        except KeyboardInterrupt:
            seen.append("as itself")
            raise

    with pytest.raises(KeyboardInterrupt):
        anyio.run(main, backend=backend)
    assert seen[0] == "body left"
    assert backend == "asyncio" or seen == ["body left", "as itself"]


async def test_leaving_after_the_loop_of_a_dying_task_gives_its_caller_an_error(
    fake: FakeOllama,
) -> None:
    """A request that dies of a BaseException has an error for its caller, never None."""

    class Death(BaseException):
        pass

    async def hook(request: Any) -> None:
        raise Death

    errors: list[BaseException] = []
    with pytest.raises(Death):
        async with AsyncClient(fake.url, event_hooks={"request": [hook]}) as client:
            with anyio.CancelScope(shield=True):
                try:
                    await client.version()
                except OllamaError as error:
                    errors.append(error)
            await anyio.sleep_forever()
    assert isinstance(errors[0], AbortError)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_asyncio_cancels_before_its_first_step(
    fake: FakeOllama, stream: bool
) -> None:
    """Its caller hears of it at once, and neither the client nor its body is disturbed."""

    def cancel_it() -> None:
        (task,) = (task for task in asyncio.all_tasks() if "POST /api/chat" in task.get_name())
        assert task.cancel()

    async with AsyncClient(fake.url) as client:
        # It runs after the call below has started its task, and before that takes its first step.
        asyncio.get_running_loop().call_soon(cancel_it)
        with anyio.fail_after(5), pytest.raises(AbortError, match="cancelled"):
            await client.chat("llama3.2", MESSAGES, stream=stream)
        assert is_quiet(client)
        assert (await client.version()).version
    assert [request.path for request in fake.requests] == ["/api/version"]


# -- 8: the registry -------------------------------------------------------------------------------


async def test_the_registry_is_empty_whatever_happened(slow: FakeOllama) -> None:
    """Success, error, break, cancel, abort and timeout all leave no entry behind."""
    async with AsyncClient(slow.url) as client:
        await client.version()
        assert is_quiet(client)
        with pytest.raises(ModelNotFoundError):
            await client.chat("no-such-model", MESSAGES)
        assert is_quiet(client)
        async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
            async for _ in stream:
                break
        assert is_quiet(client)
        with anyio.move_on_after(0.02):
            await client.chat("llama3.2", MESSAGES)
        assert is_quiet(client)
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        client.abort()
        with pytest.raises(AbortError):
            await exhaust(stream)
        assert is_quiet(client)
        with pytest.raises(RequestTimeout):
            await client.chat("llama3.2", MESSAGES, timeout=Timeouts(total=0.02))
        assert is_quiet(client)
        async with await client.generate(
            "llama3.2", "Hi", stream=True, options={"num_predict": 2}
        ) as stream:
            await exhaust(stream)
            assert is_quiet(client)


async def test_ended_calls_are_freed_without_the_garbage_collector(fake: FakeOllama) -> None:
    """A failed call's traceback keeps no reference cycle alive."""
    async with AsyncClient(fake.url) as client:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                with pytest.raises(ModelNotFoundError):
                    await client.chat("no-such-model", MESSAGES)
                await client.chat("llama3.2", MESSAGES)
                async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                    await exhaust(stream)
            del stream
            await anyio.wait_all_tasks_blocked()
            alive = [thing for thing in gc.get_objects() if isinstance(thing, Call)]
            assert not alive
        finally:
            gc.enable()


# -- opening and closing ---------------------------------------------------------------------------


async def test_a_client_that_is_not_open_refuses(fake: FakeOllama) -> None:
    """Before, after and for a second time: ClientClosedError, and nothing is sent."""
    client = AsyncClient(fake.url)
    with pytest.raises(ClientClosedError, match="async with"):
        await client.version()
    with pytest.raises(ClientClosedError, match="async with"):
        await client.chat("llama3.2", MESSAGES, stream=True)
    async with client:
        await client.version()
        with pytest.raises(ClientClosedError, match="once"):
            await client.__aenter__()
        assert (await client.version()).version
    with pytest.raises(ClientClosedError, match="another"):
        await client.version()
    with pytest.raises(ClientClosedError, match="once"):
        async with client:
            pass
    assert len(fake.requests) == 2


async def test_a_client_that_is_closing_refuses(slow: FakeOllama) -> None:
    """A request that another task makes while the client is being left is refused."""
    async with anyio.create_task_group() as tasks:
        async with AsyncClient(slow.url) as client:

            async def insist() -> None:
                with pytest.raises(AbortError):
                    await client.chat("llama3.2", MESSAGES)
                with pytest.raises(ClientClosedError):
                    await client.chat("llama3.2", MESSAGES)

            tasks.start_soon(insist)
            await slow.wait_for_requests(1)
    assert len(slow.requests) == 1


async def test_nothing_is_connected_until_a_request_is_made(fake: FakeOllama) -> None:
    """Opening a client connects to nothing."""
    async with AsyncClient(fake.url) as client:
        assert client.statistics() == (0, 0, 0, 0, 0, 0)
        assert fake.connections == 0


# -- the server goes away --------------------------------------------------------------------------


async def test_no_server(anyio_backend: Any) -> None:
    """A server that is not there is a ConnectError, which is a ConnectionError too."""
    async with AsyncClient("127.0.0.1:9") as client:
        with pytest.raises(ConnectError, match="127.0.0.1:9") as caught:
            await client.version()
        assert isinstance(caught.value, ConnectionError)
        assert caught.value.__cause__ is not None


async def test_a_dead_idle_connection_is_replaced_once(anyio_backend: Any) -> None:
    """A request on a reused connection that dies before the reply begins is sent again."""
    seen: list[int] = []
    reply = plain_reply(b'{"version":"1"}')

    async def handle(stream: Any) -> None:
        seen.append(0)
        number = len(seen) - 1
        while await read_request(stream):
            seen[number] += 1
            if number == 0 and seen[0] == 2:
                return  # the idle connection dies under its second request
            await stream.send(reply)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        assert (await client.version()).version == "1"
        assert (await client.version()).version == "1"
    assert seen == [2, 1]


async def test_a_new_connection_that_dies_is_not_replaced(anyio_backend: Any) -> None:
    """Calls are not retried: a first connection that dies before the reply is an error."""
    seen: list[bytes] = []

    async def handle(stream: Any) -> None:
        seen.append(await read_request(stream))

    async with raw_server(handle) as url, AsyncClient(url) as client:
        with pytest.raises(ConnectError):
            await client.version()
    assert len(seen) == 1


async def test_a_reply_that_begins_is_never_asked_for_again(anyio_backend: Any) -> None:
    """A reused connection that dies inside the reply's body is an error, not a second request."""
    good = plain_reply(b'{"version":"1"}')
    async with raw_server(replying(good, good[:-4])) as url, AsyncClient(url) as client:
        await client.version()
        with pytest.raises(ConnectError):
            await client.version()


# -- helpers ---------------------------------------------------------------------------------------


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


async def chat(client: AsyncClient, streamed: bool) -> None:
    if not streamed:
        await client.chat("llama3.2", MESSAGES)
        return
    async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
        await exhaust(stream)


async def exhaust(stream: Any) -> None:
    async for _ in stream:
        pass


async def until(condition: Any) -> None:
    """Wait for something that has no event, one scheduler round at a time."""
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.001)


# -- the way in and out ------------------------------------------------------------------------------


class Stubborn(httpx.AsyncBaseTransport):
    """A user's transport that fails where it is told to."""

    def __init__(self, where: str) -> None:
        self.where = where

    async def __aenter__(self) -> Stubborn:
        if self.where == "opening":
            raise KeyError("mine")
        return self

    async def aclose(self) -> None:
        if self.where == "closing":
            raise KeyError("mine")


async def test_a_transport_that_fails_to_open(anyio_backend: Any) -> None:
    """What it raises leaves as itself, and the client can be told to be useless."""
    client = AsyncClient(transport=Stubborn("opening"))
    with pytest.raises(KeyError, match="mine"):
        async with client:
            pytest.fail("never here")
    with pytest.raises(ClientClosedError):
        await client.version()


@pytest.mark.parametrize("body", ["ends", "raises"])
async def test_a_transport_that_fails_to_close(anyio_backend: Any, body: str) -> None:
    """What it raises leaves, unless the body raised: that comes first."""
    with pytest.raises(KeyError if body == "ends" else ValueError):
        async with AsyncClient(transport=Stubborn("closing")):
            if body == "raises":
                raise ValueError


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_client_of_another_loop_refuses(backend: str) -> None:
    """A client that is used in another event loop says so, and nothing hangs."""

    async def outer() -> None:
        async with AsyncClient() as client:

            async def inner() -> None:
                with pytest.raises(ClientClosedError, match="another event loop"):
                    await client.version()

            await anyio.to_thread.run_sync(lambda: anyio.run(inner, backend=backend))

    anyio.run(outer, backend=backend)


async def test_a_slow_upload_that_moves_is_not_idle(anyio_backend: Any) -> None:
    """The idle limit is for each piece of an upload, not for all of it."""

    async def slowly(stream: Any) -> None:
        size = 0
        while size < 30_000_000:
            size += len(await stream.receive(1_000_000))
            await anyio.sleep(0.01)
        await stream.send(plain_reply(b'{"embeddings":[]}'))

    async with raw_server(slowly) as url:
        async with AsyncClient(url, timeout=Timeouts(idle=0.2)) as client:
            started = anyio.current_time()
            await client.embed("m", "x" * 30_000_000)
            assert anyio.current_time() - started > 0.25
