"""The registry that the fake pulls from and pushes to: what it has, how fast, and how it fails."""

import math
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import anyio
import anyio.lowlevel

from ollama_sc.testing._blobs import Blob, Blobs, digest_of
from ollama_sc.testing._fields import ApiError
from ollama_sc.testing._names import Name
from ollama_sc.testing._store import FakeModel, Layer, layers_of, required_name

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
        digest: `sha256:` and 64 hex digits. Empty: made up from model and position.
        progress: What the lines say in `completed`, in place of the truth: values that never
            reach the size, that fall back or come twice. Empty: no line at all.
        errors: Each attempt to download it ends halfway with the next of these texts; when they
            are used up it works.

    """

    size: int
    digest: str = ""
    progress: tuple[int, ...] | None = None
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FakePull:
    """A model in the registry, and how pulling it goes.

    Attributes:
        model: What is there after the pull.
        layers: None: the layers that follow from the model.
        errors: Each pull fails with the next of these texts (behind `pull model manifest: `)
            before it knows the layers, such as `429: slow down`; then it works.

    """

    model: str | FakeModel
    layers: tuple[FakeLayer, ...] | None = None
    errors: tuple[str, ...] = ()


@dataclass(slots=True)
class Manifest:
    """What the registry knows of a model."""

    spec: FakeModel
    name: Name
    layers: tuple[Layer, ...]
    scripts: Mapping[str, FakeLayer] = field(default_factory=dict[str, FakeLayer])


class Download:
    """One layer on its way, shared by all who pull it; stops when the last one leaves."""

    def __init__(self, layer: Layer, script: FakeLayer | None, rate: float | None) -> None:
        self.layer = layer
        self.completed = 0
        self.users = 0
        self._rate = rate
        self._errors = deque(script.errors if script is not None else ())
        self._at = 0.0

    def join(self) -> None:
        """Somebody pulls it."""
        if not self.users:
            self._at = anyio.current_time()
        self.users += 1

    def leave(self) -> None:
        """Somebody does no longer pull it."""
        self._advance()
        self.users -= 1

    async def tick(self, registry: "Registry") -> bool:
        """Go on for the time between two lines; False when all is there."""
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
    """The registry; may be changed while the server runs.

    Args:
        models: What can be pulled: names, `FakeModel` or `FakePull` objects.
        rate: Bytes a second of each download. None: as fast as the lines are taken.
        interval: Seconds between two progress lines where there is a rate.
        steps: Lines of a layer where there is none.
        error: Fails each request to the registry with this text, as when it cannot be reached.
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
        """Make a model pullable; it replaces one of the same name."""
        pull = model if isinstance(model, FakePull) else FakePull(model)
        spec = FakeModel(pull.model) if isinstance(pull.model, str) else pull.model
        key = required_name(spec.name).key
        self._pulls[key] = pull
        self._errors[key] = deque(pull.errors)

    def partial(self, digest: str) -> int:
        """How many bytes there are of a layer of which the download has stopped or goes on."""
        download = self._downloads.get(digest)
        return 0 if download is None else download.completed

    def manifest(self, name: Name) -> Manifest:
        """What there is under a name. Raises ApiError where there is none."""
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
        """The download of a layer: the one that there is, or a new one."""
        known = self._downloads.get(layer.digest)
        if known is None:
            known = self._downloads[layer.digest] = Download(layer, script, self.rate)
        return known

    def upload(self, layer: Layer) -> Download:
        """A layer on its way to the registry; not shared, and never resumed."""
        upload = Download(layer, None, self.rate)
        upload.join()
        return upload

    def finish(self, download: Download, blobs: Blobs) -> None:
        """Keep what has come as a blob."""
        layer = download.layer
        self._downloads.pop(layer.digest, None)
        if layer.digest not in blobs:
            blobs.put(layer.digest, Blob(layer.size))
