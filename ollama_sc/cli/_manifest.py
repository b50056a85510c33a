"""The manifest: what a job is, and how much of it is done.

What it says is true at every moment: it is replaced as a whole, after the rows that it counts are
on the disk. What lies in the folder beside that counts for nothing.
"""

from typing import Literal

import msgspec

from ollama_sc._version import __version__
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._inputs import Fingerprint, Format

NAME = "manifest.json"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What may not change until the job is done.

    Attributes:
        field, key: None where there is no such thing.
        digest: of the model, on all servers. Its name may change.
        dimensions: what was asked for; None is the model's own number.
        truncate: what was asked for; None is the server's own way.
        shard_rows: rows of each shard but the last.
    """

    input: Fingerprint
    input_format: Format
    field: str | None
    key: str | None
    model: str
    digest: str
    dimensions: int | None
    truncate: bool | None
    output_format: Literal["parquet"] = "parquet"
    shard_rows: int

    def differences(self, now: "Settings") -> list[str]:
        """What is otherwise now, a line each; none where the same job can go on."""
        return [
            f"{label}: {_shown(there)} there, {_shown(here)} now"
            for label, there, here in (
                ("input", self.input, now.input),
                ("input format", self.input_format, now.input_format),
                ("--field", self.field, now.field),
                ("--key", self.key, now.key),
                ("model", self._model, now._model),
                ("--dimensions", self.dimensions, now.dimensions),
                ("--truncate", self.truncate, now.truncate),
                ("output format", self.output_format, now.output_format),
                ("--shard-rows", self.shard_rows, now.shard_rows),
            )
            if not _same(there, here)
        ]

    @property
    def _model(self) -> "_Model":
        return _Model(self.model, self.digest)


class _Model(msgspec.Struct, frozen=True):
    name: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name} ({self.digest[:12]})"


def _same(there: object, here: object) -> bool:
    if isinstance(there, Fingerprint) and isinstance(here, Fingerprint):
        return there.same(here)
    if isinstance(there, _Model) and isinstance(here, _Model):
        return there.digest == here.digest
    return there == here


def _shown(value: object) -> str:
    return "not given" if value is None else str(value)


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How much is done.

    Attributes:
        rows: on the disk, from the first on: in whole shards, and what is left in the last shard if
            the job is done, or else in what is kept of the next one.
        failures, failures_bytes: how many of them have no vector, and how long their list is.
        vector_length: the numbers of a vector; None where there was none yet.
        key_type: of the key column; None where no row is done.
        mark: of a pipe, the hash of the rows that are done.
        done: the input was read to its end.
    """

    rows: int = 0
    failures: int = 0
    failures_bytes: int = 0
    vector_length: int | None = None
    key_type: str | None = None
    mark: str | None = None
    done: bool = False


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The whole of it, as it is written."""

    format: Literal[1] = 1
    made_by: str = f"ollama-sc {__version__}"
    settings: Settings
    progress: Progress = Progress()

    def encode(self) -> bytes:
        """As JSON that people can read."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def decode(data: bytes, path: str) -> Manifest:
    """Read a manifest.

    Raises:
        Refused: it is none, or that of a version to come.
    """
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is no manifest of this version of ollama-sc: {error}") from error
