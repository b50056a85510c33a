"""A batch whose vectors have not all arrived. No I/O."""

from __future__ import annotations

from .batcher import TextBatch
from .endpoints import VectorBytes
from .servers import Server
from .vectors import Vectors, nan_row, not_finite, to_vectors


class PartialBatch:
    """A batch whose vectors have not all arrived.

    Positions are those of texts in the batch, indexes those in the job.

    Attributes:
        batch: its texts.
        rows: the vectors so far, by position; empty where there is none.
        failures: the reasons of the texts that failed, by index.
        servers_tried: the servers that its requests were sent to, in that order.
    """

    def __init__(self, batch: TextBatch) -> None:
        self.batch = batch
        self.rows: list[VectorBytes] = [b""] * len(batch.texts)
        self.failures: dict[int, str] = {}
        self.servers_tried: list[Server] = []

    def vectors(self, dimensions: int) -> tuple[Vectors, list[int]]:
        """The vectors, NaN where there is none; and the positions of those that are not finite.

        Texts that have failed are not among these.
        """
        missing = nan_row(dimensions)
        found = to_vectors([row or missing for row in self.rows], dimensions)
        start = self.batch.start
        bad = [at for at in not_finite(found) if start + at not in self.failures]
        return found, bad
