"""The calls about the models that a server has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _request
from ._base import Calls
from ._fields import CallFields
from .types import ListResponse

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Models(Calls):
    """The calls about the models that a server has."""

    @_request.accepts(CallFields)
    async def list(self, **fields: Unpack[CallFields]) -> ListResponse:
        """The models that the server has: ``GET /api/tags``."""
        return await self._ask(_request.plain("GET", "/api/tags"), ListResponse, fields)
