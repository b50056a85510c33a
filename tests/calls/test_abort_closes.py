"""Abort closes the connections of what it ends before any task has its turn, and no other.

Those that httpx has, through a proxy too, their task closes, as soon as it runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import select
import socket
from collections.abc import Callable
from typing import Any

import anyio
import anyio.abc
import pytest
import sniffio

from ollama_sc import AbortError, AsyncClient, RequestTimeout, Timeouts
from ollama_sc._calls.call import Call
from ollama_sc._replies.ndjson import LineDecoder
from tests.http.support import CHUNKED, LINE, VERSION, nothing
from tests.support import MESSAGES, Outcome, backends, exhaust, is_quiet
from tests.wire import Peer, Server, answering, client_context, ok, serving, settle, until

pytestmark = pytest.mark.anyio


@pytest.fixture(
    params=[*backends(debug=True), pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Every test runs on both, and on uvloop."""
    return request.param


@pytest.fixture(autouse=True)
async def a_stream_before(anyio_backend: Any) -> None:
    """With its first stream, libuv opens a descriptor for itself."""
    near, far = socket.socketpair()
    async with await anyio.abc.SocketStream.from_socket(near):
        far.close()


PART = LINE % b"false"
CHUNK = b"%x\r\n%b\r\n" % (len(PART), PART)


class Held:
    """Handles requests whose replies never end; the connections are looked at from outside."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.peers: list[Peer] = []

    async def __call__(self, peer: Peer) -> None:
        self.peers.append(peer)
        await peer.send(*self.pieces)
        await peer.gone()

    async def until(self, count: int) -> None:
        await until(lambda: len(self.peers) == count)


def is_closed(peer: Peer) -> bool:
    """Whether the client has closed it. No task runs meanwhile."""
    raw = peer._raw.extra(anyio.abc.SocketAttribute.raw_socket)
    with socket.socket(fileno=os.dup(raw.fileno())) as sock:
        sock.setblocking(False)
        while select.select([sock], [], [], 5)[0]:
            try:
                if not sock.recv(1 << 20):
                    return True
            except ConnectionResetError:
                return True
            except BlockingIOError:  # another task's
                pass
    return False


def descriptors(client: AsyncClient) -> list[int]:
    """Those of all connections of a client."""
    transport: Any = client._shared.sender._client._transport
    sockets = [connection._socket for connection in transport._open]
    return [getattr(sock, "_plain", sock)._sock.fileno() for sock in sockets]


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def check_closed(client: AsyncClient, abort: Callable[[], object], *peers: Peer) -> None:
    """Abort: when that returns, every connection of the client is closed."""
    before = descriptors(client)
    assert len(before) == len(peers)
    abort()
    assert not any(map(is_open, before))
    assert all(map(is_closed, peers))


async def ended_well(client: AsyncClient, server: Server, *outcomes: Outcome) -> None:
    """What ended each of them is the abort, nothing is left, and the client goes on."""
    for outcome in outcomes:
        with anyio.fail_after(10):
            await outcome.event.wait()
        error = outcome.error
        assert isinstance(error, AbortError)
        assert error.reason == "now"
        assert error.__cause__ is None
    await until(lambda: is_quiet(client))
    assert client.statistics()[4:] == (0, 0)
    await server.until_open(0)
    assert (await client.version()).version == "1"


def loop_calls(function: Callable[[], object]) -> None:
    """Let the event loop call it, in no task, and in a context that says nothing of the loop."""
    if sniffio.current_async_library() == "trio":
        import trio  # noqa: PLC0415

        trio.lowlevel.current_trio_token().run_sync_soon(function)
    else:
        loop = asyncio.get_running_loop()
        loop.call_soon(function, context=contextvars.Context())


# -- every state -----------------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("by", ["client", "streams"])
async def test_live_streams(anyio_backend: Any, secure: bool, by: str) -> None:
    """Whether their consumers wait, are busy or have not begun."""
    held = Held(CHUNKED + CHUNK)
    options: Any = {"verify": client_context()} if secure else {}
    async with serving(
        answering({"/api/chat": held, "/api/version": VERSION}), tls=secure
    ) as server:
        async with AsyncClient(server.url, **options) as client, anyio.create_task_group() as tasks:
            streams = [await client.chat("m", MESSAGES, stream=True) for _ in range(9)]
            for stream in streams[:6]:
                await anext(stream)
            waiting = [Outcome(tasks, exhaust, stream) for stream in streams[:3]]
            await settle(20)
            woken: list[bool] = []

            def abort() -> None:
                if by == "client":
                    assert client.abort("now") == 9
                else:
                    assert all([stream.abort("now") for stream in streams])

            check_closed(client, abort, *held.peers)
            woken += [outcome.event.is_set() for outcome in waiting]
            assert not any(woken)
            assert client.statistics().receiving == 9
            others = [Outcome(tasks, exhaust, stream) for stream in streams[3:]]
            await ended_well(client, server, *waiting, *others)


async def test_a_stream_that_is_held_back(anyio_backend: Any) -> None:
    """Where nobody reads, because the consumer is slow."""
    many = PART * 5000
    held = Held(CHUNKED + b"%x\r\n%b\r\n" % (len(many), many))
    async with serving(answering({"/api/chat": held, "/api/version": VERSION})) as server:
        async with AsyncClient(server.url) as client, anyio.create_task_group() as tasks:
            stream = await client.chat("m", MESSAGES, stream=True)
            await anext(stream)
            await until(lambda: stream._call._not_full is not None or stream._call.is_full())
            check_closed(client, lambda: client.abort("now"), *held.peers)
            await ended_well(client, server, Outcome(tasks, exhaust, stream))


SILENCE, HALF = (), (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("way", ["directly", "through httpx"])
@pytest.mark.parametrize("pieces", [SILENCE, HALF], ids=["silence", "half a body"])
@pytest.mark.parametrize("where", ["task", "callback"])
async def test_replies_in_one_piece(
    anyio_backend: Any, pieces: Any, way: str, where: str, secure: bool
) -> None:
    """Before the head and in the body, from a task and from a callback of the event loop."""
    held = Held(*pieces)
    options: Any = {"event_hooks": {"request": [nothing]}} if way == "through httpx" else {}
    if secure:
        options["verify"] = client_context()
    async with serving(
        answering({"/api/tags": held, "/api/version": VERSION}), tls=secure
    ) as server:
        async with AsyncClient(server.url, **options) as client, anyio.create_task_group() as tasks:
            ended = Outcome(tasks, client.list)
            await held.until(1)
            await settle(30)

            def check() -> None:
                check_closed(client, lambda: client.abort("now"), *held.peers)
                assert not ended.event.is_set()

            if where == "task":
                check()
            else:
                failures: list[BaseException | None] = []

                def called() -> None:
                    try:
                        check()
                    except BaseException as error:
                        failures.append(error)
                    else:
                        failures.append(None)

                loop_calls(called)
                await until(lambda: bool(failures))
                assert failures == [None]
            await ended_well(client, server, ended)


@pytest.mark.parametrize("kind", ["bytes", "blocks"])
@pytest.mark.parametrize("where", ["task", "callback"])
async def test_uploads(anyio_backend: Any, kind: str, where: str, tmp_path: Any) -> None:
    """While the kernel takes no more of a request, as the server does not read."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"127.0.0.1:{listener.getsockname()[1]}"
        async with AsyncClient(url) as client, anyio.create_task_group() as tasks:
            if kind == "bytes":
                ended = Outcome(tasks, client.generate, "m", "x" * 50_000_000)
            else:
                ended = Outcome(tasks, _upload, client, tmp_path / "sparse")
            await until(lambda: client.statistics().sending == 1)
            transport: Any = client._shared.sender._client._transport
            [sock] = [connection._socket for connection in transport._open]
            await until(lambda: sock._unsent is not None)
            await settle(20)
            before = descriptors(client)
            found: list[bool] = []

            def abort() -> None:
                assert client.abort("now") == 1
                found.extend(map(is_open, before))

            if where == "task":
                abort()
            else:
                loop_calls(abort)
                await until(lambda: bool(found))
            assert found == [False]
            with anyio.fail_after(10):
                await ended.event.wait()
            assert isinstance(ended.error, AbortError)
            assert client.statistics().open == 0


async def _upload(client: AsyncClient, path: Any) -> None:
    """Send blocks for ever, as a body that is read while it is sent."""
    from ollama_sc._http.exchange import Exchange  # noqa: PLC0415
    from ollama_sc._http.messages import Request, Upload  # noqa: PLC0415
    from ollama_sc._timeouts import Timeouts  # noqa: PLC0415

    async def blocks() -> Any:
        while True:
            yield b"x" * 100_000

    call = Call[None](client._calls.runtime, "an upload", Timeouts())

    async def work() -> None:
        request = Request("POST", "/api/x", "an upload", Upload(10**12, blocks))
        async with Exchange(client._shared.sender, call, request, "*/*"):
            raise AssertionError

    client._calls.start(call, work)
    await call.outcome()


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("on_sending", "stream"),
        ("on_sending", "whole"),
        ("on_sent", "stream"),
        ("on_sent", "whole"),
        ("feed", "stream"),
    ],
)
async def test_in_the_midst_of_its_own_work(
    anyio_backend: Any, step: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its own task or the loop's reading callback calls aborts it: it ends by that."""
    held = Held(CHUNKED + CHUNK)
    peers: list[list[int]] = []

    async with serving(answering({"/api/chat": held, "/api/version": VERSION})) as server:
        async with AsyncClient(server.url) as client:
            owner: Any = LineDecoder if step == "feed" else Call
            original = getattr(owner, step)

            def aborting(self: Any, *args: Any) -> Any:
                monkeypatch.setattr(owner, step, original)
                result = original(self, *args)
                before = descriptors(client)
                assert client.abort("now") == 1
                peers.append([fd for fd in before if is_open(fd)])
                return result

            monkeypatch.setattr(owner, step, aborting)
            async with anyio.create_task_group() as tasks:
                if kind == "stream":
                    ended = Outcome(tasks, _stream, client)
                else:
                    ended = Outcome(tasks, client.chat, "m", MESSAGES)
                with anyio.fail_after(10):
                    await ended.event.wait()
            assert peers == [[]]
            await ended_well(client, server, ended)


async def test_while_another_reads_for_the_consumer(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks what has come, and aborts at that, ends the consumer that waits for it."""
    if sniffio.current_async_library() == "trio":
        from ollama_sc._http import socket_trio  # noqa: PLC0415

        def checked(sock: socket.socket) -> None:
            assert sock.fileno() >= 0  # elsewhere than on Linux it would be an error
            notify(sock)

        notify = socket_trio.notify_closing
        monkeypatch.setattr(socket_trio, "notify_closing", checked)
    held = Held(CHUNKED + CHUNK)
    async with serving(answering({"/api/chat": held, "/api/version": VERSION})) as server:
        async with AsyncClient(server.url) as client, anyio.create_task_group() as tasks:
            stream = await client.chat("m", MESSAGES, stream=True)
            await anext(stream)
            ended = Outcome(tasks, exhaust, stream)
            await settle(20)
            original = LineDecoder.feed

            def aborting(self: Any, data: bytes) -> Any:
                client.abort("now")
                return original(self, data)

            monkeypatch.setattr(LineDecoder, "feed", aborting)
            [descriptor] = descriptors(client)
            raw = held.peers[0]._raw.extra(anyio.abc.SocketAttribute.raw_socket)
            with socket.socket(fileno=os.dup(raw.fileno())) as sock:
                sock.send(CHUNK)
            assert select.select([descriptor], [], [], 5)[0]
            assert stream.result().message.content
            await ended_well(client, server, ended)


async def _stream(client: AsyncClient) -> None:
    async with await client.chat("m", MESSAGES, stream=True) as stream:
        await exhaust(stream)


async def test_a_stream_that_is_dropped(anyio_backend: Any) -> None:
    """The loop's callback that ends it closes its connection."""
    held = Held(CHUNKED + CHUNK)
    async with serving(answering({"/api/chat": held, "/api/version": VERSION})) as server:
        async with AsyncClient(server.url) as client:
            stream = await client.chat("m", MESSAGES, stream=True)
            await anext(stream)
            call: Any = stream._call
            [before] = descriptors(client)
            with pytest.warns(ResourceWarning):
                del stream
            while not call.aborted:
                assert is_open(before)
                await anyio.lowlevel.checkpoint()
            assert is_closed(held.peers[0])
            await call.wait_ended()
            await ended_well(client, server)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("consumer", ["iterating", "busy"])
async def test_by_the_host_of_a_guest(anyio_backend: Any, consumer: str) -> None:
    """Where trio runs as the guest of another event loop, that can abort, too."""
    import trio  # noqa: PLC0415

    there, done = asyncio.Event(), asyncio.Event()
    clients: list[AsyncClient] = []
    failures: list[BaseException | None] = []

    async def guest(url: str) -> None:
        async with AsyncClient(url) as client:
            clients.append(client)
            async with await client.chat("m", MESSAGES, stream=True) as stream:
                await anext(stream)
                there.set()
                if consumer == "busy":
                    await trio.sleep(0.2)
                with pytest.raises(AbortError, match="now"):
                    await exhaust(stream)

    def over(outcome: Any) -> None:
        failures.append(getattr(outcome, "error", None))
        done.set()

    held = Held(CHUNKED + CHUNK)
    async with serving(answering({"/api/chat": held})) as server:
        trio.lowlevel.start_guest_run(
            guest,
            server.url,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=over,
        )
        with anyio.fail_after(10):
            await there.wait()
            await anyio.sleep(0.1)  # the guest waits in a thread
            assert clients[0].abort("now") == 1
            await done.wait()
        assert failures == [None]


# -- and no other ----------------------------------------------------------------------------------


async def test_a_connection_that_was_released_is_left_alone(anyio_backend: Any) -> None:
    """A request whose reply a hook has read has no connection any more; another one has it."""
    held = Held(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n")
    read, go_on = anyio.Event(), anyio.Event()

    async def hook(response: Any) -> None:
        await response.aread()
        if response.request.url.path == "/api/version":
            read.set()
            await go_on.wait()

    async with serving(answering({"/api/ps": held, "/api/version": VERSION})) as server:
        async with AsyncClient(server.url, event_hooks={"response": [hook]}) as client:
            async with anyio.create_task_group() as tasks, client.group() as group:
                first = Outcome(tasks, group.version)
                await read.wait()
                second = Outcome(tasks, client.request, "GET", "/api/ps")
                await held.until(1)
                assert server.accepted == 1
                assert group.abort("now") == 1
                await first.event.wait()
                assert isinstance(first.error, AbortError)
                await settle(20)
                await held.peers[0].send(b'{"models":[  ]}')
                with anyio.fail_after(10):
                    await second.event.wait()
                assert second.value == {"models": []}
                assert client.statistics()[4:] == (1, 1)


async def test_a_finished_stream_keeps_its_connection(anyio_backend: Any) -> None:
    """A reply that is here as a whole is finished, and its connection is used again."""
    whole = ok(PART + LINE % b"true")
    async with serving(answering({"/api/chat": whole, "/api/version": VERSION})) as server:
        async with AsyncClient(server.url) as client:
            for _ in range(20):
                stream = await client.chat("m", MESSAGES, stream=True)
                assert not client.abort("now")
                assert not stream.abort("now")
                assert len([part async for part in stream]) == 2
                await stream.aclose()
                assert client.statistics()[4:] == (1, 1)
            assert server.accepted == 1


async def test_a_client_of_httpxs_own_transport(anyio_backend: Any) -> None:
    """What is not this library's own connection is closed by its task, as soon as that runs."""
    held = Held()
    async with serving(answering({"/api/tags": held, "/api/version": VERSION})) as server:
        import httpx  # noqa: PLC0415

        async with (
            AsyncClient(server.url, transport=httpx.AsyncHTTPTransport()) as client,
            anyio.create_task_group() as tasks,
        ):
            ended = Outcome(tasks, client.list)
            await held.until(1)
            await settle(30)
            assert client.abort("now") == 1
            await ended_well(client, server, ended)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 Conn", b"HTTP/1.1 200 Connected\r\n\r\n"])
@pytest.mark.parametrize("ended_by", ["abort", "cancellation", "limit"])
async def test_a_tunnel_that_is_never_there(
    anyio_backend: Any, answer: bytes, ended_by: str
) -> None:
    """A tunnel is part of connecting: what ends a call meanwhile closes it, whatever its step."""

    async def tunnel(peer: Peer) -> None:
        assert await peer.head()
        await peer.send(answer)
        if answer.endswith(b"\r\n\r\n"):
            assert await peer.stream.receive()  # the handshake begins
        under_way.set()
        await peer.gone()

    under_way = anyio.Event()
    # The limit of the first chunk is the shorter one, and a busy machine keeps it until it connects.
    limits = Timeouts(connect=1.5, first_chunk=1) if ended_by == "limit" else Timeouts()
    options: Any = {"verify": client_context(), "timeout": limits}
    async with serving(tunnel) as server:
        async with AsyncClient("https://far.invalid", proxy=server.url, **options) as client:
            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    outcome = Outcome(tasks, client.version)
                    await under_way.wait()
                    if ended_by == "abort":
                        assert client.statistics().connecting == 1
                        assert client.abort() == 1
                    elif ended_by == "cancellation":
                        tasks.cancel_scope.cancel()
            await server.until_open(0)
            assert client.statistics().open == 0
        if ended_by == "limit":
            assert isinstance(outcome.error, RequestTimeout)
            assert outcome.error.limit == "connect"
        else:
            assert isinstance(outcome.error, AbortError) == (ended_by == "abort")
