"""What goes wrong between a page and a server, of which the browser says "Failed to fetch" alone."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests.browser.conftest import Place
from tests.support import raw_server, read_request

pytestmark = pytest.mark.anyio


def unused_port() -> int:
    """A port where nothing listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize("get", [False, True])
async def test_nothing_answers(place: Place, get: bool) -> None:
    """It says so, and says where."""
    port = unused_port()
    name, text = await place.run("chat_error", f"http://127.0.0.1:{port}", get=get)
    assert name == "ConnectError"
    assert f"127.0.0.1:{port}" in text
    assert "nothing answers there" in text
    assert "OLLAMA_ORIGINS" not in text


@pytest.mark.parametrize("get", [False, True])
async def test_a_server_refuses_the_origin(place: Place, get: bool) -> None:
    """It says that a server is there, and what to set to which value."""
    async with FakeOllama() as fake:
        name, text = await place.run("chat_error", fake.url, get=get)
    assert name == "ConnectError"
    assert f"OLLAMA_ORIGINS={place.origin}" in text
    assert "nothing answers" not in text
    assert "is Ollama running" not in text


async def test_a_refused_page_does_not_try_again(place: Place) -> None:
    """Neither to wait for the server, which is there, nor in a job."""
    async with FakeOllama() as fake:
        ready, job, running = await place.run("refused_everywhere", fake.url)
    for name, text in (ready, job):
        assert name == "ConnectError"
        assert "OLLAMA_ORIGINS" in text
    assert running is False


ALLOWED = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"", "nothing answers there"),
        (b"SSH-2.0-something\r\n", "nothing answers there"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "OLLAMA_ORIGINS"),
        (ALLOWED + b"Content-Length: 9\r\n\r\n{}", "broke"),
        (ALLOWED + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "broke"),
        (ALLOWED + b"Content-Length: 2\r\n\r\n[]", "not"),
    ],
)
async def test_literal_bytes(place: Place, reply: bytes, said: str) -> None:
    """What a server says in place of a reply, whatever it is, is a failure with a reason."""

    async def handle(stream: Any) -> None:
        await read_request(stream)
        if reply:
            await stream.send(reply)

    async with raw_server(handle) as url:
        name, text = await place.run("chat_error", url, get=True)
    assert name in ("ConnectError", "ProtocolError")
    assert said in text


async def test_a_server_refuses_a_header(place: Place, fake: FakeOllama) -> None:
    """The origin is welcome, and a header of one's own is not in the server's list."""
    name, text = await place.run("chat_error", fake.url, headers={"X-Mine": "1"})
    assert name == "ConnectError"
    assert "x-mine" in text
    assert "OLLAMA_ORIGINS" not in text


@pytest.mark.parametrize("fault", ["cut_at", "reset_at"])
async def test_a_connection_breaks_before_the_headers(
    place: Place, fake: FakeOllama, fault: str
) -> None:
    """Neither that nothing is there nor that it refuses the page."""
    fake.always("/api/chat", Reply.default(**{fault: 0}))
    name, text = await place.run("chat_error", fake.url)
    assert name == "ConnectError"
    assert "broke" in text
    assert "OLLAMA_ORIGINS" not in text
    assert "nothing answers" not in text


@pytest.mark.parametrize("fault", ["cut_after", "reset_after"])
async def test_a_stream_is_cut(place: Place, fake: FakeOllama, fault: str) -> None:
    """What arrived stays, as far as the browser has handed it out."""
    reply = Reply.chat_text(["a ", "b "] * 20).replace(rate=100, **{fault: 20})
    fake.script("/api/generate", reply)
    error, text, complete = await place.run("stream_error", fake.url)
    assert error[0] == "IncompleteStreamError"
    assert not complete
    assert text == ("a b " * 20)[: len(text)]
    assert len(text) >= 2


async def test_an_error_in_the_middle_of_a_stream(place: Place, fake: FakeOllama) -> None:
    """It is the server's, and the parts before it stay."""
    parts = [{"response": "a", "done": False}, {"error": "the model has stopped"}]
    fake.script("/api/generate", Reply.stream(parts))
    error, text, complete = await place.run("stream_error", fake.url)
    assert error[0] == "ResponseError"
    assert "the model has stopped" in error[1]
    assert (text, complete) == ("a", False)


async def test_error_replies(place: Place, fake: FakeOllama) -> None:
    """Scripted ones have the CORS headers, so that each is read for what it is."""
    fake.script("/missing", Reply.error(404, "model 'a' not found"))
    fake.script("/busy", Reply.busy())
    fake.script("/denied", Reply.error(401, "unauthorized"))
    fake.script("/slow", Reply.error(429, "too many requests"))
    fake.script("/page", Reply.html(502))
    fake.script("/garbage", Reply.text("<html>hello</html>"))
    fake.script("/empty", Reply.empty(403))
    names = ["/missing", "/busy", "/denied", "/slow", "/page", "/garbage", "/empty"]
    found = await place.run("errors", fake.url, names)
    assert [one[0] for one in found] == [
        "ModelNotFoundError",
        "ServerBusyError",
        "AuthorizationError",
        "RateLimitError",
        "ResponseError",
        "ProtocolError",
        "AuthorizationError",
    ]


async def test_a_preflight_uses_no_script_up(place: Place, serve: Any) -> None:
    """A POST with JSON asks first, and gets the reply that is meant for it; nor does it take a slot."""
    async with serve(parallel=1) as fake:
        fake.script("/api/chat", Reply.error(400, "the first"), Reply.error(400, "the second"))
        for text in ("the first", "the second"):
            assert text in (await place.run("chat_error", fake.url))[1]
        methods = [request.method for request in fake.requests]
        assert methods == ["OPTIONS", "POST"] * 2


async def test_a_redirect_is_not_followed(place: Place, fake: FakeOllama) -> None:
    """A browser does not show where to, so it is an error that says what to do."""
    fake.script("/old", Reply.json({}, 307, {"Location": "/api/tags"}))
    ((name, text),) = await place.run("errors", fake.url, ["/old"])
    assert name == "ProtocolError"
    assert "redirects" in text
    assert [request.path for request in fake.requests] == ["/old"]


async def test_compressed_replies_are_inflated_once(place: Place, fake: FakeOllama) -> None:
    """The browser has done it; what the server said of its bytes is not believed again."""
    import gzip
    import json

    body = gzip.compress(json.dumps({"models": []}).encode())
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"
        b"Access-Control-Allow-Origin: *\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    fake.script("/api/tags", Reply.raw(head + body))
    assert await place.run("chat_error", fake.url, get=True) is None


async def test_requests_without_bodies(place: Place, fake: FakeOllama) -> None:
    """A reply may have no body at all; a GET with one is refused before it is sent."""
    fake.always("/empty", Reply.empty(204))
    with_body, blob, running, length = await place.run("odd_requests", fake.url)
    assert with_body[0] == "RequestError"
    assert "no body with GET" in with_body[1]
    assert (blob, running, length) == (False, True, 0)
    assert "/api/tags" not in [request.path for request in fake.requests]


@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "http://no-such-host.invalid:11434"])
async def test_other_places_where_nothing_answers(place: Place, host: str) -> None:
    """A port that browsers refuse, a name that nobody has."""
    name, text = await place.run("chat_error", host)
    assert name == "ConnectError"
    assert "nothing answers there" in text
