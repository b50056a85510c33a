"""The example of a web application: a request ends with its browser. A small server is here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

from ollama_sc.testing import Reply
from tests.docs.support import load, server

pytestmark = pytest.mark.anyio


class Server:
    """What an ASGI server does, as far as the example needs it."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.state: dict[str, Any] = {}

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            life = self._connection(tasks, {"type": "lifespan", "state": self.state})
            await life.send({"type": "lifespan.startup"})
            assert (await life.receive())["type"] == "lifespan.startup.complete"
            yield
            await life.send({"type": "lifespan.shutdown"})
            assert (await life.receive())["type"] == "lifespan.shutdown.complete"
            life.close()

    def request(self, tasks: anyio.abc.TaskGroup, query: bytes) -> Connection:
        scope = {"type": "http", "query_string": query, "state": self.state.copy()}
        return self._connection(tasks, scope)

    def _connection(self, tasks: anyio.abc.TaskGroup, scope: dict[str, Any]) -> Connection:
        connection = Connection()
        tasks.start_soon(connection.serve, self.app, scope)
        return connection


class Connection:
    """The server's ends of what an ASGI application receives and sends."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self._to_app, self._app_receives = anyio.create_memory_object_stream[Any](10)
        self._app_sends, self._from_app = anyio.create_memory_object_stream[Any](0)
        self.send = self._to_app.send
        self.receive = self._from_app.receive

    async def serve(self, app: Any, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._app_receives.receive, self._app_sends.send)
        finally:
            self.ended.set()

    def close(self) -> None:
        for stream in (self._to_app, self._app_receives, self._app_sends, self._from_app):
            stream.close()


async def test_web_request_streams_to_its_end(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """A browser that stays gets the whole answer."""
    async with server() as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        web = Server(load("web_lifespan.py").app)
        async with web.lifespan(), anyio.create_task_group() as tasks:
            request = web.request(tasks, b"Why+is+the+sky+blue")
            assert (await request.receive())["status"] == 200
            body = b""
            while (event := await request.receive()).get("more_body"):
                body += event["body"]
            await request.ended.wait()
            request.close()
        assert body.startswith(b"This is synthetic text")
        assert fake.requests[0].json["prompt"] == "Why is the sky blue"
        assert not fake.requests[0].disconnected


async def test_web_disconnect_ends_the_generation(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """A browser that goes away takes its generation along; the other request goes on."""
    async with server(token_rate=50, tokens=100_000) as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        web = Server(load("web_lifespan.py").app)
        async with web.lifespan(), anyio.create_task_group() as tasks:
            leaving = web.request(tasks, b"one")
            await leaving.receive()
            staying = web.request(tasks, b"two")
            await staying.receive()
            await leaving.send({"type": "http.disconnect"})
            await leaving.ended.wait()
            first, second = fake.requests
            await first.wait_closed()
            assert first.disconnected
            assert second.closed_at is None
            assert (await staying.receive())["more_body"]
            await staying.send({"type": "http.disconnect"})
            await staying.ended.wait()
            leaving.close()
            staying.close()
            assert web.state["ollama"].statistics().in_flight == 0
        await fake.wait_all_closed()


async def test_web_disconnect_is_noticed_before_the_first_part(
    monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Also while the model is loading, when the server says nothing yet."""
    async with server() as fake:
        fake.always("/api/generate", Reply.silence())
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        web = Server(load("web_lifespan.py").app)
        async with web.lifespan(), anyio.create_task_group() as tasks:
            request = web.request(tasks, b"hello")
            await fake.wait_for_requests(1)
            await request.send({"type": "http.disconnect"})
            await request.ended.wait()
            await fake.requests[0].wait_closed()
            request.close()


async def test_web_failure_has_a_status(monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """A failure before the first part is told by the status."""
    async with server(models=[]) as fake:
        monkeypatch.setenv("OLLAMA_HOST", fake.url)
        web = Server(load("web_lifespan.py").app)
        async with web.lifespan(), anyio.create_task_group() as tasks:
            request = web.request(tasks, b"hello")
            assert (await request.receive())["status"] == 502
            assert b"not found" in (await request.receive())["body"]
            await request.ended.wait()
            request.close()
