"""The functions of the module, on one default client."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.blocking.support import CHAT, MESSAGES, MODEL, threads
from tests.embedding.support import Served

import ollama_sc
from ollama_sc import AbortError, RequestError, blocking
from ollama_sc.blocking import Client, _default
from ollama_sc.testing import Reply

FUNCTIONS = (
    "chat generate embed embeddings create delete list pull push show copy ps web_search web_fetch"
).split()


@pytest.fixture
def default(server: Served, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server that the functions ask; their client is as after an import, before and after."""
    monkeypatch.setenv("OLLAMA_HOST", server.url)
    _default._client.close()
    _default._client.__init__()  # type: ignore[misc]
    yield server
    _default._client.close()
    _default._client.__init__()  # type: ignore[misc]


def test_they_are_those_of_ollama_python_and_abort() -> None:
    """All methods of one client, which has not been opened by importing them."""
    for name in (*FUNCTIONS, "abort"):
        function = getattr(ollama_sc, name)
        assert function is getattr(blocking, name)
        assert function.__self__ is _default._client
        assert name in dir(ollama_sc)
        assert (name in ollama_sc.__all__) == (name != "list")  # which `import *` must not hide
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ollama_sc.no_such_name  # type: ignore[attr-defined]


def test_they_ask_one_client(default: Served) -> None:
    """It opens at the first call, with the environment of that time, and is there for all."""
    assert not threads()
    assert ollama_sc.abort() == 0
    assert ollama_sc.chat(MODEL, MESSAGES).text
    assert "".join(ollama_sc.generate(MODEL, "Hi", stream=True).iter_text())
    assert ollama_sc.embed("all-minilm", "a").embeddings
    assert ollama_sc.embeddings("all-minilm", "a").embedding
    assert ollama_sc.list().models
    assert ollama_sc.ps().models
    assert ollama_sc.create("mine", MODEL).status == "success"
    assert ollama_sc.show("mine").details
    ollama_sc.copy("mine", "me/mine")
    assert ollama_sc.push("me/mine").status == "success"
    ollama_sc.delete("me/mine")
    assert ollama_sc.pull(MODEL).status == "success"
    for search in (ollama_sc.web_search, ollama_sc.web_fetch):
        assert search("https://example.com")
    assert len(threads()) == 1
    assert default.fake.connections <= 2


def test_abort_reaches_them_alone(default: Served) -> None:
    """A client of one's own goes on."""
    default.fake.always(CHAT, Reply.chat_text("One two three").replace(stall_after=1))
    with Client() as own, ThreadPoolExecutor(1) as pool:
        mine = own.chat(MODEL, MESSAGES, stream=True)
        theirs = ollama_sc.chat(MODEL, MESSAGES, stream=True)
        assert pool.submit(ollama_sc.abort, "enough").result() == 1
        with pytest.raises(AbortError, match="enough"):
            list(theirs)
        assert next(mine).text == "One"
        mine.close()


def test_a_wrong_environment_is_an_error_of_the_call(
    default: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of the import; and once it is right, the next call works."""
    with monkeypatch.context() as patched:
        patched.setenv("OLLAMA_HOST", "tcp://nonsense")
        for _ in range(2):
            with pytest.raises(RequestError, match="OLLAMA_HOST"):
                ollama_sc.ps()
        assert not threads()
    assert ollama_sc.ps()


def test_they_pickle() -> None:
    """As what another process has of the same name."""
    assert pickle.loads(pickle.dumps(ollama_sc.chat)).__self__ is _default._client


def test_importing_them_does_nothing() -> None:
    """No thread, no hook for forks, nothing read of the environment, no client."""
    program = """
import atexit, os, sys, threading
def hook(*functions, **more):
    for function in (*functions, *more.values()):
        assert not function.__module__.startswith("ollama_sc"), function
os.register_at_fork = atexit.register = hook
os.environ["OLLAMA_HOST"] = "tcp://nonsense"
from ollama_sc import Client, chat, abort
from ollama_sc.blocking import _default
assert abort() == 0
assert threading.active_count() == 1
assert _default._client._twin is _default._client._worker is None
assert not {"asyncio", "trio", "numpy"} & set(sys.modules)
"""
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, timeout=40, env=environment
    )


def test_the_streams_of_a_dropped_module_function_live(default: Served) -> None:
    """Nothing but the stream is held by the program, and collecting changes nothing."""
    stream = ollama_sc.chat(MODEL, MESSAGES, stream=True)
    gc.collect()
    assert "".join(part.text for part in stream)
