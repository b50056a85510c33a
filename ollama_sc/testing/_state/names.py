"""Model names: their parts and defaults, and the suffixes that select a source."""

import re
from dataclasses import dataclass
from typing import Literal

_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}")
_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}")
_REGISTRY = "registry.ollama.ai"

Source = Literal["any", "cloud", "local"]


@dataclass(frozen=True, slots=True)
class Name:
    """A model name with its defaults filled in."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def key(self) -> str:
        """Equal for names of the same model."""
        return self.full.lower()

    @property
    def full(self) -> str:
        """All four parts, as the errors about tools and suffix spell it."""
        return f"{self.path}:{self.tag}"

    @property
    def path(self) -> str:
        """All parts except the tag."""
        return f"{self.host}/{self.namespace}/{self.model}"

    @property
    def display(self) -> str:
        """The name without default host and namespace, always with its tag."""
        short = f"{self.model}:{self.tag}"
        if self.host != _REGISTRY:
            return f"{self.host}/{self.namespace}/{short}"
        return short if self.namespace == "library" else f"{self.namespace}/{short}"


def parse_name(text: str) -> Name | None:
    """The parts of `[host/][namespace/]model[:tag]`; None if the name is invalid."""
    rest, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        rest, tag = text, "latest"
    parts = rest.split("/")
    if len(parts) > 3:
        return None
    defaults = [_REGISTRY, "library"]
    host, namespace, model = [*defaults[: 3 - len(parts)], *parts]
    valid = (
        _HOST.fullmatch(host)
        and _NAMESPACE.fullmatch(namespace)
        and _PART.fullmatch(model)
        and _PART.fullmatch(tag)
    )
    return Name(host, namespace, model, tag) if valid else None


def split_source(text: str) -> tuple[str, Source]:
    """A name without its `:cloud`, `-cloud` or `:local`, and the source that the suffix selects.

    Raises:
        ValueError: Two suffixes contradict each other; with the server's text.

    """
    rest, source = _cut_source(text)
    if source != "any" and _cut_source(rest)[1] not in ("any", source):
        raise ValueError(f'use either :local or :cloud, not both: "{text}"')
    return rest, source


def _cut_source(text: str) -> tuple[str, Source]:
    lower = text.lower()
    if lower.endswith(":cloud"):
        return text[: -len(":cloud")], "cloud"
    if lower.endswith(":local"):
        return text[: -len(":local")], "local"
    tag = lower.rpartition(":")[2]
    if ":" in lower and "/" not in tag and tag.endswith("-cloud"):
        return text[: -len("-cloud")], "cloud"
    return text, "any"
