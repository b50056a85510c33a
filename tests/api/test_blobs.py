"""Files are sent to the server once, whole, and from nothing but regular files."""

from __future__ import annotations

import gc
import hashlib
import os
import weakref
from pathlib import Path
from typing import Any

import anyio
import pytest

from ollama_sc import AsyncClient, ConnectError, RequestError, ResponseError
from ollama_sc.testing import FakeOllama
from tests.support import is_quiet, plain_reply, raw_server

pytestmark = pytest.mark.anyio


# -- what is sent ----------------------------------------------------------------------------------


async def test_uploading_a_file(fake: FakeOllama, tmp_path: Path) -> None:
    """A file is hashed, asked for, sent with its length, told of, and sent only once."""
    data = bytes(range(256)) * 20_000
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    told: list[tuple[int, int]] = []
    async with AsyncClient(fake.url) as client:
        assert not await client.has_blob(digest)
        assert await client.create_blob(path, progress=lambda *sent: told.append(sent)) == digest
        assert await client.has_blob(digest)
        assert fake.requests[-2].headers["content-length"] == str(len(data))
        assert told[0] == (0, len(data))
        assert told[-1] == (len(data), len(data))
        before = len(fake.requests)
        assert await client.create_blob(str(path)) == digest
        assert await client.create_blob(data) == digest
        assert [request.method for request in fake.requests[before:]] == ["HEAD", "HEAD"]
        assert await client.create_blob(b"") == f"sha256:{hashlib.sha256(b'').hexdigest()}"
        assert is_quiet(client)


@pytest.mark.parametrize("digest", ["", "sha256:x", "sha256-" + "0" * 64, "0" * 64, None])
async def test_digests_that_cannot_be(fake: FakeOllama, digest: Any) -> None:
    """A digest of another form is a RequestError before anything is sent."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="digest"):
            await client.has_blob(digest)
    assert fake.connections == 0


async def test_a_file_that_cannot_be_read(fake: FakeOllama, tmp_path: Path) -> None:
    """A missing file or a folder is a RequestError that says so."""
    async with AsyncClient(fake.url) as client:
        for path in (tmp_path / "missing", tmp_path):
            with pytest.raises(RequestError, match=path.name):
                await client.create_blob(path)
        assert is_quiet(client)
    assert fake.connections == 0


@pytest.mark.parametrize("what", ["blob", "image"])
async def test_a_pipe_is_refused_and_not_waited_for(
    fake: FakeOllama, tmp_path: Path, what: str
) -> None:
    """A file that may never deliver is a RequestError: no thread waits for it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with AsyncClient(fake.url) as client:
        with anyio.fail_after(5), pytest.raises(RequestError, match="no regular file"):
            if what == "blob":
                await client.create_blob(pipe)
            else:
                await client.generate("llama3.2", "x", images=[pipe])


@pytest.mark.parametrize("source", [None, 5, "", object(), "a\0b"])
async def test_sources_that_cannot_be(fake: FakeOllama, source: Any) -> None:
    """What is neither a path nor bytes is a RequestError."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError):
            await client.create_blob(source)
        with pytest.raises(RequestError):
            await client.create_blob(b"x", progress=5)  # type: ignore[arg-type]
    assert fake.connections == 0


@pytest.mark.parametrize("change", [-1, 1])
async def test_a_file_that_changes_while_it_is_sent(
    fake: FakeOllama, tmp_path: Path, change: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that shrinks or grows after it was hashed is a RequestError."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)

    async def hashed(file: Any) -> tuple[str, int]:
        return "sha256:" + "0" * 64, 3_000_000 - change

    monkeypatch.setattr("ollama_sc._api.files.digest_of", hashed)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="changed"):
            await client.create_blob(path)
        assert is_quiet(client)


# -- progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [OSError, TimeoutError, KeyError, RequestError])
async def test_what_progress_raises(fake: FakeOllama, kind: Any) -> None:
    """The user's own exception arrives as it was raised."""
    mine = kind("mine")

    def progress(sent: int, size: int) -> None:
        raise mine

    async with AsyncClient(fake.url) as client:
        with pytest.raises(kind) as caught:
            await client.create_blob(b"x" * 100, progress=progress)
        assert caught.value is mine
        assert is_quiet(client)


async def test_what_an_upload_holds_can_be_collected(fake: FakeOllama) -> None:
    """A `progress` that remembers its error, whose traceback leads back to it, does not stay."""

    class Remembers:
        def __call__(self, sent: int, size: int) -> None:
            self.error = OSError("mine")
            raise self.error

    async with AsyncClient(fake.url) as client:
        progress = Remembers()
        alive = weakref.ref(progress)
        with pytest.raises(OSError, match="mine"):
            await client.create_blob(b"x" * 100, progress=progress)
        del progress
        gc.collect()
        assert alive() is None


# -- servers that do not take all of it ------------------------------------------------------------


async def test_a_server_that_answers_before_the_upload_ends(anyio_backend: Any) -> None:
    """Whether the early answer gets through or only the hanging up does: the blob is there."""
    asked = 0

    async def handle(stream: Any) -> None:
        nonlocal asked
        while request := await head(stream):
            asked += 1
            if request.startswith(b"HEAD"):
                status = b"404 Not Found" if asked == 1 else b"200 OK"
                await stream.send(b"HTTP/1.1 %s\r\nContent-Length: 0\r\n\r\n" % status)
            else:
                await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                return

    async def head(stream: Any) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            try:
                data += await stream.receive(1024)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return b""
        return data

    async with raw_server(handle) as url, AsyncClient(url) as client:
        assert (await client.create_blob(b"x" * 20_000_000)).startswith("sha256:")
        assert is_quiet(client)


async def test_an_upload_to_a_server_that_goes_away(anyio_backend: Any) -> None:
    """A connection that breaks while a file is sent is a ConnectError."""

    async def handle(stream: Any) -> None:
        request = await stream.receive(4096)
        if request.startswith(b"HEAD"):
            await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            await stream.receive(4096)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        with pytest.raises(ConnectError):
            await client.create_blob(b"x" * 20_000_000)
        assert is_quiet(client)


@pytest.mark.parametrize("closes", [False, True])
async def test_an_early_refusal_of_an_upload(anyio_backend: Any, closes: bool) -> None:
    """A server that refuses in the middle of an upload is heard, and asked only once."""
    seen: list[bytes] = []

    async def handle(stream: Any) -> None:
        request = await stream.receive(4096)
        seen.append(request.split()[0])
        if request.startswith(b"HEAD"):
            await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            request = await stream.receive(4096)
            seen.append(request.split()[0])
        await stream.send(plain_reply(b'{"error":"too big"}', "413 Too Large"))
        if not closes:
            await anyio.sleep(0.2)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        with pytest.raises(ResponseError, match="too big") as caught:
            await client.create_blob(b"x" * 30_000_000)
        assert caught.value.status_code == 413
        assert is_quiet(client)
    assert seen.count(b"POST") == 1


async def test_a_broken_upload_is_not_begun_again(anyio_backend: Any) -> None:
    """An upload whose connection breaks is an error; its bytes are not sent twice."""
    posts = 0

    async def handle(stream: Any) -> None:
        nonlocal posts
        while request := await stream.receive(4096):
            if request.startswith(b"POST"):
                posts += 1
                await stream.receive(65536)
                return
            await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    told: list[int] = []
    async with raw_server(handle) as url, AsyncClient(url) as client:
        with pytest.raises(ConnectError):
            await client.create_blob(
                b"x" * 30_000_000, progress=lambda sent, size: told.append(sent)
            )
    assert posts == 1
    assert told == sorted(told)
