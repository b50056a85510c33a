"""An embedder's thread: how it starts and ends, and calls that are closed or interrupted."""

from __future__ import annotations

import dis
import gc
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.embedding.support import (
    MODEL,
    QUICK,
    Gate,
    Served,
    handling,
    in_flight,
    serving,
    texts,
    threads,
    wait_until,
)

from ollama_sc import AbortError, AsyncClient, ClientClosedError
from ollama_sc.embedding import Embedder
from ollama_sc.testing import Reply


def test_closing_leaves_nothing(server: Served, make: Callable[..., Embedder]) -> None:
    """No thread and no connection; calls are refused then, and closing again does nothing."""
    with make(server) as embed:
        embed(texts(3))
        assert len(threads()) == 1
        assert repr(embed) == "<Embedder of 'nomic-embed-text' at 1 server, open>"
    assert not threads()
    server.wait_all_closed()
    embed.close()
    assert "closed" in repr(embed)
    for batch in (["a"], []):
        with pytest.raises(ClientClosedError, match="make another one"):
            embed(batch)


def test_one_that_was_never_called_has_nothing_to_close(make: Callable[..., Embedder]) -> None:
    """It has no thread; it can be closed, and then not be called."""
    embed = make("127.0.0.1:1")
    assert not threads()
    assert "idle" in repr(embed)
    embed.close()
    with pytest.raises(ClientClosedError):
        embed(["a"])


@pytest.mark.parametrize("answered", [0, 1])
def test_closing_ends_the_calls_of_other_threads(
    server: Served, make: Callable[..., Embedder], answered: int
) -> None:
    """They get `AbortError`, in the warm-up and after it."""
    server.fake.script(QUICK, *[Reply.default()] * answered)
    server.fake.always(QUICK, Reply.default(stall_at=0))
    embed = make(server)
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(embed, ["a"])
        server.wait_for_requests(answered + 1)
        embed.close()
        with pytest.raises(AbortError, match="the embedder was closed"):
            outcome.result()
    server.wait_all_closed()


@pytest.mark.parametrize("first", ["close", "wake"])
def test_closing_while_a_call_begins_ends_it(
    server: Served, make: Callable[..., Embedder], first: str
) -> None:
    """It gets `AbortError`, whether the event loop still heard of it or was gone already."""
    embed = make(server)
    embed(["a"])
    server.fake.always(QUICK, Reply.default(stall_at=0))
    worker = embed._open_worker()
    schedule = worker._schedule
    assert schedule is not None

    def close_meanwhile(function: Callable[[], object]) -> None:
        worker._schedule = schedule
        if first == "wake":
            schedule(function)
        embed.close()
        if first == "close":
            schedule(function)

    worker._schedule = close_meanwhile
    with pytest.raises(AbortError, match="the embedder was closed"):
        embed(["a"])
    assert not worker._pending
    with pytest.raises(ClientClosedError):
        embed(["a"])
    server.wait_all_closed()


@pytest.mark.parametrize("moment", ["makes clients", "waits"])
def test_a_signals_handler_can_close_it_in_its_first_call(
    server: Served, make: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Nothing that `close` needs is held by the thread that it interrupts."""
    server.fake.always(QUICK, Reply.default(stall_at=0))
    embed = make(server)
    if moment == "makes clients":
        embed._clients = None

        def interrupted() -> list[AsyncClient]:
            embed.close()
            return []

        monkeypatch.setattr(embed, "_make_clients", interrupted)
        with pytest.raises(ClientClosedError):
            embed(["a"])
        return

    def interrupt() -> None:
        server.wait_for_requests(1)
        send()

    with (
        handling(signal.SIGUSR1, lambda *_: embed.close()) as send,
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(interrupt)
        with pytest.raises(AbortError, match="the embedder was closed"):
            embed(["a"])


def test_a_signals_handler_can_close_it_while_the_loop_is_woken(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """The interrupted thread may hold a lock of the event loop's: `close` does not wait for it then."""
    embed = make(server)
    embed(["a"])
    worker = embed._worker
    assert worker is not None
    schedule = worker._schedule
    assert schedule is not None
    queue = getattr(getattr(schedule, "__self__", None), "_reentry_queue", None)
    lock = threading.RLock() if queue is None else queue.lock  # trio's

    def interrupted(function: Callable[[], object]) -> object:
        worker._schedule = schedule
        with lock:
            embed.close()
        return schedule(function)

    worker._schedule = interrupted
    worker._wake()
    worker._thread.join(10)
    assert not worker._thread.is_alive()


def test_one_that_cannot_start_says_why_and_can_try_again(
    server: Served, make: Callable[..., Embedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits gets the reason; the next call starts afresh."""
    embed = make(server)
    with monkeypatch.context() as patched, ThreadPoolExecutor(2) as pool:

        async def broken(self: AsyncClient) -> AsyncClient:
            raise OSError("no more files")

        patched.setattr(AsyncClient, "__aenter__", broken)
        outcomes = [pool.submit(embed, ["a"]) for _ in range(2)]
        for outcome in outcomes:
            with pytest.raises(OSError, match="no more files"):
                outcome.result()
    assert embed(["a"]).shape == (1, 8)


def test_it_can_be_closed_from_its_own_thread(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """Where it cannot wait for itself: what runs ends all the same."""
    embed = make(server, batch_size=1, on_progress=lambda _: embed.close())
    with pytest.raises(AbortError):
        embed(texts(10))
    with pytest.raises(ClientClosedError):
        embed(["a"])
    server.wait_all_closed()
    embed.close()  # which waits


def test_one_that_is_dropped_ends(server: Served, make: Callable[..., Embedder]) -> None:
    """Its thread does, and its connections close, though nobody closed it."""
    embed = Embedder(MODEL, server.url, backend=make("127.0.0.1:1")._backend)  # type: ignore[arg-type]
    embed(["a"])
    (thread,) = threads()
    del embed
    gc.collect()
    thread.join()
    server.wait_all_closed()


# -- interrupts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("answered", [0, 1])
def test_an_interrupt_ends_the_requests(
    server: Served, make: Callable[..., Embedder], answered: int
) -> None:
    """It leaves as itself when they are gone, in the warm-up and after it; the next call works."""
    server.fake.script(QUICK, *[Reply.default()] * answered, *[Reply.default(stall_at=0)] * 4)
    embed = make(server, batch_size=1)

    def interrupt() -> None:
        server.wait_for_requests(answered * 5 or 1)
        send()

    with handling(signal.SIGINT, signal.default_int_handler) as send:
        other = threading.Thread(target=interrupt)
        other.start()
        with pytest.raises(KeyboardInterrupt):
            embed(texts(4))
        other.join()
    assert embed._worker is not None
    assert all(not any(client._calls.calls()) for client in embed._worker._clients)
    assert in_flight(embed) == [0]
    server.wait_all_closed()
    server.fake._serving.scripts.clear()
    assert embed(texts(4)).shape == (4, 8)


def test_an_interrupt_of_one_call_does_not_end_another(
    make: Callable[..., Embedder],
) -> None:
    """Nor the warm-up that the other one waits for too."""
    gate = Gate()
    with (
        serving(embed_error=gate) as server,
        handling(signal.SIGINT, signal.default_int_handler) as send,
        ThreadPoolExecutor(2) as pool,
    ):
        embed = make(server)
        embed._open_worker()

        def interrupt() -> None:
            wait_until(lambda: embed._worker._running_jobs == 2)  # type: ignore[union-attr]
            send()

        outcome = pool.submit(embed, texts(4))
        interrupted = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            embed(texts(4))
        interrupted.result()
        gate.open.set()
        assert outcome.result().shape == (4, 8)
        assert server.warm_ups() == 1


def interrupted_at(step: int, work: Callable[[], Any]) -> bool:
    """Do some work, and interrupt it at that step of this thread's bytecode; if it gets so far.

    Steps are where Python looks for signals: after calls, where functions begin, where loops do.
    """
    left = step
    before = sys.gettrace()
    last: dict[Any, str] = {}  # by frame: the operation that is done

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode":
            done = last.get(frame, "")
            last[frame] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            left -= done.startswith(("CALL", "RESUME", "JUMP_BACKWARD"))
            if left == 0:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_an_interrupt_at_any_point_leaves_it_usable(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """Nothing that the event loop needs stays locked, and no place stays taken."""
    embed = make(server)
    call = embed._open_worker().embed
    call(["a"])
    step = 1
    while interrupted_at(step, lambda: call(["a"])):
        assert call(["a"]).shape == (1, 8)
        assert in_flight(embed) == [0]
        step += 1
    assert step > 10  # it went through all of a call
