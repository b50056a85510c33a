"""The calls about the server itself, and about the web."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, TypeVar

import anyio

from ollama_sc._errors import (
    ConnectError,
    ProtocolError,
    RequestTimeout,
    ResponseError,
)
from ollama_sc._http.connection import is_unreadable
from ollama_sc.types import (
    RecommendationsResponse,
    ServerStatus,
    UserResponse,
    VersionResponse,
    WebFetchResponse,
    WebSearchResponse,
)

from . import arguments
from .base import BaseClient
from .fields import BodyFields, CallFields

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")

_READY_SECONDS = 0.05  # between the first two tries of wait_ready
_READY_SECONDS_MOST = 1.0
# A server that starts or is busy, or a gateway in front of it, whatever that one calls it.
NOT_READY = frozenset({408, 425, 429, 502, 503, 504, *range(520, 528), 529, 530})


class Server(BaseClient):
    """The calls about the server itself, and about the web."""

    @arguments.expand_kwargs(CallFields)
    async def version(self, **fields: Unpack[CallFields]) -> VersionResponse:
        """The server's version: ``GET /api/version``."""
        return await self._get("/api/version", VersionResponse, fields)

    @arguments.expand_kwargs(CallFields)
    async def status(self, **fields: Unpack[CallFields]) -> ServerStatus:
        """Whether the server may use ollama.com: ``GET /api/status`` (server 0.16.2)."""
        return await self._get("/api/status", ServerStatus, fields)

    @arguments.expand_kwargs(CallFields)
    async def recommendations(self, **fields: Unpack[CallFields]) -> RecommendationsResponse:
        """The models that the server recommends.

        ``GET /api/experimental/model-recommendations`` (server 0.22.1).
        """
        path = "/api/experimental/model-recommendations"
        return await self._get(path, RecommendationsResponse, fields)

    @arguments.expand_kwargs(CallFields)
    async def me(self, **fields: Unpack[CallFields]) -> UserResponse:
        """Who is signed in on the server: ``POST /api/me`` (server 0.12.0).

        Raises:
            AuthorizationError: nobody is; its `signin_url` says where to.
            ResponseError: ollama.com cannot be reached (503).
        """
        arguments.reject_unknown(fields, CallFields)
        return await self._ask(arguments.raw_request("POST", "/api/me"), UserResponse, fields)

    @arguments.expand_kwargs(CallFields)
    async def sign_out(self, **fields: Unpack[CallFields]) -> None:
        """Sign the server out of ollama.com: ``POST /api/signout`` (server 0.12.1).

        Raises:
            AuthorizationError: nobody is signed in.
        """
        arguments.reject_unknown(fields, CallFields)
        await self._ask(arguments.raw_request("POST", "/api/signout"), NoneType, fields)

    @arguments.expand_kwargs(CallFields)
    async def is_running(self, **fields: Unpack[CallFields]) -> bool:
        """Whether an Ollama server answers, by ``GET /api/version``.

        A server that does not answer within ``timeout`` is not running; give one where the network
        can swallow requests.
        """
        try:
            await self.version(**fields)
        except (ConnectError, RequestTimeout, ResponseError, ProtocolError):
            return False
        return True

    @arguments.expand_kwargs(CallFields)
    async def wait_ready(self, **fields: Unpack[CallFields]) -> VersionResponse:
        """Wait until the server answers, by ``GET /api/version`` again and again.

        A gateway that says there is no server behind it (such as 502) is waited for as well.
        Without a limit it waits for ever: use a cancel scope, or ``timeout=Timeouts(total=30)``
        for all of the tries.

        Raises:
            RequestTimeout: the total timeout expired.
            ConnectError: in a browser, the server answers, and not to this page.
        """
        timeouts = self._timeouts(fields)
        work = partial(self._wait_ready, fields)
        return await self._calls.operation("wait_ready", timeouts, work)

    async def _wait_ready(self, fields: CallFields) -> VersionResponse:
        pause = _READY_SECONDS
        while True:
            try:
                return await self.version(**fields)
            except (ConnectError, RequestTimeout) as error:
                if is_unreadable(error):
                    raise
            except ResponseError as error:
                if error.status_code not in NOT_READY:
                    raise
            await anyio.sleep(pause)
            pause = min(2 * pause, _READY_SECONDS_MOST)

    # -- the web -----------------------------------------------------------------------------

    @arguments.expand_kwargs(BodyFields)
    async def web_search(
        self, query: str, max_results: int | None = None, **fields: Unpack[BodyFields]
    ) -> WebSearchResponse:
        """Search the web.

        With a key for ollama.com (``OLLAMA_API_KEY``, or the client's own where ollama.com is its
        host): ``POST https://ollama.com/api/web_search``, to which nothing of the client's headers,
        auth and cookies goes. Without: ``POST /api/experimental/web_search`` of the server, which
        uses its own sign-in (server 0.18.0).

        Args:
            query: what to look for.
            max_results: how many pages at most; ``None`` is the service's own number.
            **fields: see `BodyFields`.

        Raises:
            AuthorizationError: the key is wrong, or nobody is signed in on the server.
        """
        body = {
            "query": arguments.name("query", query),
            "max_results": arguments.count("max_results", max_results),
        }
        return await self._web("web_search", body, WebSearchResponse, fields)

    @arguments.expand_kwargs(BodyFields)
    async def web_fetch(self, url: str, **fields: Unpack[BodyFields]) -> WebFetchResponse:
        """Read a page of the web, in the same way as `web_search`.

        ``POST https://ollama.com/api/web_fetch``, or ``POST /api/experimental/web_fetch``.

        Args:
            url: the page's address.
            **fields: see `BodyFields`.
        """
        body = {"url": arguments.name("url", url)}
        return await self._web("web_fetch", body, WebFetchResponse, fields)

    async def _web(
        self, what: str, body: Mapping[str, object], type_: type[T], fields: BodyFields
    ) -> T:
        arguments.reject_unknown(fields, BodyFields)
        sent = {key: value for key, value in body.items() if value is not None}
        hosted = self._shared.hosted()
        path = f"/api/{what}" if hosted else f"/api/experimental/{what}"
        request = arguments.raw_request("POST", path, sent, fields=fields)
        return await self._ask(request, type_, fields, sender=hosted)
