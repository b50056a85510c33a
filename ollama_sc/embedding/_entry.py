"""Where jobs begin: on one client or group, or on several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ollama_sc import _request
from ollama_sc._base import Calls
from ollama_sc._errors import RequestError
from ollama_sc._fields import EMBED_MANY_DEFAULTS, EmbedManyFields
from ollama_sc._groups import CallGroup

from . import _vectors
from ._batches import Batches
from ._delivery import JobCall
from ._job import Job
from ._plan import Plan, plan
from ._progress import Meter
from ._servers import Servers
from ._source import Source, Texts
from ._vectors import Vectors

if TYPE_CHECKING:
    from typing_extensions import Unpack


@_request.accepts(EmbedManyFields, EMBED_MANY_DEFAULTS)
def embed_many(
    *, clients: Sequence[Calls], model: str, texts: Texts, **fields: Unpack[EmbedManyFields]
) -> Batches:
    """Turn many texts into vectors, on several servers: ``POST /v1/embeddings`` or ``/api/embed``.

    As `AsyncClient.embed_many`, with these differences. Each server is reached through a client of
    its own, with its own headers, and has its own number of requests in flight. A server that
    cannot be reached, or is too busy or too slow, has its batches taken over by the others, and is
    tried again later; where that is true of all of them for longer than trying again is allowed,
    the job ends. Aborting or closing any of the clients ends the job. All servers must have the
    same model.

    Args:
        clients: `AsyncClient` or `Group` objects, all open in this event loop.
        model: its name.
        texts: as in `AsyncClient.embed_many`.
        **fields: see `EmbedManyFields`.
    """
    return job(clients, model, texts, fields)


@_request.accepts(EmbedManyFields, EMBED_MANY_DEFAULTS)
async def embed_array(
    *, clients: Sequence[Calls], model: str, texts: Texts, **fields: Unpack[EmbedManyFields]
) -> Vectors:
    """`embed_many` on several servers into one array; see `AsyncClient.embed_array`."""
    return await array_of(clients, model, texts, fields)


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
    if not (
        isinstance(clients, Sequence)  # pyright: ignore[reportUnnecessaryIsInstance]
        and clients
        and all(isinstance(client, Calls) for client in clients)  # pyright: ignore[reportUnnecessaryIsInstance]
    ):
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


async def array_of(
    clients: Sequence[Calls], model: str, texts: Texts, fields: Mapping[str, Any]
) -> Vectors:
    """The vectors of all texts, in order.

    Raises:
        RequestError: an argument cannot be right, or numpy is not installed.
    """
    _vectors.need_numpy()
    return await gathered(job(clients, model, texts, fields, in_order=False))


async def gathered(job: Batches) -> Vectors:
    """The vectors of a job in the order of its texts, whatever that of its batches."""
    import numpy as np  # noqa: PLC0415 - whoever wants one array has it

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
