"""Resolves the model of a request: a local one, a stub, or one in the cloud."""

from dataclasses import dataclass

from ollama_sc.testing import _version
from ollama_sc.testing._go.fields import ApiError
from ollama_sc.testing._state.cloud import Via
from ollama_sc.testing._state.names import Name, Source, parse_name, split_source
from ollama_sc.testing._state.state import State
from ollama_sc.testing._state.store import FakeModel, StoredModel

_CLOUD_HOSTS = ("ollama.com", "ollama.com:443")


@dataclass(frozen=True, slots=True)
class Found:
    """A model, and how the server reaches it.

    Attributes:
        model: The model.
        shown: The field `model` of the response.
        via: `cloud` is proxied verbatim, `stub` is relayed and reshaped.

    """

    model: StoredModel
    shown: str
    via: Via


def find(spelling: str, state: State, *, missing: str, empty: ApiError) -> Found:
    """The model of a name.

    Args:
        spelling: The name in the request.
        state: The server's state.
        missing: The text of the 404, with `{name}` for the name.
        empty: The error for an empty name.

    """
    if not spelling:
        raise empty
    base: str = spelling
    source: Source = "any"
    if state.version.has(_version.SUFFIXES):
        try:
            base, source = split_source(spelling)
        except ValueError as exc:
            raise ApiError(400, str(exc)) from exc
    name = parse_name(base)
    if name is None:
        raise ApiError(400, "invalid model name")
    exact = parse_name(spelling)
    stored = state.store.find(exact) if exact is not None else None
    if source == "cloud" and stored is None:
        return Found(_in_cloud(base, name), base, "cloud")
    if source != "cloud":
        stored = state.store.find(name)
    if stored is None or (source == "local" and stored.spec.remote_model):
        raise ApiError(404, missing.format(name=spelling))
    if not stored.spec.remote_model:
        return Found(stored, spelling, "local")
    if stored.spec.remote_host.partition("://")[2].rstrip("/") not in _CLOUD_HOSTS:
        raise ApiError(400, "this server cannot run this remote model")
    return Found(stored, spelling, "stub")


def _in_cloud(base: str, name: Name) -> StoredModel:
    return StoredModel(FakeModel(base, context_length=262_144), name, (), 0)
