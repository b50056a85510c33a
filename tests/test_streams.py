"""What a stream promises its consumer: lines 9 to 12 of the contract."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import pytest
from conftest import (
    MESSAGES,
    is_quiet,
    plain_reply,
    raw_server,
    read_request,
    recorded_body,
    recording,
    replying,
)
from test_life import exhaust

from ollama_sc import (
    AbortError,
    AsyncClient,
    ChatResponse,
    IncompleteStreamError,
    OllamaError,
    ProtocolError,
    RequestTimeout,
    ResponseError,
    Stream,
    Timeouts,
)
from ollama_sc import _stream as stream_module
from ollama_sc.testing import FakeOllama, Reply

pytestmark = pytest.mark.anyio
# asyncio's debug mode makes tests of many thousand steps too slow.
no_debug = pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])


async def chat_stream(client: AsyncClient, **fields: Any) -> Stream[ChatResponse]:
    stream: Stream[ChatResponse] = await client.chat("llama3.2", MESSAGES, stream=True, **fields)
    return stream


# -- the parts and their end -----------------------------------------------------------------------


async def test_a_recorded_stream_arrives_whole(anyio_backend: Any) -> None:
    """A real server's stream gives its parts, and joined they are its own single reply."""
    single = ChatResponse.__name__ and recorded_body("chat-single")
    import msgspec  # noqa: PLC0415

    expected = msgspec.json.decode(single)["message"]
    async with raw_server(replying(recording("chat-stream"))) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            parts = [part async for part in stream]
        assert len(parts) == 25
        assert [part.done for part in parts] == [False] * 24 + [True]
        whole = stream.result()
        assert whole.complete
        assert whole.message.to_dict() == expected
        assert whole.eval_count == 24
        assert whole.done_reason == "length"


async def test_iter_text_gives_the_text_alone(anyio_backend: Any) -> None:
    """Nothing but text, and no empty piece."""
    reply = recording("generate-stream")
    async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
        async with await client.generate("m", "The sky is", stream=True) as stream:
            pieces = [text async for text in stream.iter_text()]
        assert all(pieces)
        assert len(pieces) == 24
        assert "".join(pieces) == stream.result().response


async def test_batches_are_what_each_read_brought(fake: FakeOllama) -> None:
    """One list for each network read, all parts once and in order."""
    lines = [_part(str(number)) for number in range(50)] + [_part("", done=True)]
    fake.always("/api/chat", Reply.stream(lines).but(flush=False))
    async with AsyncClient(fake.url) as client:
        async with await chat_stream(client) as stream:
            batches = [batch async for batch in stream.batches()]
        assert all(batches)
        assert len(batches) < 10
        assert [p.text for batch in batches for p in batch] == [*map(str, range(50)), ""]


async def test_the_ways_of_iterating_can_be_mixed(fake: FakeOllama) -> None:
    """What one iterator has not given, the next gives."""
    lines = [_part(str(number)) for number in range(9)] + [_part("", done=True)]
    fake.always("/api/chat", Reply.stream(lines).but(flush=False))
    async with AsyncClient(fake.url) as client, await chat_stream(client) as stream:
        first = (await anext(stream)).text
        second = await anext(stream.iter_text())
        rest = [part.text async for batch in stream.batches() for part in batch]
        assert [first, second, *rest] == [*map(str, range(9)), ""]


async def test_the_last_part_comes_at_once(anyio_backend: Any) -> None:
    """The terminal object is delivered although the HTTP message has not ended."""

    async def handle(stream: Any) -> None:
        await read_request(stream)
        body = recording("chat-stream")
        await stream.send(body[: -len(b"0\r\n\r\n")])
        await anyio.sleep_forever()

    async with raw_server(handle) as url, AsyncClient(url) as client:
        stream = await chat_stream(client)
        while not (await anext(stream)).done:
            pass
        assert client.abort() == 0, "a stream whose terminal object has arrived is finished"
        with anyio.fail_after(1), pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert client.statistics().open == 0
        assert stream.result().complete


async def test_a_message_that_ends_a_little_later_gives_its_connection_back(
    anyio_backend: Any,
) -> None:
    """The end of the HTTP message in a packet of its own does not cost the connection."""
    body = recording("chat-stream").replace(b"Connection: close\r\n", b"")
    connections = 0

    async def handle(stream: Any) -> None:
        nonlocal connections
        connections += 1
        while await read_request(stream):
            await stream.send(body[: -len(b"0\r\n\r\n")])
            await anyio.sleep(0.005)
            await stream.send(b"0\r\n\r\n")

    async with raw_server(handle) as url, AsyncClient(url) as client:
        for _ in range(5):
            stream = await chat_stream(client)
            async for _ in stream:
                pass
        assert connections == 1


async def test_a_finished_stream_keeps_its_parts(fake: FakeOllama) -> None:
    """Abort, close and the end of the client discard nothing of a reply that is whole."""
    async with AsyncClient(fake.url) as client:
        stream = await client.chat("llama3.2", MESSAGES, stream=True, options={"num_predict": 5})
        with anyio.fail_after(5):
            while client.statistics().in_flight:
                await anyio.sleep(0.001)
        assert client.abort() == 0
        assert not stream.abort()
        await stream.aclose()
    parts = [part async for part in stream]
    assert parts[-1].done
    assert len(parts) == 6


async def test_the_end_is_the_end(fake: FakeOllama) -> None:
    """After its end a stream goes on being at its end."""
    async with AsyncClient(fake.url) as client:
        stream = await chat_stream(client)
        assert [part async for part in stream]
        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
        assert [text async for text in stream.iter_text()] == []
        assert [batch async for batch in stream.batches()] == []


# -- 9: incomplete ---------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut", "reset", "clean end", "inside a line"])
async def test_a_stream_without_its_end_is_incomplete(fake: FakeOllama, fault: str) -> None:
    """Whatever way a stream breaks off, its parts come first and what arrived stays readable."""
    lines = [_part("a"), _part("b"), _part("", done=True)]
    reply = {
        "cut": Reply.stream(lines).but(cut_after=2),
        "reset": Reply.stream(lines).but(reset_after=2),
        "clean end": Reply.stream(lines[:2]),
        "inside a line": Reply.stream([*lines[:2], b'{"model":"m","mess'], newline_at_end=False),
    }[fault]
    fake.always("/api/chat", reply)
    async with AsyncClient(fake.url) as client:
        stream = await chat_stream(client)
        texts: list[str] = []
        with pytest.raises(IncompleteStreamError) as caught:
            async for part in stream:
                texts.append(part.text)
        assert texts == ["a", "b"]
        assert caught.value.partial.message.content == "ab"
        assert not caught.value.partial.complete
        assert stream.result().message.content == "ab"
        assert not stream.result().complete
        assert (caught.value.__cause__ is not None) == (fault in ("cut", "reset"))
        assert is_quiet(client)


@pytest.mark.parametrize("call", ["chat", "generate"])
async def test_a_single_reply_that_is_not_done_is_incomplete(fake: FakeOllama, call: str) -> None:
    """`done: false` in a reply in one piece is the same error, with what arrived."""
    body = {"model": "m", "created_at": "", "response": "a", "message": _message("a")}
    fake.always("/api/chat", Reply.json({**body, "done": False}))
    fake.always("/api/generate", Reply.json({**body, "done": False}))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(IncompleteStreamError) as caught:
            if call == "chat":
                await client.chat("llama3.2", MESSAGES)
            else:
                await client.generate("llama3.2", "x")
        assert caught.value.partial.text == "a"


@no_debug
async def test_cut_after_every_byte(anyio_backend: Any) -> None:
    """A recorded stream cut at every byte: a prefix of its parts, then the right exception."""
    reply = recording("chat-stream-logprobs")
    head = reply.index(b"\r\n\r\n") + 4
    terminal = reply.rindex(b"}") + 1
    position = iter(range(len(reply) + 1))

    async def handle(stream: Any) -> None:
        where = int((await read_request(stream)).partition(b"x-cut: ")[2].split(b"\r\n")[0])
        await stream.send(reply[:where])

    async with raw_server(handle) as url, AsyncClient(url) as whole:
        async with await _cut_stream(whole, len(reply)) as stream:
            everything = [part async for part in stream]

        async def worker() -> None:
            async with AsyncClient(url, verify=False) as client:
                for where in position:
                    await _check_cut(client, where, head, terminal, everything)

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(worker)
        assert next(position, None) is None


async def _cut_stream(client: AsyncClient, where: int) -> Stream[ChatResponse]:
    client._shared.http._client.headers["x-cut"] = str(where)
    client._shared.http._header_lines.clear()
    return await chat_stream(client)


async def _check_cut(
    client: AsyncClient, where: int, head: int, terminal: int, everything: list[ChatResponse]
) -> None:
    parts: list[ChatResponse] = []
    error: OllamaError | None = None
    try:
        async with await _cut_stream(client, where) as stream:
            async for part in stream:
                parts.append(part)
    except OllamaError as found:
        error = found
    assert parts == everything[: len(parts)], where
    if where < head:
        assert isinstance(error, ConnectionError), (where, error)
        assert parts == []
    elif where < terminal:
        assert isinstance(error, IncompleteStreamError), (where, error)
        assert len(parts) < len(everything)
        assert error.partial.message.content == "".join(part.text for part in parts)
    else:
        assert error is None, (where, error)
        assert parts == everything
    assert is_quiet(client)


@no_debug
async def test_split_at_every_byte(anyio_backend: Any) -> None:
    """A recorded stream in two packets, split at every 7th byte, is the same stream."""
    reply = recording("chat-stream-unicode")
    positions = iter(range(1, len(reply), 7))

    async def handle(stream: Any) -> None:
        where = int((await read_request(stream)).partition(b"x-cut: ")[2].split(b"\r\n")[0])
        await stream.send(reply[:where])
        await anyio.sleep(0.001)
        await stream.send(reply[where:])

    async with raw_server(handle) as url, AsyncClient(url) as whole:
        async with await _cut_stream(whole, len(reply)) as stream:
            everything = [part async for part in stream]
        assert stream.result().message.content.startswith("Repeat exactly: <b>é漢字🙂 & \u2028")

        async def worker() -> None:
            async with AsyncClient(url, verify=False) as client:
                for where in positions:
                    async with await _cut_stream(client, where) as stream:
                        assert [part async for part in stream] == everything, where

        async with anyio.create_task_group() as tasks:
            for _ in range(16):
                tasks.start_soon(worker)


async def test_byte_by_byte(anyio_backend: Any) -> None:
    """A stream that drips in single bytes is the same stream."""
    reply = recording("chat-stream-logprobs")

    async def handle(stream: Any) -> None:
        await read_request(stream)
        for byte in reply:
            await stream.send(bytes([byte]))

    async with raw_server(handle) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            parts = [part async for part in stream]
        assert len(parts) == 5
        assert [logprob.token for logprob in stream.result().logprobs or []] == [
            "Why",
            " is",
            " the",
            " sky",
        ]


# -- 10: back-pressure ------------------------------------------------------------------------------


async def test_a_slow_consumer_slows_the_server(anyio_backend: Any) -> None:
    """What waits is bounded by number and by bytes, and the server is made to wait."""
    sent = 0
    line = b'{"model":"m","created_at":"","message":{"role":"assistant","content":"%d"},"done":false}\n'

    async def handle(stream: Any) -> None:
        nonlocal sent
        await read_request(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n")
        while True:
            block = b"".join(line % (sent + number) for number in range(100))
            await stream.send(block)
            sent += 100

    async with raw_server(handle) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            before = -1
            while sent != before:  # until the server is stuck
                before = sent
                await anyio.sleep(0.1)
            call = stream._call
            assert call._waiting_parts >= stream_module.MAX_WAITING_PARTS
            assert call._waiting_parts < stream_module.MAX_WAITING_PARTS + 2500
            assert call._waiting_bytes < stream_module.MAX_WAITING_BYTES + 256 * 1024
            stuck = sent
            for number in range(stuck + 5000):
                assert int((await anext(stream)).text) == number
            assert sent > stuck


async def test_big_parts_are_bounded_by_bytes(anyio_backend: Any) -> None:
    """A few huge parts stop the reader as many small ones do."""
    part = b'{"model":"m","message":{"role":"assistant","content":"%s"},"done":false}\n' % (
        b"x" * 300_000
    )
    sent = 0

    async def handle(stream: Any) -> None:
        nonlocal sent
        await read_request(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(part)
            sent += 1

    async with raw_server(handle) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            before = -1
            while sent != before:
                before = sent
                await anyio.sleep(0.1)
            assert stream._call._waiting_parts < 20
            for _ in range(sent + 20):
                assert len((await anext(stream)).text) == 300_000
            # The server goes on: closing must not wait for it to pause.
            start = anyio.current_time()
            await stream.aclose()
            assert anyio.current_time() - start < 3


@pytest.fixture
def flood(request: pytest.FixtureRequest) -> Iterator[str]:
    """A server of its own process, which sends parts of a stream as fast as it can."""
    characters, at_once = request.param
    part = b'{"model":"m","message":{"role":"assistant","content":"%s"},"done":false}\n' % (
        b"x" * characters
    )
    with subprocess.Popen(
        [sys.executable, "-c", FLOOD, (part * at_once).decode()], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        server.kill()


FLOOD = """
import socket, sys, threading

def flood(connection):
    try:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
        while True:
            connection.sendall(data)
    except OSError:
        pass

data = sys.argv[1].encode()
with socket.create_server(("127.0.0.1", 0)) as server:
    print(server.getsockname()[1], flush=True)
    while True:
        threading.Thread(target=flood, args=[server.accept()[0]], daemon=True).start()
"""


@no_debug
@pytest.mark.parametrize("flood", [(10, 1), (10, 20), (30_000, 1)], indirect=True, ids=str)
async def test_a_flood_does_not_drown_a_cancellation(flood: str) -> None:
    """Whoever is cancelled ends, though the next part is always there."""
    async with AsyncClient(flood) as client:
        for _ in range(5):
            with anyio.fail_after(3), anyio.move_on_after(0.1) as scope:
                async with await chat_stream(client) as stream:
                    await exhaust(stream)
            assert scope.cancelled_caught
            async with await chat_stream(client) as stream:
                with anyio.fail_after(3), anyio.move_on_after(0.1) as scope:
                    await exhaust(stream)
                assert scope.cancelled_caught
                with anyio.fail_after(3):
                    await anext(stream)
                    client.abort()
                    await stream._call.ended.wait()
            with anyio.fail_after(3), pytest.raises(RequestTimeout):
                await exhaust(await chat_stream(client, timeout=Timeouts(total=0.1)))


async def test_abort_wakes_a_reader_that_is_held_back(fake: FakeOllama) -> None:
    """A request whose consumer takes nothing ends as promptly as any other."""
    fake.always("/api/chat", Reply.default())
    async with FakeOllama(tokens=200_000) as server, AsyncClient(server.url) as client:
        stream = await chat_stream(client)
        with anyio.fail_after(10):
            while stream._call._room is None:
                await anyio.sleep(0.001)
        assert client.abort() == 1
        with anyio.fail_after(1):
            await server.requests[0].wait_closed()
        with pytest.raises(AbortError):
            await anext(stream)
        assert stream.result().message.content


# -- 11: dropped and cancelled ----------------------------------------------------------------------


async def test_a_dropped_stream_is_aborted_with_a_warning(fake: FakeOllama) -> None:
    """A stream that nobody holds any more ends its request and says so."""
    async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
        stream: Any = await chat_stream(client)
        await anext(stream)
        with pytest.warns(ResourceWarning, match="POST /api/chat.*without being closed"):
            del stream
            gc.collect()
        with anyio.fail_after(5):
            await slow.requests[0].wait_closed()
            while client.statistics().in_flight:
                await anyio.sleep(0.001)
        assert is_quiet(client)


async def test_a_stream_dropped_in_another_thread_is_aborted(fake: FakeOllama) -> None:
    """The garbage collector can run in any thread."""
    async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
        holder: list[Any] = [await chat_stream(client)]

        def drop() -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                holder.clear()
                gc.collect()

        thread = threading.Thread(target=drop)
        thread.start()
        thread.join()
        with anyio.fail_after(5):
            await slow.requests[0].wait_closed()
            while client.statistics().in_flight:
                await anyio.sleep(0.001)
        assert is_quiet(client)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_dropped_after_its_loop_is_silent(backend: str) -> None:
    """A stream that outlives its loop has ended with its client: nothing to warn of."""

    async def main() -> Any:
        async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
            return await chat_stream(client)

    stream = anyio.run(main, backend=backend)
    del stream
    gc.collect()


async def test_a_cancelled_iteration_loses_no_part(anyio_backend: Any) -> None:
    """However often an iteration is cancelled, every part comes once and in order."""
    lines = [_part(str(number)) for number in range(200)] + [_part("", done=True)]
    async with FakeOllama() as server:
        server.always("/api/chat", Reply.stream(lines).but(rate=2000))
        async with AsyncClient(server.url) as client, await chat_stream(client) as stream:
            texts: list[str] = []
            cancelled = 0
            while not texts or texts[-1] != "":
                with anyio.CancelScope() as scope:
                    if len(texts) % 3 == cancelled % 3:
                        scope.cancel()
                    texts.append((await anext(stream)).text)
                if scope.cancelled_caught:
                    cancelled += 1
                    with anyio.move_on_after(0.0005):
                        texts.append((await anext(stream)).text)
            assert texts == [*map(str, range(200)), ""]
            assert cancelled > 10


async def test_a_stream_dropped_after_a_cancelled_iteration_is_silent(
    anyio_backend: Any,
) -> None:
    """Whoever is cancelled inside an iteration had no chance to close: no warning."""
    async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:

        async def consume() -> None:
            async for _ in await chat_stream(client):
                pass

        with anyio.move_on_after(0.1) as scope:
            await consume()
        assert scope.cancelled_caught
        gc.collect()
        with anyio.fail_after(5):
            await slow.requests[0].wait_closed()
            while client.statistics().in_flight:
                await anyio.sleep(0.001)


async def test_two_tasks_cannot_iterate_one_stream(anyio_backend: Any) -> None:
    """The second one is told that the stream is busy, and the first goes on."""
    async with FakeOllama() as server, AsyncClient(server.url) as client:
        server.always("/api/chat", Reply.default().but(stall_after=1))
        async with await chat_stream(client) as stream, anyio.create_task_group() as tasks:
            got: list[str] = []

            async def consume() -> None:
                with pytest.raises(AbortError):
                    async for part in stream:
                        got.append(part.text)

            tasks.start_soon(consume)
            while not got:
                await anyio.sleep(0.001)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await anext(stream)
            stream.abort()
        assert len(got) == 1


@no_debug
async def test_other_tasks_run_while_parts_wait(fake: FakeOllama) -> None:
    """Iterating what is already here lets other tasks run at least once for each read."""
    lines = [_part(str(number)) for number in range(5000)] + [_part("", done=True)]
    fake.always("/api/chat", Reply.stream(lines).but(flush=False))
    rounds = 0

    async def other() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await anyio.lowlevel.checkpoint()

    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        async with await chat_stream(client) as stream:
            batches = [batch async for batch in stream.batches()]
        tasks.start_soon(other)
        async with await chat_stream(client) as stream:
            async for _ in stream:
                pass
        tasks.cancel_scope.cancel()
    assert rounds >= len(batches) > 1


async def test_closing_twice_and_after_the_end(fake: FakeOllama) -> None:
    """aclose is safe at any time; iterating afterwards says that the stream was closed."""
    async with AsyncClient(fake.url) as client:
        stream = await chat_stream(client)
        await stream.aclose()
        await stream.aclose()
        if not stream.result().complete:  # it had not arrived whole
            with pytest.raises(AbortError, match="closed"):
                await anext(stream)
        async with await chat_stream(client) as stream:
            async for _ in stream:
                pass
        await stream.aclose()


async def test_closing_under_cancellation_still_closes(anyio_backend: Any) -> None:
    """A cancelled aclose has done its work when it returns or raises."""
    async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
        stream = await chat_stream(client)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await stream.aclose()
        assert is_quiet(client)
        assert client.statistics().open == 0


async def test_stream_abort_ends_one(anyio_backend: Any) -> None:
    """stream.abort ends its own request, once, and no other."""
    async with FakeOllama(token_rate=20, tokens=1000) as slow, AsyncClient(slow.url) as client:
        async with await chat_stream(client) as one, await chat_stream(client) as other:
            await anext(one)
            assert one.abort("enough")
            assert not one.abort()
            with pytest.raises(AbortError) as caught:
                await anext(one)
            assert caught.value.reason == "enough"
            assert await anext(other)


async def test_a_streams_repr_says_what_and_how(fake: FakeOllama) -> None:
    """The repr names type, endpoint, model and phase."""
    async with AsyncClient(fake.url) as client:
        async with await chat_stream(client) as stream:
            assert "ChatResponse" in repr(stream)
            assert "POST /api/chat, model 'llama3.2'" in repr(stream)
        assert "ended" in repr(stream)


# -- 12: bytes --------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"


@pytest.mark.parametrize(
    "between",
    [b"\n", b"\r\n", b"\n\n\n", b"\n \t \n", b"\r\n\r\n"],
    ids=["lf", "crlf", "blank lines", "white space", "blank crlf"],
)
@pytest.mark.parametrize("last", [b"", b"\n", b"\r\n"], ids=["no newline", "lf", "crlf"])
async def test_lines(anyio_backend: Any, between: bytes, last: bytes) -> None:
    """Lines end at a line feed; blank ones do not count; the last one needs no end."""
    texts = ["a\u0085b", "\u2028", "c\u2029\x0b\x0c", "é"]
    lines = [_encoded(text) for text in texts] + [_encoded("", done=True)]
    reply = HEAD + b"\r\n" + between.join(lines) + last
    async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            assert [part.text async for part in stream] == [*texts, ""]


@pytest.mark.parametrize(
    "after", [b"garbage", b"\n{}", b'{"error":"late"}\n', b"\xff\xfe", b"x" * 1000]
)
@pytest.mark.parametrize("where", ["same packet", "next packet"])
@pytest.mark.parametrize(
    "options",
    [{}, {"auth": ("user", "password")}, {"transport": httpx.AsyncHTTPTransport}],
    ids=["short", "httpx", "foreign"],
)
async def test_bytes_after_the_terminal_object(
    anyio_backend: Any, after: bytes, where: str, options: dict[str, Any]
) -> None:
    """They are ignored, and their connection is not used again."""
    connections = 0
    body = _encoded("a") + b"\n" + _encoded("", done=True) + b"\n"
    head = HEAD + b"Content-Length: %d\r\n\r\n" % (len(body) + len(after))

    async def handle(stream: Any) -> None:
        nonlocal connections
        connections += 1
        while await read_request(stream):
            if where == "same packet":
                await stream.send(head + body + after)
            else:
                await stream.send(head + body)
                await anyio.sleep(0.005)
                await stream.send(after)

    if "transport" in options:
        options = {"transport": options["transport"](verify=False)}
    async with raw_server(handle) as url, AsyncClient(url, **options) as client:
        for number in range(1, 3):
            async with await chat_stream(client) as stream:
                assert [part.text async for part in stream] == ["a", ""]
            assert stream.result().complete
            assert client.statistics().open == 0
            assert connections == number


async def test_a_single_object_in_place_of_a_stream(fake: FakeOllama) -> None:
    """Load and unload replies are one JSON object, also where a stream was asked for."""
    async with AsyncClient(fake.url) as client:
        async with await client.chat("llama3.2", stream=True) as stream:
            parts = [part async for part in stream]
        assert [(part.done, part.done_reason) for part in parts] == [(True, "load")]
        async with await client.generate("llama3.2", keep_alive=0, stream=True) as stream:
            assert [part.done_reason async for part in stream] == ["unload"]
    async with raw_server(replying(recording("chat-load"))) as url, AsyncClient(url) as client:
        async with await chat_stream(client) as stream:
            assert [part.done_reason async for part in stream] == ["load"]


@pytest.mark.parametrize("parts_before", [0, 1, 3])
async def test_an_error_inside_a_stream(fake: FakeOllama, parts_before: int) -> None:
    """It arrives after the parts before it, as ResponseError, though the status was 200."""
    lines: list[Any] = [_part(str(number)) for number in range(parts_before)]
    fake.always("/api/chat", Reply.stream([*lines, {"error": "the runner has stopped"}]))
    async with AsyncClient(fake.url) as client:
        stream = await chat_stream(client)
        texts: list[str] = []
        with pytest.raises(ResponseError, match="the runner has stopped") as caught:
            async for part in stream:
                texts.append(part.text)
        assert texts == [str(number) for number in range(parts_before)]
        assert caught.value.status_code == 200
        assert caught.value.error == "the runner has stopped"
        assert "/api/chat" in str(caught.value)
        assert "llama3.2" in str(caught.value)
        assert is_quiet(client)


async def test_an_error_object_in_a_200_reply_in_one_piece(fake: FakeOllama) -> None:
    """An error object is an error on every path."""
    for path in ("/api/chat", "/api/embed", "/api/tags", "/api/version"):
        fake.always(path, Reply.json({"error": "no"}))
    async with AsyncClient(fake.url) as client:
        for call in (
            client.chat("llama3.2", MESSAGES),
            client.embed("nomic-embed-text", "x"),
            client.list(),
            client.version(),
            client.request("GET", "/api/version"),
        ):
            with pytest.raises(ResponseError, match="no"):
                await call


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Welcome to the proxy</body></html>\n",
        b"garbage\n",
        b"42\n",
        b"[1]\n",
        b'"x"\n',
    ],
)
async def test_what_is_no_object_of_the_api(anyio_backend: Any, body: bytes) -> None:
    """A stream of something else is a ProtocolError that shows its beginning."""
    for reply in (HEAD + b"\r\n" + body, plain_reply(body)):
        async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
            stream = await chat_stream(client)
            with pytest.raises(ProtocolError) as caught:
                await anext(stream)
            assert caught.value.excerpt
            assert body.startswith(caught.value.excerpt)
            assert is_quiet(client)


async def test_a_bad_line_after_good_ones(anyio_backend: Any) -> None:
    """The good parts of the same read are delivered before the error."""
    reply = HEAD + b"\r\n" + _encoded("a") + b"\n" + _encoded("b") + b"\nnot json\n"
    async with raw_server(replying(reply)) as url, AsyncClient(url) as client:
        stream = await chat_stream(client)
        assert (await anext(stream)).text == "a"
        assert (await anext(stream)).text == "b"
        with pytest.raises(ProtocolError, match="not json"):
            await anext(stream)
        assert stream.result().text == "ab"


async def test_an_endless_line_is_an_error_not_memory(fake: FakeOllama) -> None:
    """A line over its limit ends the stream with a ProtocolError."""
    fake.always("/api/chat", Reply.endless_line())
    async with AsyncClient(fake.url, max_line_bytes=1_000_000) as client:
        stream = await chat_stream(client)
        with pytest.raises(ProtocolError, match="1000000 bytes"):
            await anext(stream)
        assert sum(map(len, stream._call._blocks)) == 0
        await fake.requests[0].wait_closed()


async def test_an_endless_body_is_an_error_not_memory(fake: FakeOllama) -> None:
    """A reply in one piece over its limit ends the call with a ProtocolError."""
    fake.always("/api/version", Reply.endless_line())
    async with AsyncClient(fake.url, max_body_bytes=1_000_000) as client:
        with pytest.raises(ProtocolError, match="1000000 bytes"):
            await client.version()
        await fake.requests[0].wait_closed()


# -- helpers ----------------------------------------------------------------------------------------


def _message(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def _part(text: str, *, done: bool = False) -> dict[str, Any]:
    part = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": _message(text)}
    return {**part, "done": done, **({"done_reason": "stop"} if done else {})}


def _encoded(text: str, *, done: bool = False) -> bytes:
    import json  # noqa: PLC0415

    return json.dumps(_part(text, done=done), ensure_ascii=False).encode()


async def _async(items: Any) -> Any:
    for item in items:
        yield item
