"""Connecting: addresses and names, failures at every step, what a connected socket is set to."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import statistics
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread
import pytest
import sniffio
import trio

from ollama_sc import AbortError, AsyncClient, ConnectError, OllamaError
from ollama_sc._http import connecting, lookup
from ollama_sc._http.lookup import Lookups
from ollama_sc.testing import FakeOllama
from tests.support import MESSAGES, is_quiet
from tests.wire import client_context, open_files, server_context, until

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.parametrize(
        "anyio_backend",
        ["asyncio", "trio", pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop")],
    ),
]

RESET = struct.pack("ii", 1, 0)


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


@contextmanager
def threaded_server(
    handle: Callable[[socket.socket], None], backlog: int = 100
) -> Iterator[tuple[int, socket.socket]]:
    """A server in a thread: it is as fast as the system, and not in the client's event loop."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            # As servers written in Go have it: a small answer is not held back.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                handle(connection)
            except OSError:
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], listener
    finally:
        try:
            listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        listener.close()
        thread.join(5)


def after_reading(
    count: int, end: Callable[[socket.socket], None]
) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        left = count
        while left:
            data = connection.recv(left)
            if not data:
                break
            left -= len(data)
        end(connection)

    return handle


def after_sending(
    data: bytes, end: Callable[[socket.socket], None]
) -> Callable[[socket.socket], None]:
    def handle(connection: socket.socket) -> None:
        connection.sendall(data)
        end(connection)

    return handle


STEPS = {
    "reset at once": reset,
    "closed at once": lambda connection: connection.close(),
    "reset after a byte": after_reading(1, reset),
    "closed after a byte": after_reading(1, lambda connection: connection.close()),
    "reset in the head": after_reading(40, reset),
    "reset in the reply": after_sending(b"HTTP/1.1 200 OK\r\nContent-", reset),
    "closed in the reply": after_sending(b"HTTP/1.1 200", lambda connection: connection.close()),
    "half closed, then closed": lambda connection: (
        connection.shutdown(socket.SHUT_WR),
        time.sleep(0.01),
        connection.close(),
    ),
}


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("step", STEPS)
async def test_a_connection_that_ends_at_any_step(
    anyio_backend: Any, step: str, secure: bool
) -> None:
    """Whatever is below raises, a call ends in an error of ours, and no descriptor is left."""
    before = open_files()
    with threaded_server(STEPS[step]) as (port, _):
        scheme, options = ("https", {"verify": client_context()}) if secure else ("http", {})
        async with AsyncClient(f"{scheme}://127.0.0.1:{port}", timeout=5, **options) as client:
            for _ in range(20):
                with pytest.raises(OllamaError):
                    await client.version()
            with pytest.raises(OllamaError):
                await client.chat("m", MESSAGES, stream=True)
            assert is_quiet(client)
            assert client.statistics().open == 0
    await until(lambda: open_files() <= before)


async def test_jobs_survive_resets_at_accept(anyio_backend: Any) -> None:
    """A job ends with an error of ours where each connection is reset just after it was accepted."""
    with threaded_server(reset) as (port, _):
        async with AsyncClient(f"http://127.0.0.1:{port}") as client:
            for _ in range(5):
                with pytest.raises(ConnectError):
                    await client.embed_array("m", ["a", "b"], attempts=1)


async def test_nobody_listens_reads_the_same_on_every_loop(anyio_backend: Any) -> None:
    """The error of a refused connection has the system's words, whatever the event loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    async with AsyncClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(ConnectError) as caught:
            await client.version()
    assert str(caught.value) == (
        f"GET /api/version: cannot connect to http://127.0.0.1:{port} (Connection refused): "
        "is Ollama running there?"
    )


@pytest.fixture
def full() -> Iterator[int]:
    """The port of a server whose backlog is full: it answers nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            yield port
        finally:
            for filler in fillers:
                filler.close()


async def test_a_full_backlog_is_waited_for(anyio_backend: Any, full: int) -> None:
    """A connect that the server does not answer ends at the connect timeout, or by an abort, at once."""
    before = open_files()
    async with AsyncClient(f"http://127.0.0.1:{full}") as client:
        async with anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(AbortError):
                    await client.version()

            tasks.start_soon(ask)
            await until(lambda: client.statistics().connecting == 1)
            client.abort()
        assert open_files() <= before + 1


async def test_what_a_connection_is_set_to(anyio_backend: Any) -> None:
    """No delay for small packets; a peer that has vanished without a word is noticed by probes."""
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        await client.version()
        transport = client._shared.sender._direct
        assert transport is not None
        (connection,) = transport._open
        sock = connection._socket._sock
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) <= 60
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 15
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 4


async def test_connecting_costs_little(anyio_backend: Any) -> None:
    """At most twice the CPU time of the event loop's own plain connect, measured in turn in one run."""
    with threaded_server(lambda connection: connection.close()) as (port, _):
        lookups = Lookups()

        async def ours() -> None:
            (await connecting.connect("127.0.0.1", port, lookups, lambda: None)).close()

        async def plain() -> None:
            if sniffio.current_async_library() == "trio":
                with trio.socket.socket() as sock:
                    await sock.connect(("127.0.0.1", port))
            else:
                with socket.socket() as sock:
                    sock.setblocking(False)
                    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))

        async def cost(connect: Any) -> float:
            begun = time.thread_time()
            for _ in range(50):
                await connect()
            return time.thread_time() - begun

        await cost(ours), await cost(plain)
        ratios = [await cost(ours) / await cost(plain) for _ in range(9)]
    assert statistics.median(ratios) <= 2, sorted(ratios)


# -- waits -----------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="others may answer later, even themselves")
async def test_a_server_on_this_machine_is_not_waited_for(anyio_backend: Any) -> None:
    """It has answered before it could be waited for, and no timeout needs to run."""
    waits: list[str] = []
    with threaded_server(lambda connection: connection.close()) as (port, _):
        for host in ("127.0.0.1", "localhost"):
            sock = await connecting.connect(host, port, Lookups(), lambda: waits.append(host))
            sock.close()
    assert waits == ["localhost"]  # which is looked up


async def test_a_server_that_takes_its_time_is_waited_for(anyio_backend: Any, full: int) -> None:
    """That is told once, before it."""
    waits: list[int] = []
    before = open_files()
    with anyio.move_on_after(0.01) as scope:
        await connecting.connect("127.0.0.1", full, Lookups(), lambda: waits.append(full))
    assert scope.cancelled_caught
    assert waits == [full]
    assert open_files() == before


@pytest.mark.parametrize(
    ("second", "waits"), [(0, 0), (errno.EISCONN, 0), (errno.EALREADY, 1), (errno.EINPROGRESS, 1)]
)
async def test_what_systems_say_to_who_asks_again(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch, second: int, waits: int
) -> None:
    """Connected, in whatever words, or not yet."""
    count = 0

    def waiting() -> None:
        nonlocal count
        count += 1

    with threaded_server(lambda connection: connection.close()) as (port, _):
        _answer_connects(monkeypatch, [errno.EINPROGRESS, second])
        (await connecting.connect("127.0.0.1", port, Lookups(), waiting)).close()
    assert count == waits


async def test_a_refusal_that_is_told_to_who_asks_again(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is the error; nothing is waited for, and nothing stays open."""
    with threaded_server(lambda connection: connection.close()) as (port, _):
        before = open_files()
        _answer_connects(monkeypatch, [errno.EINPROGRESS, errno.ECONNREFUSED])
        with pytest.raises(ConnectionRefusedError):
            await connecting.connect("127.0.0.1", port, Lookups(), pytest.fail)
        assert open_files() == before


def _answer_connects(monkeypatch: pytest.MonkeyPatch, codes: list[int]) -> None:
    """Let a connect be answered by each of these in turn, whatever it does."""

    class Socket(socket.socket):
        def connect_ex(self, address: Any, /) -> int:
            super().connect_ex(address)
            return codes.pop(0)

    monkeypatch.setattr(socket, "socket", Socket)


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost"])
async def test_addresses_and_names(anyio_backend: Any, host: str) -> None:
    """An address needs no lookup, a name has one."""
    async with FakeOllama(host="::1" if host == "::1" else "127.0.0.1") as fake:
        port = int(fake.url.rpartition(":")[2])
        bracketed = f"[{host}]" if ":" in host else host
        async with AsyncClient(f"http://{bracketed}:{port}") as client:
            assert (await client.version()).version
        assert bool(lookup.literal(host, port)) == (host != "localhost")


def test_a_zone_is_part_of_an_address(anyio_backend: Any) -> None:
    """An address of IPv6 with a zone names the interface."""
    name = socket.if_indextoname(1)
    ((family, address),) = lookup.literal(f"fe80::1%{name}", 80)
    assert family == socket.AF_INET6
    assert address[3] == 1


async def test_addresses_are_tried_in_turn(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one that answers is used; one that fails does not delay the next one."""
    async with FakeOllama() as fake:
        port = int(fake.url.rpartition(":")[2])
        dead = (socket.AF_INET6, ("::1", port, 0, 0))
        alive = (socket.AF_INET, ("127.0.0.1", port))

        def answer(host: str, _port: int, flags: int = 0) -> list[lookup.Address]:
            if flags:
                raise socket.gaierror(socket.EAI_NONAME, "a name")
            return [dead, alive]

        monkeypatch.setattr(lookup, "_addresses", answer)
        async with AsyncClient(f"http://two.example:{port}", trust_env=False) as client:
            begun = time.monotonic()
            with pytest.raises(
                OllamaError, match="Host or Origin"
            ):  # of a name that is not its own
                await client.version()
            assert time.monotonic() - begun < 5
        monkeypatch.setattr(
            lookup,
            "_addresses",
            lambda host, port, flags=0: [] if flags else [dead, (dead[0], ("::1", 1, 0, 0))],
        )
        async with AsyncClient("http://two.example:1", trust_env=False) as client:
            with pytest.raises(ConnectError, match="Connection refused"):
                await client.version()


def test_families_take_turns(anyio_backend: Any) -> None:
    """The resolver's first family first, then the other one, then in turn."""
    six = [(socket.AF_INET6, n) for n in range(4)]
    four = [(socket.AF_INET, n) for n in range(2)]
    assert connecting._interleaved([*six, *four]) == [
        six[0],
        four[0],
        six[1],
        four[1],
        six[2],
        six[3],
    ]
    assert connecting._interleaved(four) == four


# -- lookups ---------------------------------------------------------------------------------------


class SlowResolver:
    """Answers nothing for names that begin with `slow`, until it is let."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[str] = []
        self.let = threading.Event()
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, *args: Any, flags: int = 0, **kwargs: Any) -> Any:
            if isinstance(host, str) and host.endswith(".example") and not flags:
                self.asked.append(host)
                if host.startswith("slow"):
                    self.let.wait(3)
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return real(host, *args, flags=flags, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def lookups_running() -> int:
    return sum(thread.name == "ollama_sc lookup" for thread in threading.enumerate())


async def test_lookups_that_hang(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """200 calls to one host share one lookup; aborted they end at once, and disturb nobody."""
    resolver = SlowResolver(monkeypatch)
    ended = 0

    async def ask(client: AsyncClient) -> None:
        nonlocal ended
        with pytest.raises(AbortError):
            await client.version()
        ended += 1

    async with AsyncClient("http://slow.example", trust_env=False, timeout=60) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(ask, client)
            await until(lambda: bool(resolver.asked))
            await anyio.wait_all_tasks_blocked()
            begun = time.monotonic()
            assert client.abort() == 200
            await until(lambda: ended == 200)
            took = time.monotonic() - begun
        assert took < 2.5  # 200 of them; each takes milliseconds
        assert resolver.asked == ["slow.example"]
        assert lookups_running() == 1
        begun = time.monotonic()
        await anyio.to_thread.run_sync(lambda: None)
        assert time.monotonic() - begun < 1
        async with AsyncClient("http://other.example", trust_env=False) as other:
            with pytest.raises(ConnectError, match="not known"):
                await other.version()
        assert not resolver.let.is_set()
        await until(lambda: lookups_running() == 1)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1
    assert lookups_running() == 1
    resolver.let.set()
    await until(lambda: lookups_running() == 0)


async def test_at_most_four_threads(anyio_backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many hosts hang, four lookups run for the loop; a fifth waits, and can be aborted."""
    resolver = SlowResolver(monkeypatch)
    ended: list[str] = []

    scopes = [anyio.CancelScope() for _ in range(10)]

    async def ask(number: int) -> None:
        url = f"http://slow-{number}.example"
        async with AsyncClient(url, trust_env=False, timeout=60) as client:
            with scopes[number]:
                await client.version()
        ended.append(url)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(ask, number)
        await until(lambda: len(resolver.asked) == 4)
        await anyio.wait_all_tasks_blocked()
        assert lookups_running() == 4
        for scope in scopes:
            scope.cancel()
    assert len(ended) == 10
    assert len(resolver.asked) == 4
    resolver.let.set()
    await until(lambda: lookups_running() == 0)
    async with AsyncClient("http://fast.example", trust_env=False) as client:
        with pytest.raises(ConnectError):
            await client.version()


async def test_a_lookup_is_kept_no_longer_than_it_runs(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call looks the name up again."""
    resolver = SlowResolver(monkeypatch)
    async with AsyncClient("http://fast.example", trust_env=False) as client:
        for _ in range(3):
            with pytest.raises(ConnectError):
                await client.version()
    assert resolver.asked == ["fast.example"] * 3


async def test_who_joins_a_lookup_outlives_who_began_it(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first caller's cancellation does not end the lookup of the second."""
    resolver = SlowResolver(monkeypatch)
    async with AsyncClient("http://slow.example", trust_env=False, timeout=60) as client:
        async with anyio.create_task_group() as tasks:
            first = anyio.CancelScope()

            async def begin() -> None:
                with first:
                    await client.version()

            async def join() -> None:
                with pytest.raises(ConnectError, match="not known"):
                    await client.version()

            tasks.start_soon(begin)
            await until(lambda: bool(resolver.asked))
            tasks.start_soon(join)
            await anyio.wait_all_tasks_blocked()
            first.cancel()
            await anyio.wait_all_tasks_blocked()
            resolver.let.set()
    assert resolver.asked == ["slow.example"]


# -- last words ------------------------------------------------------------------------------------

TOO_LARGE = b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nmuch"


def refuse(secure: bool, linger: float) -> Callable[[socket.socket], None]:
    """Read the head of a request, answer 413, read no more, and reset the connection later."""

    def handle(connection: socket.socket) -> None:
        connection.settimeout(10)
        end = connection
        if secure:
            end = server_context().wrap_socket(connection, server_side=True)
        data = b""
        while b"\r\n\r\n" not in data:
            data += end.recv(1000)
        end.sendall(TOO_LARGE)
        time.sleep(linger)
        end.close()

    return handle


@pytest.mark.parametrize("size", [20_000, 60_000, 200_000, 5_000_000])
@pytest.mark.parametrize("linger", [0.0, 0.02], ids=["at once", "later"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_the_last_words_of_a_server_that_refuses_a_body(
    anyio_backend: Any, secure: bool, linger: float, size: int
) -> None:
    """A 413 that comes before the body was sent reaches the caller, whatever the write ran into."""
    scheme, options = ("https", {"verify": client_context()}) if secure else ("http", {})
    with threaded_server(refuse(secure, linger)) as (port, _):
        async with AsyncClient(f"{scheme}://127.0.0.1:{port}", **options) as client:
            heard = 0
            for _ in range(5):
                with pytest.raises(OllamaError) as caught:
                    await client.generate("m", "x" * size)
                heard += getattr(caught.value, "status_code", None) == 413
    # A reset on the way can overtake what was sent before it: that is the network's to lose.
    assert heard >= (5 if linger else 3), str(caught.value)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_refusal_while_the_buffers_are_small(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    """A small body that the kernel does not take at once is read beside, too: nothing hangs."""
    original = connecting._connect_one

    async def small(*address: Any) -> socket.socket:
        sock = await original(*address)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return sock

    monkeypatch.setattr(connecting, "_connect_one", small)
    scheme, options = ("https", {"verify": client_context()}) if secure else ("http", {})
    held: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        end = connection
        if secure:
            end = server_context().wrap_socket(connection, server_side=True)
        end.recv(10)
        end.sendall(TOO_LARGE)
        held.append(end)  # and neither reads on nor closes

    with threaded_server(handle) as (port, listener):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with AsyncClient(f"{scheme}://127.0.0.1:{port}", **options) as client:
            for size in (10_000, 40_000, 60_000):
                with anyio.fail_after(5), pytest.raises(OllamaError) as caught:
                    await client.generate("m", "x" * size)
                assert getattr(caught.value, "status_code", None) == 413, size
    for connection in held:
        connection.close()


async def test_the_alert_of_a_server_that_wants_a_certificate(anyio_backend: Any) -> None:
    """Over TLS 1.3 it comes after the client's handshake is done, and is what the error says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    from tests.wire import authority

    authority().issue_cert("127.0.0.1").configure_cert(context)
    authority().configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    def handle(connection: socket.socket) -> None:
        try:
            context.wrap_socket(connection, server_side=True)
        except (OSError, ssl.SSLError):
            pass
        connection.close()

    with threaded_server(handle) as (port, _):
        async with AsyncClient(f"https://127.0.0.1:{port}", verify=client_context()) as client:
            for body in ("x", "x" * 100_000):
                with pytest.raises(ConnectError, match="(?i)certificate.required"):
                    await client.generate("m", body)
