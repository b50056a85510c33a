"""What adversaries found in embedding jobs and their command, each held by a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cli_support import COMMAND, MODEL, embed, environment, table
from conftest import is_quiet

from ollama_sc import AsyncClient, RequestError
from ollama_sc.embedding import _retries, embed_many
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio
QUICK = "/v1/embeddings"


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try comes soon."""
    monkeypatch.setattr(_retries, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(_retries, "LONGEST_WAIT", 0.02)
    monkeypatch.setattr(_retries, "JITTER", 0.005)


def texts(count: int) -> list[str]:
    return [f"text {number}" for number in range(count)]


# -- how a job ends ----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["texts", "on_progress"])
async def test_what_ends_the_program_closes_the_client_at_once(
    fake: FakeOllama, where: str
) -> None:
    """A BaseException of the user's code in a job leaves the client, with its connections closed."""

    class Death(BaseException):
        pass

    def die(*_: object) -> None:
        raise Death

    def some() -> Any:
        yield from texts(35)
        if where == "texts":
            die()

    with anyio.fail_after(5):
        with pytest.raises(Death):
            async with AsyncClient(fake.url) as client:
                on_progress = die if where == "on_progress" else None
                async with client.embed_many(
                    MODEL, some(), batch_size=10, on_progress=on_progress
                ) as batches:
                    async for _ in batches:
                        pass
        await fake.wait_all_closed()


# -- arguments ---------------------------------------------------------------------------------------


async def test_clients_that_are_no_list_are_refused(fake: FakeOllama) -> None:
    """A single client, or an iterator of some, draws the same clear error as an empty list."""
    async with AsyncClient(fake.url) as client:
        for clients in (client, iter([client]), {client}, None, []):
            with pytest.raises(RequestError, match="clients must be a list"):
                embed_many(clients=clients, model=MODEL, texts=["a"])  # type: ignore[arg-type]


async def test_an_on_progress_that_would_have_to_be_awaited_is_refused(fake: FakeOllama) -> None:
    """A coroutine function draws an error before any I/O: its coroutines would be dropped."""

    async def on_progress(_: object) -> None: ...

    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="plain function"):
            client.embed_many(MODEL, ["a"], on_progress=on_progress)
    assert not fake.requests
