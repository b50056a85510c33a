"""Embedders that are pickled: what arrives is what was sent, and one copy of it."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from dask.base import tokenize
from tests.embedding.programs import Programs
from tests.embedding.support import MODEL, Served, texts
from tests.support import ROOT

from ollama_sc.embedding import Embedder
from ollama_sc.embedding.worker import pickling


def test_it_arrives_as_what_it_was_made_with(
    programs: Programs, server: Served, make: Callable[..., Embedder]
) -> None:
    """In another process, with all arguments, and one copy however often it arrives."""
    embed = make(server, text_column="body", client_options={"headers": {"X-Key": "k"}})
    first = embed(texts(3))
    program = f"""
        import pickle
        some = bytes.fromhex({pickle.dumps(embed).hex()!r})
        one, two = pickle.loads(some), pickle.loads(some)
        assert one is two
        assert one._backend == {embed._backend!r}
        result = one({{"body": {texts(3)!r}}})
        assert result["embedding"].tobytes().hex() == {first.tobytes().hex()!r}
    """
    done = programs.run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert server.fake.requests[-1].headers["x-key"] == "k"


def test_a_copy_in_the_same_process_is_the_same(
    server: Served, make: Callable[..., Embedder]
) -> None:
    """Until that is closed: then it is a new one."""
    embed = make(server)
    some = pickle.dumps(embed)
    assert pickle.loads(some) is embed
    embed.close()
    with pickle.loads(some) as another:
        assert another is not embed
        assert pickle.loads(some) is another
        assert another(["a"]).shape == (1, 8)


def test_a_closed_one_does_not_stay_where_they_arrive(server: Served) -> None:
    """One that was closed just when it arrived is replaced by the next."""
    embed = Embedder(MODEL, server.url)
    some = pickle.dumps(embed)
    embed.close()
    pickling._unpickled[embed._key] = embed
    with pickle.loads(some) as arrived:
        assert arrived(["a"]).shape == (1, 8)
        assert pickle.loads(some) is arrived


def test_copies_that_arrive_are_not_kept_for_ever() -> None:
    """Of many embedders, a process keeps the ones that arrived last."""
    before = len(pickling._unpickled)
    some = [
        pickle.dumps(Embedder(MODEL, f"127.0.0.1:{port}"))
        for port in range(1, pickling._MAX_UNPICKLED + 6)
    ]
    gc.collect()
    copies = [pickle.loads(each) for each in some]
    assert before <= len(pickling._unpickled) == pickling._MAX_UNPICKLED
    assert pickle.loads(some[-1]) is copies[-1]
    for copy in copies:
        copy.close()
    assert len(pickling._unpickled) == 0


def test_equal_ones_are_the_same_bytes() -> None:
    """In any process, and again when they have arrived: caches that go by them find them."""
    arguments: dict[str, Any] = {
        "hosts": ["box-1", "box-2"], "text_column": "body", "batch_size": 7, "max_in_flight": [2, 3],
        "client_options": {"headers": {"X-Key": "k"}, "timeout": 3.5}, "options": {"num_ctx": 512},
    }  # fmt: skip
    first, second = (Embedder(MODEL, **arguments) for _ in range(2))
    bytes_ = pickle.dumps(first)
    assert pickle.dumps(second) == bytes_ == pickle.dumps(first)
    assert pickle.dumps(pickle.loads(bytes_)) == bytes_
    assert pickle.dumps(copy.copy(first)) == bytes_
    assert tokenize(first) == tokenize(second)
    assert pickle.dumps(Embedder(MODEL, **{**arguments, "batch_size": 8})) != bytes_
    program = (
        "import pickle; from ollama_sc.embedding import Embedder; "
        f"print(pickle.dumps(Embedder({MODEL!r}, **{arguments!r})).hex())"
    )
    env = {**os.environ, "PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", program], env=env, cwd=ROOT, capture_output=True)
    assert bytes.fromhex(done.stdout.decode()) == bytes_, done.stderr


def test_each_of_equal_ones_is_closed_at_the_end(programs: Programs, server: Served) -> None:
    """Though one key stands for them."""
    program = f"""
        import pickle
        from ollama_sc.embedding import Embedder
        some = [Embedder({MODEL!r}, {server.url!r}) for _ in range(3)]
        for embed in some:
            pickle.dumps(embed)
            embed(["a"])
    """
    done = programs.run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_one_that_cannot_be_pickled_works(make: Callable[..., Embedder], server: Served) -> None:
    """Its key is made only where it is pickled."""
    embed = make(server, on_progress=lambda progress: None)
    assert embed(["a"]).shape == (1, 8)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(embed)
