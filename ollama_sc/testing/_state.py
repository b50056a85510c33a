"""All that the server has, handed to its endpoints."""

from collections.abc import Callable
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
    """How the server generates and embeds.

    Attributes:
        tokens: Length of a default answer.
        token_rate: Tokens a second.
        embed_seconds: How long a request for embeddings takes.
        embed_error: What a text fails with, as a status and an error text.

    """

    tokens: int
    token_rate: float | None
    embed_seconds: float
    embed_error: Callable[[str], tuple[int, str] | None] | None


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
