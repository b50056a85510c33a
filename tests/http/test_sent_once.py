"""A request that a server may have been at work on is not sent twice."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import httpx
import pytest

from ollama_sc import AsyncClient, ConnectError
from tests.wire import Asked, Peer, client_context, ok, plain_and_tls, quick, serving

pytestmark = [pytest.mark.anyio, quick]

VERSION = ok(b'{"version":"1"}')
LATE = 0.2  # seconds of work; far beyond the time in which a dead connection shows


@pytest.fixture(autouse=True)
def late_is_not_dead() -> None:
    """How soon a connection is dead is the subject here."""


CALLS: dict[str, Callable[[AsyncClient], Awaitable[Any]]] = {
    "chat": lambda client: client.chat("m", [{"role": "user", "content": "x"}]),
    "embed": lambda client: client.embed("m", "x"),
    "show": lambda client: client.show("m"),
    "delete": lambda client: client.delete("m"),
    "pull": lambda client: client.pull("m"),
    "push": lambda client: client.push("m"),
    "create": lambda client: client.create("m", from_="x"),
    "request-delete": lambda client: client.request("DELETE", "/api/other"),
    "request-pull": lambda client: client.request("POST", "/api/pull", json={"model": "m"}),
}
ONCE = {"delete", "pull", "push", "create", "request-delete", "request-pull"}


def options_of(way: str, *, secure: bool) -> dict[str, Any]:
    verify: Any = client_context() if secure else True
    if way == "httpx":
        return {"transport": httpx.AsyncHTTPTransport(verify=verify)}
    hooks = {"event_hooks": {"response": [nothing]}} if way == "own-under-httpx" else {}
    return {"verify": verify, **hooks}


async def nothing(_: Any) -> None: ...


def dying(seconds: float, seen: list[Asked]) -> Callable[[Peer], Awaitable[None]]:
    """Answer `version`; die without a reply at anything else, after some time."""

    async def handle(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            if asked.target != "/api/version":
                seen.append(asked)
                await anyio.sleep(seconds)
                return
            await peer.send(VERSION)

    return handle


@plain_and_tls
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("way", ["own", "own-under-httpx", "httpx"])
async def test_a_server_that_dies_at_work(
    anyio_backend: Any, way: str, name: str, secure: bool
) -> None:
    """A connection that breaks long after the last byte was sent is an error, and nothing is asked twice."""
    seen: list[Asked] = []
    async with (
        serving(dying(LATE, seen), tls=secure) as server,
        AsyncClient(server.url, **options_of(way, secure=secure)) as client,
    ):
        await client.version()
        with pytest.raises(ConnectError, match="broke"):
            await CALLS[name](client)
        assert len(seen) == 1


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("way", ["own", "own-under-httpx", "httpx"])
async def test_a_connection_that_was_dead(
    anyio_backend: Any, monkeypatch: pytest.MonkeyPatch, way: str, name: str
) -> None:
    """Where it breaks at once, a request is sent again; but one that must not be done twice is not."""
    for module in ("via_httpx", "connection"):  # on a busy machine "at once" can take a while
        monkeypatch.setattr(f"ollama_sc._http.{module}.DEAD_WITHIN", 5.0)
    seen: list[Asked] = []
    async with (
        serving(dying(0, seen)) as server,
        AsyncClient(server.url, **options_of(way, secure=False)) as client,
    ):
        await client.version()
        with pytest.raises(ConnectError):
            await CALLS[name](client)
        assert len(seen) == (1 if name in ONCE else 2)
