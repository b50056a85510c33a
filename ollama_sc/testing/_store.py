"""The models that the fake has: what they are, their layers, and how they come and go."""

import hashlib
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ollama_sc.testing import _gojson
from ollama_sc.testing._blobs import Blob, Blobs, digest_of
from ollama_sc.testing._names import Name, parse_name

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
class FakeModel:
    """A model of the fake.

    Attributes:
        name: As a user spells it; without a tag it is `latest`.
        capabilities: None: what the real model of that name can do, as far as known; others
            have `completion` and `tools`.
        size: In bytes.
        context_length: The length it was trained for, in tokens.
        families: None: the family alone. An empty list is the `null` of a stub.
        weights: The digest (`sha256:` and 64 hex digits) of its largest layer. Empty: made up.
        template: Its prompt template.
        system: Its system message.
        license: The texts of its licenses.
        parameters: Its own options, such as `{"num_ctx": 2048, "stop": ["<end>"]}`.
        messages: Messages (`role`, `content`) that stand before each conversation.
        remote_model: Makes it a stub: the name of the model in the cloud.
        remote_host: Where that is, such as `https://ollama.com:443`.
        model_info: What `show` tells beside what follows from the other fields.
        tensors: What `show` tells (`name`, `type`, `shape` each). None: two made-up ones.

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
    """One layer of a model: a blob, and what it is."""

    digest: str
    size: int
    kind: str = "model"


def text_layers(model: FakeModel) -> list[Layer]:
    """The layers of what a model says about itself, in the order in which they are written."""
    texts = [("template", model.template), ("system", model.system)]
    texts += [("license", text) for text in model.license]
    if model.parameters:
        ordered = dict(sorted(model.parameters.items()))
        texts.append(("params", json.dumps(ordered, separators=(",", ":")) + "\n"))
    if model.messages:
        texts.append(("messages", _gojson.encode(list(model.messages)).decode() + "\n"))
    found: list[Layer] = []
    for kind, text in texts:
        if text:
            data = text.encode("utf-8", "replace")
            found.append(Layer(digest_of(data), len(data), kind))
    return found


def config_layer(layers: Sequence[Layer]) -> Layer:
    """The layer that ends a manifest."""
    digest = digest_of("".join(layer.digest for layer in layers).encode() + b"config")
    return Layer(digest, 485, "config")


def layers_of(model: FakeModel, name: Name) -> tuple[Layer, ...]:
    """The layers of a model that was not made by create: weights of its own, texts, config."""
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
        spec: What it is.
        layers: Its layers, the config last.
        digest: Of its manifest, 64 hex digits.
        modified_ns: When it was written, in nanoseconds since 1970.

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
    def family(self) -> str:
        """The family: as given, or the letters that the name begins with."""
        letters = re.findall(r"[a-z]+", self.name.model.lower())
        return self.spec.family or (letters or ["llama"])[0]

    @property
    def context(self) -> int:
        """How many tokens fit where a request does not say."""
        return min(self.own_context or 4096, self.spec.context_length)

    @property
    def own_context(self) -> int:
        """What its parameters say of that; 0 where they say nothing that can be meant."""
        own: object = self.spec.parameters.get("num_ctx")
        if isinstance(own, (int, float)) and 0 < own < 1 << 63:
            return int(own)
        return 0

    def copied(self, name: Name) -> "StoredModel":
        """The same under another name, written now."""
        spec = replace(
            self.spec, name=name.display, capabilities=self.capabilities, family=self.family
        )
        return StoredModel(spec, name, self.layers, time.time_ns())

    def details(self) -> dict[str, Any]:
        """The `details` object without the two fields that only tags has."""
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
        """The two fields of a stub; empty for others."""
        if not self.spec.remote_model:
            return {}
        return {"remote_model": self.spec.remote_model, "remote_host": self.spec.remote_host}


class ModelStore:
    """The models, found by any spelling of their names, and their blobs.

    `name in models` and iteration (newest first) work; `get`, `add` and `remove` change it under
    the feet of a running server.
    """

    def __init__(self, models: Iterable[str | FakeModel], dimensions: int) -> None:
        self.dimensions = dimensions
        self.blobs = Blobs()
        self._models: dict[str, StoredModel] = {}
        now = time.time_ns()
        for index, item in enumerate(models):
            # A second apart: the list is ordered by time, the first model comes first.
            self.add(item, modified_ns=now - index * 1_000_000_000)

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def __iter__(self) -> Iterator[StoredModel]:
        return iter(self.newest_first())

    def __len__(self) -> int:
        return len(self._models)

    def get(self, name: str) -> StoredModel | None:
        """The model of a name as a user spells it; None where there is none."""
        parsed = parse_name(name)
        return None if parsed is None else self.find(parsed)

    def add(self, model: str | FakeModel, *, modified_ns: int | None = None) -> StoredModel:
        """Put a model in, with its layers; it replaces one of the same name."""
        spec = FakeModel(model) if isinstance(model, str) else model
        name = required_name(spec.name)
        modified = time.time_ns() if modified_ns is None else modified_ns
        stored = StoredModel(spec, name, layers_of(spec, name), modified)
        self.put(stored)
        return stored

    def remove(self, name: str) -> bool:
        """Take a model out, with the layers that no other has; False where there is none."""
        found = self.get(name)
        if found is not None:
            self.delete(found)
        return found is not None

    def find(self, name: Name) -> StoredModel | None:
        """The model of a name, upper and lower case alike."""
        return self._models.get(name.key)

    def put(self, model: StoredModel) -> bool:
        """Write a model and its layers; True where layers of an older version went away."""
        old = self._models.get(model.name.key)
        self._models[model.name.key] = model
        for layer in model.layers:
            if layer.digest not in self.blobs:
                self.blobs.put(layer.digest, Blob(layer.size))
        return old is not None and self._prune(old)

    def delete(self, model: StoredModel) -> None:
        """Remove a model, and its layers that no other has."""
        del self._models[model.name.key]
        self._prune(model)

    def newest_first(self) -> list[StoredModel]:
        """All models."""
        return sorted(self._models.values(), key=lambda model: -model.modified_ns)

    def _prune(self, old: StoredModel) -> bool:
        used = {layer.digest for model in self._models.values() for layer in model.layers}
        unused = [layer.digest for layer in old.layers if layer.digest not in used]
        for digest in unused:
            self.blobs.discard(digest)
        return bool(unused)


def required_name(text: str) -> Name:
    """The name that a user of the fake gave. Raises ValueError where it is none."""
    name = parse_name(text)
    if name is None:
        raise ValueError(f"invalid model name: {text!r}")
    return name


def _capabilities(name: str) -> tuple[str, ...]:
    for beginning, capabilities in _KNOWN:
        if name.lower().startswith(beginning):
            return capabilities
    return _TOOLS
