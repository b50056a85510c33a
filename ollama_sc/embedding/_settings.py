"""What a job is told, checked before any I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, Literal, TypeAlias, cast, get_args

import msgspec

from ollama_sc import _request
from ollama_sc._errors import RequestError
from ollama_sc._fields import EMBED_MANY_DEFAULTS as _DEFAULTS
from ollama_sc._fields import EmbedFields, EmbedManyFields

from ._progress import Progress
from ._retries import has_stamina

InFlight: TypeAlias = int | Literal["auto"]
OnError = Literal["raise", "skip"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a job is told beside the model and the texts; see `EmbedManyFields`."""

    batch_size: int = _DEFAULTS["batch_size"]
    batch_chars: int | None = _DEFAULTS["batch_chars"]
    max_in_flight: InFlight | Sequence[InFlight] = _DEFAULTS["max_in_flight"]
    ordered: bool = _DEFAULTS["ordered"]
    on_error: OnError = _DEFAULTS["on_error"]
    attempts: int = _DEFAULTS["attempts"]
    retry_timeout: float | None = _DEFAULTS["retry_timeout"]
    on_progress: Callable[[Progress], object] | None = _DEFAULTS["on_progress"]

    def __post_init__(self) -> None:
        _above_zero("batch_size", self.batch_size)
        if self.batch_chars is not None:
            _above_zero("batch_chars", self.batch_chars)
        _above_zero("attempts", self.attempts)
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

    def in_flight(self, servers: int) -> list[InFlight]:
        """How many requests each server may have."""
        given: object = self.max_in_flight
        each: Sequence[object]
        if isinstance(given, Sequence) and not isinstance(given, str):
            each = cast("Sequence[object]", given)
        else:
            each = [given] * servers
        if len(each) != servers:
            raise RequestError(f"max_in_flight has {len(each)} numbers for {servers} servers")
        for number in each:
            if number != "auto":
                _above_zero("max_in_flight", number)
        return cast("list[InFlight]", list(each))


def split(fields: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """The job's settings, and what goes into its requests.

    Raises:
        TypeError: a field that there is not.
        RequestError: a value that cannot be right.
    """
    _request.known(fields, EmbedManyFields)
    extra: object = fields.get("extra")
    if isinstance(extra, Mapping) and "input" in extra:
        raise RequestError("extra cannot decide on input: a job has texts for that")
    own = Settings.__struct_fields__
    settings = Settings(**{name: value for name, value in fields.items() if name in own})
    return settings, {
        name: value for name, value in fields.items() if name in EmbedFields.__annotations__
    }


def _above_zero(name: str, value: object) -> None:
    if value is None:
        raise RequestError(f"{name} must be a whole number above zero, not None")
    _request.count(name, value)
