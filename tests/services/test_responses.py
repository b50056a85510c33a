"""`ollama_sc.starlette` without a server: every end that a call and a browser can have."""

from __future__ import annotations

import gc
import json
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import ollama_sc
from ollama_sc import AsyncClient, IncompleteStreamError, OllamaError, RequestError, Timeouts
from ollama_sc.starlette import error_response, stream_response, until_disconnect
from ollama_sc.testing import FakeOllama, Reply
from tests.support import MESSAGES, is_quiet

pytestmark = pytest.mark.anyio

FORMATS = ["text", "sse", "ndjson"]


class Browser:
    """What an ASGI server hands to an application, and what that answered."""

    def __init__(
        self, method: str = "GET", body: bytes = b"", *, sending_fails: bool = False
    ) -> None:
        self.scope = {"type": "http", "method": method, "path": "/", "headers": []}
        self.scope |= {"query_string": b"", "asgi": {"spec_version": "2.4"}}
        self.sent: list[dict[str, Any]] = []
        self.left = anyio.Event()
        self.got_body = anyio.Event()
        self._events = [{"type": "http.request", "body": body, "more_body": False}]
        self._sending_fails = sending_fails

    async def receive(self) -> dict[str, Any]:
        if self._events:
            return self._events.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await anyio.lowlevel.checkpoint()
        if self._sending_fails and message["type"] == "http.response.body":
            raise OSError("gone")
        self.sent.append(dict(message))
        if message.get("body"):
            self.got_body.set()

    async def gets(self, response: Callable[..., Awaitable[None]]) -> None:
        await response(self.scope, self.receive, self.send)

    @property
    def status(self) -> int:
        return self.sent[0]["status"]

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def whole(self) -> bool:
        return len(self.sent) > 1 and not self.sent[-1].get("more_body", False)


# -- what goes well --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["chat", "generate"])
@pytest.mark.parametrize("format", FORMATS)
async def test_each_format(fake: FakeOllama, kind: str, format: Any) -> None:
    """Text alone, an event for each part, or a line for each; all of it, and a proper end."""
    fake.script(f"/api/{kind}", Reply.chat_text("Grüße\nund \u2028 mehr"))
    browser = Browser()
    async with AsyncClient(fake.url) as client:
        given = MESSAGES if kind == "chat" else "Hi"
        call = getattr(client, kind)("llama3.2", given, stream=True)
        await browser.gets(stream_response(call, format, headers={"x-mine": "yes"}))
        assert is_quiet(client)
    assert browser.status == 200
    assert browser.whole
    assert browser.headers["cache-control"] == "no-store"
    assert browser.headers["x-mine"] == "yes"
    if format == "text":
        assert browser.body.decode() == "Grüße\nund \u2028 mehr"
        assert browser.headers["content-type"] == "text/plain; charset=utf-8"
        return
    if format == "sse":
        assert browser.headers["content-type"].startswith("text/event-stream")
        events = browser.body.decode().removesuffix("\n\n").split("\n\n")
        assert all(event.startswith("data: ") and "\n" not in event for event in events)
        parts = [json.loads(event.removeprefix("data: ")) for event in events]
    else:
        assert browser.headers["content-type"] == "application/x-ndjson"
        parts = [json.loads(line) for line in browser.body.split(b"\n") if line]
    texts = [part["message"]["content"] if kind == "chat" else part["response"] for part in parts]
    assert "".join(texts) == "Grüße\nund \u2028 mehr"
    assert [part["done"] for part in parts] == [False] * (len(parts) - 1) + [True]


async def test_a_header_of_its_own_is_replaced(fake: FakeOllama) -> None:
    """Whatever the case of its name; no header is sent twice."""
    browser = Browser()
    async with AsyncClient(fake.url) as client:
        call = client.generate("llama3.2", "Hi", stream=True)
        given = {"Cache-Control": "no-cache", "X-Accel-Buffering": "yes", "Content-Type": "text/x"}
        await browser.gets(stream_response(call, headers=given))
    assert len(browser.headers) == len(browser.sent[0]["headers"])
    assert browser.headers.items() >= {name.lower(): given[name] for name in given}.items()


async def test_progress_can_be_streamed(fake: FakeOllama) -> None:
    """Every call that streams can be a response."""
    browser = Browser()
    async with AsyncClient(fake.url) as client:
        await browser.gets(stream_response(client.pull("llama3.2", stream=True), "ndjson"))
    assert json.loads(browser.body.splitlines()[-1]) == {"status": "success"}


async def test_a_head_request_generates_nothing(fake: FakeOllama) -> None:
    """It gets the headers that the answer would have."""
    browser = Browser("HEAD")
    async with AsyncClient(fake.url) as client:
        await browser.gets(stream_response(client.chat("llama3.2", stream=True), "sse"))
    assert (browser.status, browser.body, browser.whole) == (200, b"", True)
    assert not fake.requests


async def test_the_background_task_runs_afterwards(fake: FakeOllama) -> None:
    """As with every response of Starlette's."""
    browser, done = Browser(), []
    async with AsyncClient(fake.url) as client:
        call = client.generate("llama3.2", "Hi", stream=True)
        task = BackgroundTask(lambda: done.append(browser.whole))
        await browser.gets(stream_response(call, background=task))
    assert done == [True]


# -- errors ----------------------------------------------------------------------------------------

REDIRECT = "the model's server redirects to another one"
ERRORS = [
    (Reply.error(404, "model 'x' not found"), 502, "model 'x' not found"),
    (Reply.error(401, "unauthorized"), 502, "unauthorized"),
    (Reply.error(500, "it broke"), 502, "it broke"),
    (Reply.error(429, "slow down", {"Retry-After": "7"}), 429, "slow down"),
    (Reply.busy(), 503, "server busy, please try again.  maximum pending requests exceeded"),
    (Reply.error(503, "later", {"Retry-After": "7"}), 503, "later"),
    (Reply.error(302, "", {"Location": "http://10.0.0.7/v"}), 502, REDIRECT),
    (Reply.html(200), 502, None),
    (Reply.stream([{"error": "at once"}]), 502, "at once"),
    (Reply.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), 502, None),
    (Reply.default().replace(reset_at=0), 502, "the model's server cannot be reached"),
    (Reply.silence(), 504, "the model's server did not answer in time"),
]


@pytest.mark.parametrize(("reply", "status", "text"), ERRORS, ids=range(len(ERRORS)))
async def test_an_error_before_the_first_part_is_a_status(
    fake: FakeOllama, reply: Reply, status: int, text: str | None
) -> None:
    """Whatever the server does, the browser gets a whole answer that says so, in any format."""
    fake.always("/api/generate", reply)
    timeout = Timeouts(first_chunk=0.05) if reply.content == "silence" else None
    async with AsyncClient(fake.url) as client:
        for format in FORMATS:
            browser = Browser()
            call = client.generate("llama3.2", "Hi", stream=True, timeout=timeout)
            await browser.gets(stream_response(call, format))
            assert is_quiet(client)
            assert (browser.status, browser.whole) == (status, True)
            assert browser.headers["content-type"] == "application/json"
            waits = text in ("slow down", "later")
            assert browser.headers.get("retry-after") == ("7" if waits else None)
            told = json.loads(browser.body)["error"]
            assert told == text if text else told
            assert fake.url.partition("//")[2] not in told


async def test_arguments_and_closed_clients_are_statuses(fake: FakeOllama) -> None:
    """Errors that come before anything is sent, too."""
    wrong, closed, aborted = Browser(), Browser(), Browser()
    async with AsyncClient(fake.url) as client:
        await wrong.gets(stream_response(client.chat("", stream=True)))
        fake.always("/api/generate", Reply.silence())
        async with anyio.create_task_group() as tasks:
            call = client.generate("llama3.2", "Hi", stream=True)
            tasks.start_soon(aborted.gets, stream_response(call))
            await fake.wait_for_requests(1)
            client.abort("we close")
    await closed.gets(stream_response(client.chat("llama3.2", stream=True)))
    assert (wrong.status, closed.status, aborted.status) == (400, 503, 503)
    assert json.loads(aborted.body) == {"error": "aborted: we close"}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("how", ["cut", "error", "abort"])
async def test_an_error_after_the_first_part(fake: FakeOllama, format: Any, how: str) -> None:
    """Events and lines say it and end; a text breaks off, by the error itself and in no group."""
    browser = Browser()
    parts = [{"model": "m", "response": text, "done": False} for text in ("One ", "two")]
    reply = Reply.stream([*parts, {"error": "out of memory"}]) if how == "error" else None
    cut = {"cut_after": 2} if how == "cut" else {"stall_after": 2}
    fake.script("/api/generate", reply or Reply.stream(parts).replace(**cut))
    failure: BaseException | None = None

    async def get(response: Response) -> None:
        nonlocal failure
        try:
            await browser.gets(response)
        except OllamaError as error:
            failure = error

    async with AsyncClient(fake.url) as client, anyio.create_task_group() as tasks:
        call = client.generate("llama3.2", "Hi", stream=True)
        tasks.start_soon(get, stream_response(call, format))
        await browser.got_body.wait()
        if how == "abort":
            client.abort("we close")
    assert browser.status == 200
    if format == "text":
        kinds = {"cut": "IncompleteStreamError", "error": "ResponseError", "abort": "AbortError"}
        assert type(failure).__name__ == kinds[how]
        assert not browser.whole
        return
    assert failure is None
    assert browser.whole
    last = browser.sent[-1]["body"].decode()
    if format == "sse":
        assert last.startswith("event: error\ndata: ")
        assert last.endswith("\n\n")
        last = last.removeprefix("event: error\ndata: ")
    told = json.loads(last)
    assert list(told) == ["error"]
    if how != "cut":
        assert told["error"] == ("out of memory" if how == "error" else "aborted: we close")


async def test_a_bug_is_no_status(fake: FakeOllama) -> None:
    """What is no error of the library's leaves as itself: the framework's own answer is right."""
    async with AsyncClient(fake.url) as client:
        with pytest.raises(TypeError, match="stream=True"):
            await Browser().gets(stream_response(client.chat("llama3.2")))  # type: ignore
        with pytest.raises(TypeError, match="temperatur"):
            call = client.chat("llama3.2", stream=True, temperatur=1)  # type: ignore
            await Browser().gets(stream_response(call))
        assert is_quiet(client)


async def test_every_error_has_a_status() -> None:
    """None of them is a 500, which is for bugs."""
    kinds = [getattr(ollama_sc, name) for name in ollama_sc.__all__]
    kinds = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, OllamaError)]
    assert len(kinds) > 10
    for kind in kinds:
        partial = {"partial": None} if kind is IncompleteStreamError else {}
        response = await error_response(Request({"type": "http"}), kind("what", **partial))
        assert 400 <= response.status_code < 600, kind
        assert response.status_code != 500, kind


# -- browsers that leave ---------------------------------------------------------------------------


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("when", ["loading", "streaming", "sending"])
async def test_a_browser_that_leaves_ends_the_request(
    slow: FakeOllama, format: Any, when: str
) -> None:
    """While the model loads, between parts, and where the server tells by a failing send."""
    if when == "loading":
        slow.always("/api/generate", Reply.silence())
    browser = Browser(sending_fails=when == "sending")
    async with AsyncClient(slow.url) as client:
        async with anyio.create_task_group() as tasks:
            call = client.generate("llama3.2", "Hi", stream=True)
            tasks.start_soon(browser.gets, stream_response(call, format))
            await slow.wait_for_requests(1)
            if when == "streaming":
                await browser.got_body.wait()
            if when != "sending":
                browser.left.set()
        assert is_quiet(client)
        await slow.requests[0].wait_closed()
    assert slow.requests[0].disconnected
    assert not browser.whole


async def test_a_response_that_is_cancelled_ends_the_request(slow: FakeOllama) -> None:
    """A server that stops cancels responses: the cancellation goes on, as one."""
    async with AsyncClient(slow.url) as client:
        browser = Browser()
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                call = client.generate("llama3.2", "Hi", stream=True)
                tasks.start_soon(browser.gets, stream_response(call))
                await browser.got_body.wait()
                scope.cancel()
        assert scope.cancelled_caught
        assert is_quiet(client)
        await slow.requests[0].wait_closed()


async def test_a_receive_that_fails_fails_the_response(slow: FakeOllama) -> None:
    """By itself and in no group; the request has ended."""

    async def receive() -> Any:
        await slow.wait_for_requests(1)
        raise ZeroDivisionError

    async with AsyncClient(slow.url) as client:
        response = stream_response(client.generate("llama3.2", "Hi", stream=True))
        with pytest.raises(ZeroDivisionError):
            await response(Browser().scope, receive, Browser().send)
        assert is_quiet(client)


# -- calls that never run --------------------------------------------------------------------------


async def test_a_call_that_never_runs_is_closed(fake: FakeOllama) -> None:
    """Python would warn of a coroutine that was never awaited; warnings are errors here."""
    async with AsyncClient(fake.url) as client:
        response = stream_response(client.chat("llama3.2", stream=True))
        del response
        for wrong in ("html", None, "", [], {"text": 1}):
            with pytest.raises(RequestError, match="format"):
                stream_response(client.chat("llama3.2", stream=True), wrong)  # type: ignore
        with anyio.CancelScope() as scope:
            scope.cancel()
            await Browser().gets(stream_response(client.chat("llama3.2", stream=True)))
        gc.collect()
    assert not fake.requests


async def test_what_is_no_call_is_refused(fake: FakeOllama) -> None:
    """A stream that was awaited already, a job, nothing: the error says which it is."""
    async with AsyncClient(fake.url) as client:
        async with await client.generate("llama3.2", "Hi", stream=True) as stream:
            with pytest.raises(TypeError, match="leave out the `await`"):
                stream_response(stream)  # type: ignore[arg-type]
        for other in (None, client.embed_many("nomic-embed-text", ["a"]), "text"):
            with pytest.raises(TypeError, match="stream=True.*: not "):
                stream_response(other)  # type: ignore[arg-type]
        assert is_quiet(client)
        response = stream_response(client.chat("llama3.2", MESSAGES, stream=True))
        await Browser().gets(response)
        with pytest.raises(RuntimeError, match="already"):
            await Browser().gets(response)


# -- plain replies ---------------------------------------------------------------------------------


async def test_until_disconnect_gives_the_reply(fake: FakeOllama) -> None:
    """Or raises what the call raises; the request's body stays readable."""
    fake.script("/api/generate", Reply.chat_text("Well."), Reply.busy())
    browser = Browser("POST", b'{"a": 1}')
    request = Request(browser.scope, browser.receive)
    async with AsyncClient(fake.url) as client:
        reply = await until_disconnect(request, client.generate("llama3.2", "Hi"))
        assert reply.response == "Well."
        with pytest.raises(ollama_sc.ServerBusyError):
            await until_disconnect(request, client.generate("llama3.2", "Hi"))
        assert await request.json() == {"a": 1}


async def test_a_browser_that_has_left_already(fake: FakeOllama) -> None:
    """It ends the call before its answer, and the body that it never sent is no matter."""
    fake.always("/api/chat", Reply.silence())
    gone = Browser()
    gone._events.clear()
    gone.left.set()
    async with AsyncClient(fake.url) as client:
        with pytest.raises(HTTPException) as caught:
            await until_disconnect(Request(gone.scope, gone.receive), client.chat("llama3.2"))
        assert caught.value.status_code == 499
        assert is_quiet(client)


async def test_until_disconnect_needs_no_body(fake: FakeOllama) -> None:
    """A middleware that has taken the body leaves nothing to read; the call is made all the same."""
    browser = Browser("POST", b"{}")
    assert await Request(browser.scope, browser.receive).body() == b"{}"
    async with AsyncClient(fake.url) as client:
        request = Request(browser.scope, browser.receive)
        assert (await until_disconnect(request, client.generate("llama3.2", "Hi"))).response


async def test_until_disconnect_ends_with_the_browser(slow: FakeOllama) -> None:
    """The request is cancelled, and what is raised is an answer that nobody will see."""
    browser = Browser()
    request = Request(browser.scope, browser.receive)
    async for _ in request.stream():  # read by other means
        pass
    raised: list[int] = []

    async def wait() -> None:
        try:
            await until_disconnect(request, client.generate("llama3.2", "Hi"))
        except HTTPException as error:
            raised.append(error.status_code)

    async with AsyncClient(slow.url) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await slow.wait_for_requests(1)
            browser.left.set()
        assert is_quiet(client)
        await slow.requests[0].wait_closed()
    assert raised == [499]


@pytest.mark.parametrize("when", ["loading", "streaming"])
async def test_behind_a_middleware(slow: FakeOllama, when: str) -> None:
    """Starlette's BaseHTTPMiddleware hands disconnects on, and they end the request."""
    if when == "loading":
        slow.always("/api/generate", Reply.silence())

    async def dispatch(request: Request, call_next: Any) -> Response:
        return await call_next(request)

    async def endpoint(request: Request) -> Response:
        return stream_response(client.generate("llama3.2", "Hi", stream=True), "sse")

    app = Starlette(
        routes=[Route("/", endpoint)],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=dispatch)],
    )
    browser = Browser()
    async with AsyncClient(slow.url) as client:
        async with anyio.create_task_group() as tasks:

            async def get() -> None:
                try:
                    await browser.gets(app)
                except RuntimeError as error:  # "No response returned", to nobody
                    assert when == "loading", error

            tasks.start_soon(get)
            await slow.wait_for_requests(1)
            if when == "streaming":
                await browser.got_body.wait()
            browser.left.set()
        assert is_quiet(client)
        await slow.requests[0].wait_closed()
