"""Batches in, batches out, without an event loop: for engines that have workers of their own."""

from __future__ import annotations

import atexit
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from threading import RLock
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast, overload
from uuid import uuid4
from weakref import WeakValueDictionary

from ollama_sc import _request
from ollama_sc._calls import CLEANUP_SECONDS
from ollama_sc._client import AsyncClient
from ollama_sc._errors import ClientClosedError, RequestError
from ollama_sc._fields import EMBED_MANY_DEFAULTS, EmbedManyFields

from ._columns import Column, Frame, objects, texts_of
from ._plan import plan
from ._vectors import Vectors, need_numpy

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ._worker import Worker

F = TypeVar("F", bound=Frame)


class Embedder:
    """Turns batches of texts into vectors, in the workers of an engine such as Ray Data or Dask.

    ::

        embed = Embedder("nomic-embed-text", ["box-1", "box-2"], text_column="body")
        embed(["a text", "another one"])                # float32 array of 2 by d
        embed({"id": ids, "body": texts})               # the same, and "embedding": array of n by d
        embed(frame)                                    # a DataFrame with a column "embedding"

    Each call is a job as `AsyncClient.embed_many` has it: its texts go out in requests of
    `batch_size`, `max_in_flight` of them at the same time; a request is tried again where that can
    help; with several servers, the others take over what one that goes away leaves. The servers
    are kept busy by batches of several times ``batch_size * max_in_flight`` texts, or by several
    threads that call.

    The first call starts a thread with an event loop in it and a client for each server. They stay,
    with their connections, until `close`; a model is warmed up once, not for each batch. Any
    thread can call, also several at once: they share the places in flight. An exception that
    interrupts a call, such as KeyboardInterrupt, ends its requests before it leaves.

    It can be pickled, and then is what it was made with: a process holds one copy of it, however
    often it arrives, whose loop and clients start with the first call there. In a process that was
    forked it starts afresh (but no Python process should be forked while another thread imports
    something, as the first call does). A program that ends closes it.

    Args:
        model: its name, such as ``"nomic-embed-text"``.
        hosts: the server, or a list of servers, as `AsyncClient` takes them. ``None`` is that of
            ``OLLAMA_HOST``, in the environment of the process that makes it or that it arrives in.
        text_column: the column that the texts are in, of batches that have columns.
        output_column: the column that the vectors go to.
        backend: the event loop, ``"asyncio"`` or ``"trio"``.
        client_options: keyword arguments for each server's `AsyncClient`, such as ``headers``.
        **fields: see `EmbedManyFields`. `ordered` makes no difference here, and `on_progress` is
            called for each batch from the start, in the event loop's thread.

    Raises:
        RequestError: an argument cannot be right, or numpy, stamina or trio is needed and is not
            installed.
    """

    @_request.accepts(EmbedManyFields, EMBED_MANY_DEFAULTS)
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
        need_numpy()
        for name, value in (("text_column", text_column), ("output_column", output_column)):
            _request.name(name, value)
        if text_column == output_column:
            raise RequestError("output_column must be another one than text_column")
        _check_backend(backend)
        self._model = model
        self._hosts = _listed(hosts)
        self._text_column = text_column
        self._output_column = output_column
        self._backend = backend
        self._client_options = dict(client_options or {})
        self._fields = fields
        self._plan = plan(model, fields, len(self._hosts))
        self._clients: list[AsyncClient] | None = self._make_clients()
        self._key = uuid4().hex
        self._closed = False
        # Never held while something is waited for. A signal's handler can call `close` where its
        # own thread holds it.
        self._lock = RLock()
        self._worker: Worker | None = None
        _alive[self._key] = self
        _watch_forks()

    # -- batches -----------------------------------------------------------------------------

    @overload
    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]: ...
    @overload
    def __call__(self, batch: F) -> F: ...
    @overload
    def __call__(self, batch: Column) -> Vectors: ...
    def __call__(self, batch: Mapping[str, Any] | Frame | Column) -> Any:
        """Turn a batch of texts into vectors: ``POST /v1/embeddings`` or ``/api/embed``.

        Args:
            batch: a mapping of columns to arrays; or a pandas DataFrame; or texts without columns:
                a list, a numpy array, a Series, an array of pyarrow, any other iterable.

        Returns:
            For a mapping, a dict with the same columns and the output column, a ``float32`` array
            of n by d. For a DataFrame, a copy with the output column, which has an array in each
            row. For texts, a ``float32`` array of n by d. The row of a text that failed is NaN,
            with ``on_error="skip"``. An empty batch is one of 0 by d.

        Raises:
            RequestError: there is no such column, or there is an output column already; something
                in the text column is null or no text. Nothing was sent.
            EmbedError: a text cannot be embedded; `index` is its row in the batch.
            ClientClosedError: it is closed.
            AbortError: another thread closed it meanwhile.
            OllamaError: others, as iterating over `Batches` raises them.
        """
        if isinstance(batch, Mapping):
            return {**batch, self._output_column: self._column(batch, batch)}
        if isinstance(batch, Frame):
            vectors = self._column(batch, batch.columns)
            return batch.assign(**{self._output_column: objects(vectors)})
        return self._embed(texts_of(batch, "texts"))

    def _column(self, batch: Any, names: Iterable[Any]) -> Vectors:
        """The vectors of a batch that has columns."""
        present = list(names)
        if self._text_column not in present:
            shown = ", ".join(map(repr, present))
            raise RequestError(f"there is no column {self._text_column!r}, only {shown or 'none'}")
        if self._output_column in present:
            raise RequestError(
                f"there is a column {self._output_column!r} already: say another output_column"
            )
        return self._embed(texts_of(batch[self._text_column], f"batch[{self._text_column!r}]"))

    def _embed(self, texts: list[str]) -> Vectors:
        worker = self._worker
        if worker is None or worker.ended:
            worker = self._start()
        return worker.embed(texts)

    # -- its life ----------------------------------------------------------------------------

    def close(self) -> None:
        """End what runs, close the connections, and end the event loop and its thread.

        When it returns, nothing is left. Threads that are in a call get `AbortError`. It can be
        called more than once.
        """
        with self._lock:
            self._closed = True
            worker, self._clients = self._worker, None
        _arrived.pop(self._key, None)
        if worker is not None:
            worker.stop()
            worker.join()

    def _start(self) -> Worker:
        from ._worker import CLOSED, Worker  # noqa: PLC0415 - for those who need it

        with self._lock:
            if self._closed:
                raise ClientClosedError(CLOSED)
            if self._worker is None or self._worker.ended:
                clients, self._clients = self._clients or self._make_clients(), None
                worker = Worker(self._plan, clients, self._backend)
                if self._closed:  # by a signal's handler
                    raise ClientClosedError(CLOSED)
                _watch_the_end()
                self._worker = worker
                worker.start()
            return self._worker

    def _make_clients(self) -> list[AsyncClient]:
        return [AsyncClient(host, **self._client_options) for host in self._hosts]

    def _forked(self) -> None:
        """Forget what is the parent's, in a process that was forked.

        Its thread is not here, and its descriptors are shared: closing them would disturb it.
        """
        self._lock = RLock()
        _left_alone.append(self._worker)
        self._worker = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # The collector runs in any thread, also in the loop's: without waiting.
        worker: Worker | None = getattr(self, "_worker", None)
        if worker is not None:
            worker.stop()

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
        return _arrive, (type(self), self._key, arguments)

    def __repr__(self) -> str:
        servers = "1 server" if len(self._hosts) == 1 else f"{len(self._hosts)} servers"
        state = "closed" if self._closed else "idle" if self._worker is None else "open"
        return f"<Embedder of {self._model!r} at {servers}, {state}>"


# -- in this process ---------------------------------------------------------------------------

_KEPT = 8  # embedders that arrived
_alive: WeakValueDictionary[str, Embedder] = WeakValueDictionary()  # by key
_arrived: OrderedDict[str, Embedder] = OrderedDict()  # the last ones that were unpickled
_left_alone: list[Any] = []  # the parent's, after a fork


def _arrive(kind: type[Embedder], key: str, arguments: dict[str, Any]) -> Embedder:
    """Unpickle: an engine may send an embedder with each of its tasks, and drop it after each."""
    embedder = _alive.get(key)
    if embedder is None or embedder._closed:
        made = kind(**arguments)
        made._key = key
        embedder = _arrived.setdefault(key, made)  # another thread may have been quicker
        if embedder._closed:  # and have arrived with it just when it was closed
            embedder = made
        _alive[key] = embedder
    _arrived[key] = embedder
    _arrived.move_to_end(key)
    while len(_arrived) > _KEPT:
        _arrived.popitem(last=False)
    return embedder


@cache
def _watch_forks() -> None:
    """See to embedders in processes that are forked from this one."""
    os.register_at_fork(after_in_child=_all_forked)


@cache
def _watch_the_end() -> None:
    """See to embedders when this process ends."""
    atexit.register(_close_all)


def _close_all() -> None:
    for embedder in list(_alive.values()):
        worker = embedder._worker
        if worker is not None:
            worker.stop()
            worker.join(CLEANUP_SECONDS)


def _all_forked() -> None:
    for embedder in list(_alive.values()):
        embedder._forked()


def _listed(hosts: object) -> list[Any]:
    if hosts is None or isinstance(hosts, str):
        return [hosts]
    if not isinstance(hosts, Sequence) or not hosts:
        raise RequestError(f"hosts must be a host or a list of one host or more, not {hosts!r:.80}")
    return list(cast("Sequence[Any]", hosts))


def _check_backend(backend: object) -> None:
    if backend not in ("asyncio", "trio"):
        raise RequestError(f"backend must be 'asyncio' or 'trio', not {backend!r:.80}")
    if backend == "trio" and find_spec("trio") is None:
        raise RequestError("trio is not installed: pip install 'ollama-sc[trio]'")
