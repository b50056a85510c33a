"""All that the server has, handed to its endpoints."""

from dataclasses import dataclass
from typing import Final

from ollama_sc.testing._cloud import Cloud
from ollama_sc.testing._loaded import LoadedModels
from ollama_sc.testing._registry import Registry
from ollama_sc.testing._store import ModelStore
from ollama_sc.testing._version import Version

MODELS_DIR: Final = "/opt/llm/models"  # where the paths in texts lead; there is no such folder


@dataclass(frozen=True, slots=True)
class Limits:
    """How the server generates: tokens of a default answer, and tokens a second."""

    tokens: int
    token_rate: float | None


@dataclass(frozen=True, slots=True)
class State:
    """All that the server has."""

    version: Version
    store: ModelStore
    loaded: LoadedModels
    registry: Registry
    cloud: Cloud
    limits: Limits
    keys: frozenset[str] | None
    origins: tuple[str, ...]
