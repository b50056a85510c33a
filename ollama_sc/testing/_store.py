"""The models that the fake has: their names, capabilities and details."""

import hashlib
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")

_COMPLETION = ("completion",)
_TOOLS = ("completion", "tools")
_THINKING = ("completion", "tools", "thinking")
_EMBEDDING = ("embedding",)

# Capabilities by the beginning of a name. Others chat and call tools.
_KNOWN = (
    ("gemma", _COMPLETION),
    ("tiny", _COMPLETION),
    ("qwen3-embedding", _EMBEDDING),
    ("qwen3", _THINKING),
    ("deepseek-r1", ("completion", "thinking")),
    ("gpt-oss", _THINKING),
    ("embeddinggemma", _EMBEDDING),
    ("nomic-embed", _EMBEDDING),
    ("mxbai-embed", _EMBEDDING),
    ("all-minilm", _EMBEDDING),
    ("bge-", _EMBEDDING),
)

DEFAULT_MODELS = ("llama3.2", "gemma3:270m", "qwen3", "nomic-embed-text", "all-minilm")


@dataclass(frozen=True, slots=True)
class Name:
    """A model name with its defaults filled in."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def key(self) -> str:
        """Equal for names that mean the same model."""
        return self.full.lower()

    @property
    def full(self) -> str:
        """All four parts, as the errors about tools and suffix spell it."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"

    @property
    def display(self) -> str:
        """The name without default host and namespace, always with its tag."""
        short = f"{self.model}:{self.tag}"
        if self.host != "registry.ollama.ai":
            return f"{self.host}/{self.namespace}/{short}"
        return short if self.namespace == "library" else f"{self.namespace}/{short}"


def parse_name(text: str) -> Name | None:
    """The parts of `[host/][namespace/]model[:tag]`; None where it is no valid name."""
    rest, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        rest, tag = text, "latest"
    parts = rest.split("/")
    if len(parts) > 3:
        return None
    defaults = ["registry.ollama.ai", "library"]
    host, namespace, model = [*defaults[: 3 - len(parts)], *parts]
    valid = (
        _HOST.fullmatch(host)
        and _NAMESPACE.fullmatch(namespace)
        and _PART.fullmatch(model)
        and _PART.fullmatch(tag)
    )
    return Name(host, namespace, model, tag) if valid else None


@dataclass(frozen=True, slots=True)
class FakeModel:
    """A model of the fake.

    Attributes:
        name: As a user spells it; without a tag it is `latest`.
        capabilities: None: what the real model of that name can do, as far as known; others
            have `completion` and `tools`.
        context_length: The length it was trained for, in tokens.

    """

    name: str
    capabilities: tuple[str, ...] | None = None
    family: str | None = None
    parameter_size: str = "1.2B"
    quantization_level: str = "Q4_K_M"
    size: int = 815_319_791
    context_length: int = 8192


class StoredModel:
    """A model in the store."""

    def __init__(self, model: FakeModel, name: Name, modified_ns: int, dimensions: int) -> None:
        self.name = name
        self.capabilities = model.capabilities or _capabilities(name.model)
        self.modified_ns = modified_ns
        self.digest = hashlib.sha256(name.key.encode()).hexdigest()
        self._model = model
        self._dimensions = dimensions

    def can(self, capability: str) -> bool:
        """Whether the model has a capability."""
        return capability in self.capabilities

    @property
    def context_length(self) -> int:
        """The length that the model was trained for, in tokens."""
        return self._model.context_length

    def details(self) -> dict[str, Any]:
        """The `details` object without the two fields that only tags has."""
        model = self._model
        family = model.family or (re.findall(r"[a-z]+", self.name.model.lower()) or ["llama"])[0]
        return {
            "parent_model": "",
            "format": "gguf",
            "family": family,
            "families": [family],
            "parameter_size": model.parameter_size,
            "quantization_level": model.quantization_level,
        }

    def tags_entry(self) -> dict[str, Any]:
        """The model's object in `/api/tags`."""
        details = self.details()
        details["context_length"] = self._model.context_length
        details["embedding_length"] = self._dimensions
        return {
            "name": self.name.display,
            "model": self.name.display,
            "modified_at": _local_time(self.modified_ns),
            "size": self._model.size,
            "digest": self.digest,
            "details": details,
            "capabilities": list(self.capabilities),
        }


class ModelStore:
    """The models, found by any spelling of their names."""

    def __init__(self, models: Iterable[str | FakeModel], dimensions: int) -> None:
        self._models: dict[str, StoredModel] = {}
        now = time.time_ns()
        for index, item in enumerate(models):
            model = FakeModel(item) if isinstance(item, str) else item
            name = parse_name(model.name)
            if name is None:
                raise ValueError(f"invalid model name: {model.name!r}")
            # A second apart: the list is ordered by time, the first model comes first.
            modified = now - index * 1_000_000_000
            self._models[name.key] = StoredModel(model, name, modified, dimensions)

    def find(self, name: Name) -> StoredModel | None:
        """The model of a name, upper and lower case alike."""
        return self._models.get(name.key)

    def newest_first(self) -> list[StoredModel]:
        """All models."""
        return sorted(self._models.values(), key=lambda model: -model.modified_ns)


def _capabilities(name: str) -> tuple[str, ...]:
    for beginning, capabilities in _KNOWN:
        if name.lower().startswith(beginning):
            return capabilities
    return _TOOLS


def _local_time(ns: int) -> str:
    second, fraction = divmod(ns, 1_000_000_000)
    local = datetime.fromtimestamp(second).astimezone()
    digits = f"{fraction:09d}".rstrip("0")
    offset = local.strftime("%z")
    zone = "Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:]}"
    return f"{local:%Y-%m-%dT%H:%M:%S}{'.' + digits if digits else ''}{zone}"
