"""The fake's create: from a model, from files, and what is refused when."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc.testing import FakeModel, FakeOllama, Reply
from tests.fake.support import ask, leave_at, lines, statuses

pytestmark = pytest.mark.anyio


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


# ---------------------------------------------------------------------------------------------
# Refused


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
