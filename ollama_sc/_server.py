"""The calls about the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _request
from ._base import Calls
from ._fields import CallFields
from .types import VersionResponse

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Server(Calls):
    """The calls about the server itself."""

    @_request.accepts(CallFields)
    async def version(self, **fields: Unpack[CallFields]) -> VersionResponse:
        """The server's version: ``GET /api/version``."""
        return await self._ask(_request.plain("GET", "/api/version"), VersionResponse, fields)
