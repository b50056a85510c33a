"""What a client refuses of its settings, and what it takes from the environment."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from ollama_sc import AsyncClient, RequestError
from ollama_sc.testing import FakeOllama

pytestmark = pytest.mark.anyio


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Content-Length", "transfer-encoding", "Content-Encoding", "Connection", "Expect"]
)
def test_headers_that_frame_the_body(name: str) -> None:
    """A header that HTTP itself sets is refused."""
    with pytest.raises(RequestError, match="headers"):
        AsyncClient(headers={name: "5"})


@pytest.mark.parametrize(
    "options",
    [{"headers": ["a"]}, {"proxy": 5}, {"mounts": 5}, {"event_hooks": 5}, {"proxy": "x://u:s3cret@h"}],
)  # fmt: skip
def test_settings_that_httpx_refuses(options: Any) -> None:
    """Whatever httpx makes of bad settings, it is a RequestError that shows no password."""
    with pytest.raises(RequestError) as caught:
        AsyncClient(**options)
    assert "s3cret" not in str(caught.value)


# -- surroundings ----------------------------------------------------------------------------------


async def test_the_environments_key_stays_at_home(
    fake: FakeOllama, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment's key goes to no server but ollama.com, in no letter case of its name."""
    monkeypatch.setenv("OLLAMA_API_KEY", "env-key")
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"version": "1"})

    for host in ("example.com", "http://ollama.com", "https://ollama.com.example.com", fake.url):
        async with AsyncClient(host, transport=httpx.MockTransport(answer)) as client:
            await client.version()
        assert "authorization" not in seen[-1].headers
    for host in ("ollama.com", "OLLAMA.com", "https://Ollama.COM/"):
        async with AsyncClient(host, transport=httpx.MockTransport(answer)) as client:
            await client.version()
            assert "env-key" not in repr(client)
        assert seen[-1].headers["authorization"] == "Bearer env-key"
        assert seen[-1].url.scheme == "https"


def test_the_environments_key_is_for_the_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another port of ollama.com is another origin."""
    monkeypatch.setenv("OLLAMA_API_KEY", "s3cret")
    client = AsyncClient("https://ollama.com:8443")
    assert "authorization" not in client._shared.sender._client.headers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
async def test_proxies_are_not_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, host: str, anyio_backend: Any
) -> None:
    """A proxy that the environment names is not used for loopback, and is for others."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    client = AsyncClient(f"{host}:1234")._shared.sender._client
    own = client._transport
    assert client._transport_for_url(httpx.URL(f"http://{host}:1234/")) is own
    other = AsyncClient("http://example.com")._shared.sender._client
    assert other._transport_for_url(httpx.URL("http://example.com/")) is not other._transport
