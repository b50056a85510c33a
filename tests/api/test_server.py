"""What a server says of itself, waiting for it, and searching the web through it."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from ollama_sc import (
    AbortError,
    AsyncClient,
    AuthorizationError,
    RequestError,
    RequestTimeout,
    ResponseError,
    Timeouts,
)
from ollama_sc import _client as client_module
from ollama_sc.testing import FakeOllama, Reply
from tests.support import Outcome, is_quiet

pytestmark = pytest.mark.anyio


# -- the server ------------------------------------------------------------------------------------


async def test_what_a_server_says_of_itself(fake: FakeOllama) -> None:
    """Version, status, recommendations, who is signed in, signing out."""
    async with AsyncClient(fake.url) as client:
        assert (await client.version()).version == "0.33.0"
        status = await client.status()
        assert status.cloud is not None
        assert status.cloud.disabled is False
        assert (await client.recommendations()).recommendations[0].model
        assert (await client.me()).name
        assert await client.sign_out() is None  # type: ignore[func-returns-value]
        with pytest.raises(AuthorizationError) as caught:
            await client.me()
        assert caught.value.signin_url
        with pytest.raises(AuthorizationError):
            await client.sign_out()


async def test_waiting_for_a_server(anyio_backend: Any) -> None:
    """is_running tells, wait_ready waits, and an abort ends the waiting between its tries."""
    async with AsyncClient("127.0.0.1:9") as client:
        assert not await client.is_running()
        with pytest.raises(RequestTimeout) as caught:
            await client.wait_ready(timeout=Timeouts(total=0.2))
        assert caught.value.limit == "total"
        async with anyio.create_task_group() as tasks:
            ended = Outcome(tasks, client.wait_ready)
            await anyio.sleep(0.1)
            client.abort()
        assert isinstance(ended.error, AbortError)
        assert is_quiet(client)
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        fake.script("/api/version", Reply.busy(), Reply.busy())
        assert (await client.wait_ready()).version
        assert len(fake.requests) == 3
        assert await client.is_running()


# -- the web ---------------------------------------------------------------------------------------


async def test_searching_the_web_by_the_server(anyio_backend: Any) -> None:
    """Without a key, the client's own server is asked."""
    async with FakeOllama() as fake, AsyncClient(fake.url) as client:
        fake.always("/api/experimental/web_search", Reply.json({"results": [{"title": "a"}]}))
        fake.always("/api/experimental/web_fetch", Reply.json({"title": "t", "links": ["u"]}))
        assert (await client.web_search("x", 3)).results[0].title == "a"
        assert fake.requests[0].json == {"query": "x", "max_results": 3}
        assert (await client.web_fetch("http://x")).links == ["u"]
        assert fake.requests[1].json == {"url": "http://x"}
        with pytest.raises(RequestError):
            await client.web_search("")


async def test_searching_the_web_with_a_key(
    monkeypatch: pytest.MonkeyPatch, anyio_backend: Any
) -> None:
    """With the environment's key, ollama.com is asked, and nothing of the client's goes there."""
    monkeypatch.setenv("OLLAMA_API_KEY", "env-key")
    async with FakeOllama(keys=["env-key"]) as hosted, FakeOllama() as mine:
        monkeypatch.setattr(client_module, "HOSTED", hosted.url)
        hosted.always("/api/web_search", Reply.json({"results": []}))
        async with AsyncClient(
            mine.url,
            api_key="my-key",
            headers={"X-Mine": "1"},
            cookies={"c": "1"},
            params={"p": "1"},
        ) as client:
            assert (await client.web_search("x")).results == []
            await client.version()
            assert client.abort() == 0
        assert [request.path for request in mine.requests] == ["/api/version"]
        assert mine.requests[0].headers["authorization"] == "Bearer my-key"
        assert mine.requests[0].headers["x-mine"] == "1"
        [search] = hosted.requests
        assert search.headers["authorization"] == "Bearer env-key"
        assert "x-mine" not in search.headers
        assert "cookie" not in search.headers
        assert not search.query
        await hosted.wait_all_closed()


# -- in front of the server ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 502, 503, 504, 521, 522, 523, 530])
async def test_waiting_for_a_server_behind_a_gateway(fake: FakeOllama, status: int) -> None:
    """However a gateway says that nobody is there yet, it is waited for."""
    starting = [Reply.html(status), Reply.error(status, "no upstream"), Reply.empty(status)]
    fake.script("/api/version", *starting)
    async with AsyncClient(fake.url) as client:
        with anyio.fail_after(10):
            assert (await client.wait_ready()).version
    assert len(fake.requests) == 4


@pytest.mark.parametrize("status", [400, 401, 404, 500, 501])
async def test_waiting_would_mend_nothing(fake: FakeOllama, status: int) -> None:
    """Other errors are raised: they would be the same for ever."""
    fake.always("/api/version", Reply.error(status, "because"))
    async with AsyncClient(fake.url) as client:
        with anyio.fail_after(10), pytest.raises(ResponseError):
            await client.wait_ready()
    assert len(fake.requests) == 1


@pytest.mark.parametrize("text", ["path not found", "Not Found", "no route for /api/show"])
async def test_a_missing_path_is_no_missing_model(fake: FakeOllama, text: str) -> None:
    """A server without the endpoint does not say whether it has the model."""
    async with AsyncClient(fake.url) as client:
        for path in ("/api/show", "/api/version"):
            fake.always(path, Reply.error(404, text))
        for call in (client.version(), client.has_model("llama3.2"), client.show("llama3.2")):
            with pytest.raises(ResponseError) as caught:
                await call
            assert type(caught.value) is ResponseError
            assert "pull it first" not in str(caught.value)
