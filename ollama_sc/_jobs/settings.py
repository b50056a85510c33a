"""The settings of a job, checked before any I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from ollama_sc._api import arguments
from ollama_sc._api.fields import EmbedFields
from ollama_sc._errors import RequestError

from .fields import EMBED_MANY_DEFAULTS as _DEFAULTS
from .fields import EmbedManyFields
from .progress import Progress
from .retries import has_stamina

MaxInFlight: TypeAlias = int | Literal["auto"]
OnError = Literal["raise", "skip"]


class JobSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a job that its requests do not send; see `EmbedManyFields`.

    Raises:
        RequestError: an invalid value, or retries need stamina and it is not installed.
    """

    batch_size: int = _DEFAULTS["batch_size"]
    batch_chars: int | None = _DEFAULTS["batch_chars"]
    max_in_flight: MaxInFlight | Sequence[MaxInFlight] = _DEFAULTS["max_in_flight"]
    ordered: bool = _DEFAULTS["ordered"]
    on_error: OnError = _DEFAULTS["on_error"]
    attempts: int = _DEFAULTS["attempts"]
    retry_timeout: float | None = _DEFAULTS["retry_timeout"]
    on_progress: Callable[[Progress], object] | None = _DEFAULTS["on_progress"]

    def __post_init__(self) -> None:
        _check_above_zero("batch_size", self.batch_size)
        if self.batch_chars is not None:
            _check_above_zero("batch_chars", self.batch_chars)
        _check_above_zero("attempts", self.attempts)
        seconds = self.retry_timeout
        if seconds is not None and (
            isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds > 0  # pyright: ignore[reportUnnecessaryIsInstance]
        ):
            raise RequestError(f"retry_timeout must be above zero seconds, not {seconds!r:.80}")
        if not isinstance(self.ordered, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RequestError(f"ordered must be True or False, not {self.ordered!r:.80}")
        if self.on_error not in get_args(OnError):
            raise RequestError(f"on_error must be 'raise' or 'skip', not {self.on_error!r:.80}")
        if self.on_progress is not None and not callable(self.on_progress):
            raise RequestError(f"on_progress must be a function, not {self.on_progress!r:.80}")
        if iscoroutinefunction(self.on_progress):
            raise RequestError("on_progress must be a plain function: nothing awaits it")
        if self.attempts > 1 and not has_stamina():
            raise RequestError(
                "a job tries again with stamina, which is not installed: pip install "
                "'ollama-sc[jobs]', or say attempts=1"
            )

    def max_in_flight_per_server(self, server_count: int) -> list[MaxInFlight]:
        """How many requests each server may have.

        Raises:
            RequestError: `max_in_flight` has another number of values, or an invalid one.
        """
        given: object = self.max_in_flight
        per_server: Sequence[object]
        if isinstance(given, Sequence) and not isinstance(given, str):
            per_server = cast("Sequence[object]", given)
        else:
            per_server = [given] * server_count
        if len(per_server) != server_count:
            raise RequestError(
                f"max_in_flight has {len(per_server)} numbers for {server_count} servers"
            )
        for number in per_server:
            if number != "auto":
                _check_above_zero("max_in_flight", number)
        return cast("list[MaxInFlight]", list(per_server))


def split_fields(fields: Mapping[str, Any]) -> tuple[JobSettings, dict[str, Any]]:
    """Split the arguments of a job into its settings and the fields of its requests.

    Raises:
        TypeError: an unknown field.
        RequestError: an invalid value.
    """
    arguments.reject_unknown(fields, EmbedManyFields)
    extra: object = fields.get("extra")
    if isinstance(extra, Mapping) and "input" in extra:
        raise RequestError("extra cannot decide on input: a job has texts for that")
    job_fields = JobSettings.__struct_fields__
    settings = JobSettings(**{name: value for name, value in fields.items() if name in job_fields})
    return settings, {
        name: value for name, value in fields.items() if name in EmbedFields.__annotations__
    }


def _check_above_zero(name: str, value: object) -> None:
    if value is None:
        raise RequestError(f"{name} must be a whole number above zero, not None")
    arguments.count(name, value)
