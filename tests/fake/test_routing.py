"""Which path and method leads where, and who may ask: the router, `Host` and `Origin`."""

from __future__ import annotations

import pytest

from ollama_sc.testing import FakeOllama
from tests.fake.support import CHAT, client, get

pytestmark = pytest.mark.anyio


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
