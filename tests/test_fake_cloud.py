"""The fake's account, cloud, web endpoints and compatibility layer; versions; who may ask."""

import base64
import struct
from typing import Any

import pytest
from ollama_sc.testing import FakeModel, FakeOllama, Reply
from ollama_sc.testing._version import Version
from test_fake import CHAT, GENERATE, ask, client, lines

pytestmark = pytest.mark.anyio

STUB = FakeModel(
    "kimi",
    ("completion", "tools"),
    families=(),
    remote_model="kimi-k2",
    remote_host="https://ollama.com:443",
)


async def get(fake: FakeOllama, path: str, method: str = "GET", **headers: str) -> Any:
    async with client(fake) as http:
        return await http.request(method, path, headers=headers)


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


# ---------------------------------------------------------------------------------------------
# Embeddings in other forms


async def test_base64_embeddings_are_the_floats():
    """/v1/embeddings has the same float32 in both forms and in /api/embed."""
    asked = {"model": "all-minilm", "input": ["a", "b c"]}
    async with FakeOllama(dimensions=16) as fake:
        native = (await ask(fake, "/api/embed", asked)).json()
        plain = await ask(fake, "/v1/embeddings", asked)
        coded = (await ask(fake, "/v1/embeddings", asked | {"encoding_format": "BASE64"})).json()
        single = (await ask(fake, "/v1/embeddings", asked | {"input": ""})).json()
    assert plain.content.endswith(b"\n")
    assert list(plain.json()) == ["object", "data", "model", "usage"]
    for item, code, vector in zip(
        plain.json()["data"], coded["data"], native["embeddings"], strict=True
    ):
        raw = base64.b64decode(code["embedding"])
        assert raw == struct.pack("<16f", *item["embedding"]) == struct.pack("<16f", *vector)
    assert coded["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert len(single["data"]) == 1


@pytest.mark.parametrize(
    ("fields", "status", "kind", "text"),
    [
        ({"encoding_format": "hex"}, 400, "invalid_request_error",
         "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64']."),
        ({"input": []}, 400, "invalid_request_error", "invalid input"),
        ({"input": [[1, 2]]}, 400, "invalid_request_error", "invalid input type"),
        ({"model": "nope"}, 404, "not_found_error", 'model "nope" not found, try pulling it first'),
    ],
)  # fmt: skip
async def test_openai_errors(fields, status, kind, text):
    """Errors are objects in OpenAI's form."""
    async with FakeOllama() as fake:
        got = await ask(fake, "/v1/embeddings", {"model": "all-minilm", "input": "x", **fields})
    error = {"message": text, "type": kind, "param": None, "code": None}
    assert (got.status_code, got.json()) == (status, {"error": error})


async def test_legacy_embeddings():
    """One vector of float32 that were widened, not normalised; errors of the model are 500."""
    async with FakeOllama(dimensions=8) as fake:
        got = (await ask(fake, "/api/embeddings", {"model": "all-minilm", "prompt": "x"})).json()
        empty = (await ask(fake, "/api/embeddings", {"model": "all-minilm"})).json()
        nameless = await ask(fake, "/api/embeddings", {"prompt": "x"})
        long = {"model": "all-minilm", "prompt": "a b c", "options": {"num_ctx": 2}}
        refused = await ask(fake, "/api/embeddings", long)
        assert fake.loaded
    assert list(got) == ["embedding"]
    assert list(struct.unpack("<8f", struct.pack("<8f", *got["embedding"]))) == got["embedding"]
    assert sum(number * number for number in got["embedding"]) > 2
    assert empty == {"embedding": []}
    assert (nameless.status_code, nameless.json()["error"]) == (400, "model is required")
    assert refused.status_code == 500


# ---------------------------------------------------------------------------------------------
# Versions


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


def test_versions():
    """Numbers are compared, suffixes left out; what is no number is newest."""
    assert Version("0.33.0-rc2").has((0, 33, 0))
    assert Version("v1.2").has((0, 99, 0))
    assert not Version("0.9.9").has((0, 10, 0))
    assert Version("dev").has((9, 0, 0))


async def test_debug_render_only():
    """The prompt comes back, and nothing is generated."""
    async with FakeOllama() as fake:
        chat = (await ask(fake, "/api/chat", CHAT | {"_debug_render_only": True})).json()
        body = {**GENERATE, "_debug_render_only": True, "images": ["aGk="]}
        generate = (await ask(fake, "/api/generate", body)).json()
    assert list(chat) == ["model", "created_at", "message", "done", "_debug_info"]
    assert chat["_debug_info"] == {"rendered_template": "Why?"}
    assert generate["_debug_info"] == {"rendered_template": "The sky is", "image_count": 1}


# ---------------------------------------------------------------------------------------------
# Who may ask


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403),
        ("http://localhost", 200),
        ("https://127.0.0.1:99", 200),
        ("app://x", 200),
        ("https://good.example", 200),
        ("null", 403),
    ],
)
async def test_origins(origin, status):
    """A page from elsewhere gets a 403 without a body; others a header that lets them read."""
    async with FakeOllama(origins=["https://good.example"]) as fake:
        got = await get(fake, "/api/version", Origin=origin)
        asked = await get(fake, "/api/chat", "OPTIONS", Origin=origin)
        own = await get(fake, "/api/version", Origin=fake.url)
    assert got.status_code == status
    assert bool(got.content) == (status == 200)
    assert got.headers.get("access-control-allow-origin") == (origin if status == 200 else None)
    assert asked.status_code == (204 if status == 200 else 403)
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers
