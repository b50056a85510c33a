"""What a client is made with: what cannot be is refused at once, and secrets are shown nowhere."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ollama_sc import AsyncClient, ConnectError, ModelNotFoundError, RequestError
from ollama_sc.testing import FakeOllama
from tests.support import MESSAGES

pytestmark = pytest.mark.anyio


# -- what cannot be --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Name": "Zoë"},
        {"X-Näme": "x"},
        {"X-Name": "a\r\nX-Other: b"},
        {"X-Name": 5},
        {"a b": "c"},
    ],
)
def test_headers_that_cannot_be(headers: Any) -> None:
    """A header that is not printable ASCII is a RequestError that does not show its value."""
    with pytest.raises(RequestError, match="headers") as caught:
        AsyncClient(headers=headers)
    assert "Zoë" not in str(caught.value)


def test_a_key_that_cannot_be_is_not_shown() -> None:
    """An API key with a bad character is refused without being shown."""
    with pytest.raises(RequestError) as caught:
        AsyncClient(api_key="sécret")
    assert "cret" not in str(caught.value)


@pytest.mark.parametrize(
    "host", ["http://", "ftp://x", "h:99999", "a b", "::1:8080", "http://u:pw@a b"]
)
def test_hosts_that_cannot_be(host: str) -> None:
    """An unusable host is a RequestError, before any I/O; an empty name is this machine."""
    if host == "http://":
        AsyncClient(host)
        return
    with pytest.raises(RequestError) as caught:
        AsyncClient(host)
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"max_in_flight": 0},
        {"max_in_flight": True},
        {"max_in_flight": "4"},
        {"max_in_flight": 1.5},
        {"max_line_bytes": 0},
        {"max_body_bytes": -1},
        {"timeout": -1},
        {"timeout": "10"},
        {"proxy": "nonsense://x"},
        {"verify": 5},
        {"verify": None},
        {"cookies": 5},
    ],
)
def test_settings_that_cannot_be(options: Any) -> None:
    """Bad settings are a RequestError when the client is made."""
    with pytest.raises(RequestError):
        AsyncClient(**options)


@pytest.mark.parametrize("name", ["limits", "base_url", "no_such_option"])
def test_options_that_are_not_for_httpx(name: str) -> None:
    """An option that this library does not pass on is a TypeError that names it."""
    with pytest.raises(TypeError, match=name):
        AsyncClient(**{name: None})  # type: ignore[misc]


# -- where requests go, and as whom ----------------------------------------------------------------


async def test_the_environments_host(fake: FakeOllama, monkeypatch: pytest.MonkeyPatch) -> None:
    """OLLAMA_HOST is where requests go, and its key goes to ollama.com only."""
    monkeypatch.setenv("OLLAMA_HOST", fake.url.removeprefix("http://"))
    monkeypatch.setenv("OLLAMA_API_KEY", "secret-key")
    async with AsyncClient() as client:
        await client.version()
        assert "secret-key" not in repr(client)
    assert "authorization" not in fake.requests[0].headers
    hosted = AsyncClient("ollama.com")
    assert hosted._shared.sender._client.headers["authorization"] == "Bearer secret-key"
    assert "secret-key" not in repr(hosted)


async def test_user_info_in_the_host_becomes_basic_auth(fake: FakeOllama) -> None:
    """User and password are sent as basic auth and shown nowhere."""
    async with AsyncClient(fake.url.replace("//", "//ann:s3cret@")) as client:
        await client.version()
        assert "s3cret" not in repr(client)
        with pytest.raises(ModelNotFoundError) as caught:
            await client.chat("no-such-model", MESSAGES)
        assert "s3cret" not in repr(caught.value) + str(caught.value)
    assert fake.requests[0].headers["authorization"] == "Basic YW5uOnMzY3JldA=="
    async with AsyncClient("http://ann:s3cret@127.0.0.1:9") as client:
        with pytest.raises(ConnectError) as refused:
            await client.version()
        assert "s3cret" not in str(refused.value)


async def test_a_path_prefix(anyio_backend: Any) -> None:
    """A prefix in the host stands before every path."""
    seen: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(200, json={"version": "7"})

    async with AsyncClient("h:1/a/b/", transport=httpx.MockTransport(answer)) as client:
        await client.version()
    assert seen == ["http://h:1/a/b/api/version"]
