"""Ctrl-C and signal handlers, wherever a blocking call is."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.blocking.support import CHAT, MESSAGES, MODEL, is_idle, opened
from tests.embedding.support import Served, handling, wait_until
from tests.embedding.test_thread import interrupted_at

from ollama_sc import AbortError
from ollama_sc._worker import processes
from ollama_sc.blocking import Client
from ollama_sc.testing import Reply

Make = Callable[..., Client]


class Alarm(Exception):
    """What the handler of a signal raises."""


def raise_alarm(*_: Any) -> None:
    raise Alarm


HANDLERS = [(signal.SIGINT, signal.default_int_handler, KeyboardInterrupt)]
HANDLERS.append((signal.SIGUSR1, raise_alarm, Alarm))


@pytest.mark.parametrize(("number", "handler", "raised"), HANDLERS, ids=["Ctrl-C", "an exception"])
@pytest.mark.parametrize("what", ["reply", "headers", "part", "batch", "entering", "group"])
def test_an_interrupt_ends_the_request(
    server: Served, make: Make, what: str, number: int, handler: Any, raised: type[BaseException]
) -> None:
    """On the server, which sees its connection closed, before it leaves; the client goes on."""
    client = make(server)
    fake = server.fake
    if what == "part":
        fake.script(CHAT, Reply.chat_text("One two three").replace(stall_after=1))
    elif what == "batch":
        fake.script("/v1/embeddings", Reply.default(), Reply.default())
        fake.always("/v1/embeddings", Reply.silence())
    elif what == "entering":
        fake.always("/v1/embeddings", Reply.silence())
    else:
        fake.script(CHAT, Reply.silence())

    def work() -> None:
        if what == "part":
            stream = opened(client)
            streams.append(stream)
            reading.set()
            next(stream)
        elif what in ("batch", "entering"):
            with client.embed_many("all-minilm", ["a"] * 10, batch_size=1) as batches:
                next(batches)
                reading.set()
                list(batches)
        elif what == "group":
            with client.group() as group:
                group.chat(MODEL, MESSAGES)
        else:
            client.chat(MODEL, MESSAGES, stream=what == "headers")

    reading = threading.Event()
    streams: list[Any] = []

    def interrupt() -> None:
        if what in ("part", "batch"):
            reading.wait()
        for stream in streams:
            wait_until(lambda: stream._call._not_empty is not None)  # noqa: B023
        server.wait_for_requests(3 if what == "batch" else 1)
        send()

    with handling(number, handler) as send:
        other = threading.Thread(target=interrupt)
        other.start()
        with pytest.raises(raised):
            work()
        other.join()
    assert is_idle(client)
    asked = fake.requests[-1]
    server._portal.call(asked.wait_closed)
    assert asked.disconnected
    assert client.version()


@pytest.mark.parametrize("what", ["reply", "part"])
def test_a_signal_handler_can_abort(server: Served, make: Make, what: str) -> None:
    """The interrupted call gets `AbortError`, and the handler the number of requests."""
    silent = Reply.chat_text("One two").replace(stall_after=1)
    server.fake.script(CHAT, silent if what == "part" else Reply.silence())
    client = make(server)
    aborted: list[int] = []
    stream = opened(client) if what == "part" else None

    def interrupt() -> None:
        server.wait_for_requests(1)
        send()

    with handling(signal.SIGUSR1, lambda *_: aborted.append(client.abort("a signal"))) as send:
        other = threading.Thread(target=interrupt)
        other.start()
        with pytest.raises(AbortError, match="a signal"):
            list(stream) if stream is not None else client.chat(MODEL, MESSAGES)
        other.join()
    assert sum(aborted) == 1
    server.wait_all_closed()


def test_a_signal_handler_can_ask_and_close(server: Served, make: Make) -> None:
    """A call inside of a handler works while another one waits; closing ends that one."""
    server.fake.script(CHAT, Reply.silence())
    client = make(server)
    versions: list[Any] = []

    def handler(*_: Any) -> None:
        if not versions:
            versions.append(client.version())
        client.close()

    def interrupt() -> None:
        server.wait_for_requests(1)
        send()

    with handling(signal.SIGUSR1, handler) as send:
        other = threading.Thread(target=interrupt)
        other.start()
        with pytest.raises(AbortError, match="closed"):
            client.chat(MODEL, MESSAGES)
        other.join()
    assert len(versions) == 1


def test_a_second_interrupt_does_not_hang(
    server: Served, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the first one waits for the request's end, the second one leaves at once."""
    server.fake.script(CHAT, Reply.silence())
    client = make(server)
    client._open_worker()
    worker = client._worker
    assert worker is not None
    ended = threading.Event()
    abandon = worker._abandon
    held = threading.Event()

    def late(call: Any) -> None:  # the event loop is busy with something else
        held.set()
        assert ended.wait(20)
        abandon(call)

    monkeypatch.setattr(worker, "_abandon", late)

    def interrupt() -> None:
        server.wait_for_requests(1)
        send()
        held.wait()
        send()

    with handling(signal.SIGINT, signal.default_int_handler) as send:
        other = threading.Thread(target=interrupt)
        other.start()
        with pytest.raises(KeyboardInterrupt):
            client.chat(MODEL, MESSAGES)
        ended.set()
        other.join()
    wait_until(lambda: is_idle(client))
    server.wait_all_closed()


# -- at any point ----------------------------------------------------------------------------------


# One in the middle of `__del__` is shown, and a stream whose block was not entered is dropped.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("what", ["reply", "stream", "abort"])
def test_an_interrupt_at_any_point_leaves_it_usable(server: Served, make: Make, what: str) -> None:
    """Nothing that the event loop needs stays locked, and no request goes on."""
    client = make(server)
    client.version()

    def work() -> None:
        if what == "reply":
            client.version()
        elif what == "abort":
            client.abort()
        else:
            with client.chat(MODEL, MESSAGES, stream=True) as stream:
                for _ in stream:
                    break

    step = 1
    while interrupted_at(step, work):
        wait_until(lambda: is_idle(client))
        assert client.version()
        step += 1
    assert step > 10  # it went through all of a call


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
def test_an_interrupt_while_it_opens_leaves_it_usable(server: Served, make: Make) -> None:
    """Wherever it comes in the first call: the next one opens it, and one thread is there."""
    step = 1
    while True:
        client = make(server)
        came = interrupted_at(step, client.version)
        assert client.version()
        wait_until(lambda: is_idle(client))  # noqa: B023
        client.close()
        if not came:
            break
        step += 7  # each takes a thread
    assert step > 10
    assert not [one for one in processes._alive if one._worker and not one._worker.ended]


def test_a_stream_that_an_interrupt_left_can_be_read_by_no_other(
    server: Served, make: Make
) -> None:
    """It is over: iterating says so, in each thread."""
    server.fake.script(CHAT, Reply.chat_text("One two three").replace(stall_after=1))
    client = make(server)
    stream = opened(client)

    def interrupt() -> None:
        wait_until(lambda: stream._call._not_empty is not None)
        send()

    with handling(signal.SIGINT, signal.default_int_handler) as send:
        other = threading.Thread(target=interrupt)
        other.start()
        with pytest.raises(KeyboardInterrupt):
            next(stream)
        other.join()
    with pytest.raises(AbortError), ThreadPoolExecutor(1) as pool:
        pool.submit(next, stream).result()
    assert stream.result().text == "One"
