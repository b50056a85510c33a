"""Error replies of servers and proxies: the right exception, with the server's own words."""

from __future__ import annotations

import pickle
from typing import Any

import anyio
import pytest

from ollama_sc import (
    AsyncClient,
    AuthorizationError,
    ModelNotFoundError,
    RateLimitError,
    ResponseError,
    ServerBusyError,
)
from ollama_sc.testing import FakeOllama, Reply
from tests.support import MESSAGES, is_quiet, raw_server, recording, replying

pytestmark = pytest.mark.anyio

ERRORS = [
    (Reply.error(400, "model is required"), ResponseError, 400, "model is required"),
    (Reply.error(404, "model 'x' not found"), ModelNotFoundError, 404, "model 'x' not found"),
    (Reply.error(401, "unauthorized"), AuthorizationError, 401, "unauthorized"),
    (Reply.empty(403), AuthorizationError, 403, "Host"),
    (Reply.error(429, "weekly limit reached"), RateLimitError, 429, "weekly limit reached"),
    (Reply.busy(), ServerBusyError, 503, "server busy, please try again."),
    (
        Reply.error(500, '{"error":{"code":400,"message":"too long"}}'),
        ResponseError,
        500,
        "too long",
    ),
    (Reply.error(400, {"message": "bad", "type": "api_error"}), ResponseError, 400, "bad"),
    (Reply.html(502), ResponseError, 502, "502"),
    (Reply.text("404 page not found", 404), ResponseError, 404, "404 page not found"),
    (Reply.json(42, 500), ResponseError, 500, "42"),
    (Reply.json(None, 500), ResponseError, 500, "500"),
    (Reply.json([], 400), ResponseError, 400, "400"),
    (Reply.json({"error": ""}, 500), ResponseError, 500, "500"),
    (Reply.empty(500), ResponseError, 500, "Internal Server Error"),
    (Reply.text("<html", 500), ResponseError, 500, "500"),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("case", ERRORS, ids=[f"{case[2]} {case[3][:12]}" for case in ERRORS])
async def test_error_replies(fake: FakeOllama, case: Any, stream: bool) -> None:
    """Each is the right exception with the server's text, raised by the call itself."""
    reply, kind, status, text = case
    fake.always("/api/chat", reply)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.chat("llama3.2", MESSAGES, stream=stream)
        error = caught.value
        assert type(error) is kind
        assert error.status_code == status
        assert text in error.error
        assert text in str(error)
        assert "POST /api/chat, model 'llama3.2'" in str(error)
        assert pickle.loads(pickle.dumps(error)).__dict__ == error.__dict__
        assert is_quiet(client)
        assert client.statistics().open == client.statistics().idle
        assert (await client.version()).version


async def test_what_errors_carry(fake: FakeOllama) -> None:
    """The sign-in address and the time to wait are attributes."""
    fake.script(
        "/api/chat",
        Reply.error(401, "unauthorized", signin_url="https://ollama.com/connect?name=x"),
        Reply.error(429, "slow down", headers={"Retry-After": "7"}),
        Reply.json({"StatusCode": 429, "Status": "429 Too Many", "error": "weekly"}, 429),
    )
    async with AsyncClient(fake.url) as client:
        with pytest.raises(AuthorizationError) as unauthorized:
            await client.chat("llama3.2", MESSAGES)
        assert unauthorized.value.signin_url == "https://ollama.com/connect?name=x"
        with pytest.raises(RateLimitError) as limited:
            await client.chat("llama3.2", MESSAGES)
        assert limited.value.retry_after == 7
        with pytest.raises(RateLimitError) as stub:
            await client.chat("llama3.2", MESSAGES)
        assert stub.value.retry_after is None


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [
        ("chat-missing-model", ModelNotFoundError, 404),
        ("chat-bad-think", ResponseError, 400),
        ("chat-bad-option", ResponseError, 500),
        ("chat-tools-unsupported", ResponseError, 400),
        ("embed-too-long", ResponseError, 400),
        ("embed-unsupported", ResponseError, 501),
        ("not-found", ResponseError, 404),
        ("wrong-method", ResponseError, 405),
    ],
)
async def test_recorded_errors(anyio_backend: Any, name: str, kind: Any, status: int) -> None:
    """A real server's error replies are the right exceptions."""
    async with raw_server(replying(recording(name))) as url, AsyncClient(url) as client:
        with pytest.raises(kind) as caught:
            await client.chat("m", MESSAGES)
        assert type(caught.value) is kind
        assert caught.value.status_code == status


async def test_an_endless_error_page(fake: FakeOllama) -> None:
    """An error reply that never ends is an error all the same."""

    async def endless(stream: Any) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 500 Oops\r\n\r\n")
        while True:
            await stream.send(b"x" * 10_000)

    async with raw_server(endless) as url, AsyncClient(url) as client:
        with anyio.fail_after(5), pytest.raises(ResponseError) as caught:
            await client.version()
        assert len(str(caught.value)) < 1000
        assert client.statistics().open == 0
