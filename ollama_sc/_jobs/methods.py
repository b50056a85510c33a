"""The methods of a client or group that start embedding jobs.

The rest of this package is imported with the first job: most programs have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ollama_sc._api import arguments
from ollama_sc._api.base import BaseClient

from .fields import EMBED_MANY_DEFAULTS, EmbedManyFields

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .batcher import Texts
    from .batches import Batches
    from .vectors import Vectors


class EmbeddingJobs(BaseClient):
    """The jobs of a client or group."""

    @arguments.expand_kwargs(EmbedManyFields, EMBED_MANY_DEFAULTS)
    def embed_many(self, model: str, texts: Texts, **fields: Unpack[EmbedManyFields]) -> Batches:
        """Turn many texts into vectors: ``POST /v1/embeddings`` or ``/api/embed``, many times.

        ::

            async with client.embed_many("nomic-embed-text", texts) as batches:
                async for batch in batches:     # batch.start, batch.inputs, batch.vectors
                    index.add(batch.start, batch.vectors)

        The job is one operation of this client: `abort` ends it at once, whatever it is doing. A
        request whose error is transient (no connection, a full queue, a timeout) is retried. One
        that the server refuses is halved until the text is found that it refuses; see `on_error`.

        Args:
            model: its name, such as ``"nomic-embed-text"``.
            texts: an iterable or async iterable, read no further than the requests in flight need.
                It is read in the event loop: one that waits for I/O should be asynchronous.
            **fields: see `EmbedManyFields`.

        Returns:
            `Batches`, to be entered: that starts the job.

        Raises:
            RequestError: an invalid argument, or retries need stamina (``ollama-sc[jobs]``) and it
                is not installed.
        """
        from .start import make_job  # noqa: PLC0415 - see above

        return make_job([self], model, texts, fields)

    @arguments.expand_kwargs(EmbedManyFields, EMBED_MANY_DEFAULTS)
    async def embed_array(
        self, model: str, texts: Texts, **fields: Unpack[EmbedManyFields]
    ) -> Vectors:
        """Turn many texts into one array, as `embed_many` does; for what fits into memory.

        Cancelling it ends the job: when it raises, no request is in flight.

        Returns:
            A ``float32`` array of n by d, in the order of the texts. With ``on_error="skip"``, the
            rows of texts that failed are NaN.

        Raises:
            RequestError: as in `embed_many`, or numpy is not installed (``ollama-sc[numpy]``).
            EmbedError: a text cannot be embedded; others as iterating over `Batches` raises them.
        """
        from .start import embed_to_array  # noqa: PLC0415 - see above

        return await embed_to_array([self], model, texts, fields)
