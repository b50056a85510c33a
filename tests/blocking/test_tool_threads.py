"""Tools in threads, without an event loop: what they may call, and who waits for them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.from_thread
import pytest
from tests.blocking.support import CHAT, MESSAGES, MODEL, is_idle
from tests.blocking.test_tool_runs import QWEN, Waits, opened
from tests.embedding.support import Served, handling, wait_until

from ollama_sc import AbortError, AsyncClient, ClientClosedError, RequestError, Tool
from ollama_sc._tools import threads
from ollama_sc.blocking import Client
from ollama_sc.testing import FakeOllama, Reply
from tests.tools.support import USER, answer, calls
from tests.tools.test_threads import Blocking

Make = Callable[..., Client]
GENERATE = "/api/generate"


@pytest.fixture
def block() -> Iterator[Blocking]:
    found = Blocking()
    yield found
    found.go.set()


class Asks:
    """A tool that asks a client, for something that is not answered, and notes what comes of it."""

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.ask = ask
        self.began = threading.Event()
        self.errors: list[BaseException] = []

    def __call__(self) -> str:
        """Ask."""
        self.began.set()
        try:
            self.ask()
        except Exception as error:
            self.errors.append(error)
            raise
        return "asked"


WAYS = ["reply", "stream", "batches", "run", "another client"]


def asking(how: str, client: Client, other: Client, server: Served) -> Asks:
    """A tool that waits for a silent server, in one of the ways in which one can."""
    fake = server.fake
    stalled = Reply.chat_text(["One ", "two"]).replace(stall_after=1)
    fake.script(GENERATE, stalled if how == "stream" else Reply.silence())
    waits = Waits()

    def ask() -> None:
        if how == "stream":
            with client.generate(MODEL, "Hi", stream=True) as stream:
                list(stream)
        elif how == "batches":
            with client.embed_many("all-minilm", iter(str, None)) as batches:
                while True:
                    next(batches)
        elif how == "run":
            fake.script(CHAT, calls(("Waits", {})))
            with client.run_tools(QWEN, [USER], [waits], stream=True) as stream_:
                list(stream_)
        else:
            (other if how == "another client" else client).generate(MODEL, "Hi")

    return Asks(ask)


# -- what tools may call ---------------------------------------------------------------------------


def test_a_tool_asks_its_own_client(server: Served, make: Make) -> None:
    """Also where there is one place; its requests are parts of the run, and are not counted twice."""
    client = make(server, max_in_flight=1)

    def inner() -> str:
        return client.chat(MODEL, MESSAGES).text

    server.fake.script(CHAT, calls(("inner", {})), answer("Inner."), answer("Outer."))
    run = client.run_tools(QWEN, [USER], [inner])
    assert (run.calls[0].result, run.text) == ("Inner.", "Outer.")

    asks = asking("reply", client, client, server)
    server.fake.script(CHAT, calls(("Asks", {})))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.run_tools, QWEN, [USER], [asks])
        server.wait_for_requests(5)
        assert client.statistics().in_flight == 1
        assert client.abort("enough") == 1
        with pytest.raises(AbortError, match="enough"):
            running.result(20)
    assert len(asks.errors) == 1
    assert is_idle(client)


def test_a_tool_asks_another_client(server: Served, make: Make) -> None:
    """What that one aborts it counts, and the run hears of it as of any exception."""
    client, other = make(server), make(server)
    asks = asking("another client", client, other, server)
    server.fake.script(CHAT, calls(("Asks", {})))
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.run_tools, QWEN, [USER], [asks])
        server.wait_for_requests(2)
        assert other.abort("by the other") == 1
        with pytest.raises(AbortError, match="by the other"):
            running.result(20)
    assert is_idle(client)
    assert is_idle(other)


def test_an_asynchronous_tool_cannot_block_its_loop(server: Served, make: Make) -> None:
    """A blocking call in it is an error that says so; an abort and a look are none."""
    seen: list[Any] = []
    client = make(server)

    async def asks() -> None:
        with pytest.raises(RequestError, match="asynchronous tools"):
            client.chat(MODEL, MESSAGES)
        seen.append(client.statistics().in_flight)
        seen.append(client.abort("by a tool"))
        await anyio.lowlevel.checkpoint()

    server.fake.script(CHAT, calls(("asks", {})))
    with pytest.raises(AbortError, match="by a tool"):
        client.run_tools(QWEN, [USER], [asks])
    assert seen == [0, 1]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["thread", "loop"])
@pytest.mark.parametrize("what", ["client", "group", "stream", "shutdown", "abort"])
def test_a_tool_ends_its_own_run(server: Served, make: Make, what: str, asynchronous: bool) -> None:
    """It waits for nothing that waits for it; what was closed is closed."""
    client = make(server)
    group = client.group()
    streams: list[Any] = []
    opened_ = threading.Event()

    def leave() -> None:
        opened_.wait(10)
        if what == "shutdown":
            client.shutdown(0)
        elif what == "abort":
            streams[0].abort()
        else:
            {"client": client, "group": group, "stream": streams[0]}[what].close()

    async def leave_later() -> None:
        while not opened_.is_set():
            await anyio.sleep(0.001)
        if what != "shutdown":
            leave()
        else:
            client.close()

    tool = Tool.of(leave_later if asynchronous else leave, name="leave")
    server.fake.script(CHAT, calls(("leave", {})))
    with group.run_tools(QWEN, [USER], [tool], stream=True) as stream:
        streams.append(stream)
        opened_.set()
        with pytest.raises(AbortError):
            list(stream)
    if what in ("client", "shutdown"):
        with pytest.raises(ClientClosedError):
            client.version()
    else:
        assert client.version()
    client.close()


# -- who waits for them, and for what --------------------------------------------------------------


@pytest.mark.parametrize("how", ["abort", "close", "group", "stream", "shutdown"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_thread_is_waited_for(
    server: Served,
    make: Make,
    block: Blocking,
    how: str,
    stream: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By whoever ends the run, for longer than other calls are; there is a warning meanwhile."""
    for place in ("_calls.call", "_calls.group", "_client", "_worker.thread"):
        monkeypatch.setattr(f"ollama_sc.{place}.CLEANUP_SECONDS", 0.01)
    late = threading.Event()
    monkeypatch.setattr(threads, "LATE_SECONDS", 0.01)
    monkeypatch.setattr(threads.warnings, "warn", lambda *_, **__: late.set())
    server.fake.script(CHAT, calls(("Blocking", {})))
    client = make(server)
    group = client.group()
    running = opened(group, block) if stream else None
    if how == "stream" and running is None:
        return

    def let_go() -> None:
        assert late.wait(10)
        assert not block.ended.is_set()
        block.go.set()

    with ThreadPoolExecutor(2) as pool:
        work = running.__next__ if running else lambda: group.run_tools(QWEN, [USER], [block])
        outcome = pool.submit(work)
        assert block.began.wait(10)
        going = pool.submit(let_go)
        if how == "abort":
            client.abort()
        elif how == "shutdown":
            client.shutdown(0)
        else:
            {"close": client, "group": group, "stream": running}[how].close()  # type: ignore[union-attr]
        assert how == "abort" or block.ended.is_set()
        with pytest.raises(AbortError):
            outcome.result(20)
        going.result(20)
        if running is not None:
            running.close()
    assert block.ended.is_set()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("how", ["stream", "close", "interrupt"])
def test_what_a_tool_waits_for_is_given_up(server: Served, make: Make, way: str, how: str) -> None:
    """Its thread ends with the run, at once: it waits for nothing that nobody wants any more."""
    client, other = make(server), make(server)
    asks = asking(way, client, other, server)
    server.fake.script(CHAT, calls(("Asks", {})))
    requests = 3 if way == "batches" else 2
    if how == "interrupt":

        def interrupt() -> None:
            server.wait_for_requests(requests)
            send()

        with handling(signal.SIGINT, signal.default_int_handler) as send:
            sender = threading.Thread(target=interrupt)
            sender.start()
            with pytest.raises(KeyboardInterrupt):
                client.run_tools(QWEN, [USER], [asks])
            sender.join()
    else:
        stream = opened(client, asks)
        server.wait_for_requests(requests)
        if how == "stream":
            stream.close()
        else:
            client.close()
        with pytest.raises(AbortError):
            next(stream)
    (error,) = asks.errors
    assert isinstance(error, (AbortError, ClientClosedError) if how == "close" else AbortError)
    assert how == "close" or "cancelled" in str(error) or "aborted" in str(error)
    assert is_idle(client)
    assert is_idle(other)


def test_a_thread_can_ask_whether_it_should_end(server: Served, make: Make) -> None:
    """`check_cancelled` raises in it once the run has ended."""
    ended = threading.Event()

    def asks() -> None:
        try:
            while not ended.wait(0.001):
                anyio.from_thread.check_cancelled()
        finally:
            ended.set()

    server.fake.script(CHAT, calls(("asks", {})))
    with opened(make(server), asks):
        pass
    assert ended.is_set()


def test_an_abandoned_thread_is_left_alone(server: Served, make: Make, block: Blocking) -> None:
    """Nobody waits for it; what it asks then is answered."""
    client = make(server)
    versions: list[str] = []
    done = threading.Event()

    def slow() -> None:
        block()
        versions.append(client.version().version)
        done.set()

    server.fake.script(CHAT, calls(("slow", {})))
    with opened(client, Tool.of(slow, abandon=True)):
        assert block.began.wait(10)
    assert not block.ended.is_set()
    block.go.set()
    assert done.wait(10)
    assert len(versions) == 1


# -- interrupts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["thread", "loop", "approve"])
@pytest.mark.parametrize("stream", [False, True])
def test_ctrl_c_during_a_tool(
    server: Served, make: Make, block: Blocking, tool: str, stream: bool
) -> None:
    """It leaves when the tool has ended: an asynchronous one is cancelled, a thread waited for."""
    waits = Waits()
    given: Any = block if tool == "thread" else waits
    approve = (lambda _: block()) if tool == "approve" else None
    server.fake.script(CHAT, calls((type(given).__name__, {})))
    client = make(server)
    cancelled = threading.Event()

    def interrupt() -> None:
        assert (waits if tool == "loop" else block).began.wait(10)
        send()
        assert client._worker is not None
        worker, ended = client._worker, False
        while tool != "loop" and not ended:  # until it is noticed
            ended = worker.call_now(
                lambda: all(call._scope.cancel_called for call in worker.client._calls.calls()),
                otherwise=True,
            )
        cancelled.set()
        block.go.set()

    def work() -> None:
        if stream:
            with client.run_tools(QWEN, [USER], [given], stream=True, approve=approve) as events:
                list(events)
        else:
            client.run_tools(QWEN, [USER], [given], approve=approve)

    with handling(signal.SIGINT, signal.default_int_handler) as send:
        sender = threading.Thread(target=interrupt)
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            work()
        if stream or tool == "loop":  # it can come just when the stream is handed over
            assert (waits if tool == "loop" else block).ended.wait(10)
        else:
            assert block.ended.is_set()
        sender.join()
    assert cancelled.is_set()
    wait_until(lambda: is_idle(client))
    assert client.version()


def test_a_second_ctrl_c_does_not_wait(server: Served, make: Make, block: Blocking) -> None:
    """It leaves the thread to the client, which waits for it when it is closed."""
    server.fake.script(CHAT, calls(("Blocking", {})))
    client = make(server)

    def interrupt() -> None:
        assert block.began.wait(10)
        send()
        worker = client._worker
        assert worker is not None
        while not all(call.abandoned for call in tuple(worker._running)):
            pass
        send()

    with handling(signal.SIGINT, signal.default_int_handler) as send:
        sender = threading.Thread(target=interrupt)
        sender.start()
        with pytest.raises(KeyboardInterrupt):
            client.run_tools(QWEN, [USER], [block])
        sender.join()
    assert not block.ended.is_set()
    assert client.version()
    closing = threading.Thread(target=client.close)
    closing.start()
    block.go.set()
    closing.join(20)
    assert block.ended.is_set()
