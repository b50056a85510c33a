"""Finds the model of a request: a local one, a stub, or one in the cloud."""

from dataclasses import dataclass

from ollama_sc.testing import _version
from ollama_sc.testing._cloud import Via
from ollama_sc.testing._fields import ApiError
from ollama_sc.testing._names import Name, Source, parse_name, split_source
from ollama_sc.testing._state import State
from ollama_sc.testing._store import FakeModel, StoredModel

_CLOUD_HOSTS = ("ollama.com", "ollama.com:443")


@dataclass(frozen=True, slots=True)
class Found:
    """A model, and how the server comes to it.

    Attributes:
        model: The model.
        shown: What the field `model` of the reply says.
        via: `cloud` is proxied as it is, `stub` is asked for and reworded.

    """

    model: StoredModel
    shown: str
    via: Via


def find(spelling: str, state: State, *, missing: str, empty: ApiError) -> Found:
    """The model of a name.

    Args:
        spelling: As the request has it.
        state: Where to look.
        missing: The text of the 404, with `{name}` for the name.
        empty: What is raised for no name.

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
