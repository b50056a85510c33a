"""The fake in a thread of its own, used from other threads and other event loops."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from ollama_sc import AsyncClient
from ollama_sc.testing import FakeModel, FakeOllama, Reply
from ollama_sc.testing._http.shared import SharedEvent
from tests.support import MESSAGES

CHAT = {"model": "llama3.2", "messages": MESSAGES, "stream": False}


def ask(fake: FakeOllama, path: str = "/api/chat", json: Any = CHAT) -> httpx.Response:
    with httpx.Client(base_url=fake.url, trust_env=False, timeout=20) as http:
        return http.post(path, json=json)


# -- without an event loop -------------------------------------------------------------------------


def test_a_plain_program_can_use_all_of_it() -> None:
    """Requests, scripts, models and loaded models, with no event loop anywhere."""
    with FakeOllama(tokens=3) as fake:
        fake.script("/api/chat", Reply.busy(), Reply.chat_text("Well."))
        fake.always("/api/embed", Reply.error(400, "no"))
        assert [ask(fake).status_code for _ in range(2)] == [503, 200]
        assert ask(fake, "/api/embed", {"model": "all-minilm", "input": "x"}).status_code == 400
        fake.always("/api/embed", None)
        fake.models.add("house-model")
        del fake.models["qwen3"]
        assert ask(fake, "/api/chat", CHAT | {"model": "qwen3"}).status_code == 404
        assert ask(fake, "/api/chat", CHAT | {"model": "house-model"}).status_code == 200
        assert sorted(loaded.name for loaded in fake.loaded) == [
            "house-model:latest",
            "llama3.2:latest",
        ]
        fake.call(fake.wait_for_requests, 5)
        fake.call(fake.requests[-1].wait_finished)
        fake.call(fake.wait_all_closed)
        assert fake.requests[0].json == CHAT
        url = fake.url
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_call_has_a_limit() -> None:
    """What does not happen is a TimeoutError that says what did."""
    with FakeOllama() as fake:
        ask(fake)
        with pytest.raises(TimeoutError, match=r"wait_for_requests .* POST /api/chat$"):
            fake.call(fake.wait_for_requests, 2, timeout=0.05)
        with pytest.raises(TimeoutError, match="timeout"):  # its own, not the limit's
            fake.call(raising, TimeoutError("a timeout"))
        assert fake.call(anyio.sleep, 0) is None


async def raising(error: Exception) -> None:
    raise error


def test_an_exception_leaves_as_itself() -> None:
    """In no group, and the thread ends; one of the fake's own is raised where there is no other."""
    threads = threading.active_count()
    with pytest.raises(KeyError, match="mine"):
        with FakeOllama() as fake:
            ask(fake)
            raise KeyError("mine")
    with pytest.raises(ZeroDivisionError):
        with FakeOllama(embed_error=lambda text: 1 // 0) as fake:
            assert ask(fake, "/api/embed", {"model": "a", "input": "x"}).status_code in (404, 500)
            ask(fake, "/api/embed", {"model": "all-minilm", "input": "x"})
    assert threading.active_count() == threads


def test_a_port_that_is_taken() -> None:
    """The error is the system's, and the thread has ended."""
    threads = threading.active_count()
    with FakeOllama() as fake:
        with pytest.raises(OSError, match="in use"):
            with FakeOllama(port=fake.port):
                pass
    assert threading.active_count() == threads


def test_it_can_be_used_again() -> None:
    """A fake that has ended starts again, at the same port."""
    fake = FakeOllama()
    with fake:
        url = fake.url
        ask(fake)
    with fake:
        assert fake.url == url
        ask(fake)
    assert len(fake.requests) == 2


def test_one_that_runs_does_not_start_again() -> None:
    """It says so, and goes on; one that has not started has no address yet."""
    fake = FakeOllama()
    assert "without a port" in repr(fake)
    with pytest.raises(RuntimeError, match="with"):
        fake.url  # noqa: B018
    with fake:
        with pytest.raises(RuntimeError, match="running already"), fake:
            pass
        ask(fake)


def test_scripts_that_nothing_could_draw() -> None:
    """A path that no request has and a reply that is none are refused where they are given."""
    fake = FakeOllama()
    for path in ("api/chat", "http://127.0.0.1/api/chat", "/api/chat?x=1", ""):
        with pytest.raises(ValueError, match="slash"):
            fake.script(path, Reply.busy())
        with pytest.raises(ValueError, match="slash"):
            fake.always(path, None)
    for reply in ({"error": "no"}, "no", 503, None):
        with pytest.raises(TypeError, match="must be a Reply"):
            fake.script("/api/chat", Reply.busy(), reply)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a Reply"):
        fake.always("/api/chat", "no")  # type: ignore[arg-type]


def test_call_needs_the_thread() -> None:
    """Before it runs there is none, and the error says what has one."""
    with pytest.raises(RuntimeError, match="with FakeOllama"):
        fake = FakeOllama()
        fake.call(fake.wait_for_requests, 1)


def test_models_by_their_names() -> None:
    """Any spelling of a name; one that is not there is a KeyError."""
    fake = FakeOllama(models=["llama3.2", FakeModel("mine:small")])
    assert fake.models["LLAMA3.2:latest"].name.display == "llama3.2:latest"
    del fake.models["mine:small"]
    assert "mine:small" not in fake.models
    for name in ("mine:small", "", "a b"):
        with pytest.raises(KeyError):
            del fake.models[name]
        with pytest.raises(KeyError):
            fake.models[name]


def test_help_shows_what_users_need() -> None:
    """Nothing that only its connections call."""
    shown = {name for name in dir(FakeOllama) if not name.startswith("_")}
    assert shown == set(
        "always blobs call connections in_flight loaded open_connections peak_in_flight replay "
        "requests script url wait_all_closed wait_for_requests".split()
    )
    for name in shown:
        assert getattr(FakeOllama, name).__doc__


# -- with event loops ------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_call_is_refused_where_there_is_a_loop() -> None:
    """It would hold the loop up; the error says to await."""
    with FakeOllama() as fake:
        with pytest.raises(RuntimeError, match="await"):
            fake.call(fake.wait_for_requests, 0)
        # A thread of that loop has none itself.
        await anyio.to_thread.run_sync(fake.call, fake.wait_for_requests, 0)
    async with FakeOllama() as here:
        with pytest.raises(RuntimeError, match="await"):
            here.call(here.wait_for_requests, 0)


@pytest.mark.anyio
async def test_each_waiter_is_woken_in_its_own_loop(anyio_backend: Any) -> None:
    """Tasks of three loops and a plain thread wait for the same events of one fake."""
    woken: list[str] = []

    async def wait(name: str) -> None:
        await fake.wait_for_requests(1)
        request = fake.requests[0]
        await request.wait_headers_sent()
        await request.wait_closed()
        await fake.wait_all_closed()
        woken.append(name)

    def other_loop(backend: str) -> None:
        anyio.run(wait, backend, backend=backend)

    def no_loop() -> None:
        fake.call(wait, "none")

    with anyio.fail_after(20), FakeOllama(token_rate=50, tokens=10_000) as fake:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "here")
            for backend in ("asyncio", "trio"):
                tasks.start_soon(anyio.to_thread.run_sync, other_loop, backend)
            tasks.start_soon(anyio.to_thread.run_sync, no_loop)
            async with AsyncClient(fake.url) as client:
                async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                    await anext(stream)
        assert sorted(woken) == ["asyncio", "here", "none", "trio"]
        assert len(fake.loaded) == 1


@pytest.mark.anyio
async def test_waiters_that_leave_are_forgotten() -> None:
    """A cancelled waiter, and one whose loop has gone, are no matter to the others."""
    event = SharedEvent()

    async def leave() -> None:
        with anyio.move_on_after(0):
            await event.wait()

    await leave()
    await anyio.to_thread.run_sync(anyio.run, leave)
    assert event._waiters == []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(event.wait)
        await anyio.wait_all_tasks_blocked()
        event._waiters.append((Gone(), anyio.Event()))
        event.set()
    await event.wait()


class Gone:
    """An event loop that has been closed."""

    def call_soon_threadsafe(self, function: Any) -> None:
        raise RuntimeError("Event loop is closed")


@pytest.mark.anyio
async def test_the_fake_in_the_same_loop_is_as_it_was() -> None:
    """`async with` uses the caller's loop; what it has loaded expires by that loop's clock."""
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        await client.chat("llama3.2", MESSAGES)
        assert [loaded.name for loaded in fake.loaded] == ["llama3.2:latest"]
        await fake.requests[0].wait_finished()


def test_many_threads_change_it_at_once() -> None:
    """Models that come and go while the server lists them disturb nobody."""
    with FakeOllama() as fake, httpx.Client(base_url=fake.url, trust_env=False, timeout=20) as http:
        done = threading.Event()
        failures: list[BaseException] = []

        def change(number: int) -> None:
            try:
                while not done.is_set():
                    fake.models.add(f"model-{number}")
                    fake.registry.add(f"model-{number}")
                    assert len(list(fake.models)) >= 5
                    list(fake.blobs)
                    del fake.models[f"model-{number}"]
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=change, args=[number]) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            statuses = {http.get("/api/tags").status_code for _ in range(20)}
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert statuses == {200}
    assert failures == []


@pytest.mark.anyio
async def test_whoever_waits_is_told_when_it_closes() -> None:
    """In another event loop than its own, which nothing else would wake."""
    with FakeOllama() as fake:
        pass
    with anyio.fail_after(5), pytest.raises(RuntimeError, match="has been closed"):
        await fake.wait_for_requests(1)
    await fake.wait_all_closed()  # holds, and is no wait

    left = anyio.Event()

    async def wait() -> None:
        with pytest.raises(RuntimeError, match="has been closed"):
            await fake.wait_for_requests(1)
        left.set()

    async with anyio.create_task_group() as tasks:
        with fake:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(5):
            await left.wait()
