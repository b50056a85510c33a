"""The models in memory: their requests and their expiry, on `anyio.current_time()`'s clock."""

import time
from dataclasses import dataclass
from typing import Any

import anyio

from ollama_sc.testing._go import gojson

from .store import StoredModel

FIVE_MINUTES = 300.0
_FOREVER_NS = (1 << 63) - 1  # Go's longest duration, 292 years


@dataclass(slots=True)
class LoadedModel:
    """A model in memory.

    Attributes:
        model: The model at the time of loading.
        keep_alive: Seconds that it stays loaded after its last request; may be infinite.
        context_length: In tokens.
        expires_at: On the clock of the fake's event loop; may be infinite. Ignored while in use.
        users: The number of requests in progress.

    """

    model: StoredModel
    keep_alive: float
    context_length: int
    expires_at: float
    users: int = 0

    @property
    def name(self) -> str:
        """Its name in `/api/ps`."""
        return self.model.name.display

    def entry(self) -> dict[str, Any]:
        """Its object in `/api/ps`."""
        left = (self.expires_at - anyio.current_time()) * 1e9
        left_ns = int(left) if left < _FOREVER_NS else _FOREVER_NS
        return {
            "name": self.name,
            "model": self.name,
            "size": self.model.spec.size,
            "digest": self.model.digest,
            "details": self.model.details() | {"parent_model": ""},
            "expires_at": gojson.local_timestamp(time.time_ns() + left_ns),
            "size_vram": 0,
            "context_length": self.context_length,
        }


class LoadedModels:
    """The models in memory.

    Args:
        keep_alive: Seconds, for models whose requests do not set it.

    """

    def __init__(self, keep_alive: float = FIVE_MINUTES) -> None:
        self._keep_alive = keep_alive
        self._loaded: dict[str, LoadedModel] = {}
        self._in_use: dict[object, LoadedModel] = {}

    def now(self) -> list[LoadedModel]:
        """The models loaded now, the last to expire first."""
        self._sweep()
        return sorted(self._loaded.values(), key=lambda loaded: -loaded.expires_at)

    def use(
        self, request: object, model: StoredModel, keep_alive: float | None, context: int
    ) -> None:
        """Load a model if it is not loaded, and keep it until `release` of the same request."""
        self._sweep()
        loaded = self._loaded.get(model.runner)
        if loaded is None:
            first = self._keep_alive if keep_alive is None else keep_alive
            loaded = LoadedModel(model, first, context, 0.0)
            self._loaded[model.runner] = loaded
        elif keep_alive is not None:
            loaded.keep_alive = keep_alive
        loaded.context_length = context
        loaded.expires_at = anyio.current_time() + loaded.keep_alive
        loaded.users += 1
        self._in_use[request] = loaded

    def unload(self, model: StoredModel) -> None:
        """Unload a model: now, or when its requests are finished."""
        loaded = self._loaded.get(model.runner)
        if loaded is not None:
            loaded.keep_alive = 0.0
            loaded.expires_at = anyio.current_time()

    def release(self, request: object) -> None:
        """End a request's use of its model, which starts the model's timer."""
        loaded = self._in_use.pop(request, None)
        if loaded is not None:
            loaded.users -= 1
            loaded.expires_at = anyio.current_time() + loaded.keep_alive

    def _sweep(self) -> None:
        now = anyio.current_time()
        for key, loaded in list(self._loaded.items()):
            if not loaded.users and loaded.expires_at <= now:
                del self._loaded[key]
