"""Every endpoint: what is sent, what comes back, what can go wrong."""

from __future__ import annotations

import base64
import hashlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from conftest import MESSAGES, is_quiet, plain_reply, raw_server, read_request, recorded_body
from test_life import Outcome, exhaust, until

from ollama_sc import (
    AbortError,
    AsyncClient,
    AuthorizationError,
    ConnectError,
    IncompleteStreamError,
    Message,
    ModelNotFoundError,
    Options,
    RateLimitError,
    RequestError,
    RequestTimeout,
    ResponseError,
    ServerBusyError,
    Timeouts,
    Tool,
    ToolFunction,
)
from ollama_sc import _client as client_module
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio
PNG = b"\x89PNG not really"


# -- models ----------------------------------------------------------------------------------------


async def test_a_models_life(fake: FakeOllama) -> None:
    """Pull, show, copy, load, list, unload, delete: each does what it says."""
    async with AsyncClient(fake.url) as client:
        assert not await client.has_model("mistral")
        with pytest.raises(ModelNotFoundError):
            await client.show("mistral")
        assert (await client.pull("mistral")).complete
        shown = await client.show("mistral", verbose=True)
        assert shown.details is not None
        assert shown.modelfile
        assert (await client.copy("mistral", "mine")).status == "success"
        assert await client.has_model("MINE:latest")
        names = [model.model for model in (await client.list()).models]
        assert {"mistral:latest", "mine:latest"} <= set(names)
        await client.load("mine", keep_alive=timedelta(minutes=10))
        [running] = (await client.ps()).models
        assert running.model == "mine:latest"
        assert running.expires_at is not None
        await client.unload("mine")
        assert (await client.ps()).models == []
        assert (await client.delete("mine")).status == "success"
        with pytest.raises(ModelNotFoundError, match="DELETE /api/delete, model 'mine'"):
            await client.delete("mine")
        with pytest.raises(ModelNotFoundError, match="POST /api/copy"):
            await client.copy("mine", "other")
        assert is_quiet(client)


@pytest.mark.parametrize("model", ["llama3.2", "nomic-embed-text"])
async def test_loading_any_model(fake: FakeOllama, model: str) -> None:
    """Models that write and models that only embed are loaded by the same call."""
    async with AsyncClient(fake.url) as client:
        await client.load(model, keep_alive=-1)
        [running] = (await client.ps()).models
        assert running.model == f"{model}:latest"
        assert running.expires_at is not None
        assert running.expires_at.year > 2200
        with pytest.raises(ModelNotFoundError):
            await client.load("no-such-model")
        with pytest.raises(ModelNotFoundError):
            await client.unload("no-such-model")


async def test_pulling_with_progress(fake: FakeOllama) -> None:
    """The progress comes in parts, and joined it is all layers together."""
    async with AsyncClient(fake.url) as client:
        async with await client.pull("mistral", stream=True) as stream:
            parts = [part async for part in stream]
        assert parts[0].status == "pulling manifest"
        assert parts[-1].complete
        whole = stream.result()
        assert whole.complete
        assert whole.total == sum({p.digest: p.total or 0 for p in parts if p.digest}.values())
        assert (await client.show("mistral")).details is not None


async def test_an_abandoned_pull_goes_on_where_it_was(anyio_backend: Any) -> None:
    """An aborted pull raises AbortError; the next one finds what is there already."""
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        fake.script("/api/pull", Reply.default().but(stall_after=2))
        async with await client.pull("mistral", stream=True) as stream:
            await anext(stream)
            assert client.abort() == 1
            with pytest.raises(AbortError):
                await exhaust(stream)
        await fake.requests[0].wait_closed()
        assert (await client.pull("mistral")).complete


@pytest.mark.parametrize("stream", [False, True])
async def test_a_pull_that_fails(fake: FakeOllama, stream: bool) -> None:
    """A failed pull is a ResponseError, at status 500 or inside the stream."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError, match="pull model manifest") as caught:
            if stream:
                await exhaust(await client.pull("no-such-model", stream=True))
            else:
                await client.pull("no-such-model")
        assert caught.value.status_code == (200 if stream else 500)
        assert "no-such-model" in str(caught.value)


async def test_a_transfer_that_breaks_off(fake: FakeOllama) -> None:
    """A transfer without its "success" is incomplete, streamed or not."""
    fake.always("/api/pull", Reply.stream([{"status": "pulling manifest"}]))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(IncompleteStreamError) as caught:
            await exhaust(await client.pull("mistral", stream=True))
        assert caught.value.partial.status == "pulling manifest"
        fake.always("/api/pull", Reply.json({"status": "pulling manifest"}))
        with pytest.raises(IncompleteStreamError):
            await client.pull("mistral")


async def test_create_and_push(fake: FakeOllama) -> None:
    """A model made from another and one made from a file; pushing it."""
    async with AsyncClient(fake.url) as client:
        made = await client.create(
            "brief",
            from_="llama3.2",
            system="Be brief.",
            parameters=Options(temperature=0, stop=["x"]),
            messages=[Message("user", "Hi"), {"role": "assistant", "content": "Hello."}],
            license=["MIT"],
        )
        assert made.complete
        body = fake.requests[-1].json
        assert body["from"] == "llama3.2"
        assert body["parameters"] == {"temperature": 0, "stop": ["x"]}
        assert body["messages"][0] == {"role": "user", "content": "Hi"}
        assert body["stream"] is False
        assert (await client.show("brief")).system == "Be brief."
        with pytest.raises(ResponseError, match="neither 'from' or 'files'"):
            await client.create("nothing")
        async with await client.create("other", from_="llama3.2", stream=True) as stream:
            statuses = [part.status async for part in stream]
        assert statuses[-1] == "success"
        assert len(statuses) > 1
        await client.copy("brief", "me/brief")
        assert (await client.push("me/brief", insecure=True)).complete
        assert fake.requests[-1].json["insecure"] is True


# -- blobs -----------------------------------------------------------------------------------------


async def test_uploading_a_file(fake: FakeOllama, tmp_path: Path) -> None:
    """A file is hashed, asked for, sent with its length, told of, and sent only once."""
    data = bytes(range(256)) * 20_000
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    told: list[tuple[int, int]] = []
    async with AsyncClient(fake.url) as client:
        assert not await client.has_blob(digest)
        assert await client.create_blob(path, progress=lambda *sent: told.append(sent)) == digest
        assert await client.has_blob(digest)
        assert fake.requests[-2].headers["content-length"] == str(len(data))
        assert told[0] == (0, len(data))
        assert told[-1] == (len(data), len(data))
        before = len(fake.requests)
        assert await client.create_blob(str(path)) == digest
        assert await client.create_blob(data) == digest
        assert [request.method for request in fake.requests[before:]] == ["HEAD", "HEAD"]
        assert await client.create_blob(b"") == f"sha256:{hashlib.sha256(b'').hexdigest()}"
        assert is_quiet(client)


@pytest.mark.parametrize("digest", ["", "sha256:x", "sha256-" + "0" * 64, "0" * 64, None])
async def test_digests_that_cannot_be(fake: FakeOllama, digest: Any) -> None:
    """A digest of another form is a RequestError before anything is sent."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="digest"):
            await client.has_blob(digest)
    assert fake.connections == 0


async def test_a_file_that_cannot_be_read(fake: FakeOllama, tmp_path: Path) -> None:
    """A missing file or a folder is a RequestError that says so."""
    async with AsyncClient(fake.url) as client:
        for path in (tmp_path / "missing", tmp_path):
            with pytest.raises(RequestError, match=path.name):
                await client.create_blob(path)
        assert is_quiet(client)
    assert fake.connections == 0


async def test_a_server_that_answers_before_the_upload_ends(anyio_backend: Any) -> None:
    """Whether the early answer gets through or only the hanging up does: the blob is there."""
    asked = 0

    async def handle(stream: Any) -> None:
        nonlocal asked
        while request := await head(stream):
            asked += 1
            if request.startswith(b"HEAD"):
                status = b"404 Not Found" if asked == 1 else b"200 OK"
                await stream.send(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)
            else:
                await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                return

    async def head(stream: Any) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            try:
                data += await stream.receive(1024)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return b""
        return data

    async with raw_server(handle) as url, AsyncClient(url) as client:
        assert (await client.create_blob(b"x" * 20_000_000)).startswith("sha256:")
        assert is_quiet(client)


async def test_an_upload_to_a_server_that_goes_away(anyio_backend: Any) -> None:
    """A connection that breaks while a file is sent is a ConnectError."""

    async def handle(stream: Any) -> None:
        request = await stream.receive(4096)
        if request.startswith(b"HEAD"):
            await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await stream.receive(4096)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        with pytest.raises(ConnectError):
            await client.create_blob(b"x" * 20_000_000)
        assert is_quiet(client)


@pytest.mark.parametrize("by", ["abort", "cancel"])
@pytest.mark.parametrize("phase", ["hashing", "sending"])
async def test_an_upload_stops(
    anyio_backend: Any, tmp_path: Path, phase: str, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that is aborted or cancelled stops promptly, and its file is closed."""
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(2 * 1024**3)
    opened: list[Any] = []
    monkeypatch.setattr(
        "ollama_sc._models.open_source",
        lambda source: opened.append(source.open("rb")) or opened[0],
    )
    reading = anyio.Event()

    async def handle(stream: Any) -> None:
        request = await stream.receive(4096)
        if request.startswith(b"HEAD"):
            await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await stream.receive(4096)
        reading.set()
        await anyio.sleep_forever()

    if phase == "sending":

        async def quick(file: Any) -> tuple[str, int]:
            return "sha256:" + "0" * 64, 2 * 1024**3

        monkeypatch.setattr("ollama_sc._models.digest_of", quick)
    async with raw_server(handle) as url, AsyncClient(url) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                ended = Outcome(tasks, client.create_blob, path)
                if phase == "sending":
                    await reading.wait()
                    await until(lambda: client.statistics().sending == 1)
                else:
                    await until(lambda: opened and opened[0].tell() > 0)
                started = anyio.current_time()
                if by == "abort":
                    assert client.abort("enough") >= 1
                else:
                    scope.cancel()
        took = anyio.current_time() - started
        print(f"{phase} stopped {took * 1000:.1f} ms after the {by}")
        assert took < 0.5, took  # 100 ms, and room for a busy machine
        if by == "abort":
            assert isinstance(ended.error, AbortError)
        assert opened[0].closed
        assert is_quiet(client)


# -- the server ------------------------------------------------------------------------------------


async def test_what_a_server_says_of_itself(fake: FakeOllama) -> None:
    """Version, status, recommendations, who is signed in, signing out."""
    async with AsyncClient(fake.url) as client:
        assert (await client.version()).version == "0.33.0"
        status = await client.status()
        assert status.cloud is not None
        assert status.cloud.disabled is False
        assert (await client.recommendations()).recommendations[0].model
        assert (await client.me()).name
        assert await client.sign_out() is None  # type: ignore[func-returns-value]
        with pytest.raises(AuthorizationError) as caught:
            await client.me()
        assert caught.value.signin_url
        with pytest.raises(AuthorizationError):
            await client.sign_out()


async def test_waiting_for_a_server(anyio_backend: Any) -> None:
    """is_running tells, wait_ready waits, and an abort ends the waiting between its tries."""
    async with AsyncClient("127.0.0.1:9") as client:
        assert not await client.is_running()
        with pytest.raises(RequestTimeout) as caught:
            await client.wait_ready(timeout=Timeouts(total=0.2))
        assert caught.value.limit == "total"
        async with anyio.create_task_group() as tasks:
            ended = Outcome(tasks, client.wait_ready)
            await anyio.sleep(0.1)
            client.abort()
        assert isinstance(ended.error, AbortError)
        assert is_quiet(client)
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        fake.script("/api/version", Reply.busy(), Reply.busy())
        assert (await client.wait_ready()).version
        assert len(fake.requests) == 3
        assert await client.is_running()


# -- the web ---------------------------------------------------------------------------------------


async def test_searching_the_web_by_the_server(anyio_backend: Any) -> None:
    """Without a key, the client's own server is asked."""
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        fake.always("/api/experimental/web_search", Reply.json({"results": [{"title": "a"}]}))
        fake.always("/api/experimental/web_fetch", Reply.json({"title": "t", "links": ["u"]}))
        assert (await client.web_search("x", 3)).results[0].title == "a"
        assert fake.requests[0].json == {"query": "x", "max_results": 3}
        assert (await client.web_fetch("http://x")).links == ["u"]
        assert fake.requests[1].json == {"url": "http://x"}
        with pytest.raises(RequestError):
            await client.web_search("")


async def test_searching_the_web_with_a_key(
    monkeypatch: pytest.MonkeyPatch, anyio_backend: Any
) -> None:
    """With the environment's key, ollama.com is asked, and nothing of the client's goes there."""
    monkeypatch.setenv("OLLAMA_API_KEY", "env-key")
    async with FakeOllama(keys=["env-key"]) as hosted, FakeOllama() as mine:
        monkeypatch.setattr(client_module, "HOSTED", hosted.url)
        hosted.always("/api/web_search", Reply.json({"results": []}))
        async with AsyncClient(
            mine.url,
            api_key="my-key",
            headers={"X-Mine": "1"},
            cookies={"c": "1"},
            params={"p": "1"},
        ) as client:
            assert (await client.web_search("x")).results == []
            await client.version()
            assert client.abort() == 0
        assert [request.path for request in mine.requests] == ["/api/version"]
        assert mine.requests[0].headers["authorization"] == "Bearer my-key"
        assert mine.requests[0].headers["x-mine"] == "1"
        [search] = hosted.requests
        assert search.headers["authorization"] == "Bearer env-key"
        assert "x-mine" not in search.headers
        assert "cookie" not in search.headers
        assert not search.query
        await hosted.wait_all_closed()


async def test_the_environments_key_stays_at_home(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's key goes to no server but ollama.com, in no letter case of its name."""
    monkeypatch.setenv("OLLAMA_API_KEY", "env-key")
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"version": "1"})

    for host in ("example.com", "http://ollama.com", "https://ollama.com.example.com", fake.url):
        async with AsyncClient(host, transport=httpx.MockTransport(answer)) as client:
            await client.version()
        assert "authorization" not in seen[-1].headers
    for host in ("ollama.com", "OLLAMA.com", "https://Ollama.COM/"):
        async with AsyncClient(host, transport=httpx.MockTransport(answer)) as client:
            await client.version()
            assert "env-key" not in repr(client)
        assert seen[-1].headers["authorization"] == "Bearer env-key"
        assert seen[-1].url.scheme == "https"


async def test_no_key_in_a_log(
    fake: FakeOllama, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever httpx and this library log, at every level, no secret is in it."""
    caplog.set_level(1)
    monkeypatch.setenv("OLLAMA_API_KEY", "s3cret-env")
    monkeypatch.setattr(client_module, "HOSTED", fake.url)
    host = fake.url.replace("//", "//ann:s3cret-pw@")
    async with AsyncClient(host, headers={"X-Key": "s3cret-header"}) as client:
        await client.version()
        with pytest.raises(ModelNotFoundError):
            await client.chat("no-such-model", MESSAGES)
        await client.web_search("x")
    async with AsyncClient(fake.url, api_key="s3cret-key") as client:
        await client.version()
    assert "HTTP Request" in caplog.text
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_proxies_are_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, host: str, anyio_backend: Any
) -> None:
    """A proxy that the environment names is not used for loopback, and is for others."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    client = AsyncClient(f"{host}:1234")._shared.http._client
    own = client._transport
    assert client._transport_for_url(httpx.URL(f"http://{host}:1234/")) is own
    other = AsyncClient("http://example.com")._shared.http._client
    assert other._transport_for_url(httpx.URL("http://example.com/")) is not other._transport


# -- what goes with a prompt -----------------------------------------------------------------------


async def test_images(fake: FakeOllama, tmp_path: Path) -> None:
    """Bytes, base64 text and files arrive as base64, in messages and prompts."""
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    encoded = base64.b64encode(PNG).decode()
    images = [PNG, encoded, path, bytearray(PNG)]
    async with AsyncClient(fake.url) as client:
        await client.chat("llama3.2", [Message("user", "What?", images=images)])
        await client.chat("llama3.2", [{"role": "user", "content": "?", "images": images}])
        async with await client.generate("llama3.2", "?", images=images, stream=True) as stream:
            await exhaust(stream)
        assert fake.requests[0].json["messages"][0]["images"] == [encoded] * 4
        assert fake.requests[1].json["messages"][0]["images"] == [encoded] * 4
        assert fake.requests[2].json["images"] == [encoded] * 4
        for wrong in (str(path), "", b"", [b""], encoded, PNG, path, ["no!"], [5], [None]):
            with pytest.raises(RequestError, match="image"):
                await client.generate("llama3.2", "?", images=wrong)  # type: ignore[call-overload]
        (tmp_path / "empty").touch()
        for missing in (tmp_path / "missing", tmp_path / "empty"):
            with pytest.raises(RequestError, match=missing.name):
                await client.generate("llama3.2", "?", images=[missing])
        assert len(fake.requests) == 3
        assert is_quiet(client)


async def test_options_tools_and_keep_alive(fake: FakeOllama) -> None:
    """Each of the forms that a value may have is sent as the API spells it."""
    tool = Tool(ToolFunction("f", "does", {"type": "object", "properties": {}}))
    spelled = {
        "type": "function",
        "function": {
            "name": "f",
            "description": "does",
            "parameters": {"type": "object", "properties": {}},
        },
    }
    async with AsyncClient(fake.url) as client:
        await client.chat(
            "llama3.2",
            MESSAGES,
            tools=[tool, spelled],
            options=Options(temperature=0.5, num_ctx=4096),
            keep_alive=timedelta(minutes=1.5),
            debug_render_only=False,
        )
        body = fake.requests[-1].json
        assert body["tools"] == [spelled, spelled]
        assert body["options"] == {"temperature": 0.5, "num_ctx": 4096}
        assert body["keep_alive"] == 90
        assert body["_debug_render_only"] is False
        for keep_alive in (0, -1, 2.5, "1h30m", "0"):
            await client.generate("llama3.2", "x", keep_alive=keep_alive)
            assert fake.requests[-1].json["keep_alive"] == keep_alive
        await client.chat("llama3.2", MESSAGES, options={"no_such_option": 1}, think=None)
        assert fake.requests[-1].json["options"] == {"no_such_option": 1}
        assert "think" not in fake.requests[-1].json


async def test_a_conversation_with_tools_and_thinking(fake: FakeOllama) -> None:
    """Replies go back into the conversation as they are, whatever they hold."""
    calls = [{"function": {"name": "f", "arguments": {"x": 1}}}]
    fake.script("/api/chat", Reply.chat_text("", thinking="Hm", tool_calls=calls))
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    async with AsyncClient(fake.url) as client:
        messages: list[Any] = [*MESSAGES]
        async with await client.chat("qwen3", messages, tools=[tool], stream=True) as stream:
            await exhaust(stream)
        whole = stream.result()
        assert whole.message.thinking == "Hm"
        [call] = whole.message.tool_calls or []
        assert call.function.arguments == {"x": 1}
        messages += [whole, Message("tool", "2", tool_name="f", tool_call_id=call.id)]
        assert (await client.chat("qwen3", messages)).text
        sent = fake.requests[-1].json["messages"]
        assert sent[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}
        assert sent[1]["thinking"] == "Hm"
        assert sent[2]["tool_name"] == "f"


@pytest.mark.parametrize("level", [True, False, "low", "medium", "high", "max"])
async def test_thinking_levels(fake: FakeOllama, level: Any) -> None:
    """Every level is sent as it is."""
    async with AsyncClient(fake.url) as client:
        reply = await client.chat("qwen3", MESSAGES, think=level)
        assert fake.requests[-1].json["think"] == level
        assert bool(reply.message.thinking) == (level is not False)


async def test_the_older_embeddings(fake: FakeOllama) -> None:
    """The older endpoint gives one vector."""
    async with AsyncClient(fake.url) as client:
        reply = await client.embeddings("nomic-embed-text", "hello", keep_alive=0)
        assert len(reply.embedding) == 768
        assert fake.requests[-1].json == {
            "model": "nomic-embed-text",
            "prompt": "hello",
            "keep_alive": 0,
        }


# -- documented errors -----------------------------------------------------------------------------

NAMED = (400, ResponseError), (404, ModelNotFoundError), (500, ResponseError)
CLOUD = (401, AuthorizationError), (403, AuthorizationError), (429, RateLimitError)
BUSY = (503, ServerBusyError), (502, ResponseError), (499, ResponseError)
CALLS: dict[str, tuple[str, Any, tuple[Any, ...]]] = {
    "chat": ("/api/chat", lambda c: c.chat("m", MESSAGES), (*NAMED, *CLOUD, *BUSY)),
    "chat stream": ("/api/chat", lambda c: c.chat("m", MESSAGES, stream=True), (*NAMED, *BUSY)),
    "generate": ("/api/generate", lambda c: c.generate("m", "x"), (*NAMED, *CLOUD, *BUSY)),
    "embed": ("/api/embed", lambda c: c.embed("m", "x"), (*NAMED, (501, ResponseError), *BUSY)),
    "embeddings": ("/api/embeddings", lambda c: c.embeddings("m", "x"), NAMED),
    "load": ("/api/generate", lambda c: c.load("m"), (*NAMED, *BUSY)),
    "unload": ("/api/generate", lambda c: c.unload("m"), NAMED),
    "create": ("/api/create", lambda c: c.create("m", from_="x"), NAMED),
    "pull": ("/api/pull", lambda c: c.pull("m"), NAMED),
    "push": ("/api/push", lambda c: c.push("m"), (*NAMED, *CLOUD)),
    "show": ("/api/show", lambda c: c.show("m"), (*NAMED, *CLOUD)),
    "copy": ("/api/copy", lambda c: c.copy("a", "b"), NAMED),
    "delete": ("/api/delete", lambda c: c.delete("m"), NAMED),
    "list": ("/api/tags", lambda c: c.list(), ((500, ResponseError),)),
    "ps": ("/api/ps", lambda c: c.ps(), ((500, ResponseError),)),
    "version": ("/api/version", lambda c: c.version(), ((500, ResponseError),)),
    "status": ("/api/status", lambda c: c.status(), ((500, ResponseError),)),
    "me": ("/api/me", lambda c: c.me(), ((401, AuthorizationError), (503, ServerBusyError))),
    "sign_out": ("/api/signout", lambda c: c.sign_out(), (CLOUD[0], (500, ResponseError))),
    "web_search": ("/api/experimental/web_search", lambda c: c.web_search("x"), CLOUD),
    "web_fetch": ("/api/experimental/web_fetch", lambda c: c.web_fetch("x"), CLOUD),
}


@pytest.mark.parametrize("name", CALLS)
async def test_each_documented_error_of_each_endpoint(fake: FakeOllama, name: str) -> None:
    """Each status that the server can give arrives as the right exception, with its text."""
    path, call, errors = CALLS[name]
    async with AsyncClient(fake.url) as client:
        for status, kind in errors:
            fake.always(path, Reply.error(status, "because"))
            with pytest.raises(ResponseError) as caught:
                await call(client)
            assert type(caught.value) is kind, status
            assert caught.value.status_code == status
            assert caught.value.error == "because"
            assert path in str(caught.value)
        fake.always(path, Reply.silence())
        with pytest.raises(RequestTimeout):
            client._shared.timeouts = Timeouts(first_chunk=0.02)
            await call(client)
        assert is_quiet(client)


async def test_recorded_replies_of_models(anyio_backend: Any) -> None:
    """A real server's replies about models are read whole."""
    replies = {
        "tags": lambda c: c.list(),
        "ps": lambda c: c.ps(),
        "show": lambda c: c.show("m"),
        "status": lambda c: c.status(),
        "embeddings-legacy": lambda c: c.embeddings("m", "x"),
    }
    import msgspec  # noqa: PLC0415

    for name, call in replies.items():
        body = recorded_body(name)

        async def handle(stream: Any, body: bytes = body) -> None:
            await read_request(stream)
            await stream.send(plain_reply(body))

        async with raw_server(handle) as url, AsyncClient(url) as client:
            reply = await call(client)
            expected = msgspec.json.decode(body)
            assert set(reply.to_dict()) == {k for k, v in expected.items() if v is not None}
