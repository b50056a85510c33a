"""Scripts and CORS: what a browser asks by itself uses no script up, and a page can read what is scripted."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests.fake.support import CHAT, client

pytestmark = pytest.mark.anyio

GOOD, EVIL = "https://good.example", "https://evil.example"
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type",
}


def server(**options: Any) -> FakeOllama:
    return FakeOllama(origins=[GOOD], **options)


@pytest.mark.parametrize(
    "reply",
    [
        Reply.default(),
        Reply.default(drip=0),
        Reply.json({"a": 1}),
        Reply.error(404, "missing"),
        Reply.busy(),
        Reply.stream([{"a": 1}, {"b": 2}]),
        Reply.text("hello"),
        Reply.html(502),
        Reply.empty(204),
        Reply.chat_text("a b c"),
        Reply.json({}).replace(early=True),
        Reply.error(429, "slowly", {"Retry-After": "3"}),
    ],
    ids=lambda reply: f"{type(reply.content).__name__} {reply.status}",
)
@pytest.mark.parametrize("scripted", ["script", "always"])
async def test_a_scripted_reply_is_for_the_request(reply: Reply, scripted: str) -> None:
    """Not for the preflight before it; and it has the header that lets the page read it."""
    async with server() as fake, client(fake) as http:
        getattr(fake, scripted)("/api/chat", reply)
        for _ in range(2):
            asked = await http.options("/api/chat", headers={"Origin": GOOD, **PREFLIGHT})
            assert (asked.status_code, asked.content) == (204, b"")
            assert asked.headers["access-control-allow-origin"] == GOOD
        got = await http.post("/api/chat", json=CHAT, headers={"Origin": GOOD})
        assert got.status_code == reply.status
        assert got.headers["access-control-allow-origin"] == GOOD
        assert got.headers["vary"] == "Origin"
        own = await http.post("/api/tags", json=CHAT, headers={"Origin": fake.url})
        assert "access-control-allow-origin" not in own.headers


async def test_a_scripts_own_header_wins() -> None:
    """What a test says is what is sent."""
    async with server() as fake, client(fake) as http:
        reply = Reply.json({}, headers={"Access-Control-Allow-Origin": "null"})
        fake.script("/api/tags", reply)
        got = await http.get("/api/tags", headers={"Origin": GOOD})
    assert got.headers["access-control-allow-origin"] == "null"


async def test_a_refused_origin_uses_nothing_up() -> None:
    """CORS decides before any endpoint, and so before any script."""
    async with server() as fake, client(fake) as http:
        fake.script("/api/chat", Reply.error(400, "scripted"))
        for method in ("OPTIONS", "POST"):
            refused = await http.request(method, "/api/chat", json=CHAT, headers={"Origin": EVIL})
            assert (refused.status_code, refused.content) == (403, b"")
        got = await http.post("/api/chat", json=CHAT)
    assert got.json() == {"error": "scripted"}


async def test_a_preflight_waits_for_no_slot() -> None:
    """It is answered although the one slot is taken, and the queue is full."""
    async with server(parallel=1, max_queue=0) as fake, client(fake) as http:
        fake.script("/api/chat", Reply.silence())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: http.post("/api/chat", json=CHAT))
            await fake.wait_for_requests(1)
            asked = await http.options("/api/chat", headers={"Origin": GOOD, **PREFLIGHT})
            assert asked.status_code == 204
            busy = await http.post("/api/chat", json=CHAT, headers={"Origin": GOOD})
            assert busy.status_code == 503
            assert busy.headers["access-control-allow-origin"] == GOOD
            tasks.cancel_scope.cancel()
