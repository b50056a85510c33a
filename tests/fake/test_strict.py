"""The fake refuses what Go's decoder refuses, and no request makes it crash."""

from __future__ import annotations

import json

import pytest

from ollama_sc.testing import FakeModel, FakeOllama
from tests.fake.support import CHAT, GENERATE, ask, lines, ps

pytestmark = pytest.mark.anyio

EMBED = {"model": "all-minilm", "input": "x"}
HUGE = "1e999"


def message(**fields):
    return CHAT | {"messages": [{"role": "user", "content": "x"} | fields]}


def call(**fields):
    return message(tool_calls=[{"function": {"name": "f", "arguments": {}}} | fields])


def tool(**fields):
    return CHAT | {"tools": [{"type": "function", "function": {"name": "f"}} | fields]}


WRONG = [
    ("/api/generate", GENERATE | {"system": 1}, "number into Go struct field GenerateRequest.system of type string"),
    ("/api/generate", GENERATE | {"system": {}}, "object into"),
    ("/api/generate", GENERATE | {"context": ["a"]}, "string into Go struct field GenerateRequest.context of type int"),
    ("/api/generate", GENERATE | {"context": "x"}, "of type []int"),
    ("/api/generate", GENERATE | {"context": [1.5]}, "number 1.5 into"),
    ("/api/generate", GENERATE | {"truncate": "x"}, "GenerateRequest.truncate of type bool"),
    ("/api/generate", GENERATE | {"shift": 1}, "GenerateRequest.shift of type bool"),
    ("/api/generate", GENERATE | {"width": 1.5}, "GenerateRequest.width of type int32"),
    ("/api/generate", GENERATE | {"steps": 1 << 63}, "GenerateRequest.steps of type int32"),
    ("/api/chat", message(thinking=1), "Message.thinking of type string"),
    ("/api/chat", message(tool_name=1), "Message.tool_name of type string"),
    ("/api/chat", message(tool_call_id=[]), "Message.tool_call_id of type string"),
    ("/api/chat", call(id=1), "ToolCall.id of type string"),
    ("/api/chat", call(function={"name": 1}), "ToolCallFunction.name of type string"),
    ("/api/chat", call(function={"name": "f", "index": "0"}), "ToolCallFunction.index of type int"),
    ("/api/chat", tool(type=1), "Tool.type of type string"),
    ("/api/chat", tool(function={"name": 1}), "ToolFunction.name of type string"),
    ("/api/embed", EMBED | {"dimensions": 1 << 63}, "EmbedRequest.dimensions of type int"),
    ("/api/show", {"model": "all-minilm", "template": 1}, "ShowRequest.template of type string"),
    ("/api/pull", {"model": "x", "username": 1}, "PullRequest.username of type string"),
    ("/api/create", {"model": "x", "from": "llama3.2", "messages": [{"role": 1}]}, "Message.role of type string"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "text"), WRONG)
async def test_wrong_types_are_refused(path, body, text):
    """Each draws a 400 that names the field."""
    async with FakeOllama() as fake:
        response = await ask(fake, path, body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error.startswith("json: cannot unmarshal ")
    assert text in error


@pytest.mark.parametrize("number", [HUGE, "-" + HUGE, "1" * 400])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", GENERATE | {"options": {"num_ctx": 0}}),
        ("/api/chat", CHAT | {"options": {"seed": 0}}),
        ("/api/chat", CHAT | {"keep_alive": 0}),
        ("/api/embed", EMBED | {"options": {"num_ctx": 0}}),
        ("/api/embeddings", {"model": "all-minilm", "prompt": "x", "options": {"num_ctx": 0}}),
        ("/api/create", {"model": "x", "from": "llama3.2", "info": {"context_length": 0}}),
    ],
)
async def test_numbers_beyond_float64_are_refused(path, body, number):
    """Wherever they are in the body."""
    data = json.dumps(body).replace(": 0}", f": {number}}}").encode()
    async with FakeOllama() as fake:
        response = await ask(fake, path, data)
    assert response.status_code == 400
    assert f"cannot unmarshal number {number}" in response.json()["error"]


ARRAY = b'{"type":"array","items":{"type":"integer"},"minItems":%b}'


@pytest.mark.parametrize(
    "schema",
    [
        b'{"properties":1}',
        b'{"type":"object","properties":[1]}',
        b'{"type":[]}',
        b'{"anyOf":{"a":1}}',
        b'{"enum":{"a":1}}',
        b'{"type":"integer","minimum":"x"}',
        b'{"$ref":"#/x/y"}',
        b'{"type":"array","minItems":16,"items":{"$ref":"#"}}',
        *(ARRAY % value for value in (b'"x"', b"null", b"[]", b"true", b"3000000", b"1e300")),
    ],
)
async def test_schemas_with_wrong_types_do_not_crash(schema):
    """They are answered with some short JSON."""
    body = CHAT | {"stream": False, "format": 0}
    data = json.dumps(body).encode().replace(b'"format": 0', b'"format":' + schema)
    async with FakeOllama() as fake:
        response = await ask(fake, "/api/chat", data)
    assert response.status_code == 200
    content = response.json()["message"]["content"]
    assert len(content) < 20_000
    json.loads(content)


@pytest.mark.parametrize("keep_alive", [10**18, 1e300, 1e10])
async def test_a_long_keep_alive_is_for_ever(keep_alive):
    """The server cannot count longer than 292 years."""
    async with FakeOllama() as fake:
        await ask(fake, "/api/chat", CHAT | {"keep_alive": keep_alive})
        response = await ps(fake)
    assert response[0]["expires_at"][:2] == "23"


async def test_large_options_and_steps_are_answered():
    """What fits in a float64 is no reason to crash."""
    model = FakeModel("painter", capabilities=("image",))
    async with FakeOllama(models=["llama3.2", model], version="0.20.0") as fake:
        response = await ask(fake, "/api/chat", CHAT | {"options": {"num_ctx": 1e300}})
        assert lines(response)[-1]["done"]
        assert (await ps(fake))[0]["context_length"] == (1 << 63) - 1
        body = {"model": "painter", "prompt": "x", "steps": (1 << 31) - 1, "stream": False}
        assert (await ask(fake, "/api/generate", body)).json()["image"]


async def test_a_defect_is_a_500_and_is_raised_on_leaving(monkeypatch):
    """As of a handler that panics in Go: an empty body."""

    def broken(*_args, **_kwargs):
        raise ZeroDivisionError

    monkeypatch.setattr("ollama_sc.testing._model.responses.lines", broken)
    status: list[tuple[int, bytes]] = []
    with pytest.raises(ZeroDivisionError):
        async with FakeOllama() as fake:
            response = await ask(fake, "/api/chat", CHAT)
            status.append((response.status_code, response.content))
    assert status == [(500, b"")]
