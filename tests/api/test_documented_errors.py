"""Each endpoint's errors: their classes, and texts that say what can be done."""

from __future__ import annotations

from typing import Any

import pytest

from ollama_sc import (
    AsyncClient,
    AuthorizationError,
    ModelNotFoundError,
    ProtocolError,
    RateLimitError,
    RequestTimeout,
    ResponseError,
    ServerBusyError,
    Timeouts,
)
from ollama_sc.testing import FakeOllama, Reply
from tests.support import MESSAGES, exhaust, is_quiet, plain_reply, raw_server, read_request

pytestmark = pytest.mark.anyio


# -- every endpoint --------------------------------------------------------------------------------


NAMED = (400, ResponseError), (404, ModelNotFoundError), (500, ResponseError)
CLOUD = (401, AuthorizationError), (403, AuthorizationError), (429, RateLimitError)
BUSY = (503, ServerBusyError), (502, ResponseError), (499, ResponseError)
CALLS: dict[str, tuple[str, Any, tuple[Any, ...]]] = {
    "chat": ("/api/chat", lambda c: c.chat("m", MESSAGES), (*NAMED, *CLOUD, *BUSY)),
    "chat stream": ("/api/chat", lambda c: c.chat("m", MESSAGES, stream=True), (*NAMED, *BUSY)),
    "generate": ("/api/generate", lambda c: c.generate("m", "x"), (*NAMED, *CLOUD, *BUSY)),
    "embed": ("/api/embed", lambda c: c.embed("m", "x"), (*NAMED, (501, ResponseError), *BUSY)),
    "embeddings": ("/api/embeddings", lambda c: c.embeddings("m", "x"), NAMED),
    "load": ("/api/generate", lambda c: c.load("m"), (*NAMED, *BUSY)),
    "unload": ("/api/generate", lambda c: c.unload("m"), NAMED),
    "create": ("/api/create", lambda c: c.create("m", from_="x"), NAMED),
    "pull": ("/api/pull", lambda c: c.pull("m"), NAMED),
    "push": ("/api/push", lambda c: c.push("m"), (*NAMED, *CLOUD)),
    "show": ("/api/show", lambda c: c.show("m"), (*NAMED, *CLOUD)),
    "copy": ("/api/copy", lambda c: c.copy("a", "b"), NAMED),
    "delete": ("/api/delete", lambda c: c.delete("m"), NAMED),
    "list": ("/api/tags", lambda c: c.list(), ((500, ResponseError),)),
    "ps": ("/api/ps", lambda c: c.ps(), ((500, ResponseError),)),
    "version": ("/api/version", lambda c: c.version(), ((500, ResponseError),)),
    "status": ("/api/status", lambda c: c.status(), ((500, ResponseError),)),
    "me": ("/api/me", lambda c: c.me(), ((401, AuthorizationError), (503, ServerBusyError))),
    "sign_out": ("/api/signout", lambda c: c.sign_out(), (CLOUD[0], (500, ResponseError))),
    "web_search": ("/api/experimental/web_search", lambda c: c.web_search("x"), CLOUD),
    "web_fetch": ("/api/experimental/web_fetch", lambda c: c.web_fetch("x"), CLOUD),
}


@pytest.mark.parametrize("name", CALLS)
async def test_each_documented_error_of_each_endpoint(fake: FakeOllama, name: str) -> None:
    """Each status that the server can give arrives as the right exception, with its text."""
    path, call, errors = CALLS[name]
    async with AsyncClient(fake.url) as client:
        for status, kind in errors:
            fake.always(path, Reply.error(status, "because"))
            with pytest.raises(ResponseError) as caught:
                await call(client)
            assert type(caught.value) is kind, status
            assert caught.value.status_code == status
            assert caught.value.error == "because"
            assert path in str(caught.value)
        fake.always(path, Reply.silence())
        with pytest.raises(RequestTimeout):
            client._shared.timeouts = Timeouts(first_chunk=0.02)
            await call(client)
        assert is_quiet(client)


async def test_an_error_object_in_a_200_reply_in_one_piece(fake: FakeOllama) -> None:
    """An error object is an error on every path."""
    for path in ("/api/chat", "/api/embed", "/api/tags", "/api/version"):
        fake.always(path, Reply.json({"error": "no"}))
    async with AsyncClient(fake.url) as client:
        for call in (
            client.chat("llama3.2", MESSAGES),
            client.embed("nomic-embed-text", "x"),
            client.list(),
            client.version(),
            client.request("GET", "/api/version"),
        ):
            with pytest.raises(ResponseError, match="no"):
                await call


@pytest.mark.parametrize("body", [b"<html>login</html>", b"\r\n<!DOCTYPE html>\n<p>x"])
async def test_a_page_in_place_of_nothing(anyio_backend: Any, body: bytes) -> None:
    """Calls that are answered with nothing do not take a proxy's page for success."""

    async def handle(stream: Any) -> None:
        while await read_request(stream):
            await stream.send(plain_reply(body))

    async with raw_server(handle) as url, AsyncClient(url) as client:
        for call in (client.copy("a", "b"), client.delete("a"), client.sign_out()):
            with pytest.raises(ProtocolError):
                await call
        with pytest.raises(ProtocolError):
            await client.has_model("a")


# -- texts -----------------------------------------------------------------------------------------


async def test_a_servers_text_does_not_steer_the_terminal(fake: FakeOllama) -> None:
    """Control characters are shown, not sent to the terminal; `.error` keeps them."""
    text = "\x1b]0;pwn\x07\x1b[2J\r\u202e"
    fake.always("/api/version", Reply.error(500, text))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.version()
    assert caught.value.error == text
    assert not set(text) & set(str(caught.value)) - set("]0;pwn[2J")


async def test_what_can_be_done_is_in_the_text(fake: FakeOllama) -> None:
    """Where to sign in, how long to wait, what to pull: in the text, also inside a stream."""
    unauthorized = {"error": "unauthorized", "signin_url": "https://ollama.com/connect"}
    fake.script(
        "/api/chat",
        Reply.stream([unauthorized]),
        Reply.error(429, "slow down", headers={"Retry-After": "7"}),
        Reply.json({"error": ""}),
        Reply.text(""),
    )
    async with AsyncClient(fake.url) as client:
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        with pytest.raises(AuthorizationError, match="sign in at https://ollama.com/connect"):
            await exhaust(stream)
        with pytest.raises(ResponseError, match="ask again in 7 s"):
            await client.chat("llama3.2", MESSAGES)
        with pytest.raises(ResponseError, match="without a text"):
            await client.chat("llama3.2", MESSAGES)
        with pytest.raises(ProtocolError, match="empty"):
            await client.chat("llama3.2", MESSAGES)
        with pytest.raises(ResponseError, match="pull it first"):
            await client.chat("no-such-model", MESSAGES)


async def test_a_long_name_makes_no_long_text(fake: FakeOllama) -> None:
    """A label has room for a name, not for a novel."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.chat("x" * 100_000, MESSAGES)
    assert len(caught.value.request or "") < 200
