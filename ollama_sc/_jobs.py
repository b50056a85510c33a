"""The embedding jobs of a client or group: the client's door to `ollama_sc.embedding`.

That package is imported with the first job. Most programs have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _request
from ._base import Calls
from ._fields import EMBED_MANY_DEFAULTS, EmbedManyFields

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .embedding import Batches
    from .embedding._source import Texts
    from .embedding._vectors import Vectors


class EmbeddingJobs(Calls):
    """The jobs of a client or group."""

    @_request.accepts(EmbedManyFields, EMBED_MANY_DEFAULTS)
    def embed_many(self, model: str, texts: Texts, **fields: Unpack[EmbedManyFields]) -> Batches:
        """Turn many texts into vectors: ``POST /v1/embeddings`` or ``/api/embed``, many times.

        ::

            async with client.embed_many("nomic-embed-text", texts) as batches:
                async for batch in batches:     # batch.start, batch.inputs, batch.vectors
                    index.add(batch.start, batch.vectors)

        The job is one operation of this client: `abort` ends it at once, wherever it is. A request
        that cannot be answered now (no connection, a full queue, a time limit) is tried again. One
        that the server refuses is halved until the text is found that it refuses; see `on_error`.

        Args:
            model: its name, such as ``"nomic-embed-text"``.
            texts: an iterable or async iterable, read only as far as it is needed. It is read in
                the event loop: one that waits for files or other programs should be asynchronous.
            **fields: see `EmbedManyFields`.

        Returns:
            `Batches`, to be entered: that starts the job.

        Raises:
            RequestError: an argument cannot be right, or trying again needs stamina
                (``ollama-sc[jobs]``) and it is not installed.
        """
        from .embedding._entry import job  # noqa: PLC0415 - see above

        return job([self], model, texts, fields)

    @_request.accepts(EmbedManyFields, EMBED_MANY_DEFAULTS)
    async def embed_array(
        self, model: str, texts: Texts, **fields: Unpack[EmbedManyFields]
    ) -> Vectors:
        """Turn many texts into one array, as `embed_many` does; for what fits into memory.

        Cancelling it ends the job, as `abort` does.

        Returns:
            A ``float32`` array of n by d. With ``on_error="skip"``, the rows of texts that failed
            are NaN.

        Raises:
            RequestError: as in `embed_many`, or numpy is not installed (``ollama-sc[numpy]``).
            EmbedError: a text cannot be embedded; others as iterating over `Batches` raises them.
        """
        from .embedding._entry import array_of  # noqa: PLC0415 - see above

        return await array_of([self], model, texts, fields)
