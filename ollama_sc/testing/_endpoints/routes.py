"""The routes of the server, and the rules that all of them share."""

from collections.abc import Awaitable, Callable, Mapping

import anyio

from ollama_sc.testing import _version
from ollama_sc.testing._go.fields import ApiError
from ollama_sc.testing._http import access
from ollama_sc.testing._http.request import RecordedRequest
from ollama_sc.testing._replies import (
    JSON,
    NDJSON,
    Generated,
    Message,
    api_error_message,
    json_message,
)
from ollama_sc.testing._state.state import State

from . import account, create, embedding, generation, manage, show, transfer

_Handler = Callable[[RecordedRequest, Generated], Awaitable[Message]]
_Quick = Callable[[RecordedRequest, State], Message]
_Routes = dict[str, dict[str, _Handler]]

BLOBS = "/api/blobs/"

# Paths that use a model, to which `parallel` applies.
MODEL_PATHS = frozenset(
    {"/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/v1/embeddings"}
)


class Ollama:
    """The behaviour of the server, without sockets.

    Args:
        state: The server's state.

    Attributes:
        loopback: Whether it is bound to a loopback address, and therefore checks `Host`.

    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.loopback = True
        self._routes = self._make_routes()
        self._blob_route = {"HEAD": self._head_blob, "POST": self._post_blob}

    def _make_routes(self) -> _Routes:
        """The routes of this version; methods in the order of the `Allow` header."""
        quick = self._quick
        routes: _Routes = {
            "/": _get(self._root),
            "/api/version": _get(self._get_version),
            "/api/tags": _get(quick(lambda _, state: manage.tags(state))),
            "/api/ps": {"GET": quick(lambda _, state: manage.ps(state))},
            "/api/show": {"POST": quick(lambda r, state: show.show(r.body, state))},
            "/api/copy": {"POST": quick(lambda r, state: manage.copy(r.body, state))},
            "/api/delete": {"DELETE": quick(lambda r, state: manage.delete(r.body, state))},
            "/api/chat": {"POST": self._chat},
            "/api/generate": {"POST": self._generate},
            "/api/embed": {"POST": self._embed},
            "/api/embeddings": {"POST": self._embeddings},
            "/v1/embeddings": {"POST": self._compatible},
            "/api/pull": {"POST": self._pull},
            "/api/push": {"POST": self._push},
            "/api/create": {"POST": self._create},
            "/api/web_search": {"POST": quick(account.hosted_search)},
            "/api/web_fetch": {"POST": quick(account.hosted_fetch)},
        }
        for path, since, method, handler in _NEWER:
            if self.state.version.has(since):
                routes[path] = {method: quick(handler)}
        return routes

    def _quick(self, handler: _Quick) -> _Handler:
        """A handler around a synchronous function."""

        async def handle(request: RecordedRequest, script: Generated) -> Message:
            del script
            return handler(request, self.state)

        return handle

    async def message(self, request: RecordedRequest, script: Generated) -> Message:
        """The response to a request; the script may set the model's output."""
        state = self.state
        refused = access.refusal(request, state.origins, loopback=self.loopback)
        if refused is not None:
            return refused
        message = await self._routed(request, script)
        message.headers = {**access.granted(request), **message.headers}
        return message

    async def _routed(self, request: RecordedRequest, script: Generated) -> Message:
        route = self._route(request.path)
        if route is None:
            return self._no_route(request)
        handler = route.get(request.method)
        if handler is None:
            text = b"405 method not allowed"
            return Message(405, "text/plain", (text,), {"Allow": ", ".join(route)})
        try:
            return await handler(request, script)
        except ApiError as exc:
            return api_error_message(
                exc.status, exc.body, exc.headers, NDJSON if exc.ndjson else JSON
            )

    def _route(self, path: str) -> Mapping[str, _Handler] | None:
        rest = path.removeprefix(BLOBS)
        if rest != path and rest and "/" not in rest:
            return self._blob_route
        return self._routes.get(path)

    def _no_route(self, request: RecordedRequest) -> Message:
        shorter = request.path.removesuffix("/")
        route = self._route(shorter) if shorter != request.path else None
        if route is not None and request.method in route:
            return _redirect(request, shorter)
        return Message(404, "text/plain", (b"404 page not found",))

    def begin(self, request: RecordedRequest) -> bool:
        """Prepare for the body of an upload; False if the response does not need it."""
        request.upload = manage.begin_blob(manage.digest_in(request.path), self.state)
        return request.upload is not None

    async def _root(self, request: RecordedRequest, script: Generated) -> Message:
        del request, script
        return Message(200, "text/plain; charset=utf-8", (b"Ollama is running",))

    async def _get_version(self, request: RecordedRequest, script: Generated) -> Message:
        del request, script
        return json_message({"version": self.state.version.text})

    async def _chat(self, request: RecordedRequest, script: Generated) -> Message:
        return await self._complete(request, script, chat=True)

    async def _generate(self, request: RecordedRequest, script: Generated) -> Message:
        return await self._complete(request, script, chat=False)

    async def _complete(
        self, request: RecordedRequest, script: Generated, *, chat: bool
    ) -> Message:
        return generation.respond(request, request.body, chat=chat, state=self.state, script=script)

    async def _embed(self, request: RecordedRequest, script: Generated) -> Message:
        del script
        return await self._with_duration(embedding.embed(request, request.body, self.state))

    async def _embeddings(self, request: RecordedRequest, script: Generated) -> Message:
        del script
        return await self._with_duration(embedding.legacy(request, request.body, self.state))

    async def _compatible(self, request: RecordedRequest, script: Generated) -> Message:
        del script
        return await self._with_duration(embedding.compatible(request, request.body, self.state))

    async def _with_duration(self, work: Awaitable[Message]) -> Message:
        """Wait until `embed_seconds` have passed in total, the fake's own work included."""
        end = anyio.current_time() + self.state.limits.embed_seconds
        try:
            return await work
        finally:
            if anyio.current_time() < end:
                await anyio.sleep_until(end)

    async def _pull(self, request: RecordedRequest, script: Generated) -> Message:
        del script
        return await transfer.pull(request.body, self.state)

    async def _push(self, request: RecordedRequest, script: Generated) -> Message:
        del script
        return await transfer.push(request.body, self.state)

    async def _create(self, request: RecordedRequest, script: Generated) -> Message:
        del script
        return await create.create(request.body, self.state)

    async def _head_blob(self, request: RecordedRequest, script: Generated) -> Message:
        del script
        return manage.head_blob(manage.digest_in(request.path), self.state)

    async def _post_blob(self, request: RecordedRequest, script: Generated) -> Message:
        del script
        digest = manage.digest_in(request.path)
        return manage.post_blob(digest, request.upload, self.state)


_NEWER: tuple[tuple[str, _version.Since, str, _Quick], ...] = (
    ("/api/status", _version.STATUS, "GET", lambda _, state: account.status(state)),
    ("/api/me", _version.REMOTE, "POST", lambda _, state: account.me(state)),
    ("/api/signout", _version.SIGNOUT, "POST", lambda _, state: account.sign_out(state)),
    ("/api/experimental/web_search", _version.WEB, "POST", account.relayed_search),
    ("/api/experimental/web_fetch", _version.WEB, "POST", account.relayed_fetch),
    (
        "/api/experimental/model-recommendations",
        _version.RECOMMENDATIONS,
        "GET",
        lambda _, __: account.recommendations(),
    ),
)


def _get(handler: _Handler) -> dict[str, _Handler]:
    return {"HEAD": handler, "GET": handler}


def _redirect(request: RecordedRequest, path: str) -> Message:
    target = f"{path}?{request.query}" if request.query else path
    if request.method != "GET":
        return Message(307, None, (b"",), {"Location": target})
    page = f'<a href="{target}">Moved Permanently</a>.\n\n'.encode("latin-1")
    return Message(301, "text/html; charset=utf-8", (page,), {"Location": target})
