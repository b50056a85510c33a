"""The fake's models: show, tags, ps and what is loaded, copy, delete."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from ollama_sc.testing import FakeModel, FakeOllama
from tests.fake.support import CHAT, ask, client, ps

pytestmark = pytest.mark.anyio

FULL = FakeModel(
    "full",
    capabilities=("completion", "tools"),
    template="{{ .Prompt }}",
    system="Be brief.",
    license=("MIT", "Other"),
    parameters={"temperature": 0.6, "stop": ["a", "b c"]},
    messages=({"role": "user", "content": "Hi"},),
    requires="0.14.0",
    projector_info={"general.architecture": "clip"},
)


async def delete(fake: FakeOllama, body: object) -> Any:
    async with client(fake) as http:
        return await http.request("DELETE", "/api/delete", content=json.dumps(body))


async def test_show_tells_all_in_order():
    """Each field of the wire is there, in its order, and empty ones are not."""
    async with FakeOllama(models=[FULL, "plain"]) as fake:
        shown = (await ask(fake, "/api/show", {"model": "full"})).json()
        plain = (await ask(fake, "/api/show", {"name": "PLAIN"})).json()
    assert list(shown) == [
        "license", "modelfile", "parameters", "template", "system", "details", "messages",
        "model_info", "projector_info", "tensors", "capabilities", "modified_at", "requires",
    ]  # fmt: skip
    assert shown["license"] == "MIT\nOther"
    assert shown["parameters"].splitlines() == [
        "temperature                    0.6",
        'stop                           "a"',
        'stop                           "b c"',
    ]
    assert list(plain) == [
        "modelfile", "details", "model_info", "tensors", "capabilities", "modified_at",
    ]  # fmt: skip
    assert list(plain["model_info"]) == sorted(plain["model_info"])


async def test_show_overlays():
    """verbose fills the tokenizer's lists; system and options lie over the model's own."""
    async with FakeOllama(models=[FULL]) as fake:
        short = (await ask(fake, "/api/show", {"model": "full"})).json()
        asked = {"model": "full", "verbose": True, "system": "Be long.", "options": {"seed": 7}}
        long = (await ask(fake, "/api/show", asked)).json()
    assert short["model_info"]["tokenizer.ggml.tokens"] is None
    assert long["model_info"]["tokenizer.ggml.tokens"]
    assert long["system"] == "Be long."
    assert "PARAMETER seed 7" in long["modelfile"]
    assert long["parameters"] == short["parameters"]


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("/api/show", {}, 400, "model is required"),
        ("/api/show", {"model": "a b"}, 400, "invalid model name"),
        ("/api/show", {"model": "nope"}, 404, "model 'nope:latest' not found"),
        ("/api/copy", {"source": "a b", "destination": "x"}, 400, 'source "a b" is invalid'),
        ("/api/copy", {"source": "qwen3"}, 400, 'destination "" is invalid'),
        ("/api/copy", {"source": "nope", "destination": "x"}, 404, 'model "nope" not found'),
        ("/api/delete", {}, 400, "model is required"),
        ("/api/delete", {"model": "a b"}, 400, 'name "a b" is invalid'),
        ("/api/delete", {"name": "nope"}, 404, "model 'nope' not found"),
    ],
)
async def test_refused(path, body, status, text):
    """Errors have the server's status and text."""
    async with FakeOllama() as fake:
        response = await (delete(fake, body) if path == "/api/delete" else ask(fake, path, body))
    assert (response.status_code, response.json()) == (status, {"error": text})


async def test_copy_and_delete():
    """A copy has the digest of its source; a deleted model is gone, its layers too."""
    async with FakeOllama() as fake:
        copied = await ask(fake, "/api/copy", {"source": "qwen3", "destination": "me/new:x"})
        assert (copied.status_code, copied.content) == (200, b"")
        assert "content-type" not in copied.headers
        async with client(fake) as http:
            newest = (await http.get("/api/tags")).json()["models"][0]
        assert newest["name"] == "me/new:x"
        old = fake.models.get("qwen3")
        assert newest["digest"] == old.digest
        assert (await delete(fake, {"model": "qwen3"})).content == b""
        assert "qwen3" not in fake.models
        assert old.layers[0].digest in fake.blobs
        await delete(fake, {"model": "ME/New:X"})
        assert old.layers[0].digest not in fake.blobs
        assert not fake.models.remove("qwen3")
        fake.models.add("qwen3")
        assert [model.name.display for model in fake.models][0] == "qwen3:latest"
        assert len(fake.models) == 5


async def test_tags_of_stubs_and_versions():
    """A stub has its two fields and null families; older servers tell less."""
    stub = FakeModel(
        "kimi",
        ("completion",),
        families=(),
        remote_model="kimi-k2",
        remote_host="https://ollama.com:443",
    )
    shown = {}
    for version in ("0.33.0", "0.24.0", "0.11.0"):
        async with (
            FakeOllama(models=[stub, "plain"], version=version) as fake,
            client(fake) as http,
        ):
            shown[version] = (await http.get("/api/tags")).json()["models"]
    assert list(shown["0.33.0"][0])[:4] == ["name", "model", "remote_model", "remote_host"]
    assert shown["0.33.0"][0]["details"]["families"] is None
    assert "capabilities" in shown["0.33.0"][1]
    assert "capabilities" not in shown["0.24.0"][1]
    assert "context_length" not in shown["0.24.0"][1]["details"]
    assert "remote_model" in shown["0.24.0"][0]
    assert "remote_model" not in shown["0.11.0"][0]


async def test_models_can_be_given():
    """A model has the capabilities it is given, and is listed in the order of the list."""
    models = ["b", FakeModel("me/A:x", capabilities=("completion", "insert"), family="z")]
    async with FakeOllama(models=models) as fake, client(fake) as http:
        tags = (await http.get("/api/tags")).json()["models"]
        answer = await http.post(
            "/api/generate", json={"model": "ME/a:X", "prompt": "x", "suffix": "y"}
        )
    assert [model["name"] for model in tags] == ["b:latest", "me/A:x"]
    assert tags[1]["capabilities"] == ["completion", "insert"]
    assert tags[1]["details"]["families"] == ["z"]
    assert len(tags[0]["digest"]) == 64
    assert answer.status_code == 200
    with pytest.raises(ValueError, match="invalid model name"):
        FakeOllama(models=["a b"])


# ---------------------------------------------------------------------------------------------
# In memory


async def test_ps_lists_what_is_loaded():
    """Entries have the server's fields; the one that stays longest comes first."""
    async with FakeOllama() as fake:
        assert await ps(fake) == []
        await ask(fake, "/api/chat", CHAT | {"keep_alive": "1h30m", "options": {"num_ctx": 2048}})
        await ask(fake, "/api/embed", {"model": "all-minilm", "keep_alive": -1})
        forever, other = await ps(fake)
        assert [loaded.name for loaded in fake.loaded] == ["all-minilm:latest", "llama3.2:latest"]
    assert forever["name"] == "all-minilm:latest"
    assert re.match(r"23(18|19)-", forever["expires_at"])
    assert list(other) == [
        "name", "model", "size", "digest", "details", "expires_at", "size_vram", "context_length",
    ]  # fmt: skip
    left = datetime.fromisoformat(other["expires_at"]) - datetime.now(UTC)
    assert timedelta(minutes=89) < left <= timedelta(minutes=90)
    assert other["context_length"] == 2048


async def test_unload():
    """keep_alive 0 unloads: at once where nothing runs, after the answer with a prompt."""
    async with FakeOllama() as fake:
        for path, body in (("/api/generate", {}), ("/api/chat", {"messages": []})):
            for zero in (0, "0", "0s"):
                await ask(fake, "/api/generate", {"model": "qwen3"})
                assert await ps(fake)
                reply = await ask(fake, path, {"model": "qwen3", "keep_alive": zero, **body})
                assert reply.json()["done_reason"] == "unload"
                assert not await ps(fake)
        await ask(fake, "/api/chat", CHAT | {"keep_alive": 0})
        assert not await ps(fake)


async def test_a_deleted_model_stays_loaded():
    """After a bare delete the running copy is still listed, and cannot be unloaded by name."""
    async with FakeOllama() as fake:
        await ask(fake, "/api/generate", {"model": "qwen3"})
        await delete(fake, {"model": "qwen3"})
        assert [entry["name"] for entry in await ps(fake)] == ["qwen3:latest"]
        gone = await ask(fake, "/api/generate", {"model": "qwen3", "keep_alive": 0})
        assert gone.status_code == 404


def test_keep_alive_expires_on_the_mock_clock():
    """Each request resets the timer, the previous value stays, and a running answer holds it."""
    import trio
    import trio.testing

    async def main() -> None:
        # An answer of 100 s in ten steps: each jump of the clock costs its threshold in real time.
        async with FakeOllama(keep_alive=300, tokens=10, token_rate=0.1) as fake:

            async def load(**fields: Any) -> None:
                await ask(fake, "/api/generate", {"model": "qwen3", **fields})

            def names() -> list[str]:
                return [loaded.name for loaded in fake.loaded]

            await load()
            await anyio.sleep(299)
            assert names()
            await load(keep_alive=10)
            await anyio.sleep(9)
            await load()
            await anyio.sleep(9)
            assert names()
            await anyio.sleep(2)
            assert not names()
            async with anyio.create_task_group() as group:
                chat = CHAT | {"keep_alive": 5}
                group.start_soon(lambda: ask(fake, "/api/chat", chat))
                await anyio.sleep(50)
                assert names()
            await anyio.sleep(4)
            assert names()
            await anyio.sleep(2)
            assert not names()

    async def tolerant() -> None:
        with anyio.fail_after(10_000):
            await main()

    trio.run(tolerant, clock=trio.testing.MockClock(autojump_threshold=0.05))
