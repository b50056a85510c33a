"""The calls that run a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from ollama_sc._errors import OutputError, ProtocolError, RequestError, ResponseError
from ollama_sc._http.messages import Request
from ollama_sc._replies.join import CHAT, GENERATE, StreamSpec
from ollama_sc._replies.ndjson import decode_reply
from ollama_sc.types import (
    ChatResponse,
    EmbeddingsResponse,
    EmbedResponse,
    GenerateResponse,
    Message,
)

from . import arguments
from .base import BaseClient
from .fields import (
    AnyChatFields,
    AnyGenerateFields,
    BodyFields,
    ChatFields,
    EmbeddingsFields,
    EmbedFields,
    GenerateFields,
    LoadFields,
    MessageLike,
    TypedChatFields,
    TypedGenerateFields,
)
from .stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .outputs import Output

F = TypeVar("F")
R = TypeVar("R", ChatResponse[Any], GenerateResponse[Any])

_BAD_REQUEST = 400


class Generation(BaseClient):
    """The calls that run a model."""

    @overload
    async def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[ChatFields],
    ) -> ChatResponse: ...

    @overload
    async def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[ChatFields],
    ) -> Stream[ChatResponse]: ...

    @overload
    async def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: bool,
        **fields: Unpack[ChatFields],
    ) -> ChatResponse | Stream[ChatResponse]: ...

    @overload
    async def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[TypedChatFields[F]],
    ) -> ChatResponse[F]: ...

    @overload
    async def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[TypedChatFields[F]],
    ) -> Stream[ChatResponse, F]: ...

    @overload
    async def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: bool,
        **fields: Unpack[TypedChatFields[F]],
    ) -> ChatResponse[F] | Stream[ChatResponse, F]: ...

    @arguments.expand_kwargs(AnyChatFields)
    async def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: bool = False,
        **fields: Unpack[AnyChatFields],
    ) -> ChatResponse[Any] | Stream[ChatResponse, Any]:
        """Let a model answer a conversation: ``POST /api/chat``.

        Without messages, the server loads the model and answers with nothing.

        Args:
            model: its name, such as ``"llama3.2"``.
            messages: each a `Message`, a mapping with ``role`` and ``content``, or an earlier
                `ChatResponse`.
            stream: whether the answer comes in parts, as a `Stream`. The call returns when the
                server begins to answer, which can take as long as loading the model does.
            **fields: see `ChatFields`; with a type as `format`, see `TypedChatFields`.

        Raises:
            OutputError: the reply does not fit the type that is its `format`. (Of a stream,
                `Stream.parsed` raises it.)
            IncompleteStreamError: the reply says that it is not done, as a server does that
                notices a text which repeats itself. One that says nothing of it is whole. (A stream
                raises this, and whatever comes after its beginning, where it is iterated.)
        """
        path = "/api/chat"
        output = self._output(path, model, fields, stream=stream, prompted=bool(messages))
        if output is not None and isinstance(messages, Iterator):
            messages = [*messages]  # they may be needed twice
        request = arguments.build_request(
            path,
            model,
            AnyChatFields,
            fields if output is None else output.sent(fields),
            messages=[] if messages is None else messages,
            stream=stream,
        )
        if output is None or stream:
            return await self._generate(request, CHAT, fields, output, stream=stream)
        if output.attempts == 1:
            return output.read(await self._fetch_whole(request, CHAT, fields), request.label)

        def again(reply: ChatResponse[Any], problem: str) -> Request:
            more = [*(messages or ()), reply, Message("user", problem)]
            sent = output.sent(fields)
            return arguments.build_request(
                path, model, AnyChatFields, sent, messages=more, stream=stream
            )

        work = partial(self._try_again, request, CHAT, fields, output, again)
        return await self._calls.operation(request.label, self._timeouts(fields), work)

    def _output(
        self, path: str, model: str, fields: Mapping[str, Any], *, stream: bool, prompted: bool
    ) -> Output[Any] | None:
        """The type that is the call's format, if one is."""
        if "format" not in fields and "attempts" not in fields:
            return None
        from .outputs import output_of  # noqa: PLC0415 - most calls have none

        try:
            return output_of(fields, stream=stream, prompted=prompted)
        except RequestError as error:
            error.request = arguments.label_of(path, model)
            raise

    async def _try_again(
        self,
        request: Request,
        spec: StreamSpec[R],
        fields: Mapping[str, Any],
        output: Output[Any],
        again: Callable[[R, str], Request],
    ) -> R:
        """The work of an operation that asks until the reply fits, as often as it may."""
        from .outputs import asked_again  # noqa: PLC0415

        for attempt in range(1, output.attempts + 1):
            reply = await self._fetch_whole(request, spec, fields)
            try:
                return output.read(reply, request.label)
            except OutputError as error:
                if attempt == output.attempts:
                    raise
                request = again(reply, asked_again(error))
        raise AssertionError("there is one attempt at least")

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

    @overload
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[TypedGenerateFields[F]],
    ) -> GenerateResponse[F]: ...

    @overload
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[TypedGenerateFields[F]],
    ) -> Stream[GenerateResponse, F]: ...

    @overload
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: bool,
        **fields: Unpack[TypedGenerateFields[F]],
    ) -> GenerateResponse[F] | Stream[GenerateResponse, F]: ...

    @arguments.expand_kwargs(AnyGenerateFields)
    async def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: bool = False,
        **fields: Unpack[AnyGenerateFields],
    ) -> GenerateResponse[Any] | Stream[GenerateResponse, Any]:
        """Let a model continue a text: ``POST /api/generate``.

        Without a prompt, the server loads the model and answers with nothing.

        Args:
            model: its name, such as ``"llama3.2"``.
            prompt: the text.
            suffix: what comes after the text that the model writes, for models that can insert.
            stream: as in `chat`.
            **fields: see `GenerateFields`; with a type as `format`, see `TypedGenerateFields`.

        Raises:
            OutputError, IncompleteStreamError: as in `chat`.
        """
        path = "/api/generate"
        prompted = bool(prompt or fields.get("images"))
        output = self._output(path, model, fields, stream=stream, prompted=prompted)
        request = arguments.build_request(
            path,
            model,
            AnyGenerateFields,
            fields if output is None else output.sent(fields),
            prompt=prompt,
            suffix=suffix,
            stream=stream,
        )
        if output is None or stream:
            return await self._generate(request, GENERATE, fields, output, stream=stream)
        if output.attempts == 1:
            return output.read(await self._fetch_whole(request, GENERATE, fields), request.label)

        def again(reply: GenerateResponse[Any], problem: str) -> Request:
            more = f"{prompt or ''}\n\n{reply.response}\n\n{problem}"
            sent = output.sent(fields)
            return arguments.build_request(
                path, model, AnyGenerateFields, sent, prompt=more, suffix=suffix, stream=stream
            )

        work = partial(self._try_again, request, GENERATE, fields, output, again)
        return await self._calls.operation(request.label, self._timeouts(fields), work)

    @arguments.expand_kwargs(EmbedFields)
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
        request = arguments.build_request(
            "/api/embed", model, EmbedFields, fields, input=arguments.embed_input(input)
        )
        count = None if isinstance(input, str) else len(input)
        return await self._fetch(request, fields, _read_embeddings, count)

    @arguments.expand_kwargs(EmbeddingsFields)
    async def embeddings(
        self, model: str, prompt: str = "", **fields: Unpack[EmbeddingsFields]
    ) -> EmbeddingsResponse:
        """Turn one text into a vector: ``POST /api/embeddings``, the older form of `embed`.

        The vector is not made unit length, and a text that is too long is an error.
        """
        request = arguments.build_request(
            "/api/embeddings",
            model,
            EmbeddingsFields,
            fields,
            prompt=prompt,
        )
        return await self._ask(request, EmbeddingsResponse, fields)

    @arguments.expand_kwargs(LoadFields)
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
        generate = arguments.build_request("/api/generate", model, LoadFields, fields, stream=False)
        embed = arguments.build_request("/api/embed", model, LoadFields, fields, input="")
        work = partial(self._load, generate, embed, fields)
        await self._calls.operation(f"load, model {model!r}", self._timeouts(fields), work)

    async def _load(self, generate: Request, embed: Request, fields: LoadFields) -> None:
        try:
            await self._ask(generate, GenerateResponse, fields)
        except ResponseError as error:
            if error.status_code != _BAD_REQUEST or "not support generate" not in error.error:
                raise
            await self._ask(embed, EmbedResponse, fields)

    @arguments.expand_kwargs(BodyFields)
    async def unload(self, model: str, **fields: Unpack[BodyFields]) -> None:
        """Unload a model: an empty ``POST /api/generate`` with ``keep_alive`` zero.

        It is no error where the model is not loaded. Requests that run with it finish first.

        Raises:
            ModelNotFoundError: the server does not have it.
        """
        request = arguments.build_request(
            "/api/generate", model, BodyFields, fields, keep_alive=0, stream=False
        )
        await self._ask(request, GenerateResponse, fields)


def _read_embeddings(
    body: bytes, status: int, request: Request, count: int | None
) -> EmbedResponse:
    reply = decode_reply(EmbedResponse, body, status, request.label)
    if count is not None and len(reply.embeddings) != count:
        raise ProtocolError(
            f"{count} texts were answered with {len(reply.embeddings)} vectors",
            request=request.label,
        )
    return reply
