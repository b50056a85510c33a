"""The fake's pull and push: progress, failures, sharing, and what is left behind."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest

from ollama_sc.testing import FakeLayer, FakeOllama, FakePull, Registry
from tests.fake.support import ask, leave_at, lines, statuses

pytestmark = pytest.mark.anyio

LAYERS = (FakeLayer(1000), FakeLayer(10), FakeLayer(4))


async def pull(fake: FakeOllama, name: str = "new", **fields: Any) -> list[dict[str, Any]]:
    return lines(await ask(fake, "/api/pull", {"model": name, **fields}))


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
        group.start_soon(keep, fake)
        await anyio.sleep(0.15)
        group.start_soon(keep, fake)
        await fake.wait_for_requests(2)
        with anyio.fail_after(5):
            while len(results) < 2:
                await anyio.sleep(0.01)
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


def test_names_in_a_registry_must_be_names():
    """A mistake in a test is an error of its own."""
    with pytest.raises(ValueError, match="invalid model name"):
        Registry(["a b"])
