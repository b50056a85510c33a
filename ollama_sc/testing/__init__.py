"""A fake Ollama server for tests: `FakeOllama`, on a real socket.

`async with FakeOllama() as fake:` serves at `fake.url` in the test's own event loop, `with` in a
thread of its own; `python -m ollama_sc.testing` runs it as a process. `Reply` scripts responses and
their faults; `FakeOllama.replay` answers as a real server did. The pytest fixture is `fake_ollama`.
"""

# Imports point downwards only: _fake > _serving, _cassette > _endpoints > _http > _model > _state >
# _replies > _go > _version. Each folder's docstring says what it is for.

from ollama_sc.testing._cassette import CassetteError
from ollama_sc.testing._fake import FakeOllama
from ollama_sc.testing._http.request import RecordedRequest
from ollama_sc.testing._replies import Reply
from ollama_sc.testing._state.blobs import Blob, Blobs
from ollama_sc.testing._state.cloud import Cloud
from ollama_sc.testing._state.loaded import LoadedModel
from ollama_sc.testing._state.registry import FakeLayer, FakePull, Registry
from ollama_sc.testing._state.store import FakeModel, ModelStore, StoredModel

__all__ = [
    "Blob",
    "Blobs",
    "CassetteError",
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
