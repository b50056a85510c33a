"""What is asked of a browser's `fetch`, and what is made of its answers. `make test-browser` has a real one.

The modules `js` and `pyodide.ffi` are imitated here: what matters is when a request is aborted, what of
it a browser gets to see, and what is said where there is no answer.
"""

from __future__ import annotations

import runpy
import sys
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from ollama_sc import AsyncClient, ConnectError, IncompleteStreamError, ProtocolError, RequestError
from ollama_sc._http import fetch
from ollama_sc._http.fetch import FetchReply, check_header
from ollama_sc._jobs.retries import is_transient
from ollama_sc._loop.webloop import mend_deadlines
from ollama_sc.embedding import Embedder
from ollama_sc.testing._http import llhttp
from tests.http.fake_browser import Browser, JsError, install, response
from tests.support import MESSAGES, ROOT, Outcome, is_quiet, until

pytestmark = pytest.mark.anyio

HOST = "http://127.0.0.1:11434"
PART = b'{"message":{"role":"assistant","content":"a"},"done":false}\n'
LAST = b'{"message":{"role":"assistant","content":""},"done":true}\n'


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> Browser:
    return install(monkeypatch)


def names(request: Any) -> set[str]:
    return {name for name, _ in request.headers}


# -- what is sent ----------------------------------------------------------------------------------


async def test_a_get_needs_no_permission(browser: Browser) -> None:
    """It has no header that makes a browser ask first, and nothing that a page may not set."""
    browser.answer = lambda _: response([b'{"models":[]}'])
    async with AsyncClient(HOST) as client:
        await client.list()
    (asked,) = browser.asked
    assert (asked.method, asked.url) == ("GET", f"{HOST}/api/tags")
    assert asked.headers == [["accept", "application/json"]]
    assert (asked.cache, asked.redirect) == ("no-store", "manual")
    assert not hasattr(asked, "body")
    assert not asked.signal.aborted.is_set()


async def test_a_post_has_its_body_whole(browser: Browser) -> None:
    """Bytes, whatever their size, and their type; the user's headers go along."""
    browser.answer = lambda _: response([LAST])
    text = "a" * 300_000
    async with AsyncClient(HOST, headers={"X-Mine": "1"}, api_key="secret") as client:
        await client.chat("m", [{"role": "user", "content": text}])
    (asked,) = browser.asked
    assert text.encode() in asked.body
    assert names(asked) == {"accept", "content-type", "authorization", "x-mine"}


async def test_an_upload_is_gathered(browser: Browser, tmp_path: Path) -> None:
    """Its blocks are in one array, in their order; there are no threads for reading them."""
    data = bytes(range(256)) * 10_000
    path = tmp_path / "file"
    path.write_bytes(data)
    browser.answer = lambda asked: response(None, 404 if asked.method == "HEAD" else 201)
    told: list[tuple[int, int]] = []
    async with AsyncClient(HOST) as client:
        digest = await client.create_blob(path, progress=lambda *now: told.append(now))
    head, post = browser.asked
    assert (head.method, post.method) == ("HEAD", "POST")
    assert post.url.endswith(digest)
    assert post.body.to_bytes() == data
    assert names(post) == {"accept", "content-type"}
    assert (told[0], told[-1]) == ((0, len(data)), (len(data), len(data)))


class TwoBlocks(httpx.AsyncByteStream, AsyncIterator[bytes]):
    """A body of four bytes. No generator, because it is not read to its end."""

    def __init__(self) -> None:
        self._blocks = iter([b"ab", b"cd"])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for block in self._blocks:
            return block
        raise StopAsyncIteration


async def test_a_body_without_a_length_is_gathered(browser: Browser) -> None:
    """That of a hook of the user's, or of an auth flow."""

    async def replace(request: httpx.Request) -> None:
        request.stream = TwoBlocks()
        del request.headers["content-length"]

    async with AsyncClient(HOST, event_hooks={"request": [replace]}) as client:
        await client.request("POST", "/api/x", json={})
    assert browser.asked[0].body == b"abcd"


@pytest.mark.parametrize("promised", ["3", "5"])
async def test_a_body_of_another_length_is_refused(browser: Browser, promised: str) -> None:
    """Before anything of it is sent."""

    async def replace(request: httpx.Request) -> None:
        request.stream = TwoBlocks()
        request.headers["content-length"] = promised

    async with AsyncClient(HOST, event_hooks={"request": [replace]}) as client:
        with pytest.raises(RequestError, match=f"not the {promised} bytes"):
            await client.request("POST", "/api/x", json={})
    assert browser.asked == []


async def test_an_upload_that_has_no_room_is_refused(browser: Browser) -> None:
    """A browser says at once how much it cannot hold."""

    def no_room(_: int) -> Any:
        raise JsError("Array buffer allocation failed", "RangeError")

    browser.Uint8Array = SimpleNamespace(new=no_room)
    browser.answer = lambda _: response(None, 404)
    async with AsyncClient(HOST) as client:
        with pytest.raises(RequestError, match="allocation failed"):
            await client.create_blob(b"data")
        assert is_quiet(client)


async def test_a_method_that_is_none_is_refused(browser: Browser) -> None:
    """Whoever changes it: JavaScript's own error would not say which."""

    async def change(request: httpx.Request) -> None:
        request.method = "GE T"

    async with AsyncClient(HOST, event_hooks={"request": [change]}) as client:
        with pytest.raises(RequestError, match="'GE T' cannot be a method"):
            await client.list()


async def test_what_a_browser_does_not_send_is_refused_before(browser: Browser) -> None:
    """A GET with a body, and whatever else there can be no request of."""
    async with AsyncClient(HOST) as client:
        for method in ("GET", "HEAD"):
            with pytest.raises(RequestError, match=f"no body with {method}"):
                await client.request(method, "/api/tags", json={})
        browser.failure = JsError("Failed to construct 'Request'\nand more")
        with pytest.raises(RequestError, match=r"construct 'Request'\)"):
            await client.list()
        assert is_quiet(client)
    assert browser.asked == []


# -- what comes back -------------------------------------------------------------------------------


async def test_a_reply_that_was_read_is_not_aborted(browser: Browser) -> None:
    """Blocks may be split anywhere, and may be empty."""
    whole = PART * 3 + LAST
    browser.answer = lambda _: response([whole[:10], b"", whole[10:90], whole[90:]])
    async with AsyncClient(HOST) as client:
        async with await client.chat("m", MESSAGES, stream=True) as stream:
            parts = [part async for part in stream]
        assert client.statistics().open == 0
    assert len(parts) == 4
    assert not browser.asked[0].signal.aborted.is_set()


@pytest.mark.parametrize("status", [200, 204])
async def test_a_reply_may_have_no_body(browser: Browser, status: int) -> None:
    """`body` is null then."""
    browser.answer = lambda _: response(None, status)
    async with AsyncClient(HOST) as client:
        assert await client.request("POST", "/api/x", json={}, type=bytes) == b""
        assert client.statistics().open == 0
    assert not browser.asked[0].signal.aborted.is_set()


async def test_what_the_wire_had_is_not_believed_again(browser: Browser) -> None:
    """The browser has inflated the body; a header with bytes above ASCII is no failure."""
    headers = [("content-encoding", "gzip"), ("content-length", "7"), ("x-name", "caf\xe9")]
    browser.answer = lambda _: response([b'{"models":', b"[]}"], headers=headers)
    async with AsyncClient(HOST) as client:
        assert (await client.list()).models == []


async def test_a_redirect_says_what_to_do(browser: Browser) -> None:
    """The browser shows neither its status nor where to."""
    browser.answer = lambda _: response(None, 0, (), "opaqueredirect")
    async with AsyncClient(HOST) as client:
        with pytest.raises(ProtocolError, match="use that address as the host"):
            await client.list()
    assert browser.asked[0].signal.aborted.is_set()


async def test_a_reply_that_breaks_keeps_what_came(browser: Browser) -> None:
    """A read that fails is the connection's end."""
    browser.answer = lambda _: response([PART, JsError("network error")])
    async with AsyncClient(HOST) as client:
        stream = await client.chat("m", MESSAGES, stream=True)
        with pytest.raises(IncompleteStreamError) as caught:
            async for _ in stream:
                pass
    assert isinstance(caught.value.__cause__, ConnectError)
    assert stream.result().message.content == "a"
    assert browser.asked[0].signal.aborted.is_set()


# -- aborts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", ["no headers", [], [PART]], ids=["head", "body", "part"])
@pytest.mark.parametrize("how", ["abort", "cancel", "shutdown", "close the transport"])
async def test_whatever_ends_a_request_aborts_it(browser: Browser, body: Any, how: str) -> None:
    """At each await: for the head, for the first block, for the next one."""
    answer = None if body == "no headers" else response([*body, None])
    browser.answer = lambda _: answer
    async with AsyncClient(HOST) as client, anyio.create_task_group() as tasks:

        async def read() -> None:
            async for _ in await client.chat("m", MESSAGES, stream=True):
                pass

        outcome = Outcome(tasks, read)
        await until(lambda: browser.asked and client.statistics().receiving)
        await anyio.wait_all_tasks_blocked()
        assert client.statistics().open == 1
        signal = browser.asked[0].signal
        assert not signal.aborted.is_set()
        if how == "abort":
            client.abort()
        elif how == "shutdown":
            await client.shutdown(grace=0)
        elif how == "cancel":
            tasks.cancel_scope.cancel()
        else:
            await client._shared.sender.aclose()
        if how == "close the transport":
            assert signal.aborted.is_set()
            client.abort()
        await outcome.event.wait()
    assert signal.aborted.is_set()
    assert is_quiet(client)


async def test_a_transport_that_is_closed_asks_nothing(browser: Browser) -> None:
    """Why a request has failed is known then."""
    browser.answer = lambda _: None
    async with AsyncClient(HOST) as client, anyio.create_task_group() as tasks:
        outcome = Outcome(tasks, client.list)
        await until(lambda: browser.asked)
        transport = client._shared.sender._client._transport
        assert repr(transport) == "<FetchTransport: 1 in flight>"
        await transport.aclose()
        await outcome.event.wait()
        assert isinstance(outcome.error, ConnectError)
        assert "the client was closed" in str(outcome.error)
    assert len(browser.asked) == 1


async def test_a_closed_reply_gives_nothing_more(browser: Browser) -> None:
    """Not even what the browser has; a read that was cancelled has lost what it would have got."""
    in_flight: set[FetchReply] = set()
    reply = FetchReply(browser, JsError, in_flight)
    reply.begin(response([b"a", None]))
    assert await reply.receive() == b"a"
    with anyio.move_on_after(0):
        await reply.receive()
    assert reply.controller.aborted.is_set()
    assert not in_flight
    with pytest.raises(httpx.ReadError, match="closed before its end"):
        await reply.receive()


# -- why there is no reply -------------------------------------------------------------------------


def kind(asked: Any) -> str:
    """Which of the questions this is."""
    if asked.method != "HEAD":
        return "request"
    if getattr(asked, "mode", "cors") == "no-cors":
        return "anything"
    return "with headers" if asked.headers else "plain"


@pytest.mark.parametrize(
    ("works", "said", "not_said"),
    [
        (set(), "nothing answers there", "OLLAMA_ORIGINS"),
        ({"anything"}, "OLLAMA_ORIGINS=http://pages.test", "nothing answers"),
        ({"anything", "plain"}, "x-mine", "OLLAMA_ORIGINS"),
        ({"anything", "plain", "with headers"}, "before an answer", "OLLAMA_ORIGINS"),
    ],
)
async def test_each_failure_is_told_from_the_others(
    browser: Browser, works: set[str], said: str, not_said: str
) -> None:
    """The browser says the same of each; further questions find out."""

    def answer(asked: Any) -> Any:
        if kind(asked) not in works:
            raise JsError
        return response(None)

    browser.answer = answer
    host = f"{HOST}/prefix"
    async with AsyncClient(host, headers={"X-Mine": "1"}, api_key="secret") as client:
        with pytest.raises(ConnectError) as caught:
            await client.chat("m", MESSAGES)
        assert is_quiet(client)
    assert said in str(caught.value)
    assert not_said not in str(caught.value)
    assert "secret" not in str(caught.value)
    first, *questions = browser.asked
    assert first.url == f"{host}/api/chat"
    # They ask the server's root, which changes nothing there; none stays open.
    assert {(asked.method, asked.url) for asked in questions} == {("HEAD", f"{host}/")}
    assert all(asked.signal.aborted.is_set() for asked in browser.asked)
    # Without CORS there is no other way than to follow; where it leads then stays unknown.
    assert [asked.redirect for asked in questions] == ["follow", "manual", "manual"][
        : len(questions)
    ]


async def test_questions_have_the_requests_own_headers(browser: Browser) -> None:
    """A GET has no Content-Type, which would need leave that the GET does not need."""

    def answer(asked: Any) -> Any:
        if kind(asked) == "request":
            raise JsError
        return response(None)

    browser.answer = answer
    async with AsyncClient(HOST) as client:
        with pytest.raises(ConnectError, match="before an answer"):
            await client.list()
    assert [asked.headers for asked in browser.asked[1:]] == [
        [],
        [],
        [["accept", "application/json"]],
    ]


async def test_a_page_over_https_is_told_of_its_limits(browser: Browser) -> None:
    """It may not ask over http, but for its own machine."""

    def answer(_: Any) -> Any:
        raise JsError

    browser.answer = answer
    browser.origin = "https://pages.test"
    for host, told in (("http://box-1", True), ("http://localhost", False), ("https://x", False)):
        async with AsyncClient(host) as client:
            with pytest.raises(ConnectError) as caught:
                await client.list()
        assert ("over https" in str(caught.value)) is told, host


async def test_questions_are_ended_with_the_request(browser: Browser) -> None:
    """A server that does not answer them does not hold an abort up."""

    def answer(asked: Any) -> Any:
        if kind(asked) == "request":
            raise JsError
        return None

    browser.answer = answer
    async with AsyncClient(HOST) as client, anyio.create_task_group() as tasks:
        outcome = Outcome(tasks, client.list)
        await until(lambda: len(browser.asked) == 2)
        assert client.abort() == 1
        await outcome.event.wait()
    assert all(asked.signal.aborted.is_set() for asked in browser.asked)


async def test_a_server_that_swallows_questions_is_none(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told to set anything where nothing has answered."""
    monkeypatch.setattr(fetch, "_PROBE_SECONDS", 0.01)
    works: set[str] = set()

    def answer(asked: Any) -> Any:
        if kind(asked) == "request":
            raise JsError
        return response(None) if kind(asked) in works else None

    browser.answer = answer
    async with AsyncClient(HOST) as client:
        with pytest.raises(ConnectError, match="nothing answers there"):
            await client.list()
        works.add("anything")
        with pytest.raises(ConnectError, match="before an answer"):
            await client.list()
    assert all(asked.signal.aborted.is_set() for asked in browser.asked)


async def test_a_page_without_an_origin_is_told_what_lets_it_in(browser: Browser) -> None:
    """Its origin is no value that a server could be told of. Nor is there one outside of browsers."""

    def answer(asked: Any) -> Any:
        if kind(asked) != "anything":
            raise JsError
        return response(None)

    browser.answer = answer
    for origin in ("null", None):
        browser.origin = origin
        async with AsyncClient(HOST) as client:
            with pytest.raises(ConnectError, match=r"OLLAMA_ORIGINS='\*'") as caught:
                await client.wait_ready()  # which does not try again
        assert not is_transient(caught.value)


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("proxy", "http://proxy"),
        ("proxy", httpx.Proxy("http://proxy")),
        ("cert", "file"),
        ("cert", ("file", "key")),
        ("verify", False),
        ("verify", "file"),
        ("http1", False),
        ("http2", True),
        ("cookies", {"a": "b"}),
        ("cookies", httpx.Cookies({"a": "b"})),
        ("follow_redirects", True),
    ],
)
async def test_settings_of_the_browser_are_refused(browser: Browser, name: str, value: Any) -> None:
    """They would be dropped in silence."""
    with pytest.raises(RequestError, match=rf"^{name} cannot be set in a browser: "):
        AsyncClient(HOST, **{name: value})


async def test_settings_that_ask_for_nothing_are_taken(browser: Browser) -> None:
    """So that code for both places needs no cases."""
    AsyncClient(
        proxy=None, cert=None, verify=True, http1=True, http2=False, cookies=None,
        follow_redirects=False, trust_env=False, headers={"User-Agent": "mine"},
    )  # fmt: skip
    # A transport of one's own sends what it likes; but a proxy would be beside it.
    own = httpx.MockTransport(lambda _: httpx.Response(200))
    AsyncClient(transport=own, cookies={"a": "b"})
    with pytest.raises(RequestError, match="proxy"):
        AsyncClient(transport=own, proxy="http://proxy")


FORBIDDEN = st.sampled_from(
    ["Cookie", "Host", "Origin", "Referer", "Date", "DNT", "Via", "TE", "Upgrade", "Keep-Alive"]
) | st.builds("{}-{}".format, st.sampled_from(["Sec", "Proxy"]), st.from_regex(r"\A[a-z]{1,9}\Z"))


@given(FORBIDDEN, st.sampled_from([str, str.lower, str.upper, str.title]))
def test_headers_of_the_browser_are_refused(name: str, spelled: Any) -> None:
    """However they are spelled; it would drop them in silence."""
    with pytest.raises(RequestError, match="cannot be set in a browser"):
        check_header(spelled(name))
    check_header(f"X-{name}")


async def test_a_header_of_the_browsers_is_refused_by_the_client(browser: Browser) -> None:
    """What frames the body is refused for that, as everywhere."""
    with pytest.raises(RequestError, match="'Cookie' cannot be set in a browser"):
        AsyncClient(HOST, headers={"X-Mine": "1", "Cookie": "a=b"})
    with pytest.raises(RequestError, match="it frames the body"):
        AsyncClient(HOST, headers={"Connection": "close"})


async def test_six_requests_are_in_flight(browser: Browser) -> None:
    """As many as a browser has connections to a server, unless another number is given."""
    browser.answer = lambda _: None
    for given_number, running in ((None, 6), (2, 2), (8, 8)):
        async with AsyncClient(HOST, max_in_flight=given_number) as client:
            async with anyio.create_task_group() as tasks:
                for _ in range(9):
                    Outcome(tasks, client.list)
                await until(lambda: client.statistics().receiving == running)
                await anyio.wait_all_tasks_blocked()
                assert tuple(client.statistics()) == (9 - running, 0, 0, running, running, 0)
                assert client.abort() == 9
            assert tuple(client.statistics()) == (0,) * 6


async def test_the_environments_proxy_is_not_for_a_browser(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not read, not even to find out what is wrong with it."""
    monkeypatch.setenv("HTTP_PROXY", "socks9://[")
    browser.answer = lambda _: response([b'{"models":[]}'])
    async with AsyncClient("http://box-1") as client:
        await client.list()


# -- what is not there -----------------------------------------------------------------------------


async def test_images_are_read_in_place(browser: Browser, tmp_path: Path) -> None:
    """There are no threads."""
    (tmp_path / "image.png").write_bytes(b"png")
    browser.answer = lambda _: response([LAST])
    async with AsyncClient(HOST) as client:
        images = [tmp_path / "image.png"]
        await client.chat("m", [{"role": "user", "content": "?", "images": images}])
        with pytest.raises(RequestError, match="cannot be read"):
            await client.create_blob(tmp_path / "nothing")
    assert b"cG5n" in browser.asked[0].body


async def test_an_embedder_says_why_not(browser: Browser) -> None:
    """It has a thread of its own."""
    with pytest.raises(RequestError, match="a browser has none: use `client.embed_many`"):
        Embedder("nomic-embed-text")


def test_the_fake_server_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever imports it in a browser learns what to do instead."""
    monkeypatch.setitem(sys.modules, "httptools", None)
    with pytest.raises(ImportError, match="run `python -m ollama_sc.testing` outside of it"):
        runpy.run_path(llhttp.__file__)


def test_a_browser_is_asked_for_no_httptools() -> None:
    """What the package needs can all be had there."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for platform, needed in (("emscripten", False), ("linux", True), ("win32", True)):
        parsed = map(Requirement, project["dependencies"])
        there = {"sys_platform": platform}
        found = [one.name for one in parsed if not one.marker or one.marker.evaluate(there)]
        assert ("httptools" in found) is needed, platform


def test_a_deadline_that_has_just_passed_is_kept() -> None:
    """Pyodide's loop raises for a time in the past; what is mended once stays as it is."""

    class Loop:
        def __init__(self) -> None:
            self.calls: list[tuple[float, Any, Any]] = []

        def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> None:
            if delay < 0:
                raise ValueError("Can't schedule in the past")
            self.calls.append((delay, callback, args))

        def call_at(self, when: float, callback: Any, *args: Any) -> None:
            self.call_later(when - 100, callback, *args)

    loop = Loop()
    with pytest.raises(ValueError):
        loop.call_at(99, print)
    mend_deadlines(loop)
    mended = loop.call_later
    mend_deadlines(loop)
    assert loop.call_later is mended
    for when in (99.0, 100.0, 101.5, float("inf")):
        loop.call_at(when, print, when)
    assert [delay for delay, *_ in loop.calls] == [0, 0, 1.5, float("inf")]
    assert [args for *_, args in loop.calls] == [(99.0,), (100.0,), (101.5,), (float("inf"),)]
