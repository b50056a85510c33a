"""The calls of blocking clients and groups: each asks its asynchronous twin.

Written by `scripts/blocking_calls.py`: change the asynchronous calls, and run it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, overload

import httpx

from ollama_sc._api import arguments
from ollama_sc._api.base import T
from ollama_sc._api.fields import (
    AnyChatFields,
    AnyGenerateFields,
    BodyFields,
    CallFields,
    ChatFields,
    CreateFields,
    EmbeddingsFields,
    EmbedFields,
    GenerateFields,
    LoadFields,
    MessageLike,
    ShowFields,
    ToolLike,
    TransferFields,
    TypedChatFields,
    TypedGenerateFields,
)
from ollama_sc._client import MAX_BODY_BYTES, MAX_LINE_BYTES, AsyncClient
from ollama_sc._client import Requests as AsyncRequests
from ollama_sc._http.options import HeadersLike, HttpxOptions
from ollama_sc._jobs.fields import EMBED_MANY_DEFAULTS, EmbedManyFields
from ollama_sc._timeouts import Timeouts
from ollama_sc._tools.fields import RUN_DEFAULTS, AnyRunFields, RunFields, TypedRunFields
from ollama_sc._tools.methods import F
from ollama_sc.types import (
    ChatResponse,
    EmbeddingsResponse,
    EmbedResponse,
    GenerateResponse,
    ListResponse,
    ProcessResponse,
    ProgressResponse,
    RecommendationsResponse,
    ServerStatus,
    ShowResponse,
    StatusResponse,
    UserResponse,
    VersionResponse,
    WebFetchResponse,
    WebSearchResponse,
)

from ._batches import Batches
from ._bridge import Bridge, ClientBridge, GroupBridge
from ._stream import Stream
from ._tool_stream import ToolStream

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ollama_sc._api.files import UploadSource
    from ollama_sc._http.upload import ProgressCallback
    from ollama_sc._jobs.vectors import Vectors
    from ollama_sc._tools.results import ToolRun


class Requests(Bridge):
    """The calls that a client and a group both have."""

    @overload
    def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[ChatFields],
    ) -> ChatResponse: ...

    @overload
    def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[ChatFields],
    ) -> Stream[ChatResponse]: ...

    @overload
    def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: bool,
        **fields: Unpack[ChatFields],
    ) -> ChatResponse | Stream[ChatResponse]: ...

    @overload
    def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[TypedChatFields[F]],
    ) -> ChatResponse[F]: ...

    @overload
    def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[TypedChatFields[F]],
    ) -> Stream[ChatResponse, F]: ...

    @overload
    def chat(
        self,
        model: str,
        messages: Iterable[MessageLike] | None = None,
        *,
        stream: bool,
        **fields: Unpack[TypedChatFields[F]],
    ) -> ChatResponse[F] | Stream[ChatResponse, F]: ...

    @arguments.expand_kwargs(AnyChatFields)
    def chat(
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
        return self._generate(AsyncRequests.chat, model, messages, stream=stream, **fields)

    @overload
    def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[GenerateFields],
    ) -> GenerateResponse: ...

    @overload
    def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[GenerateFields],
    ) -> Stream[GenerateResponse]: ...

    @overload
    def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: bool,
        **fields: Unpack[GenerateFields],
    ) -> GenerateResponse | Stream[GenerateResponse]: ...

    @overload
    def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[TypedGenerateFields[F]],
    ) -> GenerateResponse[F]: ...

    @overload
    def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[TypedGenerateFields[F]],
    ) -> Stream[GenerateResponse, F]: ...

    @overload
    def generate(
        self,
        model: str,
        prompt: str | None = None,
        suffix: str | None = None,
        *,
        stream: bool,
        **fields: Unpack[TypedGenerateFields[F]],
    ) -> GenerateResponse[F] | Stream[GenerateResponse, F]: ...

    @arguments.expand_kwargs(AnyGenerateFields)
    def generate(
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
        return self._generate(
            AsyncRequests.generate, model, prompt, suffix, stream=stream, **fields
        )

    @arguments.expand_kwargs(EmbedFields)
    def embed(
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
        return self._ask(AsyncRequests.embed, model, input, **fields)

    @arguments.expand_kwargs(EmbeddingsFields)
    def embeddings(
        self, model: str, prompt: str = "", **fields: Unpack[EmbeddingsFields]
    ) -> EmbeddingsResponse:
        """Turn one text into a vector: ``POST /api/embeddings``, the older form of `embed`.

        The vector is not made unit length, and a text that is too long is an error.
        """
        return self._ask(AsyncRequests.embeddings, model, prompt, **fields)

    @arguments.expand_kwargs(LoadFields)
    def load(self, model: str, **fields: Unpack[LoadFields]) -> None:
        """Load a model, so that the next request finds it ready.

        An empty ``POST /api/generate``; for a model that only embeds, an empty ``POST /api/embed``.

        Args:
            model: its name.
            **fields: see `LoadFields`; `keep_alive` says how long it stays.

        Raises:
            ModelNotFoundError: the server does not have it.
            ServerBusyError: too many requests wait for models to be loaded.
        """
        self._ask(AsyncRequests.load, model, **fields)

    @arguments.expand_kwargs(BodyFields)
    def unload(self, model: str, **fields: Unpack[BodyFields]) -> None:
        """Unload a model: an empty ``POST /api/generate`` with ``keep_alive`` zero.

        It is no error where the model is not loaded. Requests that run with it finish first.

        Raises:
            ModelNotFoundError: the server does not have it.
        """
        self._ask(AsyncRequests.unload, model, **fields)

    @overload
    def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: Literal[False] = False,
        **fields: Unpack[RunFields],
    ) -> ToolRun: ...

    @overload
    def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: Literal[True],
        **fields: Unpack[RunFields],
    ) -> ToolStream: ...

    @overload
    def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: bool,
        **fields: Unpack[RunFields],
    ) -> ToolRun | ToolStream: ...

    @overload
    def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: Literal[False] = False,
        **fields: Unpack[TypedRunFields[F]],
    ) -> ToolRun[F]: ...

    @overload
    def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: Literal[True],
        **fields: Unpack[TypedRunFields[F]],
    ) -> ToolStream[F]: ...

    @overload
    def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: bool,
        **fields: Unpack[TypedRunFields[F]],
    ) -> ToolRun[F] | ToolStream[F]: ...

    @arguments.expand_kwargs(AnyRunFields, RUN_DEFAULTS)
    def run_tools(
        self,
        model: str,
        messages: Iterable[MessageLike],
        tools: Sequence[ToolLike] = (),
        *,
        stream: bool = False,
        **fields: Unpack[AnyRunFields],
    ) -> ToolRun[Any] | ToolStream[Any]:
        """Let a model answer with the help of tools: ``POST /api/chat``, as often as it calls any.

        ::

            def get_weather(city: str) -> str:
                "The weather of a city."

            run = client.run_tools("qwen3", messages, [get_weather])
            print(run.response.text)

        The run is one operation of this client: `abort`, a cancelled caller, the end of a group and
        a timeout, whose `total` is the whole run's, end the model's request and every tool alike.
        The calls of a reply run side by side. Functions that are not asynchronous run in worker
        threads, which are waited for however long they take; see `Tool.of`.

        Arguments are converted to the annotated types. What cannot be called, and how arguments do
        not fit, the model is told; so is a `ToolError`.

        Args:
            model: its name.
            messages: as in `chat`; not empty.
            tools: functions, methods and other things that can be called, asynchronous or not;
                `Tool` objects; objects that are tools by themselves. What only describes a tool, as
                the API's JSON object does, is sent and cannot be run.
            stream: whether there is a `ToolStream` of events. The call returns when the model
                begins to answer.
            **fields: see `RunFields`; with a type as `format`, see `TypedRunFields`.

        Raises:
            RequestError: an invalid argument, such as a function that cannot be a tool.
            OutputError: the answer does not fit the type that is its `format`.
            Exception: what a tool raised, as it is, unless ``on_tool_error="tell"``; what `approve`
                raised.
        """
        return self._run(AsyncRequests.run_tools, model, messages, tools, stream=stream, **fields)

    @arguments.expand_kwargs(EmbedManyFields, EMBED_MANY_DEFAULTS)
    def embed_many(
        self, model: str, texts: Iterable[str], **fields: Unpack[EmbedManyFields]
    ) -> Batches:
        """Turn many texts into vectors: ``POST /v1/embeddings`` or ``/api/embed``, many times.

        ::

            with client.embed_many("nomic-embed-text", texts) as batches:
                for batch in batches:     # batch.start, batch.inputs, batch.vectors
                    index.add(batch.start, batch.vectors)

        The job is one operation of this client: `abort` ends it at once, whatever it is doing. A
        request whose error is transient (no connection, a full queue, a timeout) is retried. One
        that the server refuses is halved until the text is found that it refuses; see `on_error`.

        Args:
            model: its name, such as ``"nomic-embed-text"``.
            texts: an iterable, read no further than the requests in flight need. One
                without a length, such as a generator, is read in a thread, and may wait for what
                it likes.
            **fields: see `EmbedManyFields`.

        Returns:
            `Batches`, to be entered: that starts the job.

        Raises:
            RequestError: an invalid argument, or retries need stamina (``ollama-sc[jobs]``) and it
                is not installed.
        """
        return self._job(AsyncRequests.embed_many, model, texts, **fields)

    @arguments.expand_kwargs(EmbedManyFields, EMBED_MANY_DEFAULTS)
    def embed_array(
        self, model: str, texts: Iterable[str], **fields: Unpack[EmbedManyFields]
    ) -> Vectors:
        """Turn many texts into one array, as `embed_many` does; for what fits into memory.

        An exception that interrupts it ends the job: when it raises, no request is in flight.

        Returns:
            A ``float32`` array of n by d, in the order of the texts. With ``on_error="skip"``, the
            rows of texts that failed are NaN.

        Raises:
            RequestError: as in `embed_many`, or numpy is not installed (``ollama-sc[numpy]``).
            EmbedError: a text cannot be embedded; others as iterating over `Batches` raises them.
        """
        return self._gather(AsyncRequests.embed_array, model, texts, **fields)

    @arguments.expand_kwargs(CallFields)
    def list(self, **fields: Unpack[CallFields]) -> ListResponse:
        """The models that the server has: ``GET /api/tags``."""
        return self._ask(AsyncRequests.list, **fields)

    @arguments.expand_kwargs(CallFields)
    def ps(self, **fields: Unpack[CallFields]) -> ProcessResponse:
        """The models that are loaded: ``GET /api/ps``."""
        return self._ask(AsyncRequests.ps, **fields)

    @arguments.expand_kwargs(ShowFields)
    def show(self, model: str, **fields: Unpack[ShowFields]) -> ShowResponse:
        """What a model is: ``POST /api/show``.

        Raises:
            ModelNotFoundError: the server does not have it.
        """
        return self._ask(AsyncRequests.show, model, **fields)

    @arguments.expand_kwargs(CallFields)
    def has_model(self, model: str, **fields: Unpack[CallFields]) -> bool:
        """Whether the server has a model, by ``POST /api/show``.

        A name without a tag means ``:latest``, as it does for the server. A server that does not
        have ``/api/show`` cannot say, and that is a `ResponseError`.
        """
        return self._ask(AsyncRequests.has_model, model, **fields)

    @arguments.expand_kwargs(BodyFields)
    def copy(self, source: str, destination: str, **fields: Unpack[BodyFields]) -> StatusResponse:
        """Copy a model to another name: ``POST /api/copy``.

        Raises:
            ModelNotFoundError: the server does not have `source`.
        """
        return self._ask(AsyncRequests.copy, source, destination, **fields)

    @arguments.expand_kwargs(BodyFields)
    def delete(self, model: str, **fields: Unpack[BodyFields]) -> StatusResponse:
        """Delete a model: ``DELETE /api/delete``.

        A copy of it that is loaded stays loaded until its time is over; `unload` it first.

        Raises:
            ModelNotFoundError: the server does not have it.
        """
        return self._ask(AsyncRequests.delete, model, **fields)

    @overload
    def pull(
        self, model: str, *, stream: Literal[False] = False, **fields: Unpack[TransferFields]
    ) -> ProgressResponse: ...

    @overload
    def pull(
        self, model: str, *, stream: Literal[True], **fields: Unpack[TransferFields]
    ) -> Stream[ProgressResponse]: ...

    @overload
    def pull(
        self, model: str, *, stream: bool, **fields: Unpack[TransferFields]
    ) -> ProgressResponse | Stream[ProgressResponse]: ...

    @arguments.expand_kwargs(TransferFields)
    def pull(
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
        return self._generate(AsyncRequests.pull, model, stream=stream, **fields)

    @overload
    def push(
        self, model: str, *, stream: Literal[False] = False, **fields: Unpack[TransferFields]
    ) -> ProgressResponse: ...

    @overload
    def push(
        self, model: str, *, stream: Literal[True], **fields: Unpack[TransferFields]
    ) -> Stream[ProgressResponse]: ...

    @overload
    def push(
        self, model: str, *, stream: bool, **fields: Unpack[TransferFields]
    ) -> ProgressResponse | Stream[ProgressResponse]: ...

    @arguments.expand_kwargs(TransferFields)
    def push(
        self, model: str, *, stream: bool = False, **fields: Unpack[TransferFields]
    ) -> ProgressResponse | Stream[ProgressResponse]:
        """Send a model to a registry: ``POST /api/push``; see `pull`.

        Args:
            model: its name, with the namespace.
            stream: whether the progress comes, as a `Stream`.
            **fields: see `TransferFields`.
        """
        return self._generate(AsyncRequests.push, model, stream=stream, **fields)

    @overload
    def create(
        self,
        model: str,
        from_: str | None = None,
        *,
        stream: Literal[False] = False,
        **fields: Unpack[CreateFields],
    ) -> ProgressResponse: ...

    @overload
    def create(
        self,
        model: str,
        from_: str | None = None,
        *,
        stream: Literal[True],
        **fields: Unpack[CreateFields],
    ) -> Stream[ProgressResponse]: ...

    @overload
    def create(
        self, model: str, from_: str | None = None, *, stream: bool, **fields: Unpack[CreateFields]
    ) -> ProgressResponse | Stream[ProgressResponse]: ...

    @arguments.expand_kwargs(CreateFields)
    def create(
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
        return self._generate(AsyncRequests.create, model, from_, stream=stream, **fields)

    @arguments.expand_kwargs(CallFields)
    def has_blob(self, digest: str, **fields: Unpack[CallFields]) -> bool:
        """Whether the server has a blob: ``HEAD /api/blobs/:digest``.

        Args:
            digest: ``"sha256:"`` and 64 hexadecimal digits.
            **fields: see `CallFields`.
        """
        return self._ask(AsyncRequests.has_blob, digest, **fields)

    @arguments.expand_kwargs(CallFields)
    def create_blob(
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
            progress: called with the bytes sent and the bytes in all, now and then, in the
                background thread. It is not
                called where the server has the blob already.
            **fields: see `CallFields`. The limits hold for each of the two requests.

        Returns:
            The digest, which `create` takes in `files` and `adapters`.

        Raises:
            RequestError: the file cannot be read, or changes meanwhile.
            Exception: what `progress` raises, as it is.
        """
        return self._ask(AsyncRequests.create_blob, file, progress=progress, **fields)

    @arguments.expand_kwargs(CallFields)
    def version(self, **fields: Unpack[CallFields]) -> VersionResponse:
        """The server's version: ``GET /api/version``."""
        return self._ask(AsyncRequests.version, **fields)

    @arguments.expand_kwargs(CallFields)
    def status(self, **fields: Unpack[CallFields]) -> ServerStatus:
        """Whether the server may use ollama.com: ``GET /api/status`` (server 0.16.2)."""
        return self._ask(AsyncRequests.status, **fields)

    @arguments.expand_kwargs(CallFields)
    def recommendations(self, **fields: Unpack[CallFields]) -> RecommendationsResponse:
        """The models that the server recommends.

        ``GET /api/experimental/model-recommendations`` (server 0.22.1).
        """
        return self._ask(AsyncRequests.recommendations, **fields)

    @arguments.expand_kwargs(CallFields)
    def me(self, **fields: Unpack[CallFields]) -> UserResponse:
        """Who is signed in on the server: ``POST /api/me`` (server 0.12.0).

        Raises:
            AuthorizationError: nobody is; its `signin_url` says where to.
            ResponseError: ollama.com cannot be reached (503).
        """
        return self._ask(AsyncRequests.me, **fields)

    @arguments.expand_kwargs(CallFields)
    def sign_out(self, **fields: Unpack[CallFields]) -> None:
        """Sign the server out of ollama.com: ``POST /api/signout`` (server 0.12.1).

        Raises:
            AuthorizationError: nobody is signed in.
        """
        self._ask(AsyncRequests.sign_out, **fields)

    @arguments.expand_kwargs(CallFields)
    def is_running(self, **fields: Unpack[CallFields]) -> bool:
        """Whether an Ollama server answers, by ``GET /api/version``.

        A server that does not answer within ``timeout`` is not running; give one where the network
        can swallow requests.
        """
        return self._ask(AsyncRequests.is_running, **fields)

    @arguments.expand_kwargs(CallFields)
    def wait_ready(self, **fields: Unpack[CallFields]) -> VersionResponse:
        """Wait until the server answers, by ``GET /api/version`` again and again.

        A gateway that says there is no server behind it (such as 502) is waited for as well.
        Without a limit it waits for ever: use ``timeout=Timeouts(total=30)``,
        for all of the tries.

        Raises:
            RequestTimeout: the total timeout expired.
            ConnectError: in a browser, the server answers, and not to this page.
        """
        return self._ask(AsyncRequests.wait_ready, **fields)

    @arguments.expand_kwargs(BodyFields)
    def web_search(
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
        return self._ask(AsyncRequests.web_search, query, max_results, **fields)

    @arguments.expand_kwargs(BodyFields)
    def web_fetch(self, url: str, **fields: Unpack[BodyFields]) -> WebFetchResponse:
        """Read a page of the web, in the same way as `web_search`.

        ``POST https://ollama.com/api/web_fetch``, or ``POST /api/experimental/web_fetch``.

        Args:
            url: the page's address.
            **fields: see `BodyFields`.
        """
        return self._ask(AsyncRequests.web_fetch, url, **fields)

    @overload
    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        type: type[T],
        timeout: Timeouts | httpx.Timeout | float | None = None,
    ) -> T: ...

    @overload
    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        type: None,
        timeout: Timeouts | httpx.Timeout | float | None = None,
    ) -> None: ...

    @overload
    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        timeout: Timeouts | httpx.Timeout | float | None = None,
    ) -> Any: ...

    def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        type: Any = Any,
        timeout: Timeouts | httpx.Timeout | float | None = None,
    ) -> Any:
        """Ask any endpoint, as a call like the others, with an answer in one piece.

        Args:
            method: ``"GET"``, ``"HEAD"``, ``"POST"``, ``"PUT"``, ``"PATCH"`` or ``"DELETE"``.
            path: with its leading slash, below the client's host and its prefix.
            json: the body: whatever msgspec can write as JSON.
            type: what to read the reply into: anything that msgspec can decode, ``bytes`` for the
                body as it is, ``None`` to ignore it. Where it is left out: dictionaries, lists and
                plain values, or ``None`` for an empty body. An error object is an error for each.
            timeout: as in every call.
        """
        return self._ask(AsyncRequests.request, method, path, json=json, type=type, timeout=timeout)

    def shutdown(self, grace: float = 5.0) -> int:
        """Let no new request in, wait for those in flight, and abort what is left.

        The client's connections are closed then. An interrupt aborts the rest at once.
        Do not wait for it inside a request, such as in one of httpx's hooks: it waits for that too.

        Args:
            grace: how many seconds to wait; 0 aborts at once.

        Returns:
            How many requests had to be aborted.
        """
        return self._ask(AsyncRequests.shutdown, grace)

    def group(self) -> Group:
        """Requests that can be aborted together: ``with client.group() as group``.

        The group makes requests as the client does, over the same connections and under the same
        limit. Its `abort` reaches its own requests; leaving it ends what is left of them; what
        ends the client's requests ends its own. Groups can have groups.
        """
        return Group._of(self)


class Client(ClientBridge, Requests):
    """A client of one Ollama server, for programs and threads without an event loop.

    ::

        with Client() as client:
            reply = client.chat("llama3.2", [{"role": "user", "content": "Hello"}])
            print(reply.message.content)

    It is an `AsyncClient` in a background thread, which starts with the first call. Any thread can
    use it, as many at the same time as you like: they share its connections and `max_in_flight`.
    Leaving ``with``, or `close`, ends what still runs, whose callers get `AbortError`. One that is
    not closed ends when it is garbage-collected, and when the program does. An exception that
    interrupts a call, such as KeyboardInterrupt, ends its request before it is raised. In a forked
    process it starts anew, with connections of its own.

    A call blocks its thread, and with it whatever else runs there: where a program is asynchronous
    already, use `AsyncClient`. Hooks and progress functions are called in the background thread; a
    call in there is a `RequestError`, an `abort` is not.

    Args:
        host: where the server is: ``"192.168.1.5"``, ``"host:8080"``, ``"https://example.com/ollama"``.
            ``None`` takes ``OLLAMA_HOST`` from the environment, or ``127.0.0.1:11434``.
        api_key: sent as ``Authorization: Bearer ...``. ``None`` takes ``OLLAMA_API_KEY`` from the
            environment for ``https://ollama.com``, and for no other host.
        headers: sent with every request, as a mapping or pairs; printable ASCII. ``None`` as a
            value is as if the header were not given.
        timeout: a number of seconds or `Timeouts`, or httpx's own ``Timeout``; ``None`` limits
            connecting alone, to 10 seconds.
        max_in_flight: how many requests may run at the same time, streams included; others wait in
            order. ``None`` is no limit; in a browser 6, which is how many it sends to one server.
        max_line_bytes: how long a line of a stream may be.
        max_body_bytes: how long a whole reply may be.
        backend: what the background thread runs, ``"asyncio"`` or ``"trio"``.
        **httpx_options: passed on to httpx as they are: ``auth``, ``verify``, ``proxy``,
            ``transport``, ``event_hooks`` and others; in a browser, what is the browser's to decide
            is refused. Redirects are followed within the server's
            own origin; ``follow_redirects`` lets httpx follow all of them, or none.

    Raises:
        RequestError: an argument cannot be right.
    """

    def __init__(
        self,
        host: str | None = None,
        *,
        api_key: str | None = None,
        headers: HeadersLike | None = None,
        timeout: Timeouts | httpx.Timeout | float | None = None,
        max_in_flight: int | None = None,
        max_line_bytes: int = MAX_LINE_BYTES,
        max_body_bytes: int = MAX_BODY_BYTES,
        backend: Literal["asyncio", "trio"] = "asyncio",
        **httpx_options: Unpack[HttpxOptions],
    ) -> None:
        make = partial(
            AsyncClient,
            host,
            api_key=api_key,
            headers=headers,
            timeout=timeout,
            max_in_flight=max_in_flight,
            max_line_bytes=max_line_bytes,
            max_body_bytes=max_body_bytes,
            **httpx_options,
        )
        super().__init__(make, backend, make())


class Group(GroupBridge, Requests):
    """Requests of a client that can be aborted together; see `Client.group`.

    It is open from the beginning. Leaving ``with``, or `close`, ends what is left of its requests.
    """
