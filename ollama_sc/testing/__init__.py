"""A fake Ollama server for tests: `FakeOllama`, on a real socket, in the test's own event loop.

`async with FakeOllama() as fake:` serves at `fake.url`; `python -m ollama_sc.testing` serves on
its own. Replies can be scripted and broken with `Reply`. pytest has the fixture `fake_ollama`.
"""

from ollama_sc.testing._fake import FakeOllama
from ollama_sc.testing._replies import Reply
from ollama_sc.testing._request import RecordedRequest
from ollama_sc.testing._store import FakeModel

__all__ = ["FakeModel", "FakeOllama", "RecordedRequest", "Reply"]
