"""The registry that the fake pulls from and pushes to: its models, its speed, its failures."""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from ollama_sc.testing._go.fields import ApiError

from .blobs import Blob, Blobs, digest_of
from .names import Name
from .store import FakeModel, Layer, layers_of, required_name

DEFAULT_PULLABLE = (
    "llama3.2",
    "llama3.2:1b",
    "llama3.1",
    "gemma3",
    "gemma3:270m",
    "qwen3",
    "qwen3:8b",
    "deepseek-r1",
    "gpt-oss:20b",
    "mistral",
    "nomic-embed-text",
    "all-minilm",
    "embeddinggemma",
)


@dataclass(frozen=True, slots=True)
class FakeLayer:
    """A layer of a model in the registry.

    Attributes:
        size: In bytes.
        digest: `sha256:` and 64 hex digits. Empty: derived from model and position.
        progress: Values of `completed` in the progress lines, instead of the true ones: they may
            never reach the size, decrease or repeat. Empty: no line at all.
        errors: Each attempt to download the layer fails halfway with the next of these texts;
            once they are used up it succeeds.

    """

    size: int
    digest: str = ""
    progress: tuple[int, ...] | None = None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FakePull:
    """A model in the registry, and how a pull of it proceeds.

    Attributes:
        model: The model that a pull stores.
        layers: None: the model's own layers.
        errors: Each pull fails with the next of these texts (after `pull model manifest:`)
            before it has the manifest, such as `429: slow down`; then it succeeds.

    """

    model: str | FakeModel
    layers: tuple[FakeLayer, ...] | None = None
    errors: tuple[str, ...] = ()


@dataclass(slots=True)
class Manifest:
    """A model's manifest in the registry."""

    spec: FakeModel
    name: Name
    layers: tuple[Layer, ...]
    scripts: Mapping[str, FakeLayer] = field(default_factory=dict[str, FakeLayer])


class Download:
    """The transfer of one layer, shared by all pulls of it; pauses when the last one ends."""

    def __init__(self, layer: Layer, script: FakeLayer | None, rate: float | None) -> None:
        self.layer = layer
        self.completed = 0
        self.users = 0
        self._rate = rate
        self._errors = deque(script.errors if script is not None else ())
        self._at = 0.0

    def join(self) -> None:
        """Add a pull."""
        if not self.users:
            self._at = anyio.current_time()
        self.users += 1

    def leave(self) -> None:
        """Remove a pull."""
        self._advance()
        self.users -= 1

    async def tick(self, registry: "Registry") -> bool:
        """Transfer for the time between two lines; False if the layer is complete."""
        if self.completed >= self.layer.size:
            return False
        if self._rate is None:
            await anyio.lowlevel.checkpoint()
            self.completed += math.ceil(self.layer.size / registry.steps)
        else:
            await anyio.sleep(registry.interval)
            self._advance()
        self.completed = min(self.completed, self.layer.size)
        if self._errors and self.completed * 2 >= self.layer.size:
            self.completed = self.layer.size // 2
            raise ApiError(500, self._errors.popleft())
        return True

    def _advance(self) -> None:
        now = anyio.current_time()
        if self._rate is not None:
            whole = self.completed + int(self._rate * (now - self._at))
            self.completed = min(whole, self.layer.size)
        self._at = now


class Registry:
    """The registry; may be modified while the server runs.

    Args:
        models: What can be pulled: names, `FakeModel` or `FakePull` objects.
        rate: Bytes per second of each download. None: as fast as the lines are sent.
        interval: Seconds between two progress lines if there is a rate.
        steps: Progress lines of a layer if there is none.
        error: Fails each request to the registry with this text, as if it were unreachable.
        push_error: Fails each push with this text. None: only pushes without a namespace fail.

    """

    def __init__(
        self,
        models: Iterable[str | FakeModel | FakePull] = DEFAULT_PULLABLE,
        *,
        rate: float | None = None,
        interval: float = 0.06,
        steps: int = 4,
        error: str | None = None,
        push_error: str | None = None,
    ) -> None:
        self.rate = rate
        self.interval = interval
        self.steps = steps
        self.error = error
        self.push_error = push_error
        self.blobs: set[str] = set()
        self._pulls: dict[str, FakePull] = {}
        self._errors: dict[str, deque[str]] = {}
        self._downloads: dict[str, Download] = {}
        for model in models:
            self.add(model)

    def add(self, model: str | FakeModel | FakePull) -> None:
        """Make a model available to pulls; replaces one of the same name."""
        pull = model if isinstance(model, FakePull) else FakePull(model)
        spec = FakeModel(pull.model) if isinstance(pull.model, str) else pull.model
        key = required_name(spec.name).key
        self._pulls[key] = pull
        self._errors[key] = deque(pull.errors)

    def partial(self, digest: str) -> int:
        """How many bytes of a layer have been downloaded, if its download is incomplete."""
        download = self._downloads.get(digest)
        return 0 if download is None else download.completed

    def manifest(self, name: Name) -> Manifest:
        """The manifest of a name. Raises ApiError if there is none."""
        if self.error is not None:
            raise ApiError(500, f"pull model manifest: {self.error}")
        pull = self._pulls.get(name.key)
        if pull is None:
            raise ApiError(500, "pull model manifest: file does not exist")
        errors = self._errors[name.key]
        if errors:
            raise ApiError(500, f"pull model manifest: {errors.popleft()}")
        spec = FakeModel(pull.model) if isinstance(pull.model, str) else pull.model
        if pull.layers is None:
            return Manifest(spec, name, layers_of(spec, name))
        layers: list[Layer] = []
        scripts: dict[str, FakeLayer] = {}
        for index, script in enumerate(pull.layers):
            kind = "config" if index and index == len(pull.layers) - 1 else "model"
            digest = script.digest or digest_of(f"{name.key} {index}".encode())
            layers.append(Layer(digest, script.size, kind))
            scripts[digest] = script
        return Manifest(spec, name, tuple(layers), scripts)

    def download(self, layer: Layer, script: FakeLayer | None) -> Download:
        """The download of a layer: the existing one, or a new one."""
        known = self._downloads.get(layer.digest)
        if known is None:
            known = self._downloads[layer.digest] = Download(layer, script, self.rate)
        return known

    def upload(self, layer: Layer) -> Download:
        """The upload of a layer to the registry; not shared, never resumed."""
        upload = Download(layer, None, self.rate)
        upload.join()
        return upload

    def finish(self, download: Download, blobs: Blobs) -> None:
        """Store a complete download as a blob."""
        layer = download.layer
        self._downloads.pop(layer.digest, None)
        if layer.digest not in blobs:
            blobs.put(layer.digest, Blob(layer.size))
