"""Many texts into vectors: the public names of jobs.

``client.embed_many`` is a job on one client; `embed_many` here is the same on several. `Embedder`
is for engines that have workers of their own: each batch that it is called with is a job. How a job
runs is said in `ollama_sc._jobs`; the thread of an `Embedder` is in `worker`. `read_folder` reads
what the command ``ollama-sc embed`` writes (`folder`).
"""

from ollama_sc._jobs.batches import Batches
from ollama_sc._jobs.delivery import Batch
from ollama_sc._jobs.progress import Progress
from ollama_sc._jobs.start import embed_array, embed_many

from .folder import EmbeddedRows, read_folder
from .worker.embedder import Embedder

__all__ = [
    "Batch",
    "Batches",
    "EmbeddedRows",
    "Embedder",
    "Progress",
    "embed_array",
    "embed_many",
    "read_folder",
]
