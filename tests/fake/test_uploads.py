"""The fake's blobs: uploads in a stream, and answers before the body."""

from __future__ import annotations

import hashlib
import tracemalloc

import anyio
import pytest

from ollama_sc.testing import FakeOllama, Reply
from tests.fake.support import ask, client, connect, exchange, head_and_body, read_all
from tests.support import LONG

pytestmark = pytest.mark.anyio

DATA = b"GGUF" + bytes(range(256)) * 16
LARGE = 8 << 20
ZEROS = bytes(65536)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def head(digest: str, length: int | None, extra: str = "") -> bytes:
    framing = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return (
        f"POST /api/blobs/{digest} HTTP/1.1\r\nHost: h.local\r\n{framing}\r\n{extra}\r\n".encode()
    )


def large_digest() -> str:
    return digest_of(bytes(LARGE))


async def test_created_existing_missing():
    """404, then 201, then 200; HEAD has no body, its 404 the length of one."""
    async with FakeOllama() as fake, client(fake) as http:
        path = f"/api/blobs/{digest_of(DATA)}"
        missing = await http.head(path)
        created = await http.post(path, content=DATA)
        there = await http.head(path)
        existed = await http.post(path, content=DATA)
        assert fake.connections == 1
        assert fake.blobs[digest_of(DATA)].data == DATA
        assert fake.requests[1].body == DATA
    assert (missing.status_code, missing.content) == (404, b"")
    assert int(missing.headers["content-length"]) > 50
    assert (created.status_code, created.content) == (201, b"")
    assert there.status_code == 200
    assert "content-length" not in there.headers
    assert existed.status_code == 200
    assert "content-type" not in existed.headers


async def test_a_wrong_digest():
    """400 with the true digest, under which the bytes are kept; what is no digest is refused."""
    zero = "sha256:" + "0" * 64
    async with FakeOllama() as fake, client(fake) as http:
        wrong = await http.post(f"/api/blobs/{zero}", content=DATA)
        assert digest_of(DATA) in fake.blobs
        assert zero not in fake.blobs
        dashed = await http.post(f"/api/blobs/sha256-{'0' * 64}", content=DATA)
        for method in ("HEAD", "POST"):
            bad = await http.request(method, "/api/blobs/sha256:12")
            assert bad.status_code == 400
        assert bad.json() == {"error": "invalid digest format"}
        assert (await http.get(f"/api/blobs/{zero}")).headers["allow"] == "HEAD, POST"
        assert (await http.post("/api/blobs/a/b")).status_code == 404
    text = f'digest mismatch, expected "{zero}", got "{digest_of(DATA)}"'
    assert (wrong.status_code, wrong.json()) == (400, {"error": text})
    assert dashed.status_code == 400


async def test_an_existing_large_blob_is_answered_before_its_body():
    """The 200 comes while the body is not even begun; then the connection closes, unread."""
    async with FakeOllama() as fake:
        digest = fake.blobs.add(bytes(LARGE))
        for request in (head(digest, LARGE), head(digest, 10, "Expect: 100-continue\r\n")):
            async with await connect(fake, request) as stream:
                with anyio.fail_after(5):
                    reply, clean = await read_all(stream)
            assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nConnection: close\r\n" in reply
            assert clean
        assert [request.body_size for request in fake.requests] == [0, 0]


async def test_an_existing_large_blob_in_chunks():
    """The length is not known before: so much is read as Go reads, then the connection closes."""
    async with FakeOllama() as fake:
        digest = fake.blobs.add(bytes(LARGE))
        async with await connect(fake, head(digest, None)) as stream:
            chunk = b"%x\r\n%b\r\n" % (len(ZEROS), ZEROS)
            for _ in range(5):
                await stream.send(chunk)
            with anyio.fail_after(5):
                reply, _ = await read_all(stream)
        assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
        assert 256 << 10 < fake.requests[0].body_size <= 320 << 10


async def test_continue_is_sent_for_a_wanted_body_only():
    """100 for a blob that is missing, the final reply at once for one that is there."""
    async with (
        FakeOllama() as fake,
        await connect(fake, head(digest_of(DATA), len(DATA), "Expect: 100-continue\r\n")) as stream,
    ):
        assert await stream.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send(DATA)
        reply, _ = await head_and_body(stream)
        assert reply.startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_upload_takes_no_memory(chunked):
    """It is hashed while it comes; neither the record nor the store has its bytes.

    16 MiB, twice what is allowed; 64 in the long form.
    """
    size = (64 if LONG else 16) << 20
    digest = "sha256:" + hashlib.sha256(bytes(size)).hexdigest()
    tracemalloc.start()
    try:
        async with (
            FakeOllama() as fake,
            await connect(fake, head(digest, None if chunked else size)) as stream,
        ):
            piece = b"%x\r\n%b\r\n" % (len(ZEROS), ZEROS) if chunked else ZEROS
            await fake.wait_for_requests(1)
            for _ in range(size // len(ZEROS)):
                await stream.send(piece)
            if chunked:
                await stream.send(b"0\r\n\r\n")
            reply, _ = await head_and_body(stream)
            peak = tracemalloc.get_traced_memory()[1]
            assert fake.blobs[digest].data is None
            assert fake.blobs[digest].size == fake.requests[0].body_size == size
    finally:
        tracemalloc.stop()
    assert reply.startswith(b"HTTP/1.1 201 ")
    assert peak < 8 << 20


async def test_an_upload_that_breaks_off_leaves_nothing():
    """The record says how much had come and that the client left."""
    async with FakeOllama() as fake:
        async with await connect(fake, head(large_digest(), LARGE) + ZEROS):
            await fake.wait_for_requests(1)
        await fake.wait_all_closed()
        request = fake.requests[0]
        assert request.disconnected
        assert request.body_size == len(ZEROS)
        assert request.received_at is None
        assert large_digest() not in fake.blobs
        assert fake.in_flight == 0


async def test_a_scripted_reply_may_come_early():
    """`early` answers any path at the headers, and the connection closes."""
    async with FakeOllama() as fake:
        fake.script("/api/chat", Reply.error(401, "no").replace(early=True))
        request = b"POST /api/chat HTTP/1.1\r\nHost: h.local\r\nContent-Length: 99999999\r\n\r\n{"
        reply, _ = await exchange(fake, request)
        assert reply.startswith(b"HTTP/1.1 401 ")
        path = f"/api/blobs/{digest_of(DATA)}"
        fake.script(path, Reply.error(507, "full"))
        full = await ask(fake, path, DATA)
        assert (full.status_code, full.json()) == (507, {"error": "full"})
        assert digest_of(DATA) not in fake.blobs
        assert fake.in_flight == 0


async def test_a_server_that_stops_reading():
    """With silence at the headers the client's sends fill up, and leaving the fake ends it."""
    async with FakeOllama() as fake:
        fake.script(f"/api/blobs/{large_digest()}", Reply.silence().replace(early=True))
        async with await connect(fake, head(large_digest(), 1 << 30)) as stream:
            with anyio.fail_after(20):
                while True:
                    with anyio.move_on_after(0.1) as scope:
                        await stream.send(ZEROS)
                    if scope.cancelled_caught:
                        break
            assert scope.cancelled_caught


async def test_a_broken_chunk_refuses_the_upload():
    """What is no HTTP in the middle of an upload draws a 400, and the request counts as over."""
    async with FakeOllama() as fake:
        reply, _ = await exchange(fake, head(digest_of(DATA), None) + b"zz\r\n")
        assert reply.startswith(b"HTTP/1.1 400 ")
        assert fake.in_flight == 0


async def test_uploads_and_requests_may_be_pipelined():
    """Each is answered in its turn."""
    async with FakeOllama() as fake:
        get = b"GET /api/version HTTP/1.1\r\nHost: h.local\r\n\r\n"
        last = get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        upload = head(digest_of(DATA), len(DATA)) + DATA
        reply, _ = await exchange(fake, get + upload + last)
    found = [line.split()[1] for line in reply.splitlines() if b"HTTP/1.1 " in line]
    assert found == [b"200", b"201", b"200"]


async def test_a_defect_while_headers_are_read_is_raised_on_leaving(monkeypatch):
    """Nothing of the fake itself is taken for a broken request and swallowed."""

    class Failure(Exception):
        pass

    def broken(*_args):
        raise Failure

    with pytest.raises(Failure):
        async with FakeOllama() as fake:
            monkeypatch.setattr("ollama_sc.testing._endpoints.manage.begin_blob", broken)
            await exchange(fake, head(digest_of(DATA), len(DATA)) + DATA)


async def test_blobs_are_a_mapping():
    """The layers of models are blobs, too; any spelling of a digest finds one."""
    async with FakeOllama(models=["tiny"]) as fake:
        digest = fake.blobs.add(DATA)
        layers = [layer.digest for layer in fake.models.get("tiny").layers]
        assert list(fake.blobs) == [*layers, digest]
        assert len(fake.blobs) == 3
        assert digest.replace(":", "-").upper().replace("SHA", "sha") in fake.blobs
        fake.blobs.discard(digest)
        assert digest not in fake.blobs
