"""The calls that run a model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, overload

from . import _request
from ._base import Calls
from ._errors import ProtocolError, ResponseError
from ._fields import (
    BodyFields,
    ChatFields,
    EmbeddingsFields,
    EmbedFields,
    GenerateFields,
    LoadFields,
    MessageLike,
)
from ._http import Request
from ._join import CHAT, GENERATE
from ._stream import Stream
from .types import ChatResponse, EmbeddingsResponse, EmbedResponse, GenerateResponse

if TYPE_CHECKING:
    from typing_extensions import Unpack


_BAD_REQUEST = 400


class Generation(Calls):
    """The calls that run a model."""

    @overload
    async def chat(
        self,
        model: str,
        messages: Sequence[MessageLike] | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[ChatFields],
    ) -> ChatResponse: ...

    @overload
    async def chat(
        self,
        model: str,
        messages: Sequence[MessageLike] | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[ChatFields],
    ) -> Stream[ChatResponse]: ...

    @overload
    async def chat(
        self,
        model: str,
        messages: Sequence[MessageLike] | None = None,
        *,
        stream: bool,
        **fields: Unpack[ChatFields],
    ) -> ChatResponse | Stream[ChatResponse]: ...

    @_request.accepts(ChatFields)
    async def chat(
        self,
        model: str,
        messages: Sequence[MessageLike] | None = None,
        *,
        stream: bool = False,
        **fields: Unpack[ChatFields],
    ) -> ChatResponse | Stream[ChatResponse]:
        """Let a model answer a conversation: ``POST /api/chat``.

        Without messages, the server loads the model and answers with nothing.

        Args:
            model: its name, such as ``"llama3.2"``.
            messages: each a `Message`, a mapping with ``role`` and ``content``, or an earlier
                `ChatResponse`.
            stream: whether the answer comes in parts, as a `Stream`. The call returns when the
                server begins to answer, which can take as long as loading the model does.
            **fields: see `ChatFields`.

        Raises:
            IncompleteStreamError: the reply says that it is not done. (A stream raises this, and
                whatever comes after its beginning, where it is iterated.)
        """
        request = _request.build(
            "/api/chat",
            model,
            ChatFields,
            fields,
            messages=[] if messages is None else messages,
            stream=stream,
        )
        return await self._generate(request, CHAT, fields, stream=stream)

    @overload
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[GenerateFields],
    ) -> GenerateResponse: ...

    @overload
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[GenerateFields],
    ) -> Stream[GenerateResponse]: ...

    @overload
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: bool,
        **fields: Unpack[GenerateFields],
    ) -> GenerateResponse | Stream[GenerateResponse]: ...

    @_request.accepts(GenerateFields)
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: bool = False,
        **fields: Unpack[GenerateFields],
    ) -> GenerateResponse | Stream[GenerateResponse]:
        """Let a model continue a text: ``POST /api/generate``.

        Without a prompt, the server loads the model and answers with nothing.

        Args:
            model: its name, such as ``"llama3.2"``.
            prompt: the text.
            suffix: what comes after the text that the model writes, for models that can insert.
            stream: as in `chat`.
            **fields: see `GenerateFields`.

        Raises:
            IncompleteStreamError: as in `chat`.
        """
        request = _request.build(
            "/api/generate",
            model,
            GenerateFields,
            fields,
            prompt=prompt,
            suffix=suffix,
            stream=stream,
        )
        return await self._generate(request, GENERATE, fields, stream=stream)

    @_request.accepts(EmbedFields)
    async def embed(
        self, model: str, input: str | Sequence[str] = "", **fields: Unpack[EmbedFields]
    ) -> EmbedResponse:
        """Turn texts into vectors: ``POST /api/embed``.

        Args:
            model: its name, such as ``"nomic-embed-text"``.
            input: a text or a list of them. The server cuts one that is too long, in silence,
                unless ``truncate=False`` makes that an error. With an empty text or list it loads
                the model and answers with no vector.
            **fields: see `EmbedFields`.

        Returns:
            One vector for each text, in order, in `embeddings`.
        """
        request = _request.build(
            "/api/embed", model, EmbedFields, fields, input=_request.embed_input(input)
        )
        reply = await self._ask(request, EmbedResponse, fields)
        if not isinstance(input, str) and len(reply.embeddings) != len(input):
            raise ProtocolError(
                f"{len(input)} texts were answered with {len(reply.embeddings)} vectors",
                request=request.label,
            )
        return reply

    @_request.accepts(EmbeddingsFields)
    async def embeddings(
        self, model: str, prompt: str = "", **fields: Unpack[EmbeddingsFields]
    ) -> EmbeddingsResponse:
        """Turn one text into a vector: ``POST /api/embeddings``, the older form of `embed`.

        The vector is not made unit length, and a text that is too long is an error.
        """
        request = _request.build(
            "/api/embeddings",
            model,
            EmbeddingsFields,
            fields,
            prompt=prompt,
        )
        return await self._ask(request, EmbeddingsResponse, fields)

    @_request.accepts(LoadFields)
    async def load(self, model: str, **fields: Unpack[LoadFields]) -> None:
        """Load a model, so that the next request finds it ready.

        An empty ``POST /api/generate``; for a model that only embeds, an empty ``POST /api/embed``.

        Args:
            model: its name.
            **fields: see `LoadFields`; `keep_alive` says how long it stays.

        Raises:
            ModelNotFoundError: the server does not have it.
            ServerBusyError: too many requests wait for models to be loaded.
        """
        generate = _request.build("/api/generate", model, LoadFields, fields, stream=False)
        embed = _request.build("/api/embed", model, LoadFields, fields, input="")
        work = partial(self._load, generate, embed, fields)
        await self._calls.operation(f"load, model {model!r}", self._timeouts(fields), work)

    async def _load(self, generate: Request, embed: Request, fields: LoadFields) -> None:
        try:
            await self._ask(generate, GenerateResponse, fields)
        except ResponseError as error:
            if error.status_code != _BAD_REQUEST or "not support generate" not in error.error:
                raise
            await self._ask(embed, EmbedResponse, fields)

    @_request.accepts(BodyFields)
    async def unload(self, model: str, **fields: Unpack[BodyFields]) -> None:
        """Unload a model: an empty ``POST /api/generate`` with ``keep_alive`` zero.

        It is no error where the model is not loaded. Requests that run with it finish first.

        Raises:
            ModelNotFoundError: the server does not have it.
        """
        request = _request.build(
            "/api/generate", model, BodyFields, fields, keep_alive=0, stream=False
        )
        await self._ask(request, GenerateResponse, fields)
