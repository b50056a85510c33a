"""The examples do what they say, on trio and asyncio, and leave nothing behind.

Most run as programs of their own, which know nothing but OLLAMA_HOST, against a fake server in the
test's loop. Their warnings are errors. Pauses that give a server time to answer last until it has.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from ollama_sc import AsyncClient
from ollama_sc.testing import FakeModel, FakeOllama, Reply
from tests import forking
from tests.docs.support import EXAMPLES, SECONDS, UNUSED, command, environment, load, run, server

pytestmark = pytest.mark.anyio


async def answering(fake: FakeOllama, count: int, parallel: int | None = None) -> None:
    """Wait until the server has so many requests, and is in the middle of the answers it can give."""
    await fake.wait_for_requests(count)
    with anyio.fail_after(10):  # those that came first need not be those that it answers first
        while sum(request.parts_sent > 3 for request in fake.requests) < (parallel or count):
            await anyio.sleep(0.001)


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


async def test_tools_are_called(backend: str) -> None:
    """Three calls, one of which is told what is wrong; then the answer."""
    wanted = [("get_temperature", {"city": "Oslo"}), ("get_temperature", {"city": "Bergen"})]
    wanted += [("to_fahrenheit", {"celsius": "5"})]
    async with server() as fake:
        calls = [{"name": name, "arguments": arguments} for name, arguments in wanted]
        fake.script("/api/chat", Reply.chat_text(tool_calls=calls), Reply.chat_text("41 F."))
        lines = await run("tools.py", backend, fake)
    assert lines == [
        "get_temperature({'city': 'Oslo'}) -> 5",
        "get_temperature({'city': 'Bergen'}) -> there is no weather of Bergen; "
        "there is that of Oslo, Rome",
        "to_fahrenheit({'celsius': '5'}) -> 41.0",
        "41 F.",
    ]
    tools = fake.requests[0].json["tools"]
    assert tools[0]["function"]["parameters"]["properties"] == {
        "city": {"type": "string", "description": 'such as "Oslo".'}
    }


async def test_streamed_tools_are_approved(backend: str) -> None:
    """One runs, one is refused with a reason."""
    wanted = [("list_files", {"folder": "."}), ("delete_file", {"path": "x"})]
    async with server() as fake:
        calls = [{"name": name, "arguments": arguments} for name, arguments in wanted]
        fake.script("/api/chat", Reply.chat_text(tool_calls=calls), Reply.chat_text("None."))
        lines = await run("tools_streamed.py", backend, fake)
    assert set(lines[:3]) == {
        "[list_files ...]",
        "[list_files: returned]",
        "[delete_file: refused]",
    }
    assert lines[3:] == ["None.", "2 rounds, 2 calls, answered"]
    assert "the user keeps all files" in fake.requests[1].json["messages"][-1]["content"]


async def test_structured_output_is_typed(backend: str) -> None:
    """The second attempt fits; the stream shows what is complete."""
    text = '{"name": "Oslo", "country": "Norway", "sights": ["the opera"]}'
    async with server() as fake:
        replies = [Reply.chat_text(["{}"]), Reply.chat_text([text]), Reply.chat_text(list(text))]
        fake.script("/api/chat", *replies)
        lines = await run("structured_output.py", backend, fake)
    assert lines[0] == "Oslo has 1 sights"
    assert lines[1] == "{'name': 'Oslo'}"
    assert lines[-1] == "City(name='Oslo', country='Norway', sights=['the opera'])"


async def test_a_conversation_goes_on_after_an_error(backend: str) -> None:
    """A turn that fails leaves the list as it was; old messages are left out."""
    async with server() as fake:
        fake.script("/api/chat", Reply.default(), Reply.error(500, "boom"), Reply.default())
        lines = await run("conversation.py", backend, fake)
    assert lines[-1] == "5 messages"
    assert any("boom" in line for line in lines)
    assert [len(request.json["messages"]) for request in fake.requests] == [2, 4, 4]


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
        lines = await run("abort_all.py", backend, fake, pause=partial(answering, fake, 5))
    assert lines[0] == "aborted 5 requests"
    assert lines[1].endswith("aborted: two seconds are enough")
    assert lines[2] == "requests in flight: 0"
    assert lines[3] == "the client goes on: 'This is synthetic text from'"
    assert [request.disconnected for request in fake.requests] == [True] * 5 + [False]


@pytest.mark.parametrize("parallel", [None, 1], ids=["parallel", "default server"])
async def test_abort_one_leaves_the_other(backend: str, parallel: int | None) -> None:
    """One of two streams is aborted; the other one, which may have waited for it, is complete."""
    async with server(token_rate=300, parallel=parallel) as fake:
        fake.script("/api/generate", Reply.chat_text(["on ", "and "] * 10_000))
        kites, rivers = sorted(
            await run("abort_one.py", backend, fake, pause=partial(answering, fake, 2, parallel))
        )
    assert kites == "kites: complete"
    assert rivers.startswith("rivers: aborted (this tab was closed), ")
    assert not rivers.endswith(" 0 characters came")
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
        done = forking.run([EXAMPLES / name], env=environment("127.0.0.1:9"))
        assert done.returncode == 1
        assert f"`python {name} " in done.stderr


@pytest.mark.parametrize("parallel", [None, 1], ids=["parallel", "default server"])
async def test_groups_end_alone(backend: str, parallel: int | None) -> None:
    """Ann's requests are aborted, also those that wait in the server's queue; Bob's are not."""
    async with server(token_rate=100, parallel=parallel) as fake:
        lines = await run("groups.py", backend, fake, pause=partial(answering, fake, 4, parallel))
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
    async with server(dimensions=64, embed_seconds=0.02) as fake:
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
        printed = await run("errors.py", backend, fake, pause=partial(fake.wait_for_requests, 3))
        lines = dict(line.split(": ", 1) for line in printed)
    assert lines["good"].startswith("answered with ")
    assert lines["no such model"].endswith("run `ollama pull no-such-model`")
    assert lines["a wrong call"].startswith("RequestError: POST /api/generate, model")
    assert lines["aborted"] == "this program ended it: the user pressed Esc"
    assert lines["outside of `async with`"].startswith("ClientClosedError: ")
    assert lines["no server"].startswith("is `ollama serve` running")
    assert lines["too slow"] == "too slow, the limit 'total' passed"


async def test_sigterm_ends_every_generation(backend: str) -> None:
    """After SIGTERM the server sees every connection close, and the program ends well."""
    async with server(token_rate=20, tokens=100_000) as fake:
        with forking.Process(
            command("sigterm.py", backend), stdout=forking.PIPE, env=environment(fake.url)
        ) as process:
            await fake.wait_for_requests(3)
            sent_at = anyio.current_time()
            process.send_signal(signal.SIGTERM)
            output = await anyio.to_thread.run_sync(process.stdout.read)
            assert await anyio.to_thread.run_sync(process.wait) == 0
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


def test_testing_your_program_passes() -> None:
    """A user's tests with the fixture pass, each on both backends."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *UNUSED,
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
    here = "".join(path.read_text() for path in Path(__file__).parent.glob("test_example*.py"))
    names = {path.name for path in EXAMPLES.glob("*.py")} - {"demo.py"}
    assert names == {name for name in names if f'"{name}"' in here}
