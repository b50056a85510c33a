"""The arguments of jobs beside the model and the texts, each spelled once.

There is no ``from __future__ import annotations`` here, see `ollama_sc._api.fields`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ollama_sc._api.fields import EmbedFields

if TYPE_CHECKING:
    from .progress import Progress


class EmbedManyFields(EmbedFields, total=False):
    """What `embed_many` and `embed_array` accept beside the model and the texts.

    The server silently truncates a text that is too long, unless ``truncate=False`` makes that an
    error of the text. `timeout` is each request's.

    Attributes:
        batch_size: how many texts go into one request.
        batch_chars: how many characters a batch has at most, unless it is one single text; ``None``
            is no limit.
        max_in_flight: how many requests run at the same time. ``"auto"`` finds the smallest number
            whose throughput is near the best. For several servers also a list, one for each.
        ordered: whether batches come in the order of the texts, or as they complete.
        on_error: what a text that cannot be embedded does: ``"raise"`` ends the job with
            `EmbedError`; ``"skip"`` makes its row NaN and lists it in `Batch.failures`.
        attempts: how often a request is attempted in total, where the server cannot be reached, is
            busy or times out. 1 is no retry.
        retry_timeout: the seconds after which it is not retried; ``None`` is no limit.
        on_progress: a function that is called with `Progress` after each batch, in the event
            loop's thread. What it raises ends the job.
    """

    batch_size: int
    batch_chars: int | None
    max_in_flight: int | Literal["auto"] | Sequence[int | Literal["auto"]]
    ordered: bool
    on_error: Literal["raise", "skip"]
    attempts: int
    retry_timeout: float | None
    on_progress: "Callable[[Progress], object] | None"


EMBED_MANY_DEFAULTS: Mapping[str, Any] = {
    "batch_size": 64,
    "batch_chars": 200_000,
    "max_in_flight": 4,
    "ordered": True,
    "on_error": "raise",
    "attempts": 8,
    "retry_timeout": 300.0,
    "on_progress": None,
}
