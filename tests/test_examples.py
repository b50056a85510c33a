"""The examples do what they say, on trio and asyncio, and leave nothing behind.

Most run as programs of their own, which know nothing but OLLAMA_HOST, against a fake server in the
test's loop. Their warnings are errors.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.streams.text import TextReceiveStream

from ollama_sc import AsyncClient
from ollama_sc.testing import FakeOllama, Reply

EXAMPLES = Path(__file__).parent.parent / "examples"
SECONDS = 40

# Runs a program that says `anyio.run(main)` on the backend that the test wants.
RUNNER = """
import functools, runpy, sys
import anyio
_, backend, path, *sys.argv[1:] = sys.argv
sys.argv[0] = path
anyio.run = functools.partial(anyio.run, backend=backend)
runpy.run_path(path, run_name="__main__")
"""

pytestmark = pytest.mark.anyio


@pytest.fixture
def backend(anyio_backend: Any) -> str:
    """The name of the backend that both the test and the example run on."""
    return anyio_backend[0]


@asynccontextmanager
async def server(**options: Any) -> AsyncIterator[FakeOllama]:
    """A fake server, and a limit for the test."""
    with anyio.fail_after(SECONDS):
        async with FakeOllama(**options) as fake:
            yield fake


def command(name: str, backend: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", RUNNER, backend, str(EXAMPLES / name)]


def environment(url: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return {**kept, "OLLAMA_HOST": url}


async def run(name: str, backend: str, fake: FakeOllama) -> list[str]:
    """What an example prints; it ends well, and its server has no request of it any more."""
    done = await anyio.run_process(
        command(name, backend), env=environment(fake.url), check=False, cwd=EXAMPLES
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    await fake.wait_all_closed()
    assert fake.in_flight == 0
    return done.stdout.decode().splitlines()


def load(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, EXAMPLES / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_quickstart_prints_the_answer(backend: str) -> None:
    """One question, one answer."""
    async with server() as fake:
        (answer,) = await run("quickstart.py", backend, fake)
    assert answer.startswith("This is synthetic text")
    assert fake.requests[0].json["stream"] is False


async def test_streaming_prints_the_parts_and_the_whole(backend: str) -> None:
    """The parts come one after the other, then what they were together."""
    async with server() as fake:
        lines = await run("streaming.py", backend, fake)
    assert lines[0].startswith("This is synthetic text")
    assert lines[-1] == "24 tokens, whole.done_reason='stop', whole.complete=True"


async def test_both_backends_takes_either(backend: str) -> None:
    """The program chooses its backend itself."""
    async with server() as fake:
        done = await anyio.run_process(
            [sys.executable, EXAMPLES / "both_backends.py", "--backend", backend],
            env=environment(fake.url),
        )
    assert done.stdout.decode().startswith(f"{backend}: This is synthetic text")


async def test_abort_all_ends_all(backend: str) -> None:
    """Five requests end at once, none was complete, and the client goes on."""
    async with server(token_rate=50, tokens=100_000) as fake:
        lines = await run("abort_all.py", backend, fake)
    assert lines[0] == "aborted 5 requests"
    assert lines[1].endswith("aborted: two seconds are enough")
    assert lines[2] == "requests in flight: 0"
    assert lines[3] == "the client goes on: 'This is synthetic text from'"
    assert [request.disconnected for request in fake.requests] == [True] * 5 + [False]


async def test_groups_end_alone(backend: str) -> None:
    """Ann's requests are aborted; Bob's are not."""
    async with server(token_rate=60) as fake:
        lines = await run("groups.py", backend, fake)
    assert lines[0] == "aborted 2 of Ann's requests, 2 of Bob's go on"
    assert sorted(lines[1:]) == [
        "Ann: the story about bread was aborted (Ann closed her tab)",
        "Ann: the story about kites was aborted (Ann closed her tab)",
        "Bob: the story about bread is complete",
        "Bob: the story about kites is complete",
    ]


async def test_timeouts_end_the_requests(backend: str) -> None:
    """A scope ends a request in silence, a limit with an error, and both close the connection."""
    async with server(token_rate=50, tokens=100_000) as fake:
        lines = await run("timeouts.py", backend, fake)
    assert lines[0] == "the scope was cancelled: True"
    assert lines[1].startswith("the limit 'total' of 1 s passed: POST /api/generate")
    assert lines[2].endswith("characters arrived, complete: False")
    assert all(request.disconnected for request in fake.requests)


async def test_embed_batches_embeds_all_with_several_in_flight(backend: str) -> None:
    """A thousand texts make a thousand vectors, and several requests run at the same time."""
    async with server(dimensions=64) as fake:
        lines = await run("embed_batches.py", backend, fake)
    assert lines == ["1000 vectors of 64 numbers"]
    assert 1 < fake.peak_in_flight <= 8
    sent = [text for request in fake.requests for text in request.json["input"]]
    assert len(sent) == len(set(sent)) == 1000


async def test_embed_batches_keeps_the_order(backend: str) -> None:
    """Each vector is its own text's, though a reply in the middle is late."""
    example = load("embed_batches.py")
    texts = [f"text {number}" for number in range(200)]
    async with server(dimensions=8) as fake, AsyncClient(fake.url) as client:
        expected = (await client.embed("nomic-embed-text", texts)).embeddings
        fake.script("/api/embed", Reply.default(delay=0.2), Reply.default())
        assert await example.embed_all(client, texts) == expected


async def test_errors_says_what_to_do(backend: str) -> None:
    """Each kind of failure draws its own advice."""
    async with server() as fake:
        # The first answers, the second draws its error; what comes after that is never answered.
        fake.script("/api/generate", Reply.default(), Reply.default())
        fake.always("/api/generate", Reply.silence())
        lines = dict(line.split(": ", 1) for line in await run("errors.py", backend, fake))
    assert lines["good"].startswith("answered with ")
    assert lines["no such model"].endswith("run `ollama pull no-such-model`")
    assert lines["a wrong call"].startswith("RequestError: POST /api/generate, model")
    assert lines["aborted"] == "this program ended it: the user pressed Esc"
    assert lines["outside of `async with`"].startswith("ClientClosedError: ")
    assert lines["no server"].startswith("is `ollama serve` running")
    assert lines["too slow"] == "too slow, the limit 'total' passed"


async def test_sigterm_ends_every_generation(backend: str) -> None:
    """After SIGTERM the server sees every connection close, and the program ends well."""
    async with (
        server(token_rate=20, tokens=100_000) as fake,
        await anyio.open_process(
            command("sigterm.py", backend), env=environment(fake.url)
        ) as process,
    ):
        await fake.wait_for_requests(3)
        sent_at = anyio.current_time()
        process.send_signal(signal.SIGTERM)
        output = await read_all(process)
        assert await process.wait() == 0
        for request in fake.requests:
            await request.wait_closed()
            assert request.disconnected
            assert request.closed_at is not None
            assert request.closed_at - sent_at > 1.5  # the grace of two seconds was given
    lines = output.splitlines()
    assert len(fake.requests) == 3
    assert "got SIGTERM" in lines
    assert sum("aborted: the client is shutting down" in line for line in lines) == 3
    assert sum("no more requests" in line for line in lines) == 3
    assert lines[-2:] == ["shut down, 3 requests had to be aborted", "bye"]


async def read_all(process: anyio.abc.Process) -> str:
    assert process.stdout is not None
    return "".join([text async for text in TextReceiveStream(process.stdout)])


class Server:
    """What an ASGI server does, as far as the example needs it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.state: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            life = self._connection(tasks, {"type": "lifespan", "state": self.state})
            await life.send({"type": "lifespan.startup"})
            assert (await life.receive())["type"] == "lifespan.startup.complete"
            yield
            await life.send({"type": "lifespan.shutdown"})
            assert (await life.receive())["type"] == "lifespan.shutdown.complete"
            life.close()

    def request(self, tasks: anyio.abc.TaskGroup, query: bytes) -> Connection:
        scope = {"type": "http", "query_string": query, "state": self.state.copy()}
        return self._connection(tasks, scope)

    def _connection(self, tasks: anyio.abc.TaskGroup, scope: dict[str, Any]) -> Connection:
        connection = Connection()
        tasks.start_soon(connection.serve, self.app, scope)
        return connection


class Connection:
    """The server's ends of what an ASGI application receives and sends."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self._to_app, self._app_receives = anyio.create_memory_object_stream[Any](10)
        self._app_sends, self._from_app = anyio.create_memory_object_stream[Any](0)
        self.send = self._to_app.send
        self.receive = self._from_app.receive

    async def serve(self, app: Any, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._app_receives.receive, self._app_sends.send)
        finally:
            self.ended.set()

    def close(self) -> None:
        for stream in (self._to_app, self._app_receives, self._app_sends, self._from_app):
            stream.close()


async def test_web_request_streams_to_its_end(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """A browser that stays gets the whole answer."""
    async with server() as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        web = Server(load("web_lifespan.py").app)
        async with web.lifespan(), anyio.create_task_group() as tasks:
            request = web.request(tasks, b"Why+is+the+sky+blue")
            assert (await request.receive())["status"] == 200
            body = b""
            while (event := await request.receive()).get("more_body"):
                body += event["body"]
            await request.ended.wait()
            request.close()
        assert body.startswith(b"This is synthetic text")
        assert fake.requests[0].json["prompt"] == "Why is the sky blue"
        assert not fake.requests[0].disconnected


async def test_web_disconnect_ends_the_generation(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """A browser that goes away takes its generation along; the other request goes on."""
    async with server(token_rate=50, tokens=100_000) as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        web = Server(load("web_lifespan.py").app)
        async with web.lifespan(), anyio.create_task_group() as tasks:
            leaving = web.request(tasks, b"one")
            await leaving.receive()
            staying = web.request(tasks, b"two")
            await staying.receive()
            await leaving.send({"type": "http.disconnect"})
            await leaving.ended.wait()
            first, second = fake.requests
            await first.wait_closed()
            assert first.disconnected
            assert second.closed_at is None
            assert (await staying.receive())["more_body"]
            await staying.send({"type": "http.disconnect"})
            await staying.ended.wait()
            leaving.close()
            staying.close()
            assert web.state["ollama"].statistics().in_flight == 0
        await fake.wait_all_closed()


async def test_web_disconnect_is_noticed_before_the_first_part(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Also while the model is loading, when the server says nothing yet."""
    async with server() as fake:
        fake.always("/api/generate", Reply.silence())
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        web = Server(load("web_lifespan.py").app)
        async with web.lifespan(), anyio.create_task_group() as tasks:
            request = web.request(tasks, b"hello")
            await fake.wait_for_requests(1)
            await request.send({"type": "http.disconnect"})
            await request.ended.wait()
            await fake.requests[0].wait_closed()
            request.close()


async def test_web_failure_has_a_status(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """A failure before the first part is told by the status."""
    async with server(models=[]) as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        web = Server(load("web_lifespan.py").app)
        async with web.lifespan(), anyio.create_task_group() as tasks:
            request = web.request(tasks, b"hello")
            assert (await request.receive())["status"] == 502
            assert b"not found" in (await request.receive())["body"]
            await request.ended.wait()
            request.close()


def test_testing_your_program_passes() -> None:
    """A user's tests with the fixture pass, each on both backends."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
         EXAMPLES / "testing_your_program.py"],
        env=environment("127.0.0.1:9"),
        check=False,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout


def test_every_example_has_its_test() -> None:
    """No example is forgotten here. (The demo has a file of its own.)"""
    here = Path(__file__).read_text()
    names = {path.name for path in EXAMPLES.glob("*.py")} - {"demo.py"}
    assert names == {name for name in names if f'"{name}"' in here}
