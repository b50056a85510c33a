"""An error object with status 200 is an error, whatever the reply is read into."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ollama_sc import AsyncClient, ResponseError, Timeouts
from ollama_sc._api.models import _status_alone
from ollama_sc._http.messages import Request
from ollama_sc.testing import FakeOllama, Reply
from tests.support import is_quiet, plain_reply, raw_server, read_request

pytestmark = pytest.mark.anyio

ERRORS = ["boom", {"message": "boom"}, {"code": 5}, ["boom"], 5, False, ""]
TYPES = [None, bytes, Any, dict, "left out"]


@pytest.mark.parametrize("error", ERRORS, ids=str)
@pytest.mark.parametrize("type_", TYPES, ids=str)
async def test_a_request_of_any_type_raises_it(fake: FakeOllama, type_: Any, error: Any) -> None:
    """It closes its connection like every reply that fails, and the next call is fine."""
    fake.always("/api/version", Reply.json({"error": error, "more": 1}))
    options: Any = {} if type_ == "left out" else {"type": type_}
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.request("GET", "/api/version", **options)
        assert caught.value.status_code == 200
        assert caught.value.request == "GET /api/version"
        assert client.statistics().open == 0
        assert (await client.list()).models
        assert is_quiet(client)


BODIES = [b"", b"{}", b"[]", b'{"error":null}', b'"error"', b'["error"]', b'{"a":{"error":1}}']


@pytest.mark.parametrize("body", [*BODIES, b'\x89PNG "error": 1', b'{"error":', b"\xff"])
async def test_what_is_no_error_object_is_none(anyio_backend: Any, body: bytes) -> None:
    """A body as it is, or none of it."""

    async def handle(stream: Any) -> None:
        while await read_request(stream):
            await stream.send(plain_reply(body))

    async with raw_server(handle) as url, AsyncClient(url) as client:
        with anyio.fail_after(10):
            assert await client.request("GET", "/x", type=bytes) == body
            assert await client.request("GET", "/x", type=None) is None  # type: ignore[func-returns-value]


async def test_an_upload_that_ends_in_an_error_object(fake: FakeOllama) -> None:
    """A blob that the server could not keep is not there."""
    path = f"/api/blobs/sha256:{sha256(b'x').hexdigest()}"
    fake.script(path, Reply.empty(404), Reply.json({"error": "no space left on device"}))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError, match="no space left"):
            await client.create_blob(b"x")


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.binary(max_size=40))
def test_a_body_that_does_not_matter(body: bytes) -> None:
    """Whatever stands in it, where the status says it all nothing of its own is raised."""
    try:
        _status_alone(body, 200, Request("POST", "/x", "POST /x"))
    except ResponseError:
        assert b'"error"' in body


async def test_a_reply_in_tiny_reads_is_whole(anyio_backend: Any) -> None:
    """Blocks that are joined half-way are the same bytes."""
    body = bytes(range(32, 127)) * 10
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def handle(stream: Any) -> None:
        while await read_request(stream):
            await stream.send(head)
            for byte in body:
                await stream.send(bytes([byte]))
                await anyio.lowlevel.checkpoint()

    async with raw_server(handle) as url, AsyncClient(url) as client:
        for timeout in (None, Timeouts(idle=5)):
            with anyio.fail_after(10):
                found = await client.request("GET", "/x", type=bytes, timeout=timeout)
            assert found == body
