"""Blocking calls: what they ask, what they return and raise, from any thread."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import pytest
from tests.blocking.support import CHAT, MESSAGES, MODEL, is_idle, opened, threads
from tests.embedding.support import Served, serving, wait_until
from tests.support import LONG

import ollama_sc
from ollama_sc import AbortError, ClientClosedError, ConnectError, ModelNotFoundError, RequestError
from ollama_sc.blocking import Client
from ollama_sc.testing import Reply

Make = Callable[..., Client]


def test_every_kind_of_call(server: Served, make: Make) -> None:
    """One reply, a stream, parts as batches and as text, a raw request, a model that is missing."""
    with make(server) as client:
        assert client.version().version
        whole = client.chat(MODEL, MESSAGES)
        with client.chat(MODEL, MESSAGES, stream=True) as stream:
            assert "".join(part.text for part in stream) == whole.text
            assert list(stream) == []
        assert stream.result().text == whole.text
        assert stream.result().complete
        texts = client.generate(MODEL, "Hi", stream=True).iter_text()
        assert "".join(texts) == client.generate(MODEL, "Hi").text
        parts = [part for batch in client.pull(MODEL, stream=True).batches() for part in batch]
        assert parts[-1].status == "success"
        assert client.request("GET", "/api/tags", type=dict)["models"]
        assert client.has_model(MODEL)
        assert len(client.embed("all-minilm", ["a", "b"]).embeddings) == 2
        with pytest.raises(ModelNotFoundError) as caught:
            client.show("missing")
        assert caught.value.request == "POST /api/show, model 'missing'"
        with pytest.raises(RequestError, match="messages must be"):
            client.chat(MODEL, "Hi")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"chat\(\) got an unexpected .*'temprature'"):
            client.chat(MODEL, temprature=0)  # type: ignore[call-overload]
        assert client.statistics().in_flight == 0
    server.wait_all_closed()
    assert not threads()


def test_a_server_that_is_not_there(make: Make) -> None:
    """The same error as everywhere, which pickles and copies."""
    client = make("127.0.0.1:1")
    for _ in range(2):
        with pytest.raises(ConnectError, match="GET /api/version"):
            client.version()
    assert not client.is_running()


def test_without_with(server: Served, make: Make) -> None:
    """It opens at the first call, and `close` ends it, as often as one likes."""
    client = make(server)
    assert not threads()
    assert repr(client) == f"<Client {server.url}, idle>"
    assert client.abort() == 0
    assert client.statistics() == (0, 0, 0, 0, 0, 0)
    client.version()
    assert len(threads()) == 1
    assert repr(client) == f"<Client {server.url}, open, 0 requests>"
    with client:
        client.version()
    client.close()
    assert repr(client) == "<Client, closed>"
    for call in (client.version, client.group, lambda: client.embed_many("m", ["a"])):
        with pytest.raises(ClientClosedError, match="make another one"):
            call()
    assert client.abort() == 0
    server.wait_all_closed()


def test_wrong_settings_are_refused_at_once() -> None:
    """Before any thread starts, as `AsyncClient` refuses them."""
    with pytest.raises(RequestError, match="backend must be 'asyncio' or 'trio'"):
        Client(backend="curio")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="max_in_flight"):
        Client(max_in_flight=0)
    with pytest.raises(TypeError, match="'limits'.*max_in_flight"):
        Client(limits=httpx.Limits())  # type: ignore[call-arg]
    assert not threads()


def test_it_can_be_dropped(server: Served) -> None:
    """Its thread and its connections end when nobody holds it; a stream and a group hold it."""
    stream = opened(Client(server.url))
    group = Client(server.url).group()
    gc.collect()
    assert len(threads()) == 2
    assert "".join(part.text for part in stream)
    group.version()
    before = threads()
    del stream, group
    gc.collect()
    for thread in before:
        thread.join(10)
    server.wait_all_closed()


def test_a_stream_that_is_dropped_is_aborted(slow: Served, make: Make) -> None:
    """With a warning, once, that says `with`."""
    client = make(slow)
    stream = opened(client)
    with pytest.warns(ResourceWarning, match="use `with`") as caught:
        del stream
        gc.collect()
    assert len(caught) == 1
    slow.wait_all_closed()
    job = client.embed_many("all-minilm", (f"{n}" for n in range(10**9)))
    job.__enter__()
    with pytest.warns(ResourceWarning, match="use `with`") as caught:
        del job
        gc.collect()
    assert len(caught) == 1
    wait_until(lambda: is_idle(client))


def test_leaving_a_stream_ends_its_request(slow: Served, make: Make) -> None:
    """By `break`, by an exception, by `close`; iterating again raises."""
    client = make(slow)
    with client.chat(MODEL, MESSAGES, stream=True) as stream:
        for _ in stream:
            break
    slow.wait_all_closed()
    with pytest.raises(AbortError, match="was closed"):
        next(stream)
    assert stream.result().text
    assert "ended" in repr(stream)
    with pytest.raises(ZeroDivisionError), client.generate(MODEL, "Hi", stream=True) as stream:
        1 // 0
    slow.wait_all_closed()
    assert is_idle(client)


def test_a_slow_thread_slows_the_server(make: Make) -> None:
    """What waits is bounded, and all of it comes when the thread reads on."""
    with serving(tokens=20_000) as server:
        client = make(server)
        with client.generate(MODEL, "Hi", stream=True, options={"num_predict": 20_000}) as stream:
            wait_until(lambda: stream._call.holds_back)
            assert sum(len(parts) for parts, _ in stream._call._blocks) < 1024 + 2500
            assert sum(1 for _ in stream) == 20_001
        assert stream.result().complete


# -- many threads ----------------------------------------------------------------------------------


def test_a_thousand_threads_share_a_client(server: Served, make: Make) -> None:
    """Each gets its own reply, whole; nothing is left."""
    client = make(server, max_in_flight=50)
    count = 1000 if LONG or client._backend == "asyncio" else 100
    started = threading.Barrier(count)

    def ask(number: int) -> bool:
        started.wait(30)
        if number % 2:
            return client.embed("all-minilm", f"text {number}").embeddings[0] is not None
        with client.chat(MODEL, [{"role": "user", "content": f"{number}"}], stream=True) as stream:
            list(stream)
        return stream.result().complete

    with ThreadPoolExecutor(count) as pool:
        assert all(pool.map(ask, range(count)))
    assert len(server.fake.requests) == count
    assert is_idle(client)


def test_two_threads_on_one_stream(make: Make) -> None:
    """The second one gets an error that says so; the first one goes on, and so may another one later."""
    with serving() as server:
        server.fake.script(CHAT, Reply.chat_text("One two three").replace(stall_after=1))
        client = make(server)
        stream = opened(client)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(next, stream)
            while stream._call._not_empty is None:
                pass
            for attempt in (lambda: next(stream), lambda: next(stream.batches())):
                with pytest.raises(RequestError, match="another thread is iterating"):
                    attempt()
            stream.abort("enough")
            with pytest.raises(AbortError, match="enough"):
                waiting.result()
        with pytest.raises(AbortError, match="enough"):
            next(stream)


def test_threads_may_take_turns_on_a_stream(server: Served, make: Make) -> None:
    """One opens it, another one reads on, a third one closes it."""
    client = make(server)
    with ThreadPoolExecutor(1) as pool:
        stream = pool.submit(opened, client).result()
        next(stream)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(stream.close).result()


# -- abort -----------------------------------------------------------------------------------------


def test_abort_from_another_thread(slow: Served, make: Make) -> None:
    """It ends what waits and what streams, and says how many; the client goes on."""
    slow.fake.script("/api/generate", Reply.silence())
    client = make(slow)
    stream = opened(client)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.generate, MODEL, "Hi")
        slow.wait_for_requests(2)
        assert client.statistics().in_flight == 2
        assert client.abort("the user left") == 2
        with pytest.raises(AbortError, match="the user left") as caught:
            waiting.result()
        assert caught.value.reason == "the user left"
    with pytest.raises(AbortError, match="the user left"):
        list(stream)
    slow.wait_all_closed()
    assert client.version()
    assert stream.abort() is False


def test_an_abort_discards_what_waits(server: Served, make: Make) -> None:
    """Parts that had arrived and were not taken are not delivered, however the threads meet."""
    server.fake.always(CHAT, Reply.chat_text(["x", "y"] * 25).replace(stall_after=40))
    client = make(server)
    for _ in range(20):
        stream = opened(client)
        with ThreadPoolExecutor(1) as pool:
            taken = pool.submit(list, stream)
            assert stream.abort("enough")
            with pytest.raises(AbortError):
                taken.result()
        with pytest.raises(AbortError):
            next(stream)


def test_closing_ends_the_calls_of_other_threads(slow: Served, make: Make) -> None:
    """They get `AbortError`, wherever they wait."""
    slow.fake.script("/api/generate", Reply.silence())
    client = make(slow)
    stream = opened(client)
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(client.generate, MODEL, "Hi")
        reading = pool.submit(list, stream)
        slow.wait_for_requests(2)
        client.close()
        for outcome in (waiting, reading):
            with pytest.raises(AbortError, match="closed"):
                outcome.result()
    slow.wait_all_closed()
    stream.close()
    assert stream.abort() is False


def test_groups(slow: Served, make: Make) -> None:
    """A group's abort reaches its own requests; the client's reaches them; leaving it ends them."""
    client = make(slow)
    outer = opened(client)
    with client.group() as group:
        inner = opened(group)  # type: ignore[arg-type]
        with group.group() as below:
            assert below.version()
            assert repr(group) == "<Group of a client, open, 1 requests>"
            assert group.abort("enough") == 1
        with pytest.raises(AbortError, match="enough"):
            list(inner)
        inner = opened(group)  # type: ignore[arg-type]
        assert group.statistics().in_flight == 1
    with pytest.raises(AbortError, match="group closed"):
        list(inner)
    next(outer)
    with pytest.raises(ClientClosedError, match="the group is closed"):
        group.version()
    group.close()
    client.close()
    with pytest.raises(ClientClosedError, match="client was closed"):
        group.version()
    assert (group.abort(), group.statistics().in_flight) == (0, 0)
    with pytest.raises(AbortError):
        list(outer)


def test_shutdown(slow: Served, make: Make) -> None:
    """It ends what does not end by itself, and lets nothing new in."""
    client = make(slow)
    stream = opened(client)
    assert client.shutdown(0) == 1
    with pytest.raises(AbortError):
        list(stream)
    with pytest.raises(ClientClosedError, match="shut down"):
        client.version()


# -- inside of event loops -------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_in_a_running_event_loop(make: Make, anyio_backend: str) -> None:
    """A blocking call works there, and blocks it, whichever loop is behind the client."""
    with serving() as server:
        client = make(server)
        async with ollama_sc.AsyncClient(server.url) as other:
            await other.version()
            assert client.chat(MODEL, MESSAGES).text
            assert "".join(client.generate(MODEL, "Hi", stream=True).iter_text())
            await anyio.lowlevel.checkpoint()
            assert await anyio.to_thread.run_sync(lambda: client.version().version)


def test_in_its_own_event_loop(server: Served, make: Make) -> None:
    """A hook gets an error that says so, and can abort, close and look."""
    seen: list[Any] = []
    streams: list[Any] = []

    async def hook(_: Any) -> None:
        for stream in streams:
            seen.append(stream.abort())
            stream.close()
        for call in (client.version, client.group):
            with pytest.raises(RequestError, match="in its own event loop"):
                call()
        seen.append(client.statistics().in_flight)
        seen.append(client.abort("by a hook"))

    client = make(server, event_hooks={"response": [hook]})
    with pytest.raises(AbortError, match="by a hook"):
        client.version()
    assert seen == [1, 1]
    assert is_idle(client)


# -- jobs ------------------------------------------------------------------------------------------


def test_jobs(server: Served, make: Make) -> None:
    """Batches in order, an array, and progress in numbers."""
    client = make(server)
    texts = [f"text {number}" for number in range(150)]
    with client.embed_many("all-minilm", texts, batch_size=50) as batches:
        assert batches.dimensions == 8
        found = [batch.start for batch in batches]
        assert list(batches) == []
        assert batches.progress.texts == batches.progress.total == 150
        assert batches.max_in_flight == (4,)
    assert found == [0, 50, 100]
    assert client.embed_array("all-minilm", iter(texts)).shape == (150, 8)
    job = client.embed_many("all-minilm", texts)
    assert repr(job) == "<Batches of a job that was not entered>"
    for attempt in (lambda: next(job), job.abort, job.close, lambda: job.progress):
        with pytest.raises(RequestError, match="inside of `with"):
            attempt()
    with pytest.raises(RequestError, match="texts must be many"):
        client.embed_many("all-minilm", "one")
    with pytest.raises(ModelNotFoundError), client.embed_many("missing", texts):
        pass
    with client.embed_many("all-minilm", texts) as batches:
        assert batches.abort("enough")
        with pytest.raises(AbortError, match="enough"):
            list(batches)
    assert is_idle(client)


def test_a_generator_of_texts_may_ask_the_same_client(server: Served, make: Make) -> None:
    """It is read in a thread, no further than the next batch, and closed with the job."""
    client = make(server)
    read: list[int] = []
    closed = threading.Event()

    def texts() -> Iterator[str]:
        try:
            for number in range(10**9):
                read.append(number)
                yield client.generate(MODEL, f"{number}").text
        finally:
            closed.set()

    with client.embed_many("all-minilm", texts(), batch_size=3, max_in_flight=1) as batches:
        assert next(batches).start == 0
        assert next(batches).start == 3
    assert closed.wait(10)
    assert len(read) < 50


def test_a_generator_that_waits_holds_nobody_up(server: Served, make: Make) -> None:
    """Full batches go out meanwhile, other calls are answered, and the job can be ended."""
    client = make(server)
    go_on = threading.Event()

    def texts() -> Iterator[str]:
        yield from ("a", "b")
        go_on.wait(30)
        yield "c"

    with client.embed_many("all-minilm", texts(), batch_size=2) as batches:
        assert next(batches).inputs == ["a", "b"]
        assert client.version()
    go_on.set()
    with client.embed_many("all-minilm", texts(), batch_size=2) as batches:
        assert [batch.inputs for batch in batches] == [["a", "b"], ["c"]]


class Texts:
    """Two texts, and then an error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.left = iter("ab")

    def __iter__(self) -> Texts:
        return self

    def __next__(self) -> str:
        for text in self.left:
            return text
        raise self.error


def test_what_the_texts_raise(server: Served, make: Make) -> None:
    """It leaves as it is, after the batches that were ready; what ends the program ends the client's loop."""
    client = make(server)
    found = []
    job = client.embed_many("all-minilm", Texts(OSError("no more")), batch_size=2)
    with job as batches, pytest.raises(OSError, match="no more"):
        for batch in batches:
            found.append(batch.inputs)
    assert found in ([], [["a", "b"]])  # it may be in flight still
    with client.embed_many("all-minilm", Texts(StopIteration()), batch_size=2) as batches:
        assert [batch.inputs for batch in batches] == [["a", "b"]]
    with (
        pytest.raises((SystemExit, AbortError)),  # entering it may be what is aborted
        client.embed_many("all-minilm", Texts(SystemExit(3))) as batches,
    ):
        list(batches)
    assert client.version()
