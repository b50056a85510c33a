"""The fake's pull, push and create: progress, failures, sharing, and what is left behind."""

import re
from typing import Any

import anyio
import pytest
from ollama_sc.testing import FakeLayer, FakeModel, FakeOllama, FakePull, Registry, Reply
from test_fake import ask, lines, post

pytestmark = pytest.mark.anyio

LAYERS = (FakeLayer(1000), FakeLayer(10), FakeLayer(4))


async def pull(fake: FakeOllama, name: str = "new", **fields: Any) -> list[dict[str, Any]]:
    return lines(await ask(fake, "/api/pull", {"model": name, **fields}))


def statuses(progress: list[dict[str, Any]]) -> list[str]:
    """The statuses, repeated ones once."""
    found: list[str] = []
    for line in progress:
        if not found or found[-1] != line["status"]:
            found.append(line["status"])
    return found


async def leave_at(fake: FakeOllama, path: str, body: object, pattern: bytes) -> bytes:
    """Ask, read until the pattern has come, and leave; returns what had come."""
    seen = b""
    async with await anyio.connect_tcp(fake.host, fake.port) as stream:
        await stream.send(post(path, body))
        while not re.search(pattern, seen):
            seen += await stream.receive()
    return seen


async def test_a_pull_from_beginning_to_end():
    """Manifest, layers in order with the config last, verification, manifest, success."""
    async with FakeOllama(registry=[FakePull("new", LAYERS)]) as fake:
        got = await pull(fake)
        digests = [layer.digest for layer in fake.models.get("new").layers]
        again = await pull(fake)
    assert statuses(got) == [
        "pulling manifest",
        *(f"pulling {digest[7:19]}" for digest in digests),
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    first = [line for line in got if line.get("digest") == digests[0]]
    assert "completed" not in first[0]
    assert [line.get("completed", 0) for line in first] == [0, 250, 500, 750, 1000]
    assert {line["total"] for line in first} == {1000}
    assert list(first[1]) == ["status", "digest", "total", "completed"]
    repeated = [line for line in again if "digest" in line]
    assert len(repeated) == 3
    assert all(line["completed"] == line["total"] for line in repeated)


async def test_a_pull_without_stream():
    """Only the last object, as application/json without a charset; its failure is a 500."""
    async with FakeOllama(registry=["new"]) as fake:
        good = await ask(fake, "/api/pull", {"name": "new", "stream": False})
        bad = await ask(fake, "/api/pull", {"model": "nope", "stream": False})
        assert "new" in fake.models
    assert good.content == b'{"status":"success"}'
    assert good.headers["content-type"] == bad.headers["content-type"] == "application/json"
    assert bad.status_code == 500
    assert bad.json() == {"error": "pull model manifest: file does not exist"}


async def test_a_failed_pull_is_a_200():
    """In a stream the failure is a line; a name that is none is refused before."""
    async with FakeOllama(registry=[FakePull("new", errors=("429: slow down",))]) as fake:
        limited = await pull(fake)
        assert (await pull(fake))[-1] == {"status": "success"}
        missing = await pull(fake, "nope")
        for body in ({}, {"model": "a b"}):
            refused = await ask(fake, "/api/pull", body)
            assert (refused.status_code, refused.json()["error"]) == (400, "invalid model name")
    assert limited[-1] == {"error": "pull model manifest: 429: slow down"}
    assert missing == [
        {"status": "pulling manifest"},
        {"error": "pull model manifest: file does not exist"},
    ]


async def test_a_pull_resumes():
    """What a client that left has downloaded is there: the next pull begins with it."""
    registry = Registry([FakePull("new", LAYERS)], rate=1000)
    async with FakeOllama(registry=registry) as fake:
        seen = await leave_at(fake, "/api/pull", {"model": "new"}, rb'completed":[1-9]\d\d')
        digest = re.search(rb"sha256:\w{64}", seen)[0].decode()
        await fake.requests[0].wait_closed()
        assert fake.requests[0].disconnected
        await anyio.wait_all_tasks_blocked()
        stopped = registry.partial(digest)
        await anyio.sleep(0.1)
        assert registry.partial(digest) == stopped
        first = (await pull(fake))[1]
        assert first["completed"] == stopped
        assert stopped >= 100
        assert "new" in fake.models


async def test_pulls_share_a_download():
    """Two at once take the time of one."""
    registry = Registry([FakePull("new", (FakeLayer(600),))], rate=2000)
    results: list[list[dict[str, Any]]] = []

    async def keep(fake: FakeOllama) -> None:
        results.append(await pull(fake))

    async with FakeOllama(registry=registry) as fake, anyio.create_task_group() as group:
        start = anyio.current_time()
        group.start_soon(keep, fake)
        await anyio.sleep(0.15)
        group.start_soon(keep, fake)
        await fake.wait_for_requests(2)
        with anyio.fail_after(5):
            while len(results) < 2:
                await anyio.sleep(0.01)
        assert anyio.current_time() - start < 0.5
    late = max(results, key=lambda progress: progress[1].get("completed", 0))
    assert late[1]["completed"] > 0


async def test_odd_progress():
    """A layer that never reaches its total, repeats and falls back; one without lines; errors."""
    layers = (
        FakeLayer(100, progress=(10, 10, 60, 40, 97)),
        FakeLayer(5, progress=()),
        FakeLayer(100, errors=("max retries exceeded: EOF",)),
    )
    async with FakeOllama(registry=[FakePull("new", layers)]) as fake:
        failed = await pull(fake)
        done = await pull(fake)
    shown = [line.get("completed") for line in failed if line.get("total") == 100][:5]
    assert shown == [10, 10, 60, 40, 97]
    assert not [line for line in failed if line.get("total") == 5]
    assert failed[-1] == {"error": "max retries exceeded: EOF"}
    assert done[-1] == {"status": "success"}
    resumed = [line for line in done if line.get("total") == 100][-1]
    assert resumed["completed"] == 100


async def test_an_older_version_loses_its_layers():
    """Replacing a model says so."""
    async with FakeOllama(models=["new"], registry=[FakePull("new", LAYERS)]) as fake:
        assert "removing unused layers" in statuses(await pull(fake))


async def test_push():
    """Manifest, layers, manifest, success; failures in the stream, or 500."""
    async with FakeOllama(models=["me/mine", "qwen3"]) as fake:
        got = lines(await ask(fake, "/api/push", {"model": "me/mine"}))
        again = lines(await ask(fake, "/api/push", {"model": "me/mine"}))
        missing = lines(await ask(fake, "/api/push", {"model": "me/nope"}))
        denied = await ask(fake, "/api/push", {"model": "qwen3", "stream": False})
        nameless = await ask(fake, "/api/push", {})
        fake.models.remove("me/mine")
        assert (await pull(fake, "me/mine"))[-1] == {"status": "success"}
        fake.registry.push_error = "boom"
        assert lines(await ask(fake, "/api/push", {"model": "me/mine"}))[-1] == {"error": "boom"}
    assert statuses(got)[0] == "retrieving manifest"
    assert statuses(got)[-2:] == ["pushing manifest", "success"]
    pushed = [line for line in got if "digest" in line]
    assert pushed[0]["status"].startswith("pushing ")
    assert len([line for line in again if "digest" in line]) < len(pushed)
    assert missing[1] == {"status": "couldn't retrieve manifest"}
    assert missing[2]["error"].endswith("me/nope/latest: no such file or directory")
    assert (denied.status_code, denied.json()) == (500, {"error": "unauthorized: access denied"})
    assert (nameless.status_code, nameless.json()["error"]) == (400, "model is required")


# ---------------------------------------------------------------------------------------------
# Create


async def create(fake: FakeOllama, **fields: Any) -> list[dict[str, Any]]:
    return lines(await ask(fake, "/api/create", {"model": "mine", **fields}))


async def test_create_inherits_and_merges():
    """From a model: parameters merge, licenses append, texts replace, the rest is inherited."""
    base = FakeModel(
        "base",
        ("completion", "tools"),
        template="{{ .Prompt }}",
        system="Old.",
        license=("MIT",),
        parameters={"seed": 1, "top_k": 5},
        parser="p",
    )
    async with FakeOllama(models=[base]) as fake:
        got = await create(
            fake, **{"from": "base"}, system="New.", license=["GPL"], parameters={"seed": 2},
            messages=[{"role": "user", "content": "Hi"}], renderer="r", requires="0.14.0",
        )  # fmt: skip
        mine = fake.models.get("mine")
        assert mine.capabilities == ("completion", "tools")
    assert got[0]["status"].startswith("using existing layer sha256:")
    assert statuses(got)[-2:] == ["writing manifest", "success"]
    spec = mine.spec
    assert (spec.system, spec.template, spec.parser, spec.renderer) == (
        "New.",
        "{{ .Prompt }}",
        "p",
        "r",
    )
    assert spec.license == ("MIT", "GPL")
    assert spec.parameters == {"seed": 2, "top_k": 5}
    assert spec.requires == "0.14.0"
    assert spec.messages == ({"role": "user", "content": "Hi"},)


async def test_create_from_files():
    """GGUF files are parsed, quantised where asked; safetensors converted; adapters added."""
    async with FakeOllama() as fake:
        gguf = fake.blobs.add(b"GGUF" + b"x" * 100)
        other = fake.blobs.add(b"x" * 100)
        info = {"model_family": "bert", "capabilities": ["embedding"]}
        plain = await create(fake, model="plain", files={"a.gguf": gguf}, info=info)
        assert fake.models.get("plain").capabilities == ("embedding",)
        assert fake.models.get("plain").family == "bert"
        quantized = await create(fake, files={"a.gguf": gguf}, quantize="q4_K_M")
        assert fake.models.get("mine").spec.quantization_level == "Q4_K_M"
        converted = await create(fake, files={"model.safetensors": other, "config.json": other})
        adapted = await create(fake, **{"from": "qwen3"}, adapters={"b.gguf": gguf})
    assert plain[0] == {"status": "parsing GGUF"}
    work = [line for line in quantized if line["status"] == "quantizing F16 model to Q4_K_M"]
    assert work[-1]["completed"] == work[-1]["total"] == 104
    assert {"status": "verifying conversion"} in quantized
    assert converted[0] == {"status": "converting model"}
    assert adapted[0] == {"status": "parsing GGUF"}


async def test_create_pulls_what_is_missing():
    """`from` a model that is not here pulls it first."""
    async with FakeOllama(registry=["far"]) as fake:
        got = await create(fake, **{"from": "far"})
        assert got[0] == {"status": "pulling manifest"}
        assert got[-1] == {"status": "success"}
        assert [line["status"] for line in got].count("success") == 1
        assert "far" in fake.models
        failed = await create(fake, **{"from": "nowhere"})
    assert failed[-1] == {"error": "pull model manifest: file does not exist"}


GONE = "sha256:" + "1" * 64
BEFORE = [
    ({"model": "a b", "from": "qwen3"}, "invalid model name"),
    ({"files": {"../x": GONE}}, "file path must be relative"),
    ({"files": {"/x": GONE}}, "file path must be relative"),
    ({"files": {"x": ""}}, "invalid digest format"),
    ({"from": "qwen3", "draft_quantize": "q8_0"}, "--draft-quantize requires a DRAFT model"),
    ({"from": "qwen3", "info": {"model_family": 3}}, 'info field "model_family" must be a string'),
    ({"from": "qwen3", "info": {"context_length": "x"}}, 'info field "context_length" must be a number'),
    ({"from": "qwen3", "info": {"context_length": -1}},
     'info field "context_length" must be a non-negative integer'),
]  # fmt: skip
FIRST = [
    ({}, "neither 'from' or 'files' was specified"),
    ({"from": "a b"}, "invalid model name"),
    ({"files": {"x.bin": GONE}}, "unknown type"),
    ({"from": "qwen3", "remote_host": "ftp://x"}, "bad remote"),
    ({"from": "qwen3", "template": "{{ x"}, "template error: template: :1: unclosed action"),
    ({"from": "qwen3", "remote_host": "x", "draft_files": {"d": GONE}},
     "DRAFT cannot be used with remote models"),
    ({"from": "qwen3", "adapters": {"a": GONE, "b": GONE}}, "only one adapter is currently supported"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "text"), BEFORE)
async def test_create_refused_before_the_stream(body, text):
    """A 400 as an ordinary reply."""
    async with FakeOllama() as fake:
        refused = await ask(fake, "/api/create", {"model": "mine", **body})
    assert (refused.status_code, refused.json()) == (400, {"error": text})
    assert "content-length" in refused.headers


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("body", "text"), FIRST)
async def test_create_refused_as_the_first_item(body, text, stream):
    """A 400 as application/json without charset, chunked where a stream was asked for."""
    async with FakeOllama() as fake:
        refused = await ask(fake, "/api/create", {"model": "mine", "stream": stream, **body})
        assert "mine" not in fake.models
    assert (refused.status_code, refused.json()) == (400, {"error": text})
    assert refused.headers["content-type"] == "application/json"
    assert ("transfer-encoding" in refused.headers) == stream


async def test_create_fails_in_the_stream():
    """A digest that was not uploaded, and types that cannot be quantised: 500 without a stream."""
    async with FakeOllama() as fake:
        missing = await create(fake, files={"a.gguf": GONE})
        single = await ask(
            fake, "/api/create", {"model": "x", "stream": False, "files": {"a.gguf": GONE}}
        )
        text = await ask(
            fake, "/api/create", {"model": "x", "files": {"a.gguf": fake.blobs.add(b"text")}}
        )
        for level, start in (
            ("zzz", "unsupported quantization type ZZZ"),
            ("q8_0", "quantization is only"),
        ):
            got = await ask(fake, "/api/create", {"model": "x", "from": "qwen3", "quantize": level})
            assert got.json()["error"].startswith(start)
    assert missing[0] == {"status": "parsing GGUF"}
    assert missing[1]["error"].endswith(f"sha256-{'1' * 64}: no such file or directory")
    assert single.status_code == 500
    assert text.status_code == 400
    assert text.json() == {"error": "supplied file was not in GGUF format"}


async def test_create_takes_drafts_and_info():
    """A draft model is a layer more; info sets what the details tell; one license is a string."""
    async with FakeOllama() as fake:
        draft = fake.blobs.add(b"GGUF draft")
        info = {"quantization_level": "Q8_0", "parameter_size": "1B", "context_length": 99}
        await create(
            fake, **{"from": "qwen3"}, draft_files={"d.gguf": draft}, info=info, license="MIT",
            draft_quantize="q8_0", remote_host="",
        )  # fmt: skip
        mine = fake.models.get("mine")
        assert [layer.kind for layer in mine.layers] == ["model", "draft", "license", "config"]
        again = {"model": "x", "from": "mine", "quantize": "f16"}
        same = await ask(fake, "/api/create", again)
    assert same.status_code == 500
    assert same.json()["error"].startswith("quantization is only supported")
    assert mine.details()["quantization_level"] == "Q8_0"
    assert mine.details()["parameter_size"] == "1B"
    assert mine.spec.context_length == 99
    assert mine.spec.license == ("MIT",)


def test_names_in_a_registry_must_be_names():
    """A mistake in a test is an error of its own."""
    with pytest.raises(ValueError, match="invalid model name"):
        Registry(["a b"])


async def test_create_a_stub():
    """remote_host makes a model that only names another one."""
    async with FakeOllama() as fake:
        await create(fake, **{"from": "kimi-k2"}, remote_host="https://ollama.com")
        shown = (await ask(fake, "/api/show", {"model": "mine"})).json()
    assert shown["remote_model"] == "kimi-k2"
    assert shown["remote_host"] == "https://ollama.com:443"
    assert shown["model_info"] == {}


async def test_an_abandoned_create():
    """A streamed one whose client leaves writes no model; without stream it does."""
    async with FakeOllama() as fake:
        slow = Reply.default(rate=1)
        fake.script("/api/create", slow, Reply.default(delay=100))
        body = {"model": "mine", "from": "qwen3"}
        await leave_at(fake, "/api/create", body, b"using existing")
        await fake.requests[0].wait_closed()
        assert "mine" not in fake.models
        async with anyio.create_task_group() as group:
            group.start_soon(ask, fake, "/api/create", body | {"stream": False})
            await fake.wait_for_requests(2)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
        await fake.wait_all_closed()
        assert "mine" in fake.models
