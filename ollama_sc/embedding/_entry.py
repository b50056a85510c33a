"""Where jobs begin: on one client or group, or on several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ollama_sc import _request
from ollama_sc._base import Calls
from ollama_sc._calls import CallGroup
from ollama_sc._errors import RequestError
from ollama_sc._fields import EmbedManyFields

from . import _vectors
from ._batches import Batches
from ._delivery import JobCall
from ._job import Job
from ._plan import Plan, plan
from ._progress import Meter
from ._servers import Servers
from ._settings import DEFAULTS
from ._source import Source, Texts
from ._vectors import Vectors

if TYPE_CHECKING:
    from typing_extensions import Unpack


@_request.accepts(EmbedManyFields, DEFAULTS)
def embed_many(
    *, clients: Sequence[Calls], model: str, texts: Texts, **fields: Unpack[EmbedManyFields]
) -> Batches:
    """Turn many texts into vectors, on several servers: ``POST /v1/embeddings`` or ``/api/embed``.

    As `AsyncClient.embed_many`, with these differences. Each server is reached through a client of
    its own, with its own headers, and has its own number of requests in flight. A server that
    cannot be reached has its batches taken over by the others, and is tried again later; where that
    is true of all of them for longer than trying again is allowed, the job ends. Aborting or
    closing any of the clients ends the job. All servers must have the same model.

    Args:
        clients: `AsyncClient` or `Group` objects, all open in this event loop.
        model: its name.
        texts: as in `AsyncClient.embed_many`.
        **fields: see `EmbedManyFields`.
    """
    return job(clients, model, texts, fields)


@_request.accepts(EmbedManyFields, DEFAULTS)
async def embed_array(
    *, clients: Sequence[Calls], model: str, texts: Texts, **fields: Unpack[EmbedManyFields]
) -> Vectors:
    """`embed_many` on several servers into one array; see `AsyncClient.embed_array`."""
    return await array_of(job(clients, model, texts, fields, in_order=False))


class EmbeddingJobs(Calls):
    """The jobs of a client or group."""

    @_request.accepts(EmbedManyFields, DEFAULTS)
    def embed_many(self, model: str, texts: Texts, **fields: Unpack[EmbedManyFields]) -> Batches:
        """Turn many texts into vectors: ``POST /v1/embeddings`` or ``/api/embed``, many times.

        ::

            async with client.embed_many("nomic-embed-text", texts) as batches:
                async for batch in batches:     # batch.start, batch.inputs, batch.vectors
                    index.add(batch.start, batch.vectors)

        The job is one operation of this client: `abort` ends it at once, wherever it is. A request
        that cannot be answered now (no connection, a full queue, a time limit) is tried again. One
        that the server refuses is halved until the text is found that it refuses; see `on_error`.

        Args:
            model: its name, such as ``"nomic-embed-text"``.
            texts: an iterable or async iterable, read only as far as it is needed. It is read in
                the event loop: one that waits for files or other programs should be asynchronous.
            **fields: see `EmbedManyFields`.

        Returns:
            `Batches`, to be entered: that starts the job.

        Raises:
            RequestError: an argument cannot be right, or trying again needs stamina
                (``ollama-sc[jobs]``) and it is not installed.
        """
        return job([self], model, texts, fields)

    @_request.accepts(EmbedManyFields, DEFAULTS)
    async def embed_array(
        self, model: str, texts: Texts, **fields: Unpack[EmbedManyFields]
    ) -> Vectors:
        """Turn many texts into one array, as `embed_many` does; for what fits into memory.

        Cancelling it ends the job, as `abort` does.

        Returns:
            A ``float32`` array of n by d. With ``on_error="skip"``, the rows of texts that failed
            are NaN.

        Raises:
            RequestError: as in `embed_many`, or numpy is not installed (``ollama-sc[numpy]``).
            EmbedError: a text cannot be embedded; others as iterating over `Batches` raises them.
        """
        return await array_of(job([self], model, texts, fields, in_order=False))


def job(
    clients: Sequence[Calls],
    model: str,
    texts: Texts,
    fields: Mapping[str, Any],
    *,
    in_order: bool = True,
) -> Batches:
    """A job that has not begun.

    Raises:
        RequestError: an argument cannot be right.
    """
    if not clients or not all(isinstance(client, Calls) for client in clients):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise RequestError("clients must be a list of one AsyncClient or more")
    checked = plan(model, fields, len(clients))
    return job_of(checked, clients, texts, partial(checked.servers, clients), in_order=in_order)


def job_of(
    plan: Plan,
    clients: Sequence[Calls],
    texts: Texts,
    servers: Callable[[], Servers],
    *,
    in_order: bool = True,
) -> Batches:
    """A job that has not begun, of arguments that were checked.

    Args:
        plan: them.
        clients: that it is an operation of.
        texts: as in `embed_many`.
        servers: called in the event loop, where the job begins.
        in_order: whether batches can have to wait for those in front of them.
    """
    settings = plan.settings
    _vectors.has_numpy()  # imported now, not in the middle of the work
    source = Source(texts, settings.batch_size, settings.batch_chars)
    meter = Meter(source.total)

    def make(group: CallGroup) -> tuple[JobCall, Job]:
        call = JobCall(group, plan.label, ordered=in_order and settings.ordered)
        return call, Job(call, servers(), source, settings, meter)

    return Batches(clients, meter, make)


async def array_of(job: Batches) -> Vectors:
    """The vectors of all texts of a job, in the order of the texts, whatever that of its batches.

    Raises:
        RequestError: numpy is not installed.
    """
    _vectors.need_numpy()
    import numpy as np  # noqa: PLC0415

    count = 0
    async with job as batches:
        total = batches.progress.total or 0
        whole = np.empty((total, batches.dimensions), np.float32)
        async for batch in batches:
            stop = batch.start + len(batch)
            if stop > len(whole):  # there was no telling how many there are
                more = np.empty((max(stop, len(whole)), batches.dimensions), np.float32)
                whole = np.concatenate([whole, more])
            whole[batch.start : stop] = batch.vectors
            count += len(batch)
    return whole if count == len(whole) else whole[:count].copy()
