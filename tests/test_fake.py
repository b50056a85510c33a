"""The fake server: what it answers by itself, its record, and its life. Driven without our client."""

import json
import math
import re
import ssl
import struct
from typing import Any

import anyio
import httpx
import pytest
import trustme
from ollama_sc.testing import FakeModel, FakeOllama, Reply, _gojson

pytestmark = pytest.mark.anyio

CHAT = {"model": "llama3.2", "messages": [{"role": "user", "content": "Why?"}]}
GENERATE = {"model": "gemma3:270m", "prompt": "The sky is"}


def post(path: str, body: object, *, version: str = "1.1", extra: str = "") -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/{version}\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n{extra}\r\n"
    return head.encode() + data


async def read_all(stream) -> tuple[bytes, bool]:
    """All bytes until the end, and whether that was a clean one."""
    data = b""
    try:
        while True:
            data += await stream.receive()
    except anyio.EndOfStream:
        return data, True
    except anyio.BrokenResourceError:
        return data, False


async def exchange(fake: FakeOllama, request: bytes) -> tuple[bytes, bool]:
    """Send one request over a connection of its own, read until the server closes."""
    async with await anyio.connect_tcp(fake.host, fake.port) as stream:
        await stream.send(request)
        return await read_all(stream)


async def head_and_body(stream) -> tuple[bytes, bytes]:
    """One response with Content-Length or chunks, from a connection that stays open."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while (len(body) < int(length[1])) if length else (not body.endswith(b"0\r\n\r\n")):
        body += await stream.receive()
    return head, body


def client(fake: FakeOllama, **kwargs: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=fake.url, timeout=20, trust_env=False, **kwargs)


async def ask(fake: FakeOllama, path: str, body: object) -> httpx.Response:
    async with client(fake) as http:
        if isinstance(body, bytes):
            return await http.post(path, content=body)
        return await http.post(path, json=body)


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in response.text.splitlines()]


async def test_each_line_of_a_stream_is_a_chunk():
    """A stream is chunked with one object and newline a chunk, then an empty chunk."""
    async with FakeOllama(tokens=3) as fake:
        answer, _ = await exchange(fake, post("/api/chat", CHAT, extra="Connection: close\r\n"))
    body = answer.partition(b"\r\n\r\n")[2]
    chunks = re.findall(rb"([0-9a-f]+)\r\n(\{.*?\}\n)\r\n", body)
    assert len(chunks) == 4
    assert all(int(size, 16) == len(data) for size, data in chunks)
    assert body.endswith(b"\r\n0\r\n\r\n")


# ---------------------------------------------------------------------------------------------
# Errors and rules, as tables

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


@pytest.mark.parametrize(
    ("path", "text"), [("/api/chat", "message"), ("/api/generate", "response")]
)
@pytest.mark.parametrize(
    ("keep_alive", "reason"), [(None, "load"), (0, "unload"), ("0s", "unload"), (5, "load")]
)
async def test_load_and_unload_are_single_objects(path, text, keep_alive, reason):
    """They are one application/json object, though a stream was asked for."""
    async with FakeOllama() as fake:
        response = await ask(fake, path, {"model": "llama3.2", "keep_alive": keep_alive})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert not response.text.endswith("\n")
    value = response.json()
    empty = {"role": "assistant", "content": ""} if text == "message" else ""
    del value["created_at"]
    assert value == {"model": "llama3.2", text: empty, "done": True, "done_reason": reason}


async def test_routing():
    """Unknown paths, wrong methods, slashes at the end and HEAD are treated as the router does."""
    async with FakeOllama() as fake, client(fake) as http:
        missing = await http.get("/api/none")
        assert (missing.status_code, missing.text) == (404, "404 page not found")
        wrong = await http.request("DELETE", "/api/version")
        assert (wrong.status_code, wrong.text) == (405, "405 method not allowed")
        assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD"}
        slash = await http.get("/api/tags/?a=b")
        assert (slash.status_code, slash.headers["location"]) == (301, "/api/tags?a=b")
        slash = await http.post("/api/chat/", json=CHAT)
        assert (slash.status_code, slash.headers["location"], slash.content) == (
            307,
            "/api/chat",
            b"",
        )
        for path in ("/", "/api/version", "/api/tags"):
            head = await http.head(path)
            assert (head.status_code, head.content) == (200, b"")
        assert fake.connections == 1


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("8.8.8.8", 403),
        ("localhost:1", 200),
        ("a.local", 200),
        ("[::1]:5", 200),
        ("10.0.0.1", 200),
    ],
)
async def test_a_foreign_host_is_refused(host, status):
    """A server bound to loopback answers 403 without a body to foreign Host headers."""
    async with FakeOllama() as fake, client(fake) as http:
        response = await http.get("/api/version", headers={"Host": host})
    assert response.status_code == status
    assert bool(response.content) == (status == 200)


# ---------------------------------------------------------------------------------------------
# Generation


async def test_text_follows_from_the_request():
    """The same request draws the same text, another one another text; joined deltas are the single answer."""
    async with FakeOllama() as fake:
        first = lines(await ask(fake, "/api/chat", CHAT))
        single = (await ask(fake, "/api/chat", CHAT | {"stream": False})).json()
        other = (
            await ask(
                fake,
                "/api/chat",
                {**CHAT, "messages": [{"role": "user", "content": "?"}], "stream": False},
            )
        ).json()
    text = "".join(item["message"]["content"] for item in first)
    assert len(first) == 25
    assert text == single["message"]["content"] != other["message"]["content"]
    assert "synthetic" in text
    assert [item["done"] for item in first] == [False] * 24 + [True]
    assert first[-1]["done_reason"] == "stop"
    assert first[-1]["eval_count"] == 24
    assert not any("total_duration" in item for item in first[:-1])


@pytest.mark.parametrize(
    ("num_predict", "count", "reason"),
    [(3, 3, "length"), (40, 40, "length"), (-1, 24, "stop"), (2.9, 2, "length")],
)
async def test_num_predict(num_predict, count, reason):
    """num_predict decides the length; floats are cut."""
    async with FakeOllama() as fake:
        got = lines(
            await ask(fake, "/api/generate", GENERATE | {"options": {"num_predict": num_predict}})
        )
    assert len(got) - 1 == got[-1]["eval_count"] == count
    assert got[-1]["done_reason"] == reason
    assert len(got[-1]["context"]) >= count


async def test_stop_cuts_the_text():
    """The text ends before the first stop string."""
    async with FakeOllama() as fake:
        got = await ask(
            fake,
            "/api/generate",
            GENERATE | {"stream": False, "options": {"stop": ["fake", "s syn"]}},
        )
    assert got.json()["response"] == "This i"
    assert got.json()["done_reason"] == "stop"


async def test_thinking_comes_first_and_by_default():
    """A model that can think does so unless think is false."""
    async with FakeOllama() as fake:
        got = lines(await ask(fake, "/api/chat", CHAT | {"model": "qwen3"}))
        quiet = lines(await ask(fake, "/api/chat", CHAT | {"model": "qwen3", "think": False}))
    kinds = ["thinking" in item["message"] for item in got]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds[0]
    assert not kinds[-1]
    assert not any("thinking" in item["message"] for item in quiet)


async def test_logprobs():
    """Each chunk has those of its token, the last none; a single answer has all."""
    async with FakeOllama(tokens=3) as fake:
        got = lines(await ask(fake, "/api/chat", CHAT | {"logprobs": True, "top_logprobs": 2}))
        plain = lines(await ask(fake, "/api/generate", GENERATE | {"logprobs": True}))
        single = (await ask(fake, "/api/chat", CHAT | {"logprobs": True, "stream": False})).json()
    entry = got[0]["logprobs"][0]
    assert entry["token"] == got[0]["message"]["content"]
    assert bytes(entry["bytes"]).decode() == entry["token"]
    assert len(entry["top_logprobs"]) == 2
    assert "logprobs" not in got[-1]
    assert "top_logprobs" not in plain[0]["logprobs"][0]
    assert len(single["logprobs"]) == 3


async def test_format_gives_json_that_fits():
    """With a schema the text is an object of its properties; with "json" any object."""
    schema = {
        "type": "object",
        "$defs": {"color": {"enum": ["red", "blue"]}},
        "properties": {
            "city": {"type": "string"},
            "people": {"type": "integer"},
            "color": {"$ref": "#/$defs/color"},
            "tags": {"type": "array", "items": {"type": ["boolean", "null"]}},
            "size": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        },
    }
    async with FakeOllama() as fake:
        fitted = (await ask(fake, "/api/chat", CHAT | {"format": schema, "stream": False})).json()
        streamed = lines(await ask(fake, "/api/chat", CHAT | {"format": "json"}))
    assert json.loads(fitted["message"]["content"]) == {
        "city": "text", "people": 1, "color": "red", "tags": [True], "size": 0.5,
    }  # fmt: skip
    assert isinstance(json.loads("".join(item["message"]["content"] for item in streamed)), dict)


async def test_scripted_text_and_tool_calls():
    """Reply.chat_text becomes a stream or an object of either endpoint, as the request asks."""
    reply = Reply.chat_text(
        "Hi <you> & me",
        thinking=["Hm", "m"],
        tool_calls=[{"name": "f", "arguments": {"b": 1, "a": 2}}],
    )
    async with FakeOllama() as fake:
        fake.always("/api/chat", reply)
        fake.script("/api/generate", reply, reply.but())
        chat = await ask(fake, "/api/chat", CHAT)
        single = (await ask(fake, "/api/chat", CHAT | {"stream": False, "tools": [{}]})).json()
        without = (await ask(fake, "/api/chat", CHAT | {"stream": False})).json()
        generate = lines(await ask(fake, "/api/generate", GENERATE))
        refused = await ask(fake, "/api/chat", CHAT | {"model": "nope"})
        fake.always("/api/chat", Reply.chat_text(tool_calls=[{"name": "f"}], calls_at_end=True))
        at_end = lines(await ask(fake, "/api/chat", CHAT))
    assert b"\\u003cyou\\u003e" in chat.content
    assert b"\\u0026" in chat.content
    got = lines(chat)
    assert [item["message"].get("thinking", "") for item in got[:2]] == ["Hm", "m"]
    assert "".join(item["message"]["content"] for item in got) == "Hi <you> & me"
    call = got[-2]["message"]["tool_calls"][0]
    assert call["id"].startswith("call_")
    assert call["function"] == {"index": 0, "name": "f", "arguments": {"b": 1, "a": 2}}
    assert single["message"]["thinking"] == "Hmm"
    assert single["message"]["tool_calls"] == [call]
    assert "tool_calls" not in without["message"]
    assert generate[-2]["tool_calls"] == [call]
    assert refused.status_code == 404
    assert len(at_end) == 1
    assert at_end[0]["message"]["tool_calls"][0]["function"]["arguments"] == {}


async def test_created_at_has_no_trailing_zeros():
    """Times are RFC 3339 in UTC with up to nine digits."""
    async with FakeOllama() as fake:
        got = lines(await ask(fake, "/api/chat", CHAT | {"options": {"num_predict": 50}}))
    for item in got:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,8}[1-9])?Z", item["created_at"])


async def test_token_rate_paces_streams_and_single_answers():
    """Ten tokens at a hundred a second take about a tenth of a second, in either form."""
    async with FakeOllama(tokens=11, token_rate=100) as fake:
        for stream in (True, False):
            await ask(fake, "/api/chat", CHAT | {"stream": stream})
        for request in fake.requests:
            assert 0.09 < request.finished_at - request.received_at < 2
        assert fake.requests[0].headers_sent_at - fake.requests[0].received_at < 0.09
        assert fake.requests[0].parts_sent == 12


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
# Embeddings


async def test_embeddings_depend_on_the_text_alone():
    """Equal texts have equal unit vectors in the order of the input; others have others."""
    async with FakeOllama() as fake:
        got = (
            await ask(fake, "/api/embed", {"model": "all-minilm", "input": ["a b", "", "a b"]})
        ).json()
        one = (await ask(fake, "/api/embed", {"model": "nomic-embed-text", "input": "a b"})).json()
    a, empty, again = got["embeddings"]
    assert a == again == one["embeddings"][0] != empty
    assert got["prompt_eval_count"] == 4
    assert all(len(vector) == 768 for vector in got["embeddings"])
    assert math.hypot(*a) == pytest.approx(1, abs=1e-6)
    assert list(got) == [
        "model",
        "embeddings",
        "total_duration",
        "load_duration",
        "prompt_eval_count",
    ]


async def test_embedding_rules():
    """dimensions cuts and normalises again, long texts are truncated, nothing gives nothing."""

    async def embed(**fields: Any) -> dict[str, Any]:
        return (await ask(fake, "/api/embed", {"model": "all-minilm", **fields})).json()

    async with FakeOllama(dimensions=16) as fake:
        whole = (await embed(input="x"))["embeddings"][0]
        cut = (await embed(input="x", dimensions=4))["embeddings"][0]
        assert len((await embed(input="x", dimensions=99))["embeddings"][0]) == 16
        long = await embed(input="a b c d", options={"num_ctx": 2})
        short = await embed(input="a b")
        for nothing in ("", [], None):
            assert await embed(input=nothing) == {"model": "all-minilm", "embeddings": []}
        assert await embed() == {"model": "all-minilm", "embeddings": []}
    length = math.hypot(*whole[:4])
    assert cut == pytest.approx([number / length for number in whole[:4]], abs=1e-7)
    assert long["embeddings"] == short["embeddings"]
    assert long["prompt_eval_count"] == 2


async def test_embeddings_survive_float32():
    """The decimal form is the shortest of no more than 8 places, so both forms have the same float32."""
    async with FakeOllama() as fake:
        vector = (await ask(fake, "/api/embed", {"model": "all-minilm", "input": "x"})).json()[
            "embeddings"
        ][0]
    assert all(round(number, 8) == number for number in vector)
    as_floats = struct.unpack("<768f", struct.pack("<768f", *vector))
    assert [round(number, 8) for number in as_floats] == pytest.approx(vector, abs=6e-8)


# ---------------------------------------------------------------------------------------------
# Requests and connections


async def test_requests_are_recorded():
    """The record has method, path, headers, body and times; keep-alive keeps the connection."""
    async with FakeOllama() as fake:
        async with client(fake) as http:
            await http.post("/api/chat?q=1", json=CHAT, headers={"X-Two": "a"})
            await http.get("/")
            assert fake.open_connections == 1
        await fake.wait_all_closed()
        first, second = fake.requests
    assert (first.method, first.path, first.query) == ("POST", "/api/chat", "q=1")
    assert first.json == CHAT
    assert json.loads(first.body) == CHAT
    assert first.headers["x-two"] == "a"
    assert first.connection == second.connection == 1
    assert first.received_at <= first.headers_sent_at <= first.finished_at <= first.closed_at
    assert not first.disconnected
    assert first.parts_sent == 25
    assert "answered" in repr(first)
    assert fake.url in repr(fake)


async def test_scripts_run_out():
    """Scripted replies are used in order, one a request; then `always`; then the default."""
    async with FakeOllama() as fake, client(fake) as http:
        fake.script(
            "/api/version",
            Reply.json({"n": 1}),
            Reply.error(429, "slow", {"Retry-After": "3"}, signin_url="u"),
        )
        fake.always("/api/version", Reply.text("always"))
        assert (await http.get("/api/version")).json() == {"n": 1}
        limited = await http.get("/api/version")
        assert (limited.status_code, limited.headers["retry-after"]) == (429, "3")
        assert limited.json() == {"error": "slow", "signin_url": "u"}
        assert (await http.get("/api/version")).text == "always"
        fake.always("/api/version", None)
        assert (await http.get("/api/version")).json() == {"version": "0.33.0"}


async def test_reuse_can_be_refused():
    """reuse=False closes each connection after one reply."""
    async with FakeOllama(reuse=False) as fake, client(fake) as http:
        for _ in range(2):
            assert (await http.get("/")).headers["connection"] == "close"
        assert fake.connections == 2


async def test_requests_may_be_divided_anywhere():
    """A request that comes byte by byte, with a chunked body, is the same request."""
    request = (
        b"POST /api/generate HTTP/1.1\r\nHost: x.local\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5\r\n{"mod\r\n1a\r\nel":"llama3.2","stream":tr\r\n3\r\nue}\r\n0\r\n\r\n'
    )
    async with FakeOllama() as fake, await anyio.connect_tcp(fake.host, fake.port) as stream:
        for position in range(len(request)):
            await stream.send(request[position : position + 1])
        head, body = await head_and_body(stream)
        assert fake.requests[0].json == {"model": "llama3.2", "stream": True}
    assert b"200 OK" in head
    assert json.loads(body)["done_reason"] == "load"


async def test_pipelined_requests_are_answered_in_order():
    """Two requests in one write draw two replies, one after the other."""
    async with FakeOllama() as fake:
        answer, _ = await exchange(
            fake,
            b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        )
        assert len(fake.requests) == 2
        assert fake.in_flight == 0
    assert answer.index(b'{"version"') < answer.index(b"Ollama is running")


async def test_http_1_0_gets_no_chunks():
    """A client of HTTP/1.0 reads a stream until the connection closes."""
    async with FakeOllama(tokens=2) as fake:
        answer, clean = await exchange(fake, post("/api/chat", CHAT, version="1.0"))
    assert clean
    assert b"chunked" not in answer
    assert len(answer.partition(b"\r\n\r\n")[2].splitlines()) == 3


async def test_what_is_no_http_draws_a_400():
    """The server says 400 and closes."""
    async with FakeOllama() as fake:
        answer, _ = await exchange(fake, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")


async def test_expect_continue():
    """A client that waits for 100 gets it before it sends the body."""
    head, body = post(
        "/api/chat", CHAT, extra="Expect: 100-continue\r\nConnection: close\r\n"
    ).split(b"\r\n\r\n")
    async with FakeOllama() as fake, await anyio.connect_tcp(fake.host, fake.port) as stream:
        await stream.send(head + b"\r\n\r\n")
        assert await stream.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send(body)
        answer, _ = await read_all(stream)
    assert answer.startswith(b"HTTP/1.1 200 OK")


async def test_tls():
    """With a context the fake serves https, and its URL says so."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with FakeOllama(ssl_context=server) as fake:
        assert fake.url.startswith("https://127.0.0.1:")
        async with client(fake, verify=trust) as http:
            assert len(lines(await http.post("/api/chat", json=CHAT))) == 25
            fake.script("/", Reply.default(keep_alive=False))
            assert (await http.get("/")).text == "Ollama is running"
            fake.script("/", Reply.default(reset_at=20))
            with pytest.raises(httpx.NetworkError):
                await http.get("/")
        async with await anyio.connect_tcp(fake.host, fake.port) as plain:
            await plain.send(b"GET / HTTP/1.1\r\n\r\n")
            await read_all(plain)
        await fake.wait_all_closed()


async def test_ipv6_and_names():
    """The host may be an IPv6 address or a name."""
    async with FakeOllama(host="::1") as fake, client(fake) as http:
        assert fake.url.startswith("http://[::1]:")
        assert (await http.get("/")).status_code == 200
    async with FakeOllama(host="localhost") as fake, client(fake) as http:
        assert (await http.get("/")).status_code == 200


async def test_a_taken_port_is_an_error():
    """Two servers cannot have one port; the failed one leaves nothing behind."""
    async with FakeOllama() as fake:
        with pytest.raises(OSError, match="in use"):
            async with FakeOllama(port=fake.port):
                pass


async def test_a_prompt_longer_than_the_context():
    """It is cut silently, unless truncate or shift is false: then it is refused with 400."""
    long = {"model": "llama3.2", "prompt": "a b c", "options": {"num_ctx": 2}}
    async with FakeOllama() as fake:
        cut = await ask(fake, "/api/generate", long)
        shifted = await ask(fake, "/api/generate", long | {"shift": False})
        refused = await ask(fake, "/api/generate", long | {"truncate": False, "stream": False})
    assert cut.status_code == 200
    assert shifted.status_code == refused.status_code == 400
    assert shifted.headers["content-type"] == "application/json"
    assert shifted.json()["error"].startswith("the prompt is longer than the context length")
    assert json.loads(refused.json()["error"])["error"]["code"] == 400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1h30m", 5400), ("1.5h", 5400), ("0", 0), ("-1s", -1), ("+.5s", 0.5), ("2us", 2e-6)],
)
def test_durations(text, seconds):
    """Go's durations are read as Go reads them."""
    assert _gojson.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "-", "1", "1x", "x1s", "1s2", "1 s"])
def test_wrong_durations(text):
    """What is no duration is refused."""
    with pytest.raises(ValueError, match="^time: "):
        _gojson.duration(text)


def test_json_is_escaped_as_go_escapes_it():
    """Angle brackets, ampersand and the two separators are escaped, other text is raw UTF-8."""
    assert _gojson.encode({"a": "<é&\u2028>"}) == '{"a":"\\u003cé\\u0026\\u2028\\u003e"}'.encode()
    assert _gojson.encode("\ud800<") == b'"?\\u003c"'


def test_times():
    """Trailing zeros of the fraction are cut, with the point where nothing is left."""
    assert _gojson.timestamp(1_000_000_000) == "1970-01-01T00:00:01Z"
    assert _gojson.timestamp(1_990_000_000) == "1970-01-01T00:00:01.99Z"
