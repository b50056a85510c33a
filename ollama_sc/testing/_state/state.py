"""The server's state, which its endpoints read and change."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ollama_sc.testing._version import Version

from .cloud import Cloud
from .loaded import LoadedModels
from .registry import Registry
from .store import ModelStore

MODELS_DIR: Final = "/opt/llm/models"  # the folder in the texts' paths; it does not exist


@dataclass(frozen=True, slots=True)
class Limits:
    """How the server generates and embeds.

    Attributes:
        tokens: Length of a default completion.
        token_rate: Tokens per second.
        embed_seconds: Duration of a request for embeddings.
        embed_error: The status and error text with which a text fails, or None.
        call_tools: Whether a chat asks for its tools.

    """

    tokens: int
    token_rate: float | None
    embed_seconds: float
    embed_error: Callable[[str], tuple[int, str] | None] | None
    call_tools: bool


@dataclass(frozen=True, slots=True)
class State:
    """The server's state."""

    version: Version
    store: ModelStore
    loaded: LoadedModels
    registry: Registry
    cloud: Cloud
    limits: Limits
    keys: frozenset[str] | None
    origins: tuple[str, ...]
