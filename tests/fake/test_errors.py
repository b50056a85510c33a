"""What the server refuses: each error's status and text, and bodies read as Go reads them."""

from __future__ import annotations

import pytest

from ollama_sc.testing import FakeOllama
from tests.fake.support import CHAT, GENERATE, ask, lines

pytestmark = pytest.mark.anyio

ERRORS = [
    ("/api/chat", b"", 400, "missing request body"),
    ("/api/chat", b"  \n", 400, "missing request body"),
    ("/api/chat", b"null", 400, "model is required"),
    ("/api/chat", {}, 400, "model is required"),
    ("/api/generate", {"prompt": "x"}, 404, "model '' not found"),
    ("/api/embed", {"input": "x"}, 404, "model '' not found"),
    ("/api/chat", {"model": "a b", "messages": []}, 400, "invalid model name"),
    ("/api/generate", {"model": "a b"}, 400, "invalid model name"),
    ("/api/embed", {"model": "-a", "input": "x"}, 400, "invalid model name"),
    ("/api/chat", {"model": "nope"}, 404, "model 'nope' not found"),
    ("/api/generate", {"model": "NOPE:x"}, 404, "model 'NOPE:x' not found"),
    ("/api/embed", {"model": "nope", "input": "x"}, 404, 'model "nope" not found, try pulling it first'),
    ("/api/chat", {"model": "nomic-embed-text"}, 400, '"nomic-embed-text" does not support chat'),
    ("/api/generate", {"model": "all-minilm", "prompt": "x"}, 400, '"all-minilm" does not support generate'),
    ("/api/chat", CHAT | {"think": True}, 400, '"llama3.2" does not support thinking'),
    ("/api/chat", CHAT | {"think": "low"}, 400, '"llama3.2" does not support thinking'),
    ("/api/chat", CHAT | {"think": "huge"}, 400,
     'invalid think value: "huge" (must be "high", "medium", "low", "max", true, or false)'),
    ("/api/chat", CHAT | {"think": 1}, 400,
     'think must be a boolean or string ("high", "medium", "low", "max", true, or false)'),
    ("/api/chat", CHAT | {"model": "gemma3:270m", "tools": [{}]}, 400,
     "registry.ollama.ai/library/gemma3:270m does not support tools"),
    ("/api/generate", {"model": "llama3.2", "prompt": "x", "suffix": "y"}, 400,
     "registry.ollama.ai/library/llama3.2:latest does not support insert"),
    ("/api/chat", CHAT | {"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
    ("/api/generate", GENERATE | {"raw": True, "system": "x"}, 400,
     "raw mode does not support template, system, or context"),
    ("/api/generate", GENERATE | {"template": "{{ x"}, 500, "template: :1: unclosed action"),
    ("/api/chat", CHAT | {"keep_alive": "abc"}, 400, 'time: invalid duration "abc"'),
    ("/api/chat", CHAT | {"keep_alive": "3600"}, 400, 'time: missing unit in duration "3600"'),
    ("/api/embed", {"model": "all-minilm", "keep_alive": True}, 400, "Unsupported type: 'bool'"),
    ("/api/chat", CHAT | {"format": "yaml"}, 500,
     'invalid format: "\\"yaml\\""; expected "json" or a valid JSON Schema object'),
    ("/api/chat", CHAT | {"options": {"num_ctx": "x"}}, 500, 'option "num_ctx" must be of type integer'),
    ("/api/chat", CHAT | {"options": {"top_p": True}}, 500, 'option "top_p" must be of type float32'),
    ("/api/chat", CHAT | {"options": {"use_mmap": 1}}, 500, 'option "use_mmap" must be of type boolean'),
    ("/api/chat", CHAT | {"options": {"stop": "x"}}, 500, 'option "stop" must be of type array'),
    ("/api/chat", CHAT | {"options": {"stop": [1]}}, 500, 'option "stop" must be of an array of strings'),
    ("/api/embed", {"model": "all-minilm", "input": 5}, 400, "invalid input type"),
    ("/api/embed", {"model": "all-minilm", "input": ["a", 5]}, 400, "invalid input type"),
    ("/api/embed", {"model": "all-minilm", "input": "a b c", "truncate": False, "options": {"num_ctx": 2}},
     400, "the input length exceeds the context length"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "text"), ERRORS)
async def test_refused_requests(path, body, status, text):
    """What the server refuses draws its status and its text."""
    async with FakeOllama() as fake:
        response = await ask(fake, path, body)
    assert (response.status_code, response.json()) == (status, {"error": text})


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[1]",
        b'"x"',
        b'{"model":NaN}',
        {"model": 5},
        CHAT | {"messages": "x"},
        CHAT | {"messages": ["x"]},
        CHAT | {"messages": [{"role": "user", "content": ["parts"]}]},
        CHAT | {"messages": [{"role": "user", "content": "", "images": ["%"]}]},
        CHAT | {"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}]},
        CHAT | {"options": []},
        CHAT | {"stream": "yes"},
    ],
)
async def test_json_that_does_not_decode_is_a_400(body):
    """Broken JSON and wrong types draw a 400 with an error object."""
    async with FakeOllama() as fake:
        response = await ask(fake, "/api/chat", body)
    assert response.status_code == 400
    assert response.json()["error"]


async def test_a_bad_format_is_the_first_item_of_a_stream():
    """It has its status and application/json without charset; without a stream the usual type."""
    async with FakeOllama() as fake:
        first = await ask(fake, "/api/chat", CHAT | {"format": 5})
        single = await ask(fake, "/api/chat", CHAT | {"format": 5, "stream": False})
    assert first.headers["content-type"] == "application/json"
    assert first.headers["transfer-encoding"] == "chunked"
    assert single.headers["content-type"] == "application/json; charset=utf-8"
    assert first.status_code == single.status_code == 500


async def test_bodies_are_read_as_go_reads_them():
    """Keys match in any case, null is absent, unknown keys and what follows the value are ignored."""
    body = b'{"MODEL":"LLAMA3.2","Messages":[{"Role":"user","CONTENT":"x"}],"stream":null,"x":1} trailing'
    async with FakeOllama(tokens=2) as fake:
        got = lines(await ask(fake, "/api/chat", body))
    assert len(got) == 3
    assert {item["model"] for item in got} == {"LLAMA3.2"}
