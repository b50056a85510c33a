"""What adversaries found, each held by a test."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import weakref
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import pytest
from conftest import MESSAGES, is_quiet, plain_reply, raw_server, read_request
from test_life import Outcome, exhaust

from ollama_sc import (
    AbortError,
    AsyncClient,
    AuthorizationError,
    ConnectError,
    IncompleteStreamError,
    Message,
    ProtocolError,
    RequestError,
    RequestTimeout,
    ResponseError,
    Timeouts,
    ToolCall,
)
from ollama_sc._http.connection import Outgoing
from ollama_sc._http.messages import Request
from ollama_sc._stream import StreamCall
from ollama_sc.testing import FakeOllama, Reply
from ollama_sc.types import Function

pytestmark = pytest.mark.anyio
asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])


async def idle_connections(client: AsyncClient, fake: FakeOllama, count: int) -> None:
    """Leave so many connections idle in a client."""
    fake.always("/api/version", Reply.json({"version": "1"}).but(delay=0.05))
    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(client.version)
    fake.always("/api/version", None)
    assert client.statistics().idle == count


# -- asyncio's own cancellation ----------------------------------------------------------------------


@asyncio_only
@pytest.mark.parametrize("body", ["ends", "raises"])
@pytest.mark.parametrize("how", ["leave", "shutdown"])
async def test_a_native_cancel_while_the_client_closes_leaves_no_connection(
    fake: FakeOllama, how: str, body: str
) -> None:
    """Whenever asyncio cancels the one who leaves or shuts down, every connection is closed."""
    for ticks in range(14):

        async def work() -> None:
            async with AsyncClient(fake.url) as client:
                await idle_connections(client, fake, 5)
                me = asyncio.current_task()
                assert me is not None
                loop = asyncio.get_running_loop()

                def tick(left: int) -> None:
                    if left:
                        loop.call_soon(tick, left - 1)
                    else:
                        me.cancel()

                loop.call_soon(tick, ticks)
                if how == "shutdown":
                    await client.shutdown(1)
                if body == "raises":
                    raise ValueError("mine")

        task = asyncio.create_task(work())
        await asyncio.wait([task])
        error = None if task.cancelled() else task.exception()
        if body == "raises" and how == "leave":
            assert isinstance(error, ValueError)
        with anyio.fail_after(2):
            await fake.wait_all_closed()


@asyncio_only
async def test_a_native_cancel_in_a_groups_exit_leaves_no_group(slow: FakeOllama) -> None:
    """A group is gone from its client however its exit went, and its body's exception stays."""
    streams: list[Any] = []
    async with AsyncClient(slow.url) as client:
        for ticks in range(6):
            for fails in (False, True):
                in_exit = asyncio.Event()

                async def work() -> None:
                    async with client.group() as group:
                        streams.append(await group.chat("llama3.2", MESSAGES, stream=True))
                        in_exit.set()
                        if fails:
                            raise ValueError("mine")

                task = asyncio.create_task(work())
                await in_exit.wait()
                for _ in range(ticks):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if fails:
                    assert isinstance(task.exception(), ValueError)
                assert not client._calls._groups
                assert is_quiet(client)


@asyncio_only
async def test_a_native_cancel_in_a_streams_exit_keeps_the_exception(slow: FakeOllama) -> None:
    """What the body of a stream raised is what leaves."""
    async with AsyncClient(slow.url) as client:
        for ticks in range(5):
            in_exit = asyncio.Event()

            async def work() -> None:
                async with await client.chat("llama3.2", MESSAGES, stream=True):
                    in_exit.set()
                    raise ValueError("mine")

            task = asyncio.create_task(work())
            await in_exit.wait()
            for _ in range(ticks):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert isinstance(task.exception(), ValueError)
            assert is_quiet(client)


@asyncio_only
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_second_native_cancel_does_not_outrun_the_end(
    slow: FakeOllama, streamed: bool
) -> None:
    """A caller that is cancelled twice still leaves after its request has ended."""
    async with AsyncClient(slow.url) as client:
        for ticks in range(12):

            async def work() -> None:
                if streamed:
                    async with await client.chat("llama3.2", MESSAGES, stream=True) as stream:
                        await exhaust(stream)
                else:
                    await client.chat("llama3.2", MESSAGES)

            task = asyncio.create_task(work())
            for _ in range(ticks * 3):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            assert is_quiet(client)


# -- limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1e-9, 1e-6, 1e-4])
@pytest.mark.parametrize("limit", ["first_chunk", "total"])
async def test_the_limit_that_is_named_is_the_one_that_passed(
    fake: FakeOllama, limit: str, seconds: float
) -> None:
    """However short a limit is, its own name and length are in the error."""
    fake.always("/api/version", Reply.silence())
    for connect in (None, 10):
        async with AsyncClient(fake.url) as client:
            with pytest.raises(RequestTimeout) as caught:
                await client.version(timeout=Timeouts(**{limit: seconds}, connect=connect))
            assert (caught.value.limit, caught.value.seconds) == (limit, seconds)


@pytest.mark.parametrize("seconds", [10**400, -(10**400)])
def test_a_limit_beyond_floats(seconds: int) -> None:
    """A limit that no clock can hold is a RequestError."""
    with pytest.raises(RequestError, match="timeout"):
        AsyncClient(timeout=seconds)


# -- connections -------------------------------------------------------------------------------------


async def test_several_stale_connections(anyio_backend: Any) -> None:
    """Where one idle connection has died under a request, the second try takes none of the others."""
    answered = 0

    async def handle(stream: Any) -> None:
        nonlocal answered
        if await read_request(stream):
            answered += 1
            await anyio.sleep(0.05)
            await stream.send(plain_reply(b'{"version":"1"}'))
        if answered <= 4 and await read_request(stream):
            return  # it dies under its second request
        while await read_request(stream):
            await stream.send(plain_reply(b'{"version":"2"}'))

    async with raw_server(handle) as url, AsyncClient(url) as client:
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(client.version)
        assert client.statistics().idle == 4
        assert (await client.version()).version == "1"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_reply_that_nobody_asked_for_reaches_nobody(
    anyio_backend: Any, streamed: bool
) -> None:
    """A second reply in the packet of the first is not the answer to the next request."""
    part = b'{"model":"m","message":{"role":"assistant","content":"%s"},"done":true}\n'
    asked = 0

    async def handle(stream: Any) -> None:
        nonlocal asked
        while await read_request(stream):
            asked += 1
            mine, other = plain_reply(part % b"yours"), plain_reply(part % b"NOT YOURS")
            await stream.send(mine + other)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        for number in range(1, 6):
            if streamed:
                async with await client.chat("m", MESSAGES, stream=True) as stream:
                    await exhaust(stream)
                text = stream.result().text
            else:
                text = (await client.chat("m", MESSAGES)).text
            assert text == "yours"
            assert asked == number
            assert client.statistics().open == 0


# -- streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["stream", "client"])
async def test_an_aborted_stream_may_be_dropped(slow: FakeOllama, by: str) -> None:
    """A stream that was aborted needs no closing: no warning."""
    async with AsyncClient(slow.url) as client:
        stream: Any = await client.chat("llama3.2", MESSAGES, stream=True)
        (stream if by == "stream" else client).abort()
        del stream
        gc.collect()


async def test_failed_streams_are_freed_without_the_garbage_collector(slow: FakeOllama) -> None:
    """An aborted or incomplete stream and its text are gone with their last reference."""
    slow.always("/api/generate", Reply.stream([{"model": "m", "response": "a", "done": False}]))
    async with AsyncClient(slow.url) as client:
        gc.collect()
        gc.disable()
        try:
            stream: Any = await client.chat("llama3.2", MESSAGES, stream=True)
            await anext(stream)
            stream.abort()
            for _ in range(3):
                with pytest.raises(AbortError):
                    await anext(stream)
            stream = await client.generate("llama3.2", "x", stream=True)
            with pytest.raises(IncompleteStreamError):
                await exhaust(stream)
            with pytest.raises(IncompleteStreamError) as caught:
                await anext(stream)
            assert len(caught.traceback) < 10
            del stream, caught
            await anyio.wait_all_tasks_blocked()
            assert not [thing for thing in gc.get_objects() if isinstance(thing, StreamCall)]
        finally:
            gc.enable()


async def test_iterating_an_ended_stream_is_a_checkpoint(slow: FakeOllama) -> None:
    """A cancelled caller sees its cancellation, whatever has become of the stream."""
    async with AsyncClient(slow.url) as client:
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        await stream.aclose()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)
        assert scope.cancelled_caught
        with pytest.raises(AbortError):
            await anext(stream)


# -- what is sent ------------------------------------------------------------------------------------

CALL = ToolCall(Function("f", {"x": math.nan}))
NOT_JSON = [
    {"options": {"temperature": math.nan}},
    {"options": {"nested": [{"x": math.inf}]}},
    {"options": {"stop": [b"x"]}},
    {"options": {"stop": {"a"}}},
    {"options": {"temperature": Decimal("0.1")}},
    {"format": {"maximum": math.inf}},
    {"format": 5},
    {"tools": [{"function": {"x": b"y"}}]},
    {"tools": "x"},
    {"think": 5},
    {"truncate": "no"},
    {"logprobs": 1},
    {"top_logprobs": 1.5},
    {"top_logprobs": True},
    {"keep_alive": math.inf},
    {"keep_alive": True},
    {"extra": {"x": b"y"}},
    {"extra": {"stream": True}},
    {"messages": [{"role": "user", "thinking": b"x"}]},
    {"messages": [{"role": "assistant", "tool_calls": [CALL]}]},
    {"messages": [Message("assistant", tool_calls=[CALL])]},
    {"stream": "no"},
]


@pytest.mark.parametrize("given", NOT_JSON, ids=[repr(given)[:60] for given in NOT_JSON])
async def test_nothing_changes_on_its_way_into_json(fake: FakeOllama, given: Any) -> None:
    """What JSON would turn into something else is refused before anything is sent."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="POST /api/chat, model 'llama3.2'"):
            await client.chat("llama3.2", **{"messages": MESSAGES, **given})
    assert fake.connections == 0


@pytest.mark.parametrize(
    "given",
    [{"system": b"x"}, {"system": 5}, {"template": b"x"}, {"context": "ab"}, {"context": [1.5]},
     {"raw": 1}, {"images": "aGk="}, {"images": [""]}, {"images": ["no base64!"]}, {"images": [5]}],
)  # fmt: skip
async def test_generate_refuses_what_cannot_be(fake: FakeOllama, given: Any) -> None:
    """Wrong types of generate's own fields are a RequestError."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError):
            await client.generate("llama3.2", "x", **given)
    assert fake.connections == 0


@pytest.mark.parametrize(
    "name", ["Content-Length", "transfer-encoding", "Content-Encoding", "Connection", "Expect"]
)
def test_headers_that_frame_the_body(name: str) -> None:
    """A header that HTTP itself sets is refused."""
    with pytest.raises(RequestError, match="headers"):
        AsyncClient(headers={name: "5"})


@pytest.mark.parametrize(
    "options",
    [{"headers": ["a"]}, {"proxy": 5}, {"mounts": 5}, {"event_hooks": 5}, {"proxy": "x://u:s3cret@h"}],
)  # fmt: skip
def test_settings_that_httpx_refuses(options: Any) -> None:
    """Whatever httpx makes of bad settings, it is a RequestError that shows no password."""
    with pytest.raises(RequestError) as caught:
        AsyncClient(**options)
    assert "s3cret" not in str(caught.value)


async def test_a_type_that_nothing_can_be_read_into(fake: FakeOllama) -> None:
    """A wrong type is a TypeError before anything is sent."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(TypeError):
            await client.request("GET", "/api/version", type=5)  # type: ignore[call-overload]
    assert fake.connections == 0


@pytest.mark.parametrize(
    "host",
    ["//u:s3cret@h:5", "http:/u:s3cret@h", "https//u:s3cret@h", "http://http://u:s3cret@h",
     "http://u:s3cret%40h", "http://u:s3cret/h"],
)  # fmt: skip
def test_no_host_shows_its_password(host: str) -> None:
    """A host whose user-info stands in the wrong place is refused without being shown."""
    with pytest.raises(RequestError) as caught:
        AsyncClient(host)
    assert "s3cret" not in str(caught.value) + repr(caught.value)


async def test_a_query_is_not_shown(fake: FakeOllama) -> None:
    """The label of a request ends before the query, which can hold a key."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.request("POST", "/api/nothing?key=s3cret")
    assert "s3cret" not in str(caught.value) + str(caught.value.request)


# -- redirects ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_nothing_follows_a_redirect_to_another_server(fake: FakeOllama, status: int) -> None:
    """Neither the prompt nor any header goes where another server points; the error says where."""

    async def handle(stream: Any) -> None:
        await read_request(stream)
        await stream.send(
            b"HTTP/1.1 %d Moved\r\nLocation: %s/api/chat?k=s3cret\r\nContent-Length: 0\r\n\r\n"
            % (status, fake.url.encode())
        )

    async with raw_server(handle) as url:
        async with AsyncClient(url, headers={"X-API-Key": "k"}, cookies={"a": "b"}) as client:
            with pytest.raises(ResponseError, match="use it as the host") as caught:
                await client.chat("llama3.2", MESSAGES)
            assert caught.value.status_code == status
            assert fake.url in str(caught.value)
            assert "s3cret" not in str(caught.value)
            assert is_quiet(client)
    assert fake.connections == 0


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_within_the_server_keeps_method_and_body(
    anyio_backend: Any, status: int
) -> None:
    """A request that is sent on to another path of the same server arrives as it was."""
    seen: list[bytes] = []

    async def handle(stream: Any) -> None:
        while request := await read_request(stream):
            seen.append(request)
            if len(seen) == 1:
                head = b"HTTP/1.1 %d Moved\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
                await stream.send(head % status)
            else:
                await stream.send(plain_reply(b'{"embeddings":[[1]]}'))

    async with raw_server(handle) as url, AsyncClient(url, api_key="k") as client:
        assert (await client.embed("m", "hello")).embeddings == [[1]]
    assert seen[1].startswith(b"POST /other ")
    assert b'"input":"hello"' in seen[1]
    assert b"Bearer k" in seen[1]


async def test_redirects_in_a_circle_end(anyio_backend: Any) -> None:
    """A server that sends a request round and round is an error."""

    async def handle(stream: Any) -> None:
        while await read_request(stream):
            head = b"HTTP/1.1 307 Round\r\nLocation: /api/version\r\nContent-Length: 0\r\n\r\n"
            await stream.send(head)

    async with raw_server(handle) as url, AsyncClient(url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.version()
        assert caught.value.status_code == 307


async def test_httpx_follows_where_the_user_says_so(fake: FakeOllama) -> None:
    """With follow_redirects=True httpx follows to other servers, and drops the key on its way."""

    async def handle(stream: Any) -> None:
        await read_request(stream)
        await stream.send(
            b"HTTP/1.1 307 Moved\r\nLocation: %s/api/version\r\nContent-Length: 0\r\n\r\n"
            % fake.url.encode()
        )

    async with raw_server(handle) as url:
        async with AsyncClient(url, api_key="k", follow_redirects=True) as client:
            assert (await client.version()).version
    assert "authorization" not in fake.requests[0].headers


# -- texts -------------------------------------------------------------------------------------------


async def test_a_servers_text_does_not_steer_the_terminal(fake: FakeOllama) -> None:
    """Control characters are shown, not sent to the terminal; `.error` keeps them."""
    text = "\x1b]0;pwn\x07\x1b[2J\r\u202e"
    fake.always("/api/version", Reply.error(500, text))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.version()
    assert caught.value.error == text
    assert not set(text) & set(str(caught.value)) - set("]0;pwn[2J")


async def test_what_can_be_done_is_in_the_text(fake: FakeOllama) -> None:
    """Where to sign in, how long to wait, what to pull: in the text, also inside a stream."""
    unauthorized = {"error": "unauthorized", "signin_url": "https://ollama.com/connect"}
    fake.script(
        "/api/chat",
        Reply.stream([unauthorized]),
        Reply.error(429, "slow down", headers={"Retry-After": "7"}),
        Reply.json({"error": ""}),
        Reply.text(""),
    )
    async with AsyncClient(fake.url) as client:
        stream = await client.chat("llama3.2", MESSAGES, stream=True)
        with pytest.raises(AuthorizationError, match="sign in at https://ollama.com/connect"):
            await exhaust(stream)
        with pytest.raises(ResponseError, match="ask again in 7 s"):
            await client.chat("llama3.2", MESSAGES)
        with pytest.raises(ResponseError, match="without a text"):
            await client.chat("llama3.2", MESSAGES)
        with pytest.raises(ProtocolError, match="empty"):
            await client.chat("llama3.2", MESSAGES)
        with pytest.raises(ResponseError, match="pull it first"):
            await client.chat("no-such-model", MESSAGES)


async def test_a_long_name_makes_no_long_text(fake: FakeOllama) -> None:
    """A label has room for a name, not for a novel."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ResponseError) as caught:
            await client.chat("x" * 100_000, MESSAGES)
    assert len(caught.value.request or "") < 200


async def test_an_embedding_too_few(fake: FakeOllama) -> None:
    """Fewer vectors than texts is not an answer."""
    fake.always("/api/embed", Reply.json({"model": "m", "embeddings": [[1.0]]}))
    async with AsyncClient(fake.url) as client:
        with pytest.raises(ProtocolError, match="3 texts were answered with 1"):
            await client.embed("nomic-embed-text", ["a", "b", "c"])


# -- uploads and operations ----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["blob", "image"])
async def test_a_pipe_is_refused_and_not_waited_for(
    fake: FakeOllama, tmp_path: Path, what: str
) -> None:
    """A file that may never deliver is a RequestError: no thread waits for it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with AsyncClient(fake.url) as client:
        with anyio.fail_after(2), pytest.raises(RequestError, match="no regular file"):
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

    monkeypatch.setattr("ollama_sc._models.digest_of", hashed)
    async with AsyncClient(fake.url) as client:
        with pytest.raises(RequestError, match="changed"):
            await client.create_blob(path)
        assert is_quiet(client)


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


def test_the_collector_passes_over_requests_in_flight() -> None:
    """Those that hold nothing but text and bytes."""
    assert not gc.is_tracked(Request("POST", "/api/chat", "POST /api/chat (llama3.2)", b"{}"))
    assert not gc.is_tracked(Outgoing(b"POST", b"{}"))


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


async def test_shutdown_lets_operations_finish(fake: FakeOllama) -> None:
    """What lies between the requests of an operation is in flight too; grace is for it as well."""
    fake.always("/api/generate", Reply.default().but(delay=0.1))
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        loading = Outcome(tasks, client.load, "nomic-embed-text")
        uploading = Outcome(tasks, client.create_blob, b"x" * 5_000_000)
        await fake.wait_for_requests(1)
        assert await client.shutdown(5) == 0
        assert loading.error is None
        assert uploading.error is None
        paths = [request.path for request in fake.requests]
        assert "/api/embed" in paths


async def test_an_operation_counts_once(fake: FakeOllama) -> None:
    """abort() says how many calls it ended; an operation and its request are one."""
    fake.always("/api/generate", Reply.silence())
    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        ended = Outcome(tasks, client.load, "llama3.2")
        await fake.wait_for_requests(1)
        assert client.abort() == 1
        await ended.event.wait()
        assert isinstance(ended.error, AbortError)


@pytest.mark.parametrize("body", [b"<html>login</html>", b'{"x":1}', b"5"])
async def test_a_page_in_place_of_nothing(anyio_backend: Any, body: bytes) -> None:
    """Calls that are answered with nothing do not take a proxy's page for success."""

    async def handle(stream: Any) -> None:
        while await read_request(stream):
            await stream.send(plain_reply(body))

    async with raw_server(handle) as url, AsyncClient(url) as client:
        for call in (client.copy("a", "b"), client.delete("a"), client.sign_out()):
            with pytest.raises(ProtocolError):
                await call
        if body != b'{"x":1}':
            with pytest.raises(ProtocolError):
                await client.has_model("a")


@pytest.mark.parametrize("host", ["bob:1234:s3cret", "us:er:s3cret", "http://us:er:s3cret"])
def test_no_address_shows_a_password(host: str) -> None:
    """What is no attempt at an address is not shown."""
    with pytest.raises(RequestError) as caught:
        AsyncClient(host)
    assert "s3cret" not in str(caught.value)


def test_a_wrong_auth_is_not_shown() -> None:
    """A key given as auth is refused without being shown."""
    with pytest.raises(RequestError) as caught:
        AsyncClient(auth="s3cret")
    assert "s3cret" not in str(caught.value)


def test_the_environments_key_is_for_the_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another port of ollama.com is another origin."""
    monkeypatch.setenv("OLLAMA_API_KEY", "s3cret")
    client = AsyncClient("https://ollama.com:8443")
    assert "authorization" not in client._shared.http._client.headers


@pytest.mark.parametrize("name", ["chat", "generate", "create", "embeddings"])
async def test_a_wrong_argument_names_its_endpoint(fake: FakeOllama, name: str) -> None:
    """Errors about messages and prompts say which endpoint and model, as all do."""
    async with AsyncClient(fake.url) as client:
        given: Any = {"messages": "x"} if name in ("chat", "create") else {"prompt": 5}
        with pytest.raises(RequestError, match=f"POST /api/{name}, model 'm'"):
            await getattr(client, name)("m", **given)
    assert fake.connections == 0
