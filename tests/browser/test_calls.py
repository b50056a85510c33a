"""Calls, streams, aborts, cancellation and time limits, in a page and in a Web Worker.

A `place` is where Python runs; what it runs is in `scenarios.py`. The server is in this process, and
says what it saw.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from ollama_sc.testing import FakeModel, FakeOllama, RecordedRequest, Reply
from tests.browser.conftest import Place
from tests.support import until

pytestmark = pytest.mark.anyio

NOTHING = [0, 0, 0, 0, 0, 0]  # statistics
LONG = Reply.chat_text(["on ", "and "] * 5_000).replace(rate=200)


def asked(fake: FakeOllama, path: str) -> list[RecordedRequest]:
    """The requests to a path, without the browser's own."""
    return [one for one in fake.requests if one.path == path and one.method == "POST"]


async def ended(fake: FakeOllama, path: str) -> bool:
    """Wait until the server has seen the connection of each request to a path close."""
    for request in asked(fake, path):
        await request.wait_closed()
    return all(request.disconnected for request in asked(fake, path))


# -- what is there -------------------------------------------------------------------------------


async def test_it_is_installed_without_what_a_browser_cannot_have(place: Place) -> None:
    """micropip has read the metadata, and httptools is not asked for there."""
    found = await place.run("environment")
    assert found["platform"] == "emscripten"
    assert found["loop"] == "WebLoop"
    assert {"ollama-sc", "httpx", "msgspec", "anyio", "stamina"} <= set(found["installed"])
    assert not {"httptools", "numpy", "trio"} & set(found["installed"])
    assert any(one.startswith("httptools") and "emscripten" in one for one in found["requires"])


async def test_what_needs_sockets_or_threads_says_so(place: Place) -> None:
    """The fake server and the embedder name what is missing, and what to do instead."""
    found = await place.run("what_needs_more")
    assert "python -m ollama_sc.testing" in found["testing"]
    assert "client.embed_many" in found["Embedder"]


async def test_settings_that_are_the_browsers_are_refused(place: Place) -> None:
    """Each with a word on why, before any request."""
    found = await place.run("refused_settings")
    assert len(found) == 8
    assert all("in a browser" in text for text in found.values())


# -- calls and streams ---------------------------------------------------------------------------


async def test_a_chat_in_one_piece(place: Place, fake: FakeOllama) -> None:
    """A reply comes; a plain GET needs no preflight; no header is one that a page may not set."""
    text, complete, models, statistics = await place.run("chat", fake.url)
    assert (complete, models, statistics) == (True, len(fake.models), NOTHING)
    assert text.startswith("This is synthetic text")
    asked = [(one.method, one.path) for one in fake.requests]
    assert asked == [("OPTIONS", "/api/chat"), ("POST", "/api/chat"), ("GET", "/api/tags")]
    sent = fake.requests[1]
    assert sent.headers["content-type"] == "application/json"
    assert sent.headers["accept"] == "application/json"
    assert "python" not in sent.headers["user-agent"].lower()
    assert "content-type" not in fake.requests[2].headers


async def test_a_stream_arrives_token_by_token(place: Place, serve: Any) -> None:
    """Parts come as they are sent, and a stream that was read to its end is not aborted."""
    async with serve(token_rate=50, tokens=12) as fake:
        found = await place.run("stream", fake.url)
        assert found["complete"]
        assert found["parts"] == 13
        assert found["reads"] > 1
        assert (found["middle"]["receiving"], found["middle"]["open"]) == (1, 1)
        assert list(found["end"].values()) == NOTHING
        assert not fake.requests[-1].disconnected


async def test_eight_streams_at_once(place: Place, serve: Any) -> None:
    """Six run and two wait for their turn, which shows; all of them end."""
    async with serve(token_rate=40, tokens=10) as fake:
        found = await place.run("eight_streams", fake.url)
        assert len(found["texts"]) == 8
        assert len(set(found["texts"])) == 1
        assert (found["in_flight"], found["waiting"], found["open"]) == (6, 2, 6)
        assert fake.peak_in_flight == 6


async def test_a_higher_number_in_flight_is_taken(place: Place, fake: FakeOllama) -> None:
    """Then it is the browser that holds the others back."""
    fake.always("/api/generate", Reply.silence())
    assert await place.run("more_in_flight", fake.url, 9) == 0


# -- aborts and cancellation ---------------------------------------------------------------------


async def test_an_abort_before_the_headers(place: Place, fake: FakeOllama) -> None:
    """The server sees the connection close; the client goes on."""
    fake.always("/api/generate", Reply.silence())
    async with place.running("abort_before_headers", fake.url) as found:
        await until(lambda: asked(fake, "/api/generate"))
    ((outcome, count, complete),) = found
    assert outcome[0] == "AbortError"
    assert "the user pressed Esc" in outcome[1]
    assert (count, complete) == (1, True)
    assert await ended(fake, "/api/generate")


async def test_an_abort_in_the_body(place: Place, fake: FakeOllama) -> None:
    """The consumer is told, what arrived stays, and the server sees the connection close."""
    fake.script("/api/generate", LONG)
    outcome, count, again, text, statistics = await place.run("abort_in_body", fake.url)
    assert outcome[0] == "AbortError"
    assert (count, again, text, statistics) == (1, 0, True, NOTHING)
    assert await ended(fake, "/api/generate")


async def test_an_abort_reaches_those_that_wait(place: Place, fake: FakeOllama) -> None:
    """Nine requests, of which three wait for a connection, end together."""
    fake.always("/api/generate", Reply.silence())
    async with place.running("abort_while_waiting", fake.url) as found:
        await until(lambda: len(asked(fake, "/api/generate")) == 6)
    ((count, before, told, aborted),) = found
    assert (count, told, aborted) == (9, 9, True)
    assert before == [3, 0, 0, 6, 6, 0]
    assert await ended(fake, "/api/generate")


async def test_a_groups_abort_leaves_the_others(place: Place, fake: FakeOllama) -> None:
    """One stream ends, and the other comes to its end."""
    fake.script("/api/generate", LONG, Reply.chat_text(["b "] * 30).replace(rate=100))
    count, outcome, complete = await place.run("group_abort", fake.url)
    assert (count, complete) == (1, True)
    assert "Ann closed her tab" in outcome[1]


async def test_cancel_scopes_end_requests(place: Place, fake: FakeOllama) -> None:
    """Before the headers and in the body; a shield inside of a cancelled scope counts."""
    fake.script("/api/chat", Reply.silence())
    fake.script("/api/generate", LONG)
    *found, statistics = await place.run("cancel_scopes", fake.url)
    assert all(found)
    assert statistics == NOTHING
    assert await ended(fake, "/api/chat")
    assert await ended(fake, "/api/generate")


async def test_native_cancellation_ends_requests(place: Place, fake: FakeOllama) -> None:
    """asyncio's own ways do, and the client goes on."""
    fake.always("/api/chat", Reply.silence())
    async with place.running("native_cancellation", fake.url) as found:
        await until(lambda: asked(fake, "/api/chat"))
    assert found[0] == ["cancelled", "timeout", "wait_for", NOTHING, True]
    assert await ended(fake, "/api/chat")


async def test_time_limits(place: Place, fake: FakeOllama) -> None:
    """Each limit ends the request that runs into it, and says which it was."""
    fake.always("/api/chat", Reply.silence())
    fake.script("/api/generate", Reply.default(stall_after=3))
    first, total, number, idle, text = await place.run("time_limits", fake.url)
    assert [one[0] for one in (first, total, number, idle)] == ["RequestTimeout"] * 4
    assert "'first_chunk'" in first[1]
    assert "'total'" in total[1]
    assert "'first_chunk'" in number[1]
    assert "'idle'" in idle[1]
    assert text
    assert await ended(fake, "/api/chat")
    assert await ended(fake, "/api/generate")


async def test_a_slow_model_is_not_ended_by_the_limit_for_connecting(
    place: Place, fake: FakeOllama
) -> None:
    """Headers come with the first token: no connection can be told from no token."""
    fake.script("/api/chat", Reply.default(delay=0.5))
    assert await place.run("slow_loading", fake.url)


async def test_a_dropped_stream_is_aborted(place: Place, fake: FakeOllama) -> None:
    """With a warning, and the server sees the connection close."""
    fake.script("/api/generate", LONG)
    assert await place.run("dropped_stream", fake.url) == [["ResourceWarning"], NOTHING]
    assert await ended(fake, "/api/generate")


async def test_shutdown(place: Place, fake: FakeOllama) -> None:
    """After its grace it aborts what is left, and lets nothing in."""
    fake.always("/api/generate", Reply.silence())
    async with place.running("shutdown", fake.url) as found:
        await until(lambda: len(asked(fake, "/api/generate")) == 2)
    ((count, outcomes, late, statistics),) = found
    assert count == 2
    assert all("shutting down" in text for _, text in outcomes)
    assert late[0] == "ClientClosedError"
    assert statistics == NOTHING
    assert await ended(fake, "/api/generate")


async def test_leaving_a_client_ends_what_runs(place: Place, fake: FakeOllama) -> None:
    """Whoever waits elsewhere gets an error."""
    fake.always("/api/generate", Reply.silence())
    async with place.running("leaving", fake.url) as found:
        await until(lambda: asked(fake, "/api/generate"))
    (((outcome,), statistics),) = found
    assert outcome[0] == "AbortError"
    assert statistics == NOTHING
    assert await ended(fake, "/api/generate")


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_aborts_at_random(place: Place, serve: Any, seed: int) -> None:
    """Whenever they come, each request has one end, and the server has none of them any more."""
    async with serve(token_rate=300, tokens=12) as fake:
        ends, complete, statistics = await place.run("random_aborts", fake.url, seed, 60)
        assert sum(ends.values()) == 60
        assert set(ends) <= {"cancelled", "whole", "AbortError"}
        assert (complete, statistics) == (True, NOTHING)
        await until(lambda: fake.in_flight == 0)


# -- everything ----------------------------------------------------------------------------------


async def test_every_method_and_a_password(place: Place, fake: FakeOllama) -> None:
    """GET, HEAD, POST, PUT and DELETE; a user in the host becomes a header."""
    fake.script("/any", Reply.json({"b": 2}))
    found = await place.run("all_calls", fake.url)
    assert found == [
        "0.33.0", True, 0, "success", "success", False, True, 768, True, "success", {"b": 2}
    ]  # fmt: skip
    sent = [one for one in fake.requests if one.method != "OPTIONS"]
    assert {one.headers["authorization"] for one in sent} == {"Basic dXNlcjpwYSBzcw=="}


async def test_what_httpx_is_configured_with_works(place: Place, fake: FakeOllama) -> None:
    """Hooks that read the reply, parameters of each request, a transport of one's own."""
    seen, chat, stream, statistics, version = await place.run("hooks", fake.url)
    assert (seen, chat, stream, statistics) == ([True, True], True, True, NOTHING)
    assert version == "mine"
    assert {one.query for one in fake.requests} == {"a=b"}


# -- files, jobs, deadlines ----------------------------------------------------------------------


async def test_files_are_read_in_place(place: Place, serve: Any) -> None:
    """An image by its path, and an upload of several blocks, hashed and reported."""
    size = 3 * 1024 * 1024 + 17
    async with serve(models=[FakeModel("llava", capabilities=("completion", "vision"))]) as fake:
        complete, digest, again, first, last, missing = await place.run("files", fake.url, size)
        (image,) = asked(fake, "/api/chat")[0].json["messages"][0]["images"]
        assert b64decode(image) == b"\x89PNG image"
        assert digest in fake.blobs
        assert fake.blobs[digest].size == size
    assert (complete, again) == (True, True)
    assert (first, last) == ([0, size], [size, size])
    assert missing[0] == "RequestError"


async def test_an_embedding_job(place: Place, serve: Any) -> None:
    """Vectors in order, without numpy; not more in flight than the browser has connections."""
    async with serve(dimensions=16, embed_seconds=0.02) as fake:
        count, kinds, near, one_array = await place.run("embed_job", fake.url, 300)
        assert (count, kinds, near) == (300, ["array"], True)
        assert "numpy" in one_array[1]
        assert 1 < fake.peak_in_flight <= 6


async def test_an_abort_ends_a_job(place: Place, serve: Any) -> None:
    """A job is one operation."""
    async with serve(dimensions=16, embed_seconds=0.02) as fake:
        count, outcome, statistics = await place.run("abort_job", fake.url)
        assert (count, outcome[0], statistics) == (1, "AbortError", NOTHING)


async def test_no_deadline_is_lost(place: Place, fake: FakeOllama) -> None:
    """Of 2,000 of each kind: users' scopes, asyncio's timeouts, requests' own limits."""
    fake.always("/api/chat", Reply.silence())
    lost = await place.run("deadlines", fake.url, 2000)
    assert lost == {"scopes": 0, "asyncio": 0, "requests": 0}


async def test_the_loop_loses_deadlines_by_itself(place: Place) -> None:
    """What the test above is about is still so: otherwise the mending can go."""
    assert await place.run("without_mending", 100) == 100
