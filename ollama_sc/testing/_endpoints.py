"""What the server answers by itself: the routes and the rules that all of them share."""

import ipaddress
import socket
from collections.abc import Awaitable, Callable

from ollama_sc.testing import _embedding, _generation
from ollama_sc.testing._fields import ApiError
from ollama_sc.testing._generation import Limits
from ollama_sc.testing._replies import Generated, Message, error_message, json_message
from ollama_sc.testing._request import RecordedRequest
from ollama_sc.testing._store import ModelStore

_Handler = Callable[[RecordedRequest, Generated], Awaitable[Message]]
_LOCAL_NAMES = (".localhost", ".local", ".internal")

# Paths that need a model, to which `parallel` applies.
MODEL_PATHS = frozenset({"/api/chat", "/api/generate", "/api/embed"})


class Ollama:
    """The behaviour of the server, without sockets.

    Args:
        store: The models.
        limits: Length and speed of answers.
        dimensions: The length of embeddings.
        version: What `/api/version` says.
        loopback: Whether the server is bound to a loopback address, and so checks `Host`.

    """

    def __init__(
        self, store: ModelStore, limits: Limits, *, dimensions: int, version: str, loopback: bool
    ) -> None:
        self.store = store
        self.limits = limits
        self._dimensions = dimensions
        self._version = version
        self._loopback = loopback
        # Methods in the order in which they stand in an Allow header.
        self._routes: dict[str, dict[str, _Handler]] = {
            "/": {"HEAD": self._root, "GET": self._root},
            "/api/version": {"HEAD": self._get_version, "GET": self._get_version},
            "/api/tags": {"HEAD": self._tags, "GET": self._tags},
            "/api/chat": {"POST": self._chat},
            "/api/generate": {"POST": self._generate},
            "/api/embed": {"POST": self._embed},
        }

    async def message(self, request: RecordedRequest, script: Generated) -> Message:
        """The answer to a request; the script says what the model shall say."""
        if self._loopback and not _host_allowed(request.headers.get("host", "")):
            return Message(403, None, (b"",))
        route = self._routes.get(request.path)
        if route is None:
            return self._no_route(request)
        handler = route.get(request.method)
        if handler is None:
            text = b"405 method not allowed"
            return Message(405, "text/plain", (text,), {"Allow": ", ".join(route)})
        try:
            return await handler(request, script)
        except ApiError as exc:
            return error_message(exc.status, exc.text)

    def _no_route(self, request: RecordedRequest) -> Message:
        shorter = request.path.removesuffix("/")
        if shorter != request.path and request.method in self._routes.get(shorter, {}):
            return _redirect(request, shorter)
        return Message(404, "text/plain", (b"404 page not found",))

    async def _root(self, request: RecordedRequest, script: Generated) -> Message:
        del request, script
        return Message(200, "text/plain; charset=utf-8", (b"Ollama is running",))

    async def _get_version(self, request: RecordedRequest, script: Generated) -> Message:
        del request, script
        return json_message({"version": self._version})

    async def _tags(self, request: RecordedRequest, script: Generated) -> Message:
        del request, script
        return json_message({"models": [m.tags_entry() for m in self.store.newest_first()]})

    async def _chat(self, request: RecordedRequest, script: Generated) -> Message:
        return self._say(request, script, chat=True)

    async def _generate(self, request: RecordedRequest, script: Generated) -> Message:
        return self._say(request, script, chat=False)

    def _say(self, request: RecordedRequest, script: Generated, *, chat: bool) -> Message:
        return _generation.answer(
            request.body, chat=chat, store=self.store, limits=self.limits, script=script
        )

    async def _embed(self, request: RecordedRequest, script: Generated) -> Message:
        del script
        return await _embedding.embed(request.body, self.store, self._dimensions)


def _redirect(request: RecordedRequest, path: str) -> Message:
    target = f"{path}?{request.query}" if request.query else path
    if request.method != "GET":
        return Message(307, None, (b"",), {"Location": target})
    page = f'<a href="{target}">Moved Permanently</a>.\n\n'.encode("latin-1")
    return Message(301, "text/html; charset=utf-8", (page,), {"Location": target})


def _host_allowed(header: str) -> bool:
    """Whether a server that listens on loopback only answers to this `Host`."""
    if header.startswith("["):
        host = header[1:].partition("]")[0]
    else:
        host = header.rpartition(":")[0] if header.count(":") == 1 else header
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        host = host.lower()
        names = ("", "localhost", socket.gethostname().lower())
        return host in names or host.endswith(_LOCAL_NAMES)
    return address.is_loopback or address.is_private or address.is_unspecified
