"""Many texts into vectors: one job of many requests, on one server or several.

``client.embed_many`` is a job on one client; `embed_many` here is the same on several. `Embedder`
is for engines that have workers of their own: each batch that it is called with is a job.

How a job lives:

* It is one operation of its client (of each of its clients): one call whose task reads the texts
  and starts the requests, all of them parts of it. Aborting or closing any of its clients ends it.
* It asks each server for one text first. That loads the model, tells how long vectors are, and
  whether the server knows the quicker of the two ways to ask. A server is *away* until that has
  succeeded, and again from when a connection to it breaks until it has succeeded once more. Where
  there are others, so is one that is too busy or too slow, for as long as it asks for.
* Its task reads a batch of texts, waits until the consumer is near enough, waits for a place at a
  server that is not away, and starts a task for the batch; then it reads the next. So it holds one
  batch more than those that are in flight or wait for the consumer, which are at most twice the
  requests in flight.
* A batch's request is tried again, at whatever server has a place, while the reason can pass:
  broken connections, full queues, time limits. Where the server refuses the texts themselves, the
  batch is halved until single texts are left. One that is refused alone is the text's fault if
  the server still takes the text that it began with, and the job's otherwise.
* Whatever fails in any of its tasks ends all of them; the consumer gets it after the batches that
  were ready before.

What can go wrong, and where that is seen to: the texts, in `_source`; a reply, in `_wire`; a
server, in `_servers`; a request, in `_retries`; a text, in `_job`; the consumer, in `_delivery`.
"""

from ._batches import Batches
from ._delivery import Batch
from ._embedder import Embedder
from ._entry import embed_array, embed_many
from ._progress import Progress

__all__ = ["Batch", "Batches", "Embedder", "Progress", "embed_array", "embed_many"]
