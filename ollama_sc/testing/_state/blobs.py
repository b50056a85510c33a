"""The blobs that the fake holds: uploads, and the layers of models."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

KEPT = 1 << 20  # bytes: larger blobs are hashed, their data is not kept
_DIGEST = re.compile(r"sha256[:-][0-9a-fA-F]{64}")


def digest_of(data: bytes) -> str:
    """The digest of some bytes, with its prefix `sha256:`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def is_digest(text: str) -> bool:
    """Whether the server accepts a text as a digest."""
    return _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob, with its bytes only if it is small.

    Attributes:
        size: In bytes.
        head: Its first four bytes, the magic number of a model file.
        data: All of its bytes; None for a large blob.

    """

    size: int
    head: bytes = b"GGUF"
    data: bytes | None = None


class Upload:
    """Hashes a blob while it is received."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._kept: bytearray | None = bytearray()
        self._head = b""
        self.size = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes."""
        self._hash.update(data)
        self.size += len(data)
        if len(self._head) < 4:
            self._head = (self._head + data[:4])[:4]
        if self._kept is not None:
            self._kept += data
            if len(self._kept) > KEPT:
                self._kept = None

    @property
    def digest(self) -> str:
        """The digest of the bytes received so far."""
        return "sha256:" + self._hash.hexdigest()

    @property
    def blob(self) -> Blob:
        """The blob received so far."""
        data = None if self._kept is None else bytes(self._kept)
        return Blob(self.size, self._head, data)


class Blobs:
    """Blobs by digest (`sha256:` and 64 hex digits).

    `digest in blobs`, `blobs[digest]`, `len(blobs)` and iteration over the digests work as in a
    mapping. The bytes of large blobs are not kept.
    """

    def __init__(self) -> None:
        self._blobs: dict[str, Blob] = {}

    def __contains__(self, digest: str) -> bool:
        return _normal(digest) in self._blobs

    def __getitem__(self, digest: str) -> Blob:
        return self._blobs[_normal(digest)]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._blobs))  # uploads may come meanwhile

    def __len__(self) -> int:
        return len(self._blobs)

    def add(self, data: bytes) -> str:
        """Store some bytes and return their digest."""
        digest = digest_of(data)
        self.put(digest, Blob(len(data), data[:4], data if len(data) <= KEPT else None))
        return digest

    def put(self, digest: str, blob: Blob) -> None:
        """Store a blob under a given digest."""
        self._blobs[_normal(digest)] = blob

    def discard(self, digest: str) -> None:
        """Remove a blob if it exists."""
        self._blobs.pop(_normal(digest), None)


def _normal(digest: str) -> str:
    return digest.replace("-", ":", 1).lower()
