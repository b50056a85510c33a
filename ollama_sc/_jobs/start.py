"""How jobs are made: on one client or group, or on several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ollama_sc._api import arguments
from ollama_sc._api.base import BaseClient
from ollama_sc._calls.group import CallGroup
from ollama_sc._errors import RequestError

from . import vectors
from .batcher import Batcher, Texts
from .batches import Batches
from .delivery import JobCall
from .fields import EMBED_MANY_DEFAULTS, EmbedManyFields
from .job import Job
from .plan import Plan, make_plan
from .progress import Meter
from .servers import Servers
from .vectors import Vectors

if TYPE_CHECKING:
    from typing_extensions import Unpack


@arguments.expand_kwargs(EmbedManyFields, EMBED_MANY_DEFAULTS)
def embed_many(
    *, clients: Sequence[BaseClient], model: str, texts: Texts, **fields: Unpack[EmbedManyFields]
) -> Batches:
    """Turn many texts into vectors, on several servers: ``POST /v1/embeddings`` or ``/api/embed``.

    As `AsyncClient.embed_many`, with these differences. Each server is reached through a client of
    its own, with its own headers, and has its own number of requests in flight. A server that
    cannot be reached, or is too busy or too slow, has its batches taken over by the others, and
    gets requests again once it answers. Where that is true of all servers for longer than
    `retry_timeout`, the job fails. Aborting or closing any of the clients ends the job.

    All servers must have the same model: where they list digests (``GET /api/tags``), these are
    compared at the beginning, where a server was away, every two minutes and at the end. A server
    with another one ends the job with `ProtocolError`.

    Args:
        clients: `AsyncClient` or `Group` objects, all open in this event loop.
        model: its name.
        texts: as in `AsyncClient.embed_many`.
        **fields: see `EmbedManyFields`.
    """
    return make_job(clients, model, texts, fields)


@arguments.expand_kwargs(EmbedManyFields, EMBED_MANY_DEFAULTS)
async def embed_array(
    *, clients: Sequence[BaseClient], model: str, texts: Texts, **fields: Unpack[EmbedManyFields]
) -> Vectors:
    """`embed_many` on several servers into one array; see `AsyncClient.embed_array`."""
    return await embed_to_array(clients, model, texts, fields)


def make_job(
    clients: Sequence[BaseClient],
    model: str,
    texts: Texts,
    fields: Mapping[str, Any],
    *,
    in_order: bool = True,
    digest: str | None = None,
) -> Batches:
    """A job that has not started; see `make_job_from_plan`.

    With `digest`, that of the model must be this one on all servers, all the time.

    Raises:
        TypeError: an unknown field.
        RequestError: an invalid argument.
    """
    if not (
        isinstance(clients, Sequence)  # pyright: ignore[reportUnnecessaryIsInstance]
        and clients
        and all(isinstance(client, BaseClient) for client in clients)  # pyright: ignore[reportUnnecessaryIsInstance]
    ):
        raise RequestError("clients must be a list of one AsyncClient or more")
    plan = make_plan(model, fields, len(clients))._replace(digest=digest)
    return make_job_from_plan(
        plan, clients, texts, partial(plan.make_servers, clients), in_order=in_order
    )


def make_job_from_plan(
    plan: Plan,
    clients: Sequence[BaseClient],
    texts: Texts,
    make_servers: Callable[[], Servers],
    *,
    in_order: bool = True,
) -> Batches:
    """A job that has not started, of checked arguments.

    Args:
        plan: the checked arguments.
        clients: each of them gets a call, and can end the job by that.
        texts: as in `embed_many`.
        make_servers: called when the job starts, in its event loop.
        in_order: false for batches in any order, whatever `ordered` says.

    Raises:
        RequestError: `texts` is no iterable of texts.
    """
    settings = plan.settings
    vectors.has_numpy()  # imported now, not while requests are in flight
    batcher = Batcher(texts, settings.batch_size, settings.batch_chars)
    meter = Meter(batcher.total)

    def make_call(group: CallGroup) -> tuple[JobCall, Job]:
        ordered = in_order and settings.ordered
        call = JobCall(group.runtime, plan.label, ordered=ordered, model=plan.model)
        return call, Job(call, make_servers(), batcher, settings, meter)

    return Batches(clients, meter, make_call)


async def embed_to_array(
    clients: Sequence[BaseClient], model: str, texts: Texts, fields: Mapping[str, Any]
) -> Vectors:
    """The vectors of all texts as one array, in the order of the texts.

    Raises:
        TypeError: an unknown field.
        RequestError: an invalid argument, or numpy is not installed.
        OllamaError: others, as iterating over `Batches` raises them.
    """
    vectors.require_numpy()
    return await gather_array(make_job(clients, model, texts, fields, in_order=False))


async def gather_array(job: Batches) -> Vectors:
    """Run a job, and join its batches to one ``float32`` array in the order of the texts.

    The batches may come in any order. Cancelling it ends the job.
    """
    import numpy as np  # noqa: PLC0415 - callers have checked that it is installed

    count = 0
    async with job as batches:
        total = batches.progress.total or 0
        matrix = np.empty((total, batches.dimensions), np.float32)
        async for batch in batches:
            stop = batch.start + len(batch)
            if stop > len(matrix):  # the number of texts was unknown, or wrong
                larger = np.empty((max(stop, len(matrix)), batches.dimensions), np.float32)
                matrix = np.concatenate([matrix, larger])
            matrix[batch.start : stop] = batch.vectors
            count += len(batch)
    return matrix if count == len(matrix) else matrix[:count].copy()
