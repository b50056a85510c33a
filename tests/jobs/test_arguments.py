"""What cannot be right about a job, told where it is made or entered."""

from __future__ import annotations

import inspect
from typing import Any

import anyio
import pytest
from tests.jobs.support import MODEL, Watched
from tests.support import is_quiet

from ollama_sc import (
    AsyncClient,
    ClientClosedError,
    ConnectError,
    EmbedManyFields,
    ModelNotFoundError,
    RequestError,
)
from ollama_sc.embedding import embed_array, embed_many
from ollama_sc.testing import FakeOllama

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"batch_size": 0}, "batch_size must be above zero, not 0"),
        ({"batch_size": None}, "batch_size must be a whole number above zero, not None"),
        ({"batch_size": 2.0}, "batch_size must be a whole number, not 2.0"),
        ({"batch_chars": -1}, "batch_chars must be above zero"),
        ({"max_in_flight": 0}, "max_in_flight must be above zero"),
        ({"max_in_flight": "many"}, "max_in_flight must be a whole number, not 'many'"),
        ({"max_in_flight": [1, 2]}, "max_in_flight has 2 numbers for 1 servers"),
        ({"ordered": 1}, "ordered must be True or False"),
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'skip'"),
        ({"on_progress": 5}, "on_progress must be a function"),
        ({"attempts": 0}, "attempts must be above zero"),
        ({"retry_timeout": 0}, "retry_timeout must be above zero seconds"),
        ({"retry_timeout": True}, "retry_timeout must be above zero seconds"),
        ({"timeout": -1}, "timeout: connect must be above zero"),
        ({"truncate": "no"}, "truncate must be True or False"),
        ({"options": 5}, "options must be a mapping"),
        ({"keep_alive": True}, "keep_alive must be seconds"),
        ({"dimensions": "8"}, "dimensions must be a whole number"),
        ({"extra": {"input": "x"}}, "extra cannot decide on input"),
    ],
)
async def test_arguments_that_cannot_be_right(
    fake: FakeOllama, fields: dict[str, Any], match: str
) -> None:
    """A RequestError at the call, before any I/O."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match=match):
            client.embed_many(MODEL, ["a"], **fields)
        with pytest.raises(RequestError, match=match):
            await client.embed_array(MODEL, ["a"], **fields)
    assert not fake.requests


async def test_other_mistakes(fake: FakeOllama) -> None:
    """Names, clients, and the order of things."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(TypeError, match="unexpected keyword argument 'batchsize'"):
            client.embed_many(MODEL, ["a"], batchsize=3)  # type: ignore[call-arg]
        with pytest.raises(RequestError, match="the model must be a name"):
            client.embed_many("", ["a"])
        for clients in ([], [None]):
            with pytest.raises(RequestError, match="clients must be a list"):
                embed_many(clients=clients, model=MODEL, texts=["a"])  # type: ignore[arg-type]
        batches = client.embed_many(MODEL, ["a"])
        with pytest.raises(RequestError, match="inside of `async with"):
            await anext(batches)
        with pytest.raises(RequestError, match="inside of `async with"):
            batches.dimensions  # noqa: B018
        async with batches:
            assert repr(batches) == f"<Batches: embed_many, model '{MODEL}', running>"
            with pytest.raises(RequestError, match="only once"):
                await batches.__aenter__()
        assert repr(batches) == f"<Batches: embed_many, model '{MODEL}', ended>"


def test_the_signatures_show_every_field() -> None:
    """`help` and `inspect.signature` show the fields with their defaults."""
    for function in (AsyncClient.embed_many, AsyncClient.embed_array, embed_many, embed_array):
        parameters = inspect.signature(function).parameters
        assert set(EmbedManyFields.__annotations__) <= set(parameters)
        assert parameters["batch_size"].default == 64
        assert parameters["attempts"].default == 8
        assert parameters["truncate"].default is None


async def test_errors_of_the_model_come_out_as_they_are(fake: FakeOllama) -> None:
    """Where the job is entered, before a text is read."""
    source = Watched(3)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ModelNotFoundError, match="POST /api/embed, model 'no-such-model'"):
            async with client.embed_many("no-such-model", source):
                raise AssertionError
        with pytest.raises(ModelNotFoundError):
            await client.embed_array("no-such-model", ["a"])
        assert is_quiet(client)
    assert not source.read


async def test_a_job_needs_an_open_client(fake: FakeOllama) -> None:
    """The usual error, before anything is sent."""
    client = AsyncClient(fake.url)
    with pytest.raises(ClientClosedError):
        async with client.embed_many(MODEL, ["a"]):
            raise AssertionError
    async with client:
        batches = client.embed_many(MODEL, ["a"])
    with pytest.raises(ClientClosedError):
        await batches.__aenter__()


async def test_nobody_answers(anyio_backend: Any) -> None:
    """A server that cannot be reached at all is soon an error."""
    async with AsyncClient("127.0.0.1:1") as client:
        with pytest.raises(ConnectError), anyio.fail_after(20):
            await client.embed_array(MODEL, ["a"], attempts=1)
