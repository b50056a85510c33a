"""Settings that are for the user's own box do not weaken the way to ollama.com."""

from __future__ import annotations

import ssl
from typing import Any

import httpx
import pytest

from ollama_sc import AsyncClient
from ollama_sc._http.transport import Transport


def hosted_of(client: AsyncClient) -> httpx.AsyncClient:
    sender = client._shared.hosted()
    assert sender is not None
    return sender._client


def weak() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def no_name() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


@pytest.mark.parametrize(
    "options",
    [
        {"verify": False},
        {"verify": weak()},
        {"verify": no_name()},
        {"transport": httpx.AsyncHTTPTransport(verify=False)},
        {"transport": httpx.AsyncHTTPTransport(verify=no_name())},
        {"transport": httpx.AsyncHTTPTransport(uds="/run/ollama.sock")},
        {"mounts": {"all://": httpx.AsyncHTTPTransport(verify=False)}},
        {"mounts": {"https://": httpx.AsyncHTTPTransport(uds="/run/ollama.sock")}},
    ],
    ids=lambda given: "-".join(map(str, given)),
)
def test_weak_tls_is_the_hosts_alone(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """The environment's key goes to ollama.com only where its certificate is verified."""
    monkeypatch.setenv("OLLAMA_API_KEY", "env-key")
    client = hosted_of(AsyncClient("https://box:1", **options))
    transport = client._transport_for_url(httpx.URL("https://ollama.com/api/web_search"))
    assert isinstance(transport, Transport)
    context = transport.prepare_tls()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_weak_tls_with_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a proxy, too, which is the same for both."""
    monkeypatch.setenv("OLLAMA_API_KEY", "env-key")
    client = hosted_of(AsyncClient("https://box:1", verify=False, proxy="http://proxy:3128"))
    transport: Any = client._transport_for_url(httpx.URL("https://ollama.com/"))
    assert transport is not client._transport
    assert transport._pool._ssl_context.verify_mode == ssl.CERT_REQUIRED


def test_the_way_there_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport that hides nothing of TLS is used for both."""
    monkeypatch.setenv("OLLAMA_API_KEY", "env-key")
    for transport in (
        httpx.MockTransport(lambda _: httpx.Response(200)),
        httpx.AsyncHTTPTransport(),
    ):
        client = hosted_of(AsyncClient("https://box:1", transport=transport))
        assert client._transport is transport
