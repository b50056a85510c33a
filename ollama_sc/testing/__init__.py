"""A fake Ollama server for tests: `FakeOllama`, on a real socket, in the test's own event loop.

`async with FakeOllama() as fake:` serves at `fake.url`; `python -m ollama_sc.testing` serves on
its own. Replies can be scripted and broken with `Reply`. pytest has the fixture `fake_ollama`.
"""

from ollama_sc.testing._blobs import Blob, Blobs
from ollama_sc.testing._cloud import Cloud
from ollama_sc.testing._fake import FakeOllama
from ollama_sc.testing._loaded import LoadedModel
from ollama_sc.testing._registry import FakeLayer, FakePull, Registry
from ollama_sc.testing._replies import Reply
from ollama_sc.testing._request import RecordedRequest
from ollama_sc.testing._store import FakeModel, ModelStore, StoredModel

__all__ = [
    "Blob",
    "Blobs",
    "Cloud",
    "FakeLayer",
    "FakeModel",
    "FakeOllama",
    "FakePull",
    "LoadedModel",
    "ModelStore",
    "RecordedRequest",
    "Registry",
    "Reply",
    "StoredModel",
]
