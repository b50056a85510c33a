"""The callable for engines that have workers of their own: a batch in, a batch with vectors out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from ollama_sc._api import arguments
from ollama_sc._api.field_texts import with_field_texts
from ollama_sc._client import AsyncClient
from ollama_sc._errors import RequestError
from ollama_sc._jobs.fields import EMBED_MANY_DEFAULTS, EmbedManyFields
from ollama_sc._jobs.plan import make_plan
from ollama_sc._jobs.vectors import Vectors, require_numpy
from ollama_sc._loop.threads import require_threads
from ollama_sc._worker.owner import WorkerOwner, check_backend

from . import pickling
from .columns import (
    ArrowTable,
    Column,
    Frame,
    PolarsFrame,
    arrow_column,
    object_column,
    polars_column,
    texts_of,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .thread import JobWorker

F = TypeVar("F", bound=Frame)
A = TypeVar("A", bound=ArrowTable)
P = TypeVar("P", bound=PolarsFrame)


class Embedder(WorkerOwner["JobWorker"]):
    """Turns batches of texts into vectors, in the workers of an engine such as Ray Data or Dask.

    ::

        embed = Embedder("nomic-embed-text", ["box-1", "box-2"], text_column="body")
        embed(["a text", "another one"])                # float32 array of 2 by d
        embed({"id": ids, "body": texts})               # the same, and "embedding": array of n by d
        embed(frame)                                    # a DataFrame with a column "embedding"

    Each call is a job like those of `AsyncClient.embed_many`: its texts are sent in requests of
    `batch_size`, `max_in_flight` of them at the same time; transient errors are retried; with
    several servers, the others take over the batches of one that goes away. The servers are kept
    busy by batches of several times ``batch_size * max_in_flight`` texts, or by several threads
    that call.

    The first call starts a thread with an event loop and a client for each server. They stay open,
    with their connections, until `close`; a model is warmed up once, not for each batch. Any
    thread can call it, several at the same time too: they share `max_in_flight`. An exception that
    interrupts a call, such as KeyboardInterrupt, ends the call's requests before it is raised.

    It can be pickled, which keeps its arguments alone: the same arguments are the same bytes each
    time, for caches that go by these. A process has one copy of it, however often it is unpickled
    there, whose event loop and clients start with the first call. In a forked
    process it starts anew (but no Python process should be forked while another thread imports
    something, as the first call does). It is closed when the program ends.

    `ordered` has no effect here. `on_progress` counts from zero in each call.

    Args:
        model: its name, such as ``"nomic-embed-text"``.
        hosts: the server, or a list of servers, as `AsyncClient` takes them. ``None`` is
            ``OLLAMA_HOST`` in the environment of the process that constructs or unpickles it.
        text_column: the column of the texts, in batches that have columns.
        output_column: the column that the vectors are written to.
        backend: the event loop, ``"asyncio"`` or ``"trio"``.
        client_options: keyword arguments for each server's `AsyncClient`, such as ``headers``.
        **fields: see `EmbedManyFields`.

    Raises:
        RequestError: an invalid argument, or numpy, stamina or trio is needed and is not
            installed.
    """

    _what = "embedder"

    @arguments.expand_kwargs(EmbedManyFields, EMBED_MANY_DEFAULTS)
    def __init__(
        self,
        model: str,
        hosts: str | Sequence[str] | None = None,
        *,
        text_column: str = "text",
        output_column: str = "embedding",
        backend: Literal["asyncio", "trio"] = "asyncio",
        client_options: Mapping[str, Any] | None = None,
        **fields: Unpack[EmbedManyFields],
    ) -> None:
        require_threads("an Embedder", "use `client.embed_many`")
        require_numpy()
        for name, value in (("text_column", text_column), ("output_column", output_column)):
            arguments.name(name, value)
        if text_column == output_column:
            raise RequestError("output_column must be another one than text_column")
        check_backend(backend)
        self._model = model
        self._hosts = _host_list(hosts)
        self._text_column = text_column
        self._output_column = output_column
        self._backend = backend
        self._client_options = dict(client_options or {})
        self._fields = fields
        self._plan = make_plan(model, fields, len(self._hosts))
        self._clients: list[AsyncClient] | None = self._make_clients()
        self._key: str | None = None  # see `__reduce__`
        super().__init__()

    # -- batches -----------------------------------------------------------------------------

    @overload
    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]: ...
    @overload
    def __call__(self, batch: F) -> F: ...
    @overload
    def __call__(self, batch: A) -> A: ...
    @overload
    def __call__(self, batch: P) -> P: ...
    @overload
    def __call__(self, batch: Column) -> Vectors: ...
    def __call__(self, batch: Mapping[str, Any] | Frame | ArrowTable | PolarsFrame | Column) -> Any:
        """Turn a batch of texts into vectors: ``POST /v1/embeddings`` or ``/api/embed``.

        Args:
            batch: a mapping of columns to arrays; or a DataFrame of pandas or polars; or a Table
                or RecordBatch of pyarrow; or texts without columns: a list, a numpy array, a
                Series, an array of pyarrow, any other iterable.

        Returns:
            For a mapping, a dict with the same columns and the output column, a ``float32`` array
            of n by d. For a pandas DataFrame, a copy with the output column, which has an array in
            each row; for the others with columns, a copy too, with lists of a fixed size. For
            texts, a ``float32`` array of n by d. The row of a text that failed is NaN, with
            ``on_error="skip"``. The vectors of an empty batch are 0 by d.

        Raises:
            RequestError: the text column is missing, the output column exists already, or the
                text column holds a null or anything else that is no text. Nothing was sent.
            EmbedError: a text cannot be embedded; `index` is its row in the batch.
            ClientClosedError: it is closed.
            AbortError: another thread closed it during the call.
            OllamaError: others, as iterating over `Batches` raises them.
        """
        if type(batch).__name__ == "LazyFrame":  # to ask it for columns is to compute them
            raise RequestError("a LazyFrame has no rows yet: collect it first, or by batches")
        if isinstance(batch, Mapping):
            return {**batch, self._output_column: self._embed_column(batch.__getitem__, batch)}
        if isinstance(batch, Frame):
            vectors = self._embed_column(batch.__getitem__, batch.columns)
            return batch.assign(**{self._output_column: object_column(vectors)})
        if isinstance(batch, ArrowTable):
            vectors = self._embed_column(batch.column, batch.column_names)
            return batch.append_column(self._output_column, arrow_column(vectors))
        if isinstance(batch, PolarsFrame):
            vectors = self._embed_column(batch.get_column, batch.columns)
            return batch.with_columns(polars_column(vectors, self._output_column))
        return self._embed(texts_of(batch, "texts"))

    def _embed_column(self, column: Callable[[str], object], names: Iterable[Any]) -> Vectors:
        """The vectors of the text column of a batch; `names` are those of all columns."""
        present = list(names)
        count = present.count(self._text_column)
        if not count:
            listed = ", ".join(map(repr, present))
            raise RequestError(f"there is no column {self._text_column!r}, only {listed or 'none'}")
        if count > 1:
            raise RequestError(f"there are {count} columns {self._text_column!r}")
        if self._output_column in present:
            raise RequestError(
                f"there is a column {self._output_column!r} already: say another output_column"
            )
        return self._embed(texts_of(column(self._text_column), f"batch[{self._text_column!r}]"))

    def _embed(self, texts: list[str]) -> Vectors:
        return self._open_worker().embed(texts)

    # -- opening and closing -----------------------------------------------------------------

    def close(self) -> None:
        """End all requests, close the connections, and end the event loop and its thread.

        When it returns, the thread has ended. Threads that are in a call get `AbortError`. It can
        be called more than once.
        """
        self._clients = None
        pickling.forget(self)
        super().close()

    def _new_worker(self) -> JobWorker:
        from .thread import JobWorker  # noqa: PLC0415 - only processes that call it need it

        clients, self._clients = self._clients or self._make_clients(), None
        return JobWorker(self._plan, clients, self._backend)

    def _make_clients(self) -> list[AsyncClient]:
        return [AsyncClient(host, **self._client_options) for host in self._hosts]

    def __reduce__(self) -> tuple[Any, ...]:
        arguments = {
            "model": self._model,
            "hosts": self._hosts,
            "text_column": self._text_column,
            "output_column": self._output_column,
            "backend": self._backend,
            "client_options": self._client_options,
            **self._fields,
        }
        if self._key is None:
            self._key = pickling.key_of(self, arguments)
        return pickling.unpickle, (type(self), self._key, arguments)

    def __repr__(self) -> str:
        servers = "1 server" if len(self._hosts) == 1 else f"{len(self._hosts)} servers"
        state = "closed" if self._closed else "idle" if self._worker is None else "open"
        return f"<Embedder of {self._model!r} at {servers}, {state}>"


Embedder.__doc__ = with_field_texts(Embedder.__doc__, EmbedManyFields)


def _host_list(hosts: object) -> list[Any]:
    if hosts is None or isinstance(hosts, str):
        return [hosts]
    if not isinstance(hosts, Sequence) or not hosts:
        shown = "an empty one" if isinstance(hosts, Sequence) else type(hosts).__name__
        raise RequestError(f"hosts must be a host or a list of one host or more, not {shown}")
    return list(cast("Sequence[Any]", hosts))
