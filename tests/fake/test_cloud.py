"""The fake's account, web endpoints and models in the cloud."""

from __future__ import annotations

import pytest

from ollama_sc.testing import FakeModel, FakeOllama
from tests.fake.support import CHAT, ask, client, get, lines

pytestmark = pytest.mark.anyio


# ---------------------------------------------------------------------------------------------
# The account


async def test_me_and_sign_out():
    """The account, until it is signed out; then 401 with the URL to sign in."""
    async with FakeOllama() as fake:
        me = await get(fake, "/api/me", "POST")
        out = await get(fake, "/api/signout", "POST")
        again = await get(fake, "/api/signout", "POST")
        stranger = await get(fake, "/api/me", "POST")
        fake.cloud.reachable = False
        away = await get(fake, "/api/me", "POST")
        failed = await get(fake, "/api/signout", "POST")
    assert list(me.json()) == ["id", "email", "name", "plan"]
    assert out.content == b"null"
    assert (again.status_code, again.json()) == (401, {"error": "you are not currently signed in"})
    assert (stranger.status_code, list(stranger.json())) == (401, ["error", "signin_url"])
    assert (away.status_code, away.json()) == (503, {"error": "account unavailable"})
    assert (failed.status_code, failed.json()) == (500, {"error": "there was an error signing out"})


async def test_status_and_recommendations():
    """Whether the cloud is off, and a list."""
    async with FakeOllama() as fake:
        on = (await get(fake, "/api/status")).json()
        fake.cloud.disabled = True
        off = (await get(fake, "/api/status")).json()
        found = (await get(fake, "/api/experimental/model-recommendations")).json()
    assert on == {"cloud": {"disabled": False, "source": "none"}}
    assert off == {"cloud": {"disabled": True, "source": "env"}}
    assert {"model", "description"} <= set(found["recommendations"][0])


# ---------------------------------------------------------------------------------------------
# The web


async def test_the_web_by_way_of_the_server():
    """Results without a key; refused when the cloud is off or nobody is signed in."""
    async with FakeOllama() as fake:
        found = await ask(fake, "/api/experimental/web_search", {"query": "x", "max_results": 2})
        page = await ask(fake, "/api/experimental/web_fetch", {"url": "https://x.example/a"})
        for path in ("web_search", "web_fetch"):
            assert (await ask(fake, f"/api/experimental/{path}", {})).status_code == 400
        fake.cloud.signed_in = False
        unknown = await ask(fake, "/api/experimental/web_search", {"query": "x"})
        fake.cloud.disabled = True
        off = [
            (await ask(fake, f"/api/experimental/{path}", {"query": "x", "url": "x"})).json()[
                "error"
            ]
            for path in ("web_search", "web_fetch")
        ]
    assert [list(result) for result in found.json()["results"]] == [["title", "url", "content"]] * 2
    assert list(page.json()) == ["title", "content", "links"]
    assert unknown.status_code == 401
    assert off == [
        f"ollama cloud is disabled: web {what} is unavailable" for what in ("search", "fetch")
    ]


async def test_the_web_as_ollama_com_answers():
    """A Bearer key is needed; which keys are right is said at the start."""
    async with FakeOllama(keys=["good"]) as fake, client(fake) as http:
        for path, body in (("/api/web_search", {"query": "x"}), ("/api/web_fetch", {"url": "x"})):
            for header in ({}, {"Authorization": "Bearer bad"}, {"Authorization": "Basic good"}):
                assert (await http.post(path, json=body, headers=header)).status_code == 401
            right = {"Authorization": "Bearer good"}
            assert (await http.post(path, json=body, headers=right)).status_code == 200
    async with FakeOllama() as fake, client(fake) as http:
        any_key = {"Authorization": "Bearer anything"}
        assert (
            await http.post("/api/web_search", json={"query": "x"}, headers=any_key)
        ).status_code == 200


# ---------------------------------------------------------------------------------------------
# Models in the cloud


STUB = FakeModel(
    "kimi",
    ("completion", "tools"),
    families=(),
    remote_model="kimi-k2",
    remote_host="https://ollama.com:443",
)


async def test_cloud_names_are_proxied():
    """The bare name comes back, without remote fields; nothing is loaded."""
    async with FakeOllama() as fake:
        for name, bare in (("x:cloud", "x"), ("gpt-oss:120b-cloud", "gpt-oss:120b")):
            got = lines(await ask(fake, "/api/chat", CHAT | {"model": name}))
            assert {line["model"] for line in got} == {bare}
            assert "remote_model" not in got[0]
        assert (
            await ask(fake, "/api/embed", {"model": "x:cloud", "input": "a"})
        ).status_code == 200
        assert not fake.loaded
        both = await ask(fake, "/api/chat", CHAT | {"model": "x:cloud:local"})
        assert (both.status_code, both.json()["error"]) == (
            400, 'use either :local or :cloud, not both: "x:cloud:local"',
        )  # fmt: skip
        local = lines(await ask(fake, "/api/chat", CHAT | {"model": "llama3.2:local"}))
        assert local[0]["model"] == "llama3.2:local"
    async with FakeOllama(version="0.17.5") as fake:
        assert (await ask(fake, "/api/chat", CHAT | {"model": "x:cloud"})).status_code == 404


async def test_what_the_cloud_refuses():
    """Verbatim for cloud names, reshaped for stubs."""
    async with FakeOllama(models=[STUB]) as fake:
        cloud, stub = CHAT | {"model": "x:cloud"}, CHAT | {"model": "kimi"}
        fake.cloud.limited = 30
        verbatim = await ask(fake, "/api/chat", cloud)
        shaped = await ask(fake, "/api/chat", stub)
        fake.cloud.signed_in = False
        for body in (cloud, stub):
            stranger = await ask(fake, "/api/chat", body)
            assert (stranger.status_code, list(stranger.json())) == (401, ["error", "signin_url"])
        fake.cloud.reachable = False
        assert (await ask(fake, "/api/chat", cloud)).status_code == 502
        fake.cloud.disabled = True
        off = await ask(fake, "/api/generate", {"model": "kimi", "prompt": "x"})
        details = await ask(fake, "/api/show", {"model": "kimi"})
    assert (verbatim.status_code, verbatim.headers["retry-after"]) == (429, "30")
    assert list(verbatim.json()) == ["error"]
    assert shaped.status_code == 429
    assert "retry-after" not in shaped.headers
    assert list(shaped.json()) == ["StatusCode", "Status", "error"]
    assert shaped.headers["content-type"] == "application/x-ndjson"
    assert (off.status_code, off.json()["error"]) == (
        403, "ollama cloud is disabled: remote model is unavailable",
    )  # fmt: skip
    assert (
        details.json()["error"] == "ollama cloud is disabled: remote model details are unavailable"
    )


async def test_stubs():
    """The requested name and the remote fields on each object; embedding is not possible."""
    foreign = FakeModel("other", ("completion",), remote_model="x", remote_host="https://x.example")
    async with FakeOllama(models=[STUB, foreign]) as fake:
        got = lines(await ask(fake, "/api/chat", CHAT | {"model": "Kimi"}))
        loaded = lines(await ask(fake, "/api/generate", {"model": "kimi"}))
        away = await ask(fake, "/api/chat", {"model": "kimi", "keep_alive": 0})
        shown = (await ask(fake, "/api/show", {"model": "kimi"})).json()
        embedded = await ask(fake, "/api/embed", {"model": "kimi", "input": "x"})
        local = await ask(fake, "/api/chat", CHAT | {"model": "kimi:local"})
        refused = await ask(fake, "/api/chat", CHAT | {"model": "other"})
        assert not fake.loaded
    assert list(got[0]) == ["model", "remote_model", "remote_host", "created_at", "message", "done"]
    assert got[0]["model"] == "Kimi"
    assert len(loaded) > 1
    assert away.json()["done_reason"] == "unload"
    assert shown["remote_model"] == "kimi-k2"
    assert embedded.json()["error"] == 'model "kimi" not found, try pulling it first'
    assert local.json()["error"] == "model 'kimi:local' not found"
    assert refused.json()["error"] == "this server cannot run this remote model"
