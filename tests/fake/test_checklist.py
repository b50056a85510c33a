"""What a fake server must be able to play, point by point: one test for each letter of the list."""

from __future__ import annotations

import hashlib
import json

import anyio
import pytest

from ollama_sc.testing import FakeLayer, FakeModel, FakeOllama, FakePull, Reply
from tests.fake.support import (
    CHAT,
    ask,
    client,
    connect,
    draw,
    exchange,
    lines,
    post,
    read_all,
)

pytestmark = pytest.mark.anyio

REQUEST = post("/api/chat", CHAT, extra="Connection: close\r\n")
PART = {
    "model": "m",
    "created_at": "2026-08-01T10:20:30Z",
    "message": {"role": "assistant", "content": "é"},
    "done": False,
}
LAST = PART | {"done": True, "done_reason": "stop"}
LINE = b'{"model":"m","created_at":'


async def test_a_chunks_split_anywhere():
    """Also inside of a UTF-8 sequence, and several objects in one read."""
    whole, _ = await draw(Reply.stream([PART, LAST]))
    middle = whole.index("é".encode()) + 1
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.stream([PART, LAST]).replace(split_at=[middle]))
        async with await connect(fake, REQUEST) as stream:
            first = await stream.receive()
            rest, _ = await read_all(stream)
    assert first.endswith(b"\xc3")
    assert rest.startswith(b"\xa9")
    joined, _ = await draw(Reply.stream([PART, LAST]).replace(flush=False))
    assert joined.count(b'"model"') == 2


async def test_b_last_line_without_newline():
    """The last chunk is the object alone."""
    raw, clean = await draw(Reply.stream([PART, LAST], newline_at_end=False))
    assert clean
    assert b"}\r\n0\r\n\r\n" in raw


async def test_c_one_object_in_reply_to_a_streaming_call():
    """Load and unload."""
    async with FakeOllama() as fake:
        for path, fields in (
            ("/api/chat", {}),
            ("/api/generate", {}),
            ("/api/chat", {"keep_alive": 0}),
        ):
            reply = await ask(fake, path, {"model": "llama3.2", "stream": True, **fields})
            assert reply.headers["content-type"] == "application/json; charset=utf-8"
            assert not reply.content.endswith(b"\n")
            assert reply.json()["done_reason"] == ("unload" if fields else "load")


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_d_first_item_errors(status):
    """They keep their status, chunked, as application/json without a newline."""
    reply = Reply.stream(
        [{"error": "x"}], status, newline_at_end=False, content_type="application/json"
    )
    raw, _ = await draw(reply)
    assert raw.startswith(f"HTTP/1.1 {status} ".encode())
    assert raw.endswith(b'd\r\n{"error":"x"}\r\n0\r\n\r\n')
    async with FakeOllama() as fake:
        natural = await ask(fake, "/api/chat", CHAT | {"format": "yaml"})
    assert natural.status_code == 500
    assert natural.headers["content-type"] == "application/json"


async def test_e_error_line_after_chunks():
    """A 200 whose last line is an error."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.stream([PART, {"error": "runner died"}]))
        got = lines(await ask(fake, "/api/chat", CHAT))
    assert got[-1] == {"error": "runner died"}


async def test_f_streams_that_end_too_soon():
    """After a full line without done, properly or not; inside a line; by a reset."""
    proper, clean = await draw(Reply.stream([PART]))
    assert clean
    assert proper.endswith(b"0\r\n\r\n")
    cut, clean = await draw(Reply.stream([PART, LAST]).replace(cut_after=1))
    assert clean
    assert not cut.endswith(b"0\r\n\r\n")
    inside, clean = await draw(Reply.stream([PART, LAST]).replace(cut_at=proper.index(LINE) + 5))
    assert clean
    assert inside.endswith(LINE[:5])
    _, clean = await draw(Reply.stream([PART, LAST]).replace(reset_after=1))
    assert not clean


async def test_g_silence():
    """Before the headers, and in the middle of a stream."""
    async with FakeOllama() as fake:
        for reply, lines_sent in (
            (Reply.silence(), 0),
            (Reply.stream([PART, LAST]).replace(stall_after=1), 1),
        ):
            fake.script("/api/chat", reply)
            async with await connect(fake, REQUEST) as stream:
                seen = b""
                while seen.count(LINE) < lines_sent:
                    seen += await stream.receive()
                with anyio.move_on_after(0.1):
                    while True:
                        seen += await stream.receive()
            assert seen.count(LINE) == lines_sent


async def test_h_busy_cancelled_and_limited():
    """503 with its exact body, 499, 429 with and without Retry-After, a stub's 429."""
    busy, _ = await draw(Reply.busy())
    assert busy.endswith(
        b'{"error":"server busy, please try again.  maximum pending requests exceeded"}'
    )
    assert b"Retry-After" not in busy
    cancelled, _ = await draw(Reply.error(499, "request canceled"))
    assert cancelled.startswith(b"HTTP/1.1 499 ")
    limited, _ = await draw(Reply.error(429, "slow down", {"Retry-After": "7"}))
    assert b"\r\nRetry-After: 7\r\n" in limited
    async with FakeOllama(
        models=[FakeModel("s", remote_model="x", remote_host="https://ollama.com:443")]
    ) as fake:
        fake.cloud.limited = 7
        stub = await ask(fake, "/api/chat", CHAT | {"model": "s"})
        cloud = await ask(fake, "/api/chat", CHAT | {"model": "s:cloud"})
    assert stub.json()["StatusCode"] == 429
    assert "retry-after" not in stub.headers
    assert cloud.headers["retry-after"] == "7"


async def test_i_unauthorized_with_the_url_to_sign_in():
    """From the account and from models in the cloud."""
    async with FakeOllama(signed_in=False) as fake:
        for path, body in (("/api/me", {}), ("/api/chat", CHAT | {"model": "x:cloud"})):
            got = await ask(fake, path, body)
            assert got.status_code == 401
            assert got.json()["signin_url"].startswith("https://ollama.com/connect?name=")


async def test_j_errors_of_all_shapes():
    """Empty 403, plain 404 and 405, object-valued, JSON in a string, HTML."""
    async with FakeOllama() as fake, client(fake) as http:
        assert (await http.get("/", headers={"Host": "evil.example"})).content == b""
        assert (await http.get("/x")).text == "404 page not found"
        wrong = await http.get("/api/chat")
        assert (wrong.text, wrong.headers["allow"]) == ("405 method not allowed", "POST")
        inner = {"error": {"code": 400, "message": "too long"}}
        fake.script(
            "/api/chat",
            Reply.error(400, {"message": "m"}),
            Reply.error(400, json.dumps(inner)),
            Reply.html(502),
        )
        assert (await http.post("/api/chat")).json() == {"error": {"message": "m"}}
        assert json.loads((await http.post("/api/chat")).json()["error"]) == inner
        assert (await http.post("/api/chat")).headers["content-type"] == "text/html"


async def test_k_tool_calls_in_the_middle_and_at_the_end():
    """In an object of their own, or in the final one."""
    body = CHAT | {"tools": [{"type": "function", "function": {"name": "f"}}]}
    calls = [{"name": "f", "arguments": {"z": 1, "a": 2}}]
    async with FakeOllama() as fake:
        fake.script(
            "/api/chat",
            Reply.chat_text(tool_calls=calls),
            Reply.chat_text(tool_calls=calls, calls_at_end=True),
        )
        middle = lines(await ask(fake, "/api/chat", body))
        end = lines(await ask(fake, "/api/chat", body))
    assert "tool_calls" in middle[0]["message"]
    assert not middle[0]["done"]
    assert list(end[-1]["message"]["tool_calls"][0]["function"]["arguments"]) == ["z", "a"]
    assert end[-1]["done"]


async def test_l_odd_deltas():
    """Empty ones, thinking first, logprobs without text."""
    async with FakeOllama() as fake:
        only = PART | {
            "message": {"role": "assistant", "content": ""},
            "logprobs": [{"token": "x", "logprob": -1}],
        }
        fake.script(
            "/api/chat", Reply.chat_text(["", "a"], thinking=["hm"]), Reply.stream([only, LAST])
        )
        got = lines(await ask(fake, "/api/chat", CHAT))
        odd = lines(await ask(fake, "/api/chat", CHAT))
    assert got[0]["message"] == {"role": "assistant", "content": "", "thinking": "hm"}
    assert got[1]["message"] == {"role": "assistant", "content": ""}
    assert odd[0]["logprobs"]


@pytest.mark.parametrize(
    "time",
    ["2026-08-01T10:20:30Z", "2026-08-01T10:20:30.123Z", "2026-08-01T10:20:30.123456+02:00",
     "2026-08-01T10:20:30.1234567-07:00", "2026-08-01T10:20:30.123456789Z",
     "2319-01-01T00:00:00Z", "0001-01-01T00:00:00Z"],
)  # fmt: skip
async def test_m_timestamps(time):
    """Any of them can stand in a reply."""
    raw, _ = await draw(Reply.stream([LAST | {"created_at": time}]))
    assert time.encode() in raw


async def test_n_nulls_and_unknown_fields():
    """A stub's null families by nature; null lists and further fields where scripted."""
    async with (
        FakeOllama(models=[FakeModel("s", (), families=(), remote_model="x")]) as fake,
        client(fake) as http,
    ):
        tag = (await http.get("/api/tags")).json()["models"][0]
        assert tag["details"]["families"] is None
        assert "capabilities" not in tag
        fake.script("/api/tags", Reply.json({"models": None, "extra": 1}))
        assert (await http.get("/api/tags")).json() == {"models": None, "extra": 1}


async def test_o_pulls_that_go_wrong():
    """Never reaching the total, repeated lines, resumed, failing at HTTP 200."""
    layers = (FakeLayer(100, progress=(50, 50, 97)), FakeLayer(100, errors=("EOF",)))
    async with FakeOllama(registry=[FakePull("new", layers)]) as fake:
        failed = lines(await ask(fake, "/api/pull", {"model": "new"}))
        resumed = lines(await ask(fake, "/api/pull", {"model": "new"}))
    assert [line.get("completed") for line in failed if line.get("total")][:3] == [50, 50, 97]
    assert failed[-1] == {"error": "EOF"}
    assert resumed[2]["completed"] == 50
    assert resumed[-1] == {"status": "success"}


async def test_p_blobs():
    """200 with the body unread and the connection closed, 201, digest mismatch."""
    data = b"GGUF"
    async with FakeOllama() as fake, client(fake) as http:
        known = fake.blobs.add(bytes(1 << 20))
        head = f"POST /api/blobs/{known} HTTP/1.1\r\nHost: h.local\r\nContent-Length: {1 << 20}\r\n\r\n"
        raw, clean = await exchange(fake, head.encode())
        path = f"/api/blobs/sha256:{hashlib.sha256(data).hexdigest()}"
        created = await http.post(path, content=data)
        wrong = await http.post(path[:-1] + ("0" if path[-1] != "0" else "1"), content=data)
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert clean
    assert created.status_code == 201
    assert wrong.json()["error"].startswith("digest mismatch, expected")


async def test_q_embeddings_of_nothing_and_of_odd_numbers():
    """An empty list; and any literal number where scripted."""
    async with FakeOllama() as fake:
        assert (await ask(fake, "/api/embed", {"model": "all-minilm", "input": []})).json()[
            "embeddings"
        ] == []
        literal = '{"model":"m","embeddings":[[2e-7,0,-0,1]]}'
        fake.script(
            "/api/embed", Reply.text(literal, content_type="application/json; charset=utf-8")
        )
        assert (await ask(fake, "/api/embed", {})).text == literal


async def test_r_disconnects_are_recorded():
    """With the time at which the server noticed."""
    async with FakeOllama(token_rate=1) as fake:
        start = anyio.current_time()
        async with await connect(fake, REQUEST) as stream:
            await stream.receive()
        await fake.requests[0].wait_closed()
        assert fake.requests[0].disconnected
        assert start < fake.requests[0].closed_at < anyio.current_time() + 1
        assert fake.requests[0].finished_at is None


async def test_s_a_cap_on_parallel_requests():
    """No more than so many are answered at once; others wait."""
    async with (
        FakeOllama(parallel=2, token_rate=200, tokens=10) as fake,
        anyio.create_task_group() as group,
    ):
        for _ in range(6):
            group.start_soon(ask, fake, "/api/chat", CHAT)
        await fake.wait_for_requests(6)
    for request in fake.requests:
        at = request.headers_sent_at
        assert sum(other.headers_sent_at <= at < other.finished_at for other in fake.requests) <= 2
