"""What servers of other versions have not, or do otherwise."""

from __future__ import annotations

import base64

import pytest

from ollama_sc.testing import FakeModel, FakeOllama, Reply
from ollama_sc.testing._version import Version
from tests.fake.support import CHAT, GENERATE, ask, get, lines

pytestmark = pytest.mark.anyio


def test_versions():
    """Numbers are compared, suffixes left out; what is no number is newest."""
    assert Version("0.33.0-rc2").has((0, 33, 0))
    assert Version("v1.2").has((0, 99, 0))
    assert not Version("0.9.9").has((0, 10, 0))
    assert Version("dev").has((9, 0, 0))


@pytest.mark.parametrize(
    ("path", "method", "since"),
    [
        ("/api/me", "POST", "0.12.0"),
        ("/api/signout", "POST", "0.12.1"),
        ("/api/status", "GET", "0.16.2"),
        ("/api/experimental/web_search", "POST", "0.18.0"),
        ("/api/experimental/web_fetch", "POST", "0.18.0"),
        ("/api/experimental/model-recommendations", "GET", "0.22.1"),
    ],
)
async def test_endpoints_come_with_their_version(path, method, since):
    """Before it they are 404."""
    major, minor, patch = (int(part) for part in since.split("."))
    before = f"{major}.{minor}.{patch - 1}" if patch else f"{major}.{minor - 1}.99"
    for version, there in ((since, True), (before, False), ("dev", True)):
        async with FakeOllama(version=version) as fake:
            assert ((await get(fake, path, method)).status_code != 404) == there


async def test_older_servers_know_less():
    """Embedding with generative models, levels of thinking, fields of tool calls and logprobs."""
    call = Reply.chat_text(tool_calls=[{"name": "f"}])
    async with FakeOllama(version="0.12.5") as fake:
        embedded = await ask(fake, "/api/embed", {"model": "llama3.2", "input": "x"})
        batch = await ask(fake, "/api/embed", {"model": "all-minilm", "input": ["x", ""]})
        level = await ask(fake, "/api/chat", CHAT | {"model": "qwen3", "think": "max"})
        fake.script("/api/chat", call)
        tools = [{"type": "function", "function": {"name": "f"}}]
        called = lines(await ask(fake, "/api/chat", CHAT | {"tools": tools}))
        logprobs = lines(await ask(fake, "/api/generate", GENERATE | {"logprobs": True}))
    assert (embedded.status_code, embedded.json()["error"]) == (
        501,
        "this model does not support embeddings",
    )
    assert (batch.status_code, batch.json()["error"]) == (
        500, "Failed to create new sequence: no input provided",
    )  # fmt: skip
    assert level.json()["error"].endswith('(must be "high", "medium", "low", true, or false)')
    assert called[0]["message"]["tool_calls"] == [{"function": {"name": "f", "arguments": {}}}]
    assert "bytes" not in logprobs[0]["logprobs"][0]


async def test_image_generation_came_and_went():
    """Servers of some versions stream progress and an image; others refuse such a model."""
    painter = FakeModel("painter", ("completion", "image"))
    body = {"model": "painter", "prompt": "x", "steps": 2, "width": 64}
    async with FakeOllama(models=[painter], version="0.20.0") as fake:
        got = lines(await ask(fake, "/api/generate", body))
        single = (await ask(fake, "/api/generate", body | {"stream": False})).json()
        assert (await ask(fake, "/api/generate", body | {"width": 5000})).status_code == 400
    assert [line.get("completed") for line in got] == [1, 2, None]
    assert base64.b64decode(got[-1]["image"]) == base64.b64decode(single["image"])
    async with FakeOllama(models=[painter]) as fake:
        refused = await ask(fake, "/api/generate", body)
    assert refused.json() == {"error": "image generation models are not currently supported"}
