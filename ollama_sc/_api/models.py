"""The calls about the models that a server has."""

from __future__ import annotations

from functools import partial
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, overload

import msgspec

from ollama_sc._errors import ConnectError, ModelNotFoundError, ResponseError
from ollama_sc._http.messages import Request, Upload
from ollama_sc._replies.join import PROGRESS
from ollama_sc._replies.ndjson import raise_error_object
from ollama_sc.types import (
    ListResponse,
    ProcessResponse,
    ProgressResponse,
    ShowResponse,
    StatusResponse,
)

from . import arguments
from .base import BaseClient
from .fields import BodyFields, CallFields, CreateFields, ShowFields, TransferFields
from .stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ollama_sc._http.upload import ProgressCallback

    from .files import UploadSource

_SUCCESS = "success"
_NOT_FOUND = 404


def _status_alone(body: bytes, status: int, request: Request) -> None:
    """Read a reply whose status says it all, unless an error object says otherwise."""
    raise_error_object(body, status, request.label)


class Models(BaseClient):
    """The calls about the models that a server has."""

    @arguments.expand_kwargs(CallFields)
    async def list(self, **fields: Unpack[CallFields]) -> ListResponse:
        """The models that the server has: ``GET /api/tags``."""
        return await self._get("/api/tags", ListResponse, fields)

    @arguments.expand_kwargs(CallFields)
    async def ps(self, **fields: Unpack[CallFields]) -> ProcessResponse:
        """The models that are loaded: ``GET /api/ps``."""
        return await self._get("/api/ps", ProcessResponse, fields)

    @arguments.expand_kwargs(ShowFields)
    async def show(self, model: str, **fields: Unpack[ShowFields]) -> ShowResponse:
        """What a model is: ``POST /api/show``.

        Raises:
            ModelNotFoundError: the server does not have it.
        """
        request = arguments.build_request("/api/show", model, ShowFields, fields)
        return await self._ask(request, ShowResponse, fields)

    @arguments.expand_kwargs(CallFields)
    async def has_model(self, model: str, **fields: Unpack[CallFields]) -> bool:
        """Whether the server has a model, by ``POST /api/show``.

        A name without a tag means ``:latest``, as it does for the server. A server that does not
        have ``/api/show`` cannot say, and that is a `ResponseError`.
        """
        request = arguments.build_request("/api/show", model, CallFields, fields)
        try:
            await self._ask(request, ShowResponse, fields)
        except ModelNotFoundError:
            return False
        return True

    @arguments.expand_kwargs(BodyFields)
    async def copy(
        self, source: str, destination: str, **fields: Unpack[BodyFields]
    ) -> StatusResponse:
        """Copy a model to another name: ``POST /api/copy``.

        Raises:
            ModelNotFoundError: the server does not have `source`.
        """
        arguments.reject_unknown(fields, BodyFields)
        names = {
            "source": arguments.name("source", source),
            "destination": arguments.name("destination", destination),
        }
        request = arguments.raw_request("POST", "/api/copy", names, fields=fields)
        label = f"{request.label}, model {source!r:.100}"
        await self._ask(msgspec.structs.replace(request, label=label), NoneType, fields)
        return StatusResponse(_SUCCESS)

    @arguments.expand_kwargs(BodyFields)
    async def delete(self, model: str, **fields: Unpack[BodyFields]) -> StatusResponse:
        """Delete a model: ``DELETE /api/delete``.

        A copy of it that is loaded stays loaded until its time is over; `unload` it first.

        Raises:
            ModelNotFoundError: the server does not have it.
        """
        request = arguments.build_request("/api/delete", model, BodyFields, fields, method="DELETE")
        await self._ask(request, NoneType, fields)
        return StatusResponse(_SUCCESS)

    # -- transfers ---------------------------------------------------------------------------

    @overload
    async def pull(
        self, model: str, *, stream: Literal[False] = False, **fields: Unpack[TransferFields]
    ) -> ProgressResponse: ...

    @overload
    async def pull(
        self, model: str, *, stream: Literal[True], **fields: Unpack[TransferFields]
    ) -> Stream[ProgressResponse]: ...

    @overload
    async def pull(
        self, model: str, *, stream: bool, **fields: Unpack[TransferFields]
    ) -> ProgressResponse | Stream[ProgressResponse]: ...

    @arguments.expand_kwargs(TransferFields)
    async def pull(
        self, model: str, *, stream: bool = False, **fields: Unpack[TransferFields]
    ) -> ProgressResponse | Stream[ProgressResponse]:
        """Fetch a model from a registry: ``POST /api/pull``.

        Ended half-way, the server keeps what it has, and the next pull goes on from there.

        Args:
            model: its name.
            stream: whether the progress comes, as a `Stream`. A failure then raises where the
                stream is iterated.
            **fields: see `TransferFields`.

        Raises:
            IncompleteStreamError: the answer ended without ``"success"``.
        """
        return await self._transfer("/api/pull", model, TransferFields, fields, stream=stream)

    @overload
    async def push(
        self, model: str, *, stream: Literal[False] = False, **fields: Unpack[TransferFields]
    ) -> ProgressResponse: ...

    @overload
    async def push(
        self, model: str, *, stream: Literal[True], **fields: Unpack[TransferFields]
    ) -> Stream[ProgressResponse]: ...

    @overload
    async def push(
        self, model: str, *, stream: bool, **fields: Unpack[TransferFields]
    ) -> ProgressResponse | Stream[ProgressResponse]: ...

    @arguments.expand_kwargs(TransferFields)
    async def push(
        self, model: str, *, stream: bool = False, **fields: Unpack[TransferFields]
    ) -> ProgressResponse | Stream[ProgressResponse]:
        """Send a model to a registry: ``POST /api/push``; see `pull`.

        Args:
            model: its name, with the namespace.
            stream: whether the progress comes, as a `Stream`.
            **fields: see `TransferFields`.
        """
        return await self._transfer("/api/push", model, TransferFields, fields, stream=stream)

    @overload
    async def create(
        self,
        model: str,
        from_: str | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[CreateFields],
    ) -> ProgressResponse: ...

    @overload
    async def create(
        self,
        model: str,
        from_: str | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[CreateFields],
    ) -> Stream[ProgressResponse]: ...

    @overload
    async def create(
        self,
        model: str,
        from_: str | None = None,
        *,
        stream: bool,
        **fields: Unpack[CreateFields],
    ) -> ProgressResponse | Stream[ProgressResponse]: ...

    @arguments.expand_kwargs(CreateFields)
    async def create(
        self,
        model: str,
        from_: str | None = None,
        *,
        stream: bool = False,
        **fields: Unpack[CreateFields],
    ) -> ProgressResponse | Stream[ProgressResponse]:
        """Make a model from another one or from uploaded files: ``POST /api/create``.

        Ended half-way, a streamed one makes no model; the server carries one that is not streamed
        through to its end.

        Args:
            model: the new name.
            from_: the model to start from; pulled where the server lacks it.
            stream: whether the progress comes, as a `Stream`.
            **fields: see `CreateFields`.
        """
        return await self._transfer(
            "/api/create", model, CreateFields, fields, stream=stream, from_=from_
        )

    async def _transfer(
        self,
        path: str,
        model: str,
        allowed: type,
        fields: Any,
        *,
        stream: bool,
        from_: object = None,
    ) -> ProgressResponse | Stream[ProgressResponse]:
        request = arguments.build_request(path, model, allowed, fields, stream=stream, from_=from_)
        return await self._generate(request, PROGRESS, fields, stream=stream)

    # -- blobs -------------------------------------------------------------------------------

    @arguments.expand_kwargs(CallFields)
    async def has_blob(self, digest: str, **fields: Unpack[CallFields]) -> bool:
        """Whether the server has a blob: ``HEAD /api/blobs/:digest``.

        Args:
            digest: ``"sha256:"`` and 64 hexadecimal digits.
            **fields: see `CallFields`.
        """
        from .files import check_digest  # noqa: PLC0415 - most programs upload nothing

        arguments.reject_unknown(fields, CallFields)
        request = arguments.raw_request("HEAD", f"/api/blobs/{check_digest(digest)}")
        try:
            await self._fetch(request, fields, _status_alone)
        except ResponseError as error:
            if error.status_code == _NOT_FOUND:
                return False
            raise
        return True

    @arguments.expand_kwargs(CallFields)
    async def create_blob(
        self,
        file: UploadSource,
        *,
        progress: ProgressCallback | None = None,
        **fields: Unpack[CallFields],
    ) -> str:
        """Upload a file for `create`: ``POST /api/blobs/:digest``, after asking by ``HEAD``.

        The file is hashed and read in threads, a piece at a time, whatever its size. Ended at any
        moment, nothing of it stays open, and the server keeps nothing. (In a browser it is read in
        place, and whole before it is sent.)

        Args:
            file: where it is (a regular file), or its bytes.
            progress: called with the bytes sent and the bytes in all, now and then. It is not
                called where the server has the blob already.
            **fields: see `CallFields`. The limits hold for each of the two requests.

        Returns:
            The digest, which `create` takes in `files` and `adapters`.

        Raises:
            RequestError: the file cannot be read, or changes meanwhile.
            Exception: what `progress` raises, as it is.
        """
        from .files import check_source  # noqa: PLC0415

        arguments.reject_unknown(fields, CallFields)
        check_source(file, progress)
        work = partial(self._create_blob, file, progress, fields)
        return await self._calls.operation("create_blob", self._timeouts(fields), work)

    async def _create_blob(
        self, source: UploadSource, progress: ProgressCallback | None, fields: Any
    ) -> str:
        from ollama_sc._http.upload import FileBlocks  # noqa: PLC0415
        from ollama_sc._loop.threads import run_in_thread  # noqa: PLC0415

        from .files import digest_of, open_source  # noqa: PLC0415

        file = await run_in_thread(open_source, source)
        with file:
            digest, size = await digest_of(file)
            # A server that has the blob answers a POST before it reads it, and hangs up.
            if await self.has_blob(digest, **fields):
                return digest
            upload = Upload(size, partial(FileBlocks, file, size, progress))
            path = f"/api/blobs/{digest}"
            try:
                request = Request("POST", path, f"POST {path}", upload)
                await self._fetch(request, fields, _status_alone)
            except ConnectError:
                # Somebody else may have brought it meanwhile: then the hanging up was an answer.
                if not await self.has_blob(digest, **fields):
                    raise
        return digest
