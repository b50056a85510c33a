"""The manifest: the settings of a job, and how much of it is done.

It is replaced atomically, after the rows that it counts are on the disk. So it is right at any
time, and what it does not count is removed when the job is resumed.
"""

from typing import Literal

import msgspec

from ollama_sc._jobs.served_model import short
from ollama_sc._version import __version__
from ollama_sc.cli._errors import Refused
from ollama_sc.cli._inputs import Fingerprint, Format
from ollama_sc.cli._shown import printable, shown
from ollama_sc.embedding.folder import LATEST


class FixedSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of a job that are the same in all of its runs.

    Attributes:
        field, key: None where the format has none, or the option was not given.
        digest: of the model, on all servers. Its name may change.
        dimensions: as requested; None is the model's own number.
        truncate: as requested; None is the server's default.
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

    def differences(self, current: "FixedSettings") -> list[str]:
        """How the settings of this run differ, a line each; empty where the job can be resumed."""
        return [
            f"{label}: {_display(there)} there, {_display(now)} now"
            for label, saved, given in (
                ("input", self.input, current.input),
                ("input format", self.input_format, current.input_format),
                ("--field", self.field, current.field),
                ("--key", self.key, current.key),
                ("model", self._model, current._model),
                ("--dimensions", self.dimensions, current.dimensions),
                ("--truncate", self.truncate, current.truncate),
                ("output format", self.output_format, current.output_format),
                ("--shard-rows", self.shard_rows, current.shard_rows),
            )
            if not _same(saved, given)
            for there, now in [_parts_that_differ(saved, given)]
        ]

    @property
    def _model(self) -> "_Model":
        return _Model(self.model, self.digest)


class _Model(msgspec.Struct, frozen=True):
    name: str
    digest: str

    def __str__(self) -> str:
        return f"{shown(self.name)} ({short(self.digest)})"


def _same(saved: object, given: object) -> bool:
    if isinstance(saved, Fingerprint) and isinstance(given, Fingerprint):
        return saved.same(given)
    if isinstance(saved, _Model) and isinstance(given, _Model):
        return saved.digest == given.digest
    return saved == given


def _parts_that_differ(saved: object, given: object) -> tuple[object, object]:
    if isinstance(saved, Fingerprint) and isinstance(given, Fingerprint):
        return saved.differences(given)
    return saved, given


def _display(value: object) -> str:
    return "not given" if value is None else printable(str(value)).replace("\n", "\\n")


class SavedProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a job is done and on the disk.

    Attributes:
        rows: from the first row on. They are in full shards, and the rest in the last shard if the
            job is done, in the partial one otherwise.
        failures, failures_bytes: how many of them have no vector, and how long their list is.
        vector_length: the dimensions of vectors; None where there is none yet.
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
    """The manifest, as it is written. A folder keeps the format that it began with."""

    format: Literal[1, 2] = LATEST
    made_by: str = f"ollama-sc {__version__}"
    settings: FixedSettings
    progress: SavedProgress = SavedProgress()

    def encode(self) -> bytes:
        """Encode it as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


def decode_manifest(data: bytes, path: str) -> Manifest:
    """Decode a manifest.

    Raises:
        Refused: it is invalid, or of a later version.
    """
    try:
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refused(f"{path} is no manifest of this version of ollama-sc: {error}") from error
