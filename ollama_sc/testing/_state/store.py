"""The models that the fake holds: their properties, their layers, and the store itself."""

import hashlib
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ollama_sc.testing._go import gojson

from .blobs import Blob, Blobs, digest_of
from .names import Name, parse_name

_COMPLETION = ("completion",)
_TOOLS = ("completion", "tools")
_THINKING = ("completion", "tools", "thinking")
_EMBEDDING = ("embedding",)

# Capabilities by prefix of the name. Other models chat and call tools.
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
class FakeModel:
    """A model of the fake.

    Attributes:
        name: As a user spells it; the default tag is `latest`.
        capabilities: None: those of the real model of that name if it is known, otherwise
            `completion` and `tools`.
        size: In bytes.
        context_length: Its training context, in tokens.
        families: None: only `family`. An empty tuple is the `null` of a stub.
        weights: The digest (`sha256:` and 64 hex digits) of its largest layer. Empty: derived from
            the name.
        template: Its prompt template.
        system: Its system message.
        license: The texts of its licenses.
        parameters: Its own options, such as `{"num_ctx": 2048, "stop": ["<end>"]}`.
        messages: Messages (`role`, `content`) that precede each conversation.
        remote_model: The name of the model in the cloud; makes this one a stub.
        remote_host: The host of that model, such as `https://ollama.com:443`.
        model_info: Further entries of `model_info` in `show`; all of them where it has
            ``general.architecture``.
        tensors: The tensors in `show` (`name`, `type`, `shape` each). None: two synthetic ones.

    """

    name: str
    capabilities: tuple[str, ...] | None = None
    family: str | None = None
    parameter_size: str = "1.2B"
    quantization_level: str = "Q4_K_M"
    size: int = 815_319_791
    context_length: int = 8192
    families: tuple[str, ...] | None = None
    parent_model: str = ""
    format: str = "gguf"
    weights: str = ""
    template: str = ""
    system: str = ""
    license: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    messages: tuple[Mapping[str, Any], ...] = ()
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    remote_model: str = ""
    remote_host: str = ""
    model_info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    projector_info: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tensors: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a model: a blob and its kind."""

    digest: str
    size: int
    kind: str = "model"


def text_layers(model: FakeModel) -> list[Layer]:
    """The layers of a model's texts and parameters, in the order in which they are written."""
    texts = [("template", model.template), ("system", model.system)]
    texts += [("license", text) for text in model.license]
    if model.parameters:
        ordered = dict(sorted(model.parameters.items()))
        texts.append(("params", gojson.encode(ordered).decode() + "\n"))
    if model.messages:
        texts.append(("messages", gojson.encode(list(model.messages)).decode() + "\n"))
    found: list[Layer] = []
    for kind, text in texts:
        if text:
            data = text.encode("utf-8", "replace")
            found.append(Layer(digest_of(data), len(data), kind))
    return found


def config_layer(layers: Sequence[Layer]) -> Layer:
    """The last layer of a manifest."""
    digest = digest_of("".join(layer.digest for layer in layers).encode() + b"config")
    return Layer(digest, 485, "config")


def layers_of(model: FakeModel, name: Name) -> tuple[Layer, ...]:
    """The layers of a model not made by create: weights, texts, config."""
    texts = text_layers(model)
    weights: list[Layer] = []
    if not model.remote_model:
        rest = sum(layer.size for layer in texts) + 485
        digest = model.weights or digest_of(name.key.encode())
        weights.append(Layer(digest, max(1, model.size - rest)))
    layers = [*weights, *texts]
    return (*layers, config_layer(layers))


class StoredModel:
    """A model in the store.

    Attributes:
        name: Its name, with all parts.
        spec: Its properties.
        layers: Its layers, the config last.
        digest: The digest of its manifest, 64 hex digits.
        modified_ns: The time of its last change, in nanoseconds since 1970.

    """

    def __init__(
        self, spec: FakeModel, name: Name, layers: tuple[Layer, ...], modified_ns: int
    ) -> None:
        self.name = name
        self.spec = spec
        self.layers = layers
        self.capabilities = (
            _capabilities(name.model) if spec.capabilities is None else spec.capabilities
        )
        self.modified_ns = modified_ns
        joined = "".join(layer.digest for layer in layers)
        self.digest = hashlib.sha256(joined.encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<StoredModel {self.name.display} {self.digest[:12]}>"

    def can(self, capability: str) -> bool:
        """Whether the model has a capability."""
        return capability in self.capabilities

    @property
    def may_embed(self) -> bool:
        """Whether it embeds: a name that nobody knows stands for a model that can do both."""
        unknown = not any(self.name.model.lower().startswith(prefix) for prefix, _ in _KNOWN)
        return self.can("embedding") or (self.spec.capabilities is None and unknown)

    @property
    def may_see(self) -> bool:
        """Whether it takes images: unless its capabilities are given, without `vision`."""
        return self.spec.capabilities is None or self.can("vision")

    @property
    def family(self) -> str:
        """The family: as given, or the leading letters of the name."""
        letters = re.findall(r"[a-z]+", self.name.model.lower())
        return self.spec.family or (letters or ["llama"])[0]

    @property
    def context(self) -> int:
        """The context length of requests that do not set `num_ctx`, in tokens."""
        return min(self.own_context or 4096, self.spec.context_length)

    @property
    def runner(self) -> str:
        """What is loaded for it: models of the same weights share that."""
        weights = (layer.digest for layer in self.layers if layer.kind == "model")
        return next(weights, self.name.key)

    @property
    def own_context(self) -> int:
        """The `num_ctx` of its parameters; 0 if it is absent or invalid."""
        own: object = self.spec.parameters.get("num_ctx")
        if isinstance(own, (int, float)) and 0 < own < 1 << 63:
            return int(own)
        return 0

    def copied(self, name: Name) -> "StoredModel":
        """A copy under another name, modified now."""
        spec = replace(
            self.spec, name=name.display, capabilities=self.capabilities, family=self.family
        )
        return StoredModel(spec, name, self.layers, time.time_ns())

    def details(self) -> dict[str, Any]:
        """The `details` object without the two fields that only `/api/tags` has."""
        spec = self.spec
        families = [self.family] if spec.families is None else list(spec.families) or None
        return {
            "parent_model": spec.parent_model,
            "format": spec.format,
            "family": self.family,
            "families": families,
            "parameter_size": spec.parameter_size,
            "quantization_level": spec.quantization_level,
        }

    def remote(self) -> dict[str, str]:
        """The two fields of a stub; empty for other models."""
        if not self.spec.remote_model:
            return {}
        return {"remote_model": self.spec.remote_model, "remote_host": self.spec.remote_host}


class ModelStore:
    """The models by any spelling of their names, and their blobs.

    `name in models`, `models[name]`, `del models[name]` and iteration (newest first) work; `add`
    and `remove` also work while the server runs, from any thread.
    """

    def __init__(self, models: Iterable[str | FakeModel], dimensions: int) -> None:
        self.dimensions = dimensions
        self.blobs = Blobs()
        self._models: dict[str, StoredModel] = {}
        self._lock = threading.RLock()  # users change it while the server's thread reads it
        now = time.time_ns()
        for index, item in enumerate(models):
            # One second apart, as the list is sorted by time: the first model is the newest.
            self.add(item, modified_ns=now - index * 1_000_000_000)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __getitem__(self, name: str) -> StoredModel:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __delitem__(self, name: str) -> None:
        with self._lock:
            self.delete(self[name])

    def __iter__(self) -> Iterator[StoredModel]:
        return iter(self.newest_first())

    def __len__(self) -> int:
        return len(self._models)

    def get(self, name: str) -> StoredModel | None:
        """The model of a name as a user spells it; None if there is none."""
        parsed = parse_name(name)
        return None if parsed is None else self.find(parsed)

    def add(self, model: str | FakeModel, *, modified_ns: int | None = None) -> StoredModel:
        """Add a model with its layers; replaces one of the same name."""
        spec = FakeModel(model) if isinstance(model, str) else model
        name = required_name(spec.name)
        modified = time.time_ns() if modified_ns is None else modified_ns
        stored = StoredModel(spec, name, layers_of(spec, name), modified)
        self.put(stored)
        return stored

    def remove(self, name: str) -> bool:
        """Remove a model and the layers that no other model has; False if there is none."""
        with self._lock:
            found = self.get(name)
            if found is not None:
                self.delete(found)
        return found is not None

    def find(self, name: Name) -> StoredModel | None:
        """The model of a name, case-insensitive; None if there is none."""
        return self._models.get(name.key)

    def put(self, model: StoredModel) -> bool:
        """Store a model and its layers; True if layers of an older version were removed."""
        with self._lock:
            old = self._models.get(model.name.key)
            self._models[model.name.key] = model
            for layer in model.layers:
                if layer.digest not in self.blobs:
                    self.blobs.put(layer.digest, Blob(layer.size))
            return old is not None and self._prune(old)

    def delete(self, model: StoredModel) -> None:
        """Remove a model and the layers that no other model has."""
        with self._lock:
            del self._models[model.name.key]
            self._prune(model)

    def newest_first(self) -> list[StoredModel]:
        """All models, the last modified first."""
        with self._lock:
            models = list(self._models.values())
        return sorted(models, key=lambda model: -model.modified_ns)

    def _prune(self, old: StoredModel) -> bool:
        used = {layer.digest for model in self._models.values() for layer in model.layers}
        unused = [layer.digest for layer in old.layers if layer.digest not in used]
        for digest in unused:
            self.blobs.discard(digest)
        return bool(unused)


def required_name(text: str) -> Name:
    """The parsed name of a model that a test defines. Raises ValueError if it is invalid."""
    name = parse_name(text)
    if name is None:
        raise ValueError(f"invalid model name: {text!r}")
    return name


def _capabilities(name: str) -> tuple[str, ...]:
    for prefix, capabilities in _KNOWN:
        if name.lower().startswith(prefix):
            return capabilities
    return _TOOLS
