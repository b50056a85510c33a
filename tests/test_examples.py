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
from ollama_sc.testing import FakeModel, FakeOllama, Reply

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


async def run(name: str, backend: str, fake: FakeOllama, *arguments: str) -> list[str]:
    """What an example prints; it ends well, and its server has no request of it any more."""
    done = await anyio.run_process(
        [*command(name, backend), *arguments],
        env=environment(fake.url),
        check=False,
        cwd=EXAMPLES,
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


async def test_abort_one_leaves_the_other(backend: str) -> None:
    """One of two streams is aborted while both run; the other one comes to its end."""
    async with server(token_rate=30) as fake:
        fake.script("/api/generate", Reply.chat_text(["on and on "] * 10_000))
        kites, rivers = sorted(await run("abort_one.py", backend, fake))
    assert kites == "kites: complete"
    assert rivers.startswith("rivers: aborted (this tab was closed), ")
    first, second = fake.requests
    assert first.json["prompt"] == "Tell a long story about rivers."
    assert first.disconnected
    assert not second.disconnected


async def test_custom_client_sends_its_headers(backend: str) -> None:
    """The host that is given counts, and httpx's hook is called."""
    async with server() as fake, FakeOllama() as given:
        lines = await run("custom_client.py", backend, fake, given.url)
        assert lines[0] == f"<AsyncClient {given.url}, open, 0 requests>"
        assert not fake.requests
        (request,) = given.requests
        await run("custom_client.py", backend, fake)
    assert lines[1] == "POST /api/chat: 200"
    assert lines[2].startswith("This is synthetic text")
    assert request.headers["x-team"] == "weather"
    assert "authorization" not in request.headers
    assert len(fake.requests) == 1


async def test_generate_sends_system_and_options(backend: str) -> None:
    """The options arrive as they are, and the second answer is streamed."""
    async with server() as fake:
        lines = await run("generate.py", backend, fake)
    first, second = (request.json for request in fake.requests)
    assert first["options"] == {"temperature": 0, "seed": 1, "num_predict": 60}
    assert (first["system"], first["keep_alive"]) == ("Answer in one short sentence.", "10m")
    assert (first["stream"], second["stream"]) == (False, True)
    assert lines[1].endswith("tokens read, 60 written")
    assert lines[0].startswith("This is synthetic text")
    assert lines[2].startswith("This is synthetic text")


async def test_embed_embeds_one_and_several(backend: str) -> None:
    """A text alone, then a list of them in one request."""
    async with server(dimensions=64) as fake:
        lines = await run("embed.py", backend, fake)
    one, several = (request.json["input"] for request in fake.requests)
    assert (one, len(several)) == ("The sky is blue.", 3)
    assert lines[:2] == ["one text: a vector of 64 numbers", "3 texts: 3 vectors"]
    assert [line.partition(" and ")[0] for line in lines[2:]] == ["'The cat sleeps.'"] * 2


async def test_models_lists_copies_and_deletes(backend: str) -> None:
    """Each call about models is made, and the copy is gone in the end."""
    async with server(models=["llama3.2", "qwen3"]) as fake:
        lines = await run("models.py", backend, fake)
        assert "ollama-sc-example" not in fake.models
        assert not fake.loaded
    assert lines[0] == "version: 0.33.0"
    assert sorted(lines[1:3]) == ["list: llama3.2:latest, 0.8 GB", "list: qwen3:latest, 0.8 GB"]
    assert lines[3:5] == [
        "show: llama3.2 can do ['completion', 'tools']",
        "copy: ollama-sc-example is there: True",
    ]
    assert lines[5].startswith("ps: ollama-sc-example:latest is loaded until 2")
    assert lines[6:] == ["delete: ollama-sc-example is there: False"]
    paths = [request.path.removeprefix("/api/") for request in fake.requests]
    # has_model asks by show; load and unload are an empty generate.
    made = "version tags show copy show generate ps generate delete show"
    assert paths == made.split()


async def test_create_makes_a_model_of_another(backend: str) -> None:
    """The new model has the system text, answers, and is deleted."""
    async with server() as fake:
        lines = await run("create.py", backend, fake)
        assert "ollama-sc-captain" not in fake.models
    sent = fake.requests[0].json
    assert (sent["model"], sent["from"]) == ("ollama-sc-captain", "llama3.2")
    assert sent["system"].startswith("You are the captain")
    assert sent["parameters"] == {"temperature": 0.5}
    assert lines[-2] == "success"
    assert lines[-1].startswith("the captain says: This is synthetic text")


async def test_create_from_file_uploads_it_once(backend: str, tmp_path: Path) -> None:
    """The file is sent and becomes a model; the second time the server has it already."""
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF" + bytes(2_000_000))
    async with server() as fake:
        lines = await run("create_from_file.py", backend, fake, str(file))
        again = await run("create_from_file.py", backend, fake, str(file))
        assert "ollama-sc-from-file" in fake.models
        digest = fake.requests[2].json["files"]["model.gguf"]
        assert fake.blobs[digest].size == 2_000_004
    methods = [request.method for request in fake.requests]
    assert methods == ["HEAD", "POST", "POST", "POST", "HEAD", "POST", "POST"]
    assert fake.requests[1].body_size == 2_000_004
    assert "sent 2000004 of 2000004 bytes" in lines
    assert not any(line.startswith("sent") for line in again)
    for output in (lines, again):
        assert f"the server has {digest}" in output
        assert output[-2] == "success"
        assert "format='gguf'" in output[-1]


async def test_pull_shows_progress(backend: str) -> None:
    """Each step of the bar is a line of its own where there is no terminal."""
    async with server() as fake:
        fake.registry.add(FakeModel("house-model", size=80_000_000))
        lines = await run("pull.py", backend, fake, "house-model")
        assert "house-model" in fake.models
    assert lines[:2] == ["pulling house-model", "pulling manifest"]
    assert lines[2].endswith("[..............................]   0%")
    assert any(line.endswith("[###############...............]  50%") for line in lines)
    assert any(line.endswith("[##############################] 100%") for line in lines)
    assert lines[-2:] == ["success", "house-model is there: 80 MB"]
    assert fake.requests[0].json == {"model": "house-model", "stream": True}


async def test_pull_missing_pulls_and_tries_again(backend: str) -> None:
    """A 404 draws a pull, and the second try an answer."""
    async with server(models=[]) as fake:
        lines = await run("pull_missing.py", backend, fake)
    assert lines[:2] == ["404: model 'gemma3' not found", "pulling gemma3: success"]
    assert lines[2].startswith("This is synthetic text")
    paths = [request.path for request in fake.requests]
    assert paths == ["/api/chat", "/api/pull", "/api/chat"]


async def test_push_reports_progress_or_the_refusal(backend: str) -> None:
    """A model goes to the registry under one's own name; without a sign-in it is refused."""
    async with server() as fake:
        lines = await run("push.py", backend, fake, "me/llama3.2")
        fake.cloud.signed_in = False
        refused = await run("push.py", backend, fake, "me/llama3.2")
    assert lines[0] == "retrieving manifest"
    assert any(line.startswith("pushing ") and line.endswith(" bytes") for line in lines)
    assert lines[-1] == "success"
    assert refused == ["retrieving manifest", "refused: unauthorized: access denied"]
    assert [request.json.get("model") for request in fake.requests[1::2]] == ["me/llama3.2"] * 2


async def test_web_search_finds_and_reads(backend: str) -> None:
    """Without a key the local server is asked; where nobody is signed in, it says where to."""
    async with server() as fake:
        lines = await run("web_search.py", backend, fake)
        fake.cloud.signed_in = False
        refused = await run("web_search.py", backend, fake)
    assert [line.partition(" for ")[0] for line in lines[:3]] == [
        "Result 1",
        "Result 2",
        "Result 3",
    ]
    assert lines[3].startswith("Page at https://example.com/")
    assert refused[0].startswith("a key is missing, or a sign-in: https://ollama.com/connect?")
    search, fetch = fake.requests[:2]
    assert search.path == "/api/experimental/web_search"
    assert search.json == {"query": "structured concurrency", "max_results": 3}
    assert fetch.path == "/api/experimental/web_fetch"


def test_examples_that_need_a_name_say_so() -> None:
    """Without an argument they tell how they are called."""
    for name in ("create_from_file.py", "push.py"):
        done = subprocess.run(
            [sys.executable, EXAMPLES / name],
            env=environment("127.0.0.1:9"),
            check=False,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 1
        assert f"`python {name} " in done.stderr


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


async def test_embed_many_shows_what_jobs_can_do(backend: str) -> None:
    """Batches with progress, one array, a text that fails, two servers."""
    async with server() as fake:
        lines = await run("embed_many.py", backend, fake)
        first = [r for r in fake.requests if r.path == "/v1/embeddings"][:17]
        sizes = [len(request.json["input"]) for request in first]
    assert lines[0] == "vectors of 768 numbers"
    assert all(" texts, " in line for line in lines[1:4])
    assert lines[4].startswith("the sky is nearest to ")
    assert lines[5] == "text 3 failed: the input length exceeds the context length (HTTP 400)"
    assert lines[6] == "200 texts on two servers"
    assert sizes[0] == 1
    assert sorted(sizes[1:]) == [40, *[64] * 15]


async def test_embedder_embeds_batches_in_threads(backend: str) -> None:
    """Each batch comes back with its vectors; the model is warmed up once."""
    async with server() as fake:
        lines = await run("embedder.py", backend, fake)
    assert lines == [f"{start} id text embedding (250, 768)" for start in range(0, 2000, 250)]
    sizes = [len(request.json["input"]) for request in fake.requests]
    assert sorted(sizes) == [1, *[58] * 8, *[64] * 24]
    assert fake.peak_in_flight <= 8


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
    assert "10 passed" in done.stdout


def test_every_example_has_its_test() -> None:
    """No example is forgotten here. (The demo has a file of its own.)"""
    here = Path(__file__).read_text()
    names = {path.name for path in EXAMPLES.glob("*.py")} - {"demo.py"}
    assert names == {name for name in names if f'"{name}"' in here}
